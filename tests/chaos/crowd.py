# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Many clients that log in, stay a while, and come again for ever. The clients
of a user go to different directors."""

import asyncio
import collections
import random
import threading
import time

# How long a session lasts, and the pause after it
STAY_SECS = (4, 25)
PAUSE_SECS = (0, 1)
# A client does not wait longer than this for anything.
PATIENCE_SECS = 120

# status: what the login came to: OK, NO and so on
Login = collections.namedtuple("Login", "begun ended ip user status text")


class Client:
    def __init__(self, crowd, user, number):
        self.crowd, self.user, self.number = crowd, user, number
        self.rand = random.Random("%s %d" % (user, number))
        # Which director it is on
        self.ip = None
        self.session_since = self.login_since = None

    async def run(self):
        while not self.crowd.ending:
            await self.visit()
            self.ip = self.session_since = self.login_since = None
            await self.crowd.sleep(self.rand.uniform(*PAUSE_SECS))

    async def visit(self):
        self.ip = self.choose()
        if self.ip is None:
            return
        writer = None
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(self.ip, 143), PATIENCE_SECS)
            # Until here it may be a process that is not there.
            if await self.log_in(reader, writer):
                self.session_since = time.monotonic()
                await self.stay(reader, writer)
        except (OSError, asyncio.TimeoutError):
            self.crowd.unreachable(self.ip)
        finally:
            if writer is not None:
                writer.close()

    def choose(self):
        """A director that none of the user's other clients is on"""
        others = [client.ip for client in self.crowd.by_user[self.user]
                  if client is not self]
        ips = self.crowd.reachable()
        self.rand.shuffle(ips)
        return min(ips, key=others.count, default=None)

    async def line(self, reader):
        line = await asyncio.wait_for(reader.readline(), PATIENCE_SECS)
        if not line:
            raise ConnectionResetError("closed")
        return line.decode(errors="replace").strip()

    async def log_in(self, reader, writer):
        greeting = await self.line(reader)
        if not greeting.startswith("* OK"):
            return False
        begun = self.login_since = time.monotonic()
        status = "closed", ""
        try:
            writer.write(b"a LOGIN %s secret\r\n" % self.user.encode())
            while True:
                line = await self.line(reader)
                if line.startswith("a "):
                    status = tuple(line.split(" ", 2)[1:])
                    break
                if line.startswith("* BYE"):
                    status = "BYE", line[6:]
        except asyncio.TimeoutError:
            status = "timeout", ""
        except OSError:
            pass
        finally:
            self.login_since = None
            self.crowd.logins.append(Login(begun, time.monotonic(), self.ip,
                                           self.user, *status))
        return status[0] == "OK"

    async def stay(self, reader, writer):
        until = time.monotonic() + self.rand.uniform(*STAY_SECS)
        if self.crowd.staying:
            until = float("inf")
        while True:
            secs = min(until, time.monotonic() + 5) - time.monotonic()
            if secs <= 0 or self.crowd.ending:
                break
            try:
                line = await asyncio.wait_for(reader.readline(), secs)
            except asyncio.TimeoutError:
                writer.write(b"b NOOP\r\n")
                continue
            if not line:
                self.crowd.cut_off += 1
                return
        writer.write(b"c LOGOUT\r\n")
        while await asyncio.wait_for(reader.readline(), 5):
            pass


class Crowd(threading.Thread):
    """users: {name: how many clients}"""

    def __init__(self, ips, users):
        super().__init__(daemon=True)
        self.ips = list(ips)
        self.by_user = {user: [Client(self, user, i) for i in range(count)]
                        for user, count in users.items()}
        self.clients = sum(self.by_user.values(), [])
        # {ip: until when nobody tries again}
        self.avoided = {}
        self.logins = []
        self.cut_off = 0
        # Nobody leaves by himself any longer; everybody leaves
        self.staying = self.ending = False
        self.failure = None
        self.start()

    def reachable(self):
        now = time.monotonic()
        return [ip for ip in self.ips if self.avoided.get(ip, 0) <= now]

    def unreachable(self, ip):
        self.avoided[ip] = time.monotonic() + 0.5

    async def sleep(self, secs):
        await asyncio.sleep(secs)

    def run(self):
        try:
            asyncio.run(self.main())
        except BaseException as error:
            self.failure = error
            raise

    async def main(self):
        await asyncio.gather(*[client.run() for client in self.clients])

    def end(self):
        self.ending = True
        self.join(PATIENCE_SECS + 10)
        assert not self.is_alive() and self.failure is None, self.failure

    def in_session(self):
        return [client for client in self.clients
                if client.session_since is not None]

    def logging_in(self, user):
        """Those whose LOGIN has no answer yet"""
        return [client for client in self.by_user[user]
                if client.login_since is not None]
