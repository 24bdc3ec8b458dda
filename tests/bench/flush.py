"""Backends emptied of users who have no sessions"""

import contextlib
import json
import time

from bench import SIDES, favour, note, place, settled
from nodes import Admin, wait_for
from ring import BenchRing, realtime, tell

# Between the first two few users are moved, between the next two many, and who
# isn't moved is on the last one
FEW, MANY = ("127.0.0.11", "127.0.0.12"), ("127.0.0.13", "127.0.0.14")
OTHERS = "127.0.0.15"
# Those who aren't moved, by number, and how often one of them logs in
OTHER_USERS = range(10000)
OTHERS_RATE = 2000

# How many are moved with this --max-parallel ("": the default, 100). The
# original needs 2 s for each parallel lot.
COUNTS = {"original": {"": 300, "5000": 10000},
          "ours": {"": 100000, "5000": 100000}}
# Nobody was seen or heard of for this long: users have left for good
REST = 7


class Site(contextlib.ExitStack):
    """A director, or a ring of them, with a driver that plays login processes
    with sessions"""

    def __init__(self, bench, side, count, logins=10):
        super().__init__()
        self.bench, self.side = bench, side
        self.vhosts = {}
        self.last_used = time.monotonic()
        if count > 1:
            self.ring = self.enter_context(BenchRing(bench, side, count))
            self.nodes = [member.node for member in self.ring.members]
            self.admin = self.ring.members[0].admin
        else:
            self.ring = None
            self.nodes = [self.enter_context(SIDES[side](OTHERS))]
            self.admin = Admin(self.nodes[0])
            self.callback(self.admin.close)
        self.admin.sock.settimeout(120)
        self.pids = [node.pid_of("director") for node in self.nodes]
        for number, pid in enumerate(self.pids):
            favour(pid)
            place(pid, number)
        realtime(self.pids)
        told = "ipc-proxy" if side == "original" else "director-proxy"
        for node in self.nodes:
            wait_for(lambda: node.exists("login/" + told), told)
        self.driver = bench.start(
            "session-load", cpu=None if count > 1 else 1,
            told=[node.path("login/" + told) for node in self.nodes],
            logins=logins, **self.sockets(),
            **({"ipc": True} if side == "original" else {}))
        self.callback(self.stop_driver)
        self.sessions()

    def stop_driver(self):
        self.driver.stdin.close()
        self.driver.wait()
        self.driver.stdout.close()

    def sockets(self):
        return {"auth": [node.path("auth-login") for node in self.nodes],
                "login": [node.path("login/director") for node in self.nodes]}

    def sessions(self, command=None):
        """What the driver's sessions do, and what came of it"""
        if command is not None:
            tell(self.driver, command)
        line = self.driver.stdout.readline()
        if not line:
            raise RuntimeError("session-load ended")
        self.last_used = time.monotonic()
        return json.loads(line)

    def cpu_ns(self):
        return sum(node.running_ns(pid)
                   for node, pid in zip(self.nodes, self.pids))

    def only(self, backend):
        """New users go there."""
        for ip in FEW + MANY + (OTHERS,):
            vhosts = "100" if ip == backend else "0"
            if self.vhosts.get(ip) == vhosts:
                continue
            reply = self.admin.command("HOST-SET", ip, vhosts)
            if reply != "OK":
                raise RuntimeError("HOST-SET %s: %s" % (ip, reply))
            self.vhosts[ip] = vhosts
            if self.ring is not None:
                self.ring.wait_quiet()

    def visit(self, backend, numbers):
        """They become known there, and have no sessions then."""
        self.only(backend)
        self.sessions("visit %d %d" % (numbers[0], len(numbers)))

    def rest(self):
        # (the original doesn't know who is there)
        if self.side == "ours":
            time.sleep(max(self.last_used + REST - time.monotonic(), 0))

    def reset_users(self, ip, parallel, numbers):
        """Seconds until all are moved, and how many that were"""
        command = ["HOST-RESET-USERS", ip, parallel]
        if self.side == "ours":
            command.append("progress")
        elif not parallel:
            command.pop()
        start = time.monotonic()
        reply = self.admin.command(*command).split("\t")
        while reply[0] == "PROGRESS":
            reply = self.admin.file.readline().decode().rstrip().split("\t")
        secs = time.monotonic() - start
        if reply[0] != "OK":
            raise RuntimeError("HOST-RESET-USERS: %s" % reply)
        if self.side == "ours":
            return secs, int(reply[3])
        # All moves have begun. Who is being moved isn't answered before his
        # has ended; where the last ones are is up to it.
        self.sessions("hold %d 50" % numbers[0])
        self.sessions("hold %d 50" % (numbers[-1] - 49))
        return time.monotonic() - start, None

    def users(self):
        return {row[0]: int(row[2])
                for row in self.admin.command("HOST-LIST")}

    def flush(self, source, target, numbers, parallel="", busy=None):
        """Moves all users, who have these numbers, from one to the other:
        (seconds, how many, CPU microseconds per user). busy: others log in
        meanwhile, and how they suffer is added as this."""
        self.only(target)
        self.rest()
        # (some names have the same hash)
        count = self.users()[source]
        cpu = 0 if busy else settled(self.cpu_ns)
        with self.others(busy) if busy else contextlib.nullcontext():
            secs, moved = self.reset_users(source, parallel, numbers)
        cpu = 0 if busy else settled(self.cpu_ns) - cpu
        users = self.users()
        if moved not in (None, count) or users[source] != 0 or \
                users[target] != count:
            raise RuntimeError("%s: %d users, %s moved, now %s" % (
                self.side, count, moved, users))
        self.last_used = time.monotonic()
        return secs, count, cpu / count / 1000

    @contextlib.contextmanager
    def others(self, what):
        """How much longer their lookups take meanwhile"""
        driver = self.bench.start(
            "director-load", cpu=None if self.ring else 1,
            users=len(OTHER_USERS), random=True, rate=OTHERS_RATE,
            realtime=True, control=True, tail=0.1, pid=self.pids,
            **self.sockets())
        # what to compare with
        time.sleep(2)
        tell(driver, "begin")
        yield
        tell(driver, "end")
        done = self.bench.result(driver)
        idle, during = done["latency"], done["during"]
        self.bench.add(what + " p99", self.side,
                       (during["p99"] - idle["p99"]) / 1000)
        self.bench.add(what + " idle", self.side, idle["p99"] / 1000)
        self.bench.add(what + " max", self.side, during["max"] / 1000)


def print_during(table, what, goal=2):
    table.row("  lookup p99 of others over idle, ms", what + " p99", 2,
              limit=goal, unit=" ms")
    table.row("    its p99 when idle, ms", what + " idle", 2)
    table.row("    its maximum, ms", what + " max", 2)


class FlushSite(Site):
    """With users who aren't logged in any more. Each flush is made twice: with
    nothing else going on, and while others log in."""

    def __init__(self, bench, side, count):
        super().__init__(bench, side, count)
        self.what = "flush %d " % count
        self.numbers = {
            parallel: range((i + 1) * 100000, (i + 1) * 100000 + count)
            for i, (parallel, count) in enumerate(COUNTS[side].items())}
        # whom to move with this --max-parallel: from, to
        self.pairs = {"": FEW, "5000": MANY}
        self.visit(OTHERS, OTHER_USERS)
        for parallel, numbers in self.numbers.items():
            self.visit(self.pairs[parallel][0], numbers)

    def move(self, parallel, busy=None):
        source, target = self.pairs[parallel]
        self.pairs[parallel] = target, source
        return self.flush(source, target, self.numbers[parallel], parallel,
                          busy)

    def round(self):
        for parallel in self.numbers:
            secs, count, cpu = self.move(parallel)
            self.bench.add(self.what + parallel, self.side, count / secs)
            self.bench.add(self.what + parallel + " cpu", self.side, cpu)
            # the original's takes long
            if parallel or self.side == "ours":
                self.move(parallel, self.what + parallel)


def measure_flush(bench, count):
    with contextlib.ExitStack() as stack:
        sites = []
        for side in SIDES:
            note("users to flush, ring of %d: %s" % (count, side))
            sites.append(stack.enter_context(FlushSite(bench, side, count)))
        for number in range(bench.rounds):
            for site in sites:
                note("flush, ring of %d, round %d of %d: %s" % (
                    count, number + 1, bench.rounds, site.side))
                site.round()


def print_flush(table, count):
    print("\nUsers without sessions flushed off a backend, %s" % (
        "one director" if count == 1 else "ring of %d" % count))
    for parallel in COUNTS["ours"]:
        what = "flush %d %s" % (count, parallel)
        how = "--max-parallel " + parallel if parallel else "defaults"
        table.row("users a second, " + how, what, 0,
                  least=None if parallel else 10000)
        table.row("  directors' CPU per user, us", what + " cpu", 2)
        print_during(table, what)


PARTS = (("flush-alone", lambda bench: measure_flush(bench, 1),
          lambda table: print_flush(table, 1)),
         ("flush-ring", lambda bench: measure_flush(bench, 2),
          lambda table: print_flush(table, 2)))
