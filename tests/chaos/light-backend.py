#!/usr/bin/env python3
# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""A backend that costs little, and that is slow now and then: logins stay
pending there, and sessions take a moment to finish once their connection is
closed. It tells the oracle what it does.

usage: light-backend.py ADDRESS ORACLE-SOCKET [greeting=SECS|login=SECS]
The last one lets it say nothing for so long, neither faster nor slower."""

import asyncio
import os
import random
import re
import socket
import sys
import time

GREETING = b"* OK [CAPABILITY IMAP4rev1 LITERAL+ AUTH=PLAIN] light\r\n"
# How long a login takes, and how often: the first whose share fits
DELAYS = ((0.4, 0, 0), (0.8, 0.05, 1.5), (1, 1.5, 3))
# A backend has director_user_kick_delay to finish.
FINISH_SECS = 1


class Reporter:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)

    def tell(self, what, *rest):
        self.sock.sendall((" ".join(
            [what, str(time.monotonic_ns()), *rest]) + "\n").encode())

    def close(self):
        self.sock.close()


class Backend:
    def __init__(self, address, oracle, slow):
        self.address, self.oracle = address, oracle
        # {what: secs} if that is fixed
        self.slow = slow

    def delay(self):
        if self.slow:
            return self.slow.get("login", 0)
        share = random.random()
        low, high = next(delay[1:] for delay in DELAYS if share <= delay[0])
        return random.uniform(low, high)

    async def serve(self, reader, writer):
        report = None
        try:
            await asyncio.sleep(self.slow.get("greeting", 0))
            writer.write(GREETING)
            while line := await reader.readline():
                tag, command, *args = line.decode().split()
                if command.upper() == "LOGIN":
                    report = Reporter(self.oracle)
                    if not await self.log_in(writer, report, tag,
                                             args[0].strip('"')):
                        return
                elif command.upper() == "LOGOUT":
                    writer.write(b"* BYE\r\n%s OK bye\r\n" % tag.encode())
                    break
                else:
                    writer.write(b"%s OK done\r\n" % tag.encode())
            if report is not None:
                writer.close()
                await asyncio.sleep(0 if self.slow else
                                    random.uniform(0, FINISH_SECS))
                report.tell("end")
        except (OSError, ValueError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            if report is not None:
                report.close()

    async def log_in(self, writer, report, tag, user):
        """Not if the client has gone meanwhile."""
        user = re.sub(r"\\(.)", r"\1", user)
        report.tell("pending", self.address, user)
        until = time.monotonic() + self.delay()
        while not self.is_closed(writer):
            if time.monotonic() >= until:
                break
            await asyncio.sleep(0.02)
        else:
            return False
        report.tell("login", self.address, user)
        writer.write(b"%s OK [CAPABILITY IMAP4rev1] in\r\n" % tag.encode())
        return True

    @staticmethod
    def is_closed(writer):
        """By the other end, also if the reader was not told yet, or if it is
        an error"""
        sock = writer.get_extra_info("socket")
        try:
            with socket.socket(fileno=os.dup(sock.fileno())) as copy:
                return copy.recv(1, socket.MSG_PEEK |
                                 socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


async def main(address, oracle, *slow):
    slow = dict(word.split("=") for word in slow)
    backend = Backend(address, oracle, {what: float(secs) for what, secs in
                                        slow.items()})
    server = await asyncio.start_server(backend.serve, address, 143,
                                        reuse_address=True, backlog=500)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
