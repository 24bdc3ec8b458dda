# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""What goes wrong, and what administrators do meanwhile: all at random, from a
seed."""

import collections
import os
import random
import re
import signal
import threading
import time

from node import is_alive, wait_for
from test_admin import Admin

# Of each of the administrators. One that asks a director that is stopped waits.
MOVES_PER_SEC = 0.7
MOVERS = 3
# How often somebody with a pending login is chosen
PENDING_SHARE = 0.3
# A move of a user with sessions is under way for at least this long.
MOVE_SECS = 2

# How often, and for how long at most if it is one that ends
DISTURBANCES = (("kill_login", 24, None), ("stop_login", 20, 8),
                ("kill_director", 14, None), ("stop_director", 14, 12),
                ("kill_node", 8, 20), ("restart_node", 4, 3),
                ("reload_node", 4, None), ("kill_backend", 12, 5))
HOST_CHANGES = (("vhosts", 6), ("down", 2), ("flush", 4))

Deed = collections.namedtuple("Deed", "when name where detail")


class Nemesis:
    """members: of the ring, backends: [with ip, kill(), start()]"""

    def __init__(self, seed, members, backends, crowd, oracle):
        self.members, self.backends = members, backends
        self.crowd, self.oracle = crowd, oracle
        self.seed = seed
        self.ending = threading.Event()
        self.deeds = []
        self.count = collections.Counter()
        # when the last move of somebody with a session was begun
        self.last_move = 0
        self.can_flush = True
        # [(ip, from, until)]: what was stopped or gone there
        self.disturbed = []
        self.locks = {node: threading.Lock() for node in members + backends}
        self.failure = None
        self.threads = [threading.Thread(target=self.run, args=args,
                                         daemon=True) for args in (
            (self.disturb, "first"), (self.disturb, "second"),
            *((self.change_host, "host %d" % i) for i in range(2)),
            *((self.move, "mover %d" % i) for i in range(MOVERS)))]
        for thread in self.threads:
            thread.start()

    def run(self, turn, name):
        rand = random.Random("%s %s" % (self.seed, name))
        try:
            while not self.ending.is_set():
                turn(rand)
        except Exception as error:
            self.failure = error
            raise

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()
        assert self.failure is None, self.failure

    def pause(self, secs):
        self.ending.wait(secs)

    def note(self, name, where, detail=""):
        self.count[name] += 1
        self.deeds.append(Deed(time.monotonic(), name, where, detail))

    # Administrators

    def ask(self, member, *words):
        """Its answer, or None if it is not there"""
        try:
            admin = Admin(member)
            try:
                return admin.ask("\t".join(words))
            finally:
                admin.close()
        except (OSError, AssertionError):
            return None

    def move(self, rand):
        self.pause(rand.expovariate(MOVES_PER_SEC))
        user = rand.choice(list(self.crowd.by_user))
        if rand.random() < PENDING_SHARE:
            user = rand.choice(self.oracle.pending_users() or [user])
        host = rand.choice(self.backends).ip
        member = rand.choice(self.members)
        live = [session for session in self.oracle.live(user)
                if session.backend != host]
        pending = [session for session in self.oracle.pending(user)
                   if session.backend != host]
        waiting = self.crowd.logging_in(user)
        answer = self.ask(member, "USER-MOVE", user, host)
        self.note("move", member.name, "%s to %s (%d live, %d pending, %d "
                  "logging in): %s" % (user, host, len(live), len(pending),
                                       len(waiting), answer))
        if answer != "OK":
            self.count["move refused"] += 1
            return
        if live or pending:
            self.last_move = time.monotonic()
        self.count["moves of live"] += bool(live)
        self.count["moves of pending"] += bool(pending)
        self.count["moves of logging in"] += bool(waiting)

    def change_host(self, rand):
        self.pause(rand.uniform(1, 5))
        name, = rand.choices([name for name, _ in HOST_CHANGES],
                             [weight for _, weight in HOST_CHANGES])
        ip = rand.choice(self.backends).ip
        member = rand.choice(self.members)
        if name == "vhosts":
            words = "HOST-UPDATE", ip, str(rand.choice((0, 1, 50, 100, 200)))
        elif name == "down":
            words = "HOST-DOWN", ip
        elif self.can_flush:
            words = "HOST-RESET-USERS", ip
        else:
            return
        answer = self.ask(member, *words)
        if (answer or "").startswith("ERROR Unknown command"):
            self.can_flush = False
            return
        self.note(name, member.name, "%s: %s" % (" ".join(words), answer))
        if name == "flush":
            return
        # Not for long, so that there is always one that takes users
        self.pause(rand.uniform(0, 6))
        words = ("HOST-UP", ip) if name == "down" else \
            ("HOST-UPDATE", ip, "100")
        answer = self.ask(rand.choice(self.members), *words)
        self.note("back", member.name, "%s: %s" % (" ".join(words), answer))

    # Failures

    def disturb(self, rand):
        self.pause(rand.uniform(0.3, 3))
        name, most = rand.choices(
            [(name, most) for name, _, most in DISTURBANCES],
            [weight for _, weight, _ in DISTURBANCES])[0]
        nodes = self.backends if name == "kill_backend" else self.members
        node = rand.choice(nodes)
        secs = 0 if most is None else most * rand.random() ** 2
        if not self.locks[node].acquire(blocking=False):
            return
        begun = time.monotonic()
        try:
            getattr(self, name)(node, secs, rand)
        finally:
            self.disturbed.append((node.ip, begun, time.monotonic()))
            self.locks[node].release()

    def hits(self, name, node, detail=""):
        """Call right after it was done."""
        self.note(name, node.name, detail)
        if name.startswith(("kill", "stop")):
            kind = name.split("_")[0]
            self.count["%s in a move" % kind] += \
                time.monotonic() - self.last_move < MOVE_SECS

    @staticmethod
    def send(pid, number):
        try:
            os.kill(pid, number)
            return True
        except ProcessLookupError:
            return False

    def some_pid(self, node, process, rand):
        pids = sorted(node.pids(process))
        return rand.choice(pids) if pids else None

    def kill_one(self, name, node, process, rand):
        pid = self.some_pid(node, process, rand)
        if pid is not None and self.send(pid, signal.SIGKILL):
            self.hits(name, node, "pid %d" % pid)

    def stop_one(self, name, node, process, secs, rand):
        pid = self.some_pid(node, process, rand)
        if pid is None or not self.send(pid, signal.SIGSTOP):
            return
        self.hits(name, node, "pid %d for %.1f s" % (pid, secs))
        self.pause(secs)
        if is_alive(pid):
            self.send(pid, signal.SIGCONT)
        self.note("continue", node.name, "pid %d" % pid)

    def kill_login(self, node, _, rand):
        self.kill_one("kill_login", node, "imap-login", rand)

    def stop_login(self, node, secs, rand):
        self.stop_one("stop_login", node, "imap-login", secs, rand)

    def kill_director(self, node, _, rand):
        self.kill_one("kill_director", node, "director", rand)

    def stop_director(self, node, secs, rand):
        self.stop_one("stop_director", node, "director", secs, rand)

    def kill_node(self, node, secs, _):
        node.kill()
        for pid in left_behind(node):
            self.send(pid, signal.SIGKILL)
        self.hits("kill_node", node, "for %.1f s" % secs)
        self.pause(secs)
        node.start()
        self.note("start", node.name)

    def restart_node(self, node, secs, _):
        """Login processes with sessions may stay."""
        self.note("restart_node", node.name, "for %.1f s" % secs)
        node.master.terminate()
        node.master.wait(30)
        self.pause(secs)
        node.start()
        self.note("start", node.name)

    def reload_node(self, node, _, __):
        self.note("reload_node", node.name)
        node.reload()

    def kill_backend(self, node, secs, _):
        node.kill()
        self.hits("kill_backend", node, "for %.1f s" % secs)
        self.pause(secs)
        node.start()
        self.note("start", node.name)

    # What came of it

    def undisturbed(self, login):
        """How long it waited while its node was as it should be"""
        secs = login.ended - login.begun
        for ip, begun, ended in list(self.disturbed):
            if ip == login.ip:
                secs -= max(0, min(ended, login.ended) -
                            max(begun, login.begun))
        return secs


def left_behind(node):
    """Its login processes that a restart has left"""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink("/proc/%s/cwd" % pid).startswith(node.dir + "/"):
                found.append(int(pid))
        except OSError:
            pass
    return found


def moving(member):
    """How many users are, by the title of its director"""
    found = 0
    for pid in member.pids("director"):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                match = re.search(rb", (\d+) moving", f.read())
        except OSError:
            continue
        found += int(match.group(1)) if match else 0
    return found


def wait_for_rest(members):
    wait_for(lambda: not any(moving(member) for member in members),
             "no user to be moving", 60)
