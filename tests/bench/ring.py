"""Directors in a ring. Those of one side only; both sides' rings can run at
the same time."""

import contextlib
import os
import re
import signal
import statistics
import subprocess
import threading
import time

from bench import RELAYS, SIDES, favour, note, place, settled
from nodes import LoginProcess, wait_for
from test_ring import Member, Ring

NETS = {"original": "127.0.1", "ours": "127.0.2"}
# The original's default is that nobody may use it
EXTRA = """
service director {
  fifo_listener login/proxy-notify {
    mode = 0666
  }
}
"""

# How many wait at a time on each connection, and how many there are
LOOKUPS = {1: 100000, 16: 200000}
# Who log in again and again
KNOWN_USERS = 10000
# How often updates are written a second, and how many; 0: as fast as read
NOTIFY_RATES = {5000: 10000, 0: 200000}

# Rings that have both sides' traffic at the same time: bytes don't depend on
# how fast it goes
BYTES_SIZES = (2, 3, 5, 10)
BYTES_USERS = 200
# How often each of them is used a second: the goal
BYTES_RATES = {10: 0.1, 1: None}
BYTES_SECS = 5

JOIN_TIMEOUT = 80
JOIN_ROUNDS = 3
JOIN_MANY_USERS = 10000000

FAR_SIZE = 10
FAR_RATE = 8000
FAR_PROBES = {"idle": 1500, "busy": 500}
# Who log in again and again: each one in 12 seconds
FAR_USERS = 100000

LOSS_RATE = 200
LOSS_ROUNDS = 3


class BenchRing(Ring):
    def __init__(self, bench, side, count):
        self.bench, self.side = bench, side
        self.members = []
        ips = ["%s.%d" % (NETS[side], i + 1) for i in range(count)]
        for i, ip in enumerate(ips):
            member = Member(side, i + 1, " ".join(ips), EXTRA)
            member.ip = ip
            self.members.append(member)
        # users that nobody knows yet begin with this
        self.unused = 10000000

    def __enter__(self):
        super().__enter__()
        for member in self.members:
            favour(member.node.pid_of("director"))
        return self

    def pids(self):
        return [member.node.pid_of("director") for member in self.members]

    def options(self, members):
        return {
            "auth": [m.node.path("auth-login") for m in members],
            "login": [m.node.path("login/director") for m in members],
            "pid": [m.node.pid_of("director") for m in self.running()],
        }

    def load(self, members, **options):
        return self.bench.load("director-load", **self.options(members),
                               **options)

    def load_new(self, members, count, **options):
        """Users that nobody knew before"""
        self.unused += count
        return self.load(members, first=self.unused - count, users=count,
                         requests=count, **options)

    def cpu_ns(self):
        return sum(member.node.running_ns(pid)
                   for member, pid in zip(self.members, self.pids()))

    def bytes(self):
        """Received on all of the ring's connections, as the kernel counts
        them: {connection: bytes}"""
        output = subprocess.run(["ss", "-tinHO", "state", "established"],
                                stdout=subprocess.PIPE, check=True,
                                text=True).stdout
        found = {}
        for line in output.splitlines():
            ends = tuple(line.split()[2:4])
            match = re.search(r"\bbytes_received:(\d+)", line)
            if ends[0].startswith(NETS[self.side] + ".") and match:
                found[ends] = int(match.group(1))
        return found


def tell(driver, word):
    driver.stdin.write(word + "\n")
    driver.stdin.flush()


def add_cpu(bench, side, what, done):
    bench.add("ring " + what, side, done["director_ns"] / 1000)
    bench.add("ring driver " + what, side, done["driver_ns"] / 1000)


def cpu_round(bench, side):
    with BenchRing(bench, side, 2) as ring:
        for number, pid in enumerate(ring.pids()):
            place(pid, number)
        first = ring.members[:1]
        for depth, count in LOOKUPS.items():
            add_cpu(bench, side, "first %d" % depth,
                    ring.load_new(first, count, depth=depth))
        ring.load(first, users=KNOWN_USERS, requests=KNOWN_USERS)
        for depth, count in LOOKUPS.items():
            add_cpu(bench, side, "again %d" % depth,
                    ring.load(first, users=KNOWN_USERS, random=True,
                              requests=count, depth=depth))
        for rate in NOTIFY_RATES:
            notify(bench, ring, rate)


def write_updates(members, users, count, rate):
    """Each one with a write of its own, as the sessions do it. Every member
    gets the same number."""
    fds = [os.open(member.node.path("login/proxy-notify"), os.O_WRONLY)
           for member in members]
    lines = [b"u%d@example.com\n" % user for user in users]
    start = time.monotonic()
    for i in range(count):
        if rate > 0:
            wait = start + i / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
        os.write(fds[i % len(fds)], lines[i * 7919 % len(lines)])
    for fd in fds:
        os.close(fd)


def notify(bench, ring, rate):
    count = NOTIFY_RATES[rate]
    before = settled(ring.cpu_ns)
    write_updates(ring.members[:1], range(KNOWN_USERS), count, rate)
    cpu = settled(ring.cpu_ns) - before
    bench.add("ring notify %d" % rate, ring.side, cpu / count / 1000)


def relay_round(bench, side):
    login, auth = bench.bin + "/login", bench.bin + "/auth"
    with bench.relay(side, login, auth) as pid:
        place(pid, 0)
        for depth, count in LOOKUPS.items():
            add_cpu(bench, side, "again %d" % depth, bench.load(
                "director-load", login=login, auth=auth, pid=pid,
                users=KNOWN_USERS, random=True, requests=count, depth=depth))
    os.unlink(login)


def measure_cpu(bench):
    for number in range(bench.rounds):
        for side in SIDES:
            note("ring of 2, round %d of %d: %s" % (number + 1, bench.rounds,
                                                   side))
            cpu_round(bench, side)
        for side in RELAYS:
            relay_round(bench, side)


def print_cpu(table):
    print("\nA ring of two, both directors' CPU added up")
    for what, title, ratio in (("first", "first login", 0.6),
                               ("again", "login of a known user", 0.3)):
        for depth, how in (1, "one at a time"), (16, "16 at a time"):
            table.row("CPU per %s, us, %s" % (title, how),
                      "ring %s %d" % (what, depth), 2, ratio=ratio)
            if what == "again":
                table.limit("ring again %d" % depth, 2)
            table.row("  load driver's CPU, us",
                      "ring driver %s %d" % (what, depth), 2)
    for rate in NOTIFY_RATES:
        table.row("CPU per proxy-notify update, us, %s" %
                  ("%d/s" % rate if rate else "as fast as read"),
                  "ring notify %d" % rate, 2, ratio=0.3)


def both_rings(bench, stack, count):
    return {side: stack.enter_context(BenchRing(bench, side, count))
            for side in SIDES}


def steady_bytes(ring):
    last = ring.bytes()
    while True:
        time.sleep(0.3)
        found = ring.bytes()
        # a PING is less
        if sum(found.values()) - sum(last.values()) < 1000:
            return found
        last = found


def bytes_since(ring, before):
    after = steady_bytes(ring)
    if after.keys() != before.keys():
        raise RuntimeError("%s: other connections than before" % ring.side)
    return sum(after.values()) - sum(before.values())


def ring_bytes(bench, rings, rate):
    """Logins on all members, rate each second for each user"""
    count = BYTES_USERS * rate * BYTES_SECS
    before = {side: steady_bytes(ring) for side, ring in rings.items()}
    running = {side: bench.start(
        "director-load", users=BYTES_USERS, random=True, requests=count,
        rate=BYTES_USERS * rate, **ring.options(ring.members))
        for side, ring in rings.items()}
    for side, ring in rings.items():
        bench.result(running[side])
    for side, ring in rings.items():
        bench.add("ring bytes %d %d" % (len(ring.members), rate), side,
                  bytes_since(ring, before[side]) / count)


def refresh_bytes(bench, rings, rate):
    """The same with proxy-notify"""
    count = BYTES_USERS * rate * BYTES_SECS
    before = {side: steady_bytes(ring) for side, ring in rings.items()}
    threads = [threading.Thread(target=write_updates, args=(
        ring.members, range(BYTES_USERS), count, BYTES_USERS * rate))
        for ring in rings.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for side, ring in rings.items():
        bench.add("ring refresh bytes %d %d" % (len(ring.members), rate), side,
                  bytes_since(ring, before[side]) / count)


def measure_bytes(bench):
    for count in BYTES_SIZES:
        note("bytes in rings of %d" % count)
        with contextlib.ExitStack() as stack:
            rings = both_rings(bench, stack, count)
            for ring in rings.values():
                ring.load(ring.members, users=BYTES_USERS,
                          requests=BYTES_USERS)
            for rate in BYTES_RATES:
                ring_bytes(bench, rings, rate)
                refresh_bytes(bench, rings, rate)


def print_bytes(table):
    for rate, goal in BYTES_RATES.items():
        print("\nRing bytes, %d a second of each user, on any director" % rate)
        for what, title in (("bytes", "login of a known user"),
                            ("refresh bytes", "proxy-notify update")):
            for count in BYTES_SIZES:
                table.row("bytes per %s, ring of %d" % (title, count),
                          "ring %s %d %d" % (what, count, rate), 1,
                          ratio=goal)


class Giver(contextlib.ExitStack):
    """One of two directors, with users; the other one can join"""

    def __init__(self, bench, side, users):
        super().__init__()
        self.bench, self.users = bench, users
        self.ring = BenchRing(bench, side, 2)
        self.member, self.joiner = self.ring.members
        self.member.start()
        self.callback(self.member.stop)
        favour(self.member.node.master.pid)
        self.pid = self.member.node.pid_of("director")
        favour(self.pid)
        place(self.pid, 0)
        # the original waits 20 s for the other one
        wait_for(self.member.is_synced, "the giver to be alone", 40)
        self.options = dict(self.ring.options([self.member]), users=users)
        bench.load("director-load", requests=users, clients=8, depth=256,
                   **self.options)

    def first_answer(self):
        """Seconds until the other one's Dovecot has started, and until it has
        joined and answered"""
        start = time.monotonic()
        self.joiner.start()
        started = time.monotonic() - start
        favour(self.joiner.node.master.pid)
        self.joiner.login = LoginProcess(self.joiner.node)
        self.joiner.login.sock.settimeout(JOIN_TIMEOUT)
        self.joiner.lookup(["u1@example.com"])
        return started, time.monotonic() - start

    def check(self):
        """It has all users, on the same backends."""
        def users(member):
            return [row[:3] for row in member.admin.command("HOST-LIST")]
        if users(self.joiner) != users(self.member):
            raise RuntimeError("%s: has %s, not %s" % (
                self.ring.side, users(self.joiner), users(self.member)))
        names = ["u%d@example.com" % (i * 7919 % self.users)
                 for i in range(100)]
        for name, host in self.joiner.lookup(names).items():
            if self.member.admin.hashed_host(name) != host:
                raise RuntimeError("%s: %s is on %s" % (self.ring.side, name,
                                                        host))

    def join(self):
        """The seconds, and how long lookups here take before that and
        meanwhile"""
        driver = self.bench.start("director-load", random=True, rate=2000,
                                  realtime=True, control=True, tail=0.1,
                                  **self.options)
        # what to compare with
        time.sleep(3)
        tell(driver, "begin")
        started, secs = self.first_answer()
        tell(driver, "end")
        done = self.bench.result(driver)
        self.check()
        self.joiner.stop()
        wait_for(self.member.is_synced, "the giver to be alone again", 40)
        return started, secs, done


def add_join(bench, giver, what):
    started, secs, done = giver.join()
    idle, during = done["latency"], done["during"]
    side = giver.ring.side
    bench.add(what, side, secs)
    bench.add(what + " started", side, started)
    bench.add(what + " p99", side, (during["p99"] - idle["p99"]) / 1000)
    bench.add(what + " idle", side, idle["p99"] / 1000)
    bench.add(what + " max", side, during["max"] / 1000)


def measure_join(bench):
    with contextlib.ExitStack() as stack:
        givers = []
        for side in SIDES:
            note("1 M users: " + side)
            givers.append(stack.enter_context(Giver(bench, side, bench.users)))
        for number in range(1 if bench.quick else JOIN_ROUNDS):
            for giver in givers:
                note("join, round %d: %s" % (number + 1, giver.ring.side))
                add_join(bench, giver, "join 1M")
    if not bench.quick:
        note("join with 10 M users: ours")
        with Giver(bench, "ours", JOIN_MANY_USERS) as giver:
            add_join(bench, giver, "join 10M")


def print_join(table):
    print("\nA director starts and joins another one (%d rounds, one with 10 M)"
          % JOIN_ROUNDS)
    table.row("seconds until it answers, 1 M users", "join 1M", 2, ratio=0.5)
    table.row("  of these until its Dovecot has started", "join 1M started", 2)
    values = table.bench.values
    if "join 10M" in values:
        limit = 12 * statistics.median(values["join 1M"]["ours"])
        table.row("seconds until it answers, 10 M users", "join 10M", 2,
                  limit=limit, goal="<= 12 times ours with 1 M")
    for what, title in ("join 1M", "1 M users"), ("join 10M", "10 M users"):
        table.row("lookup p99 of the other one over idle, ms, " + title,
                  what + " p99", 2, limit=2, unit=" ms")
        table.row("  its p99 when idle, ms", what + " idle", 2)
        table.row("  its maximum, ms", what + " max", 2)


def add_far(bench, ring, what):
    """Milliseconds until who logs in on the first is known on the other side
    of the ring, p99"""
    count = FAR_PROBES[what]
    near, far = ring.members[0], ring.members[FAR_SIZE // 2]
    ring.unused += count
    done = bench.load("ring-probe", cpu=None,
                      auth=near.node.path("auth-login"),
                      login=near.node.path("login/director"),
                      admin=far.node.path("director-admin"),
                      first=ring.unused - count, probes=count, realtime=True)
    bench.add("far " + what, ring.side, done["known"]["p99"] / 1000)


def realtime(pids):
    """What else runs on the machine is not to count as latency"""
    for pid in pids:
        os.sched_setscheduler(pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK,
                              os.sched_param(1))


def far_round(bench, ring):
    add_far(bench, ring, "idle")
    # the probe plays the auth process of the first
    driver = bench.start("director-load", cpu=None, users=FAR_USERS,
                         random=True, rate=FAR_RATE, control=True, tail=0.1,
                         realtime=True, **ring.options(ring.members[1:]))
    # it is at its rate
    time.sleep(1)
    tell(driver, "begin")
    add_far(bench, ring, "busy")
    tell(driver, "end")
    bench.result(driver)


def measure_far(bench):
    note("rings of %d" % FAR_SIZE)
    with contextlib.ExitStack() as stack:
        rings = both_rings(bench, stack, FAR_SIZE)
        for ring in rings.values():
            ring.load(ring.members, users=FAR_USERS, requests=FAR_USERS)
            realtime(ring.pids())
        for number in range(bench.rounds):
            for ring in rings.values():
                note("far side, round %d: %s" % (number + 1, ring.side))
                far_round(bench, ring)


def print_far(table):
    print("\nUntil a user is known on the far side of a ring of %d" % FAR_SIZE)
    table.row("p99, ms, idle", "far idle", 2, ratio=1.0)
    table.row("p99, ms, %d logins/s of %d users" % (FAR_RATE, FAR_USERS),
              "far busy", 2, ratio=0.5)


def is_bypassed(ring):
    first, _, third = ring.members
    return first.is_synced() and third.is_synced() and \
        first.neighbours() == (third.ip, third.ip) and \
        third.neighbours() == (first.ip, first.ip)


def loss_round(bench, side):
    """The second of three stops; new users log in on the others."""
    with BenchRing(bench, side, 3) as ring:
        first, second, third = ring.members
        stopped = second.node.pid_of("director")
        driver = bench.start("director-load", users=LOSS_RATE * 120,
                             rate=LOSS_RATE, control=True, tail=0.5,
                             **ring.options([first, third]))
        # what to compare with
        time.sleep(2)
        tell(driver, "begin")
        start = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        try:
            wait_for(lambda: is_bypassed(ring), "a ring of two", 100)
            bench.add("loss", side, time.monotonic() - start)
            tell(driver, "end")
            done = bench.result(driver)
            bench.add("loss login", side, done["during"]["max"] / 1e6)
        finally:
            os.kill(stopped, signal.SIGKILL)


def measure_loss(bench):
    for number in range(1 if bench.quick else LOSS_ROUNDS):
        note("loss, round %d: ours" % (number + 1))
        loss_round(bench, "ours")
    if not bench.quick:
        note("loss: original")
        loss_round(bench, "original")


def print_loss(table):
    print("\nOne of three directors falls silent (%d rounds, one of the "
          "original)" % LOSS_ROUNDS)
    table.row("seconds until the others are in sync", "loss", 2, limit=5,
              unit=" s")
    table.row("seconds that the worst login of a new user took", "loss login",
              2, limit=5, unit=" s")


PARTS = (("ring-cpu", measure_cpu, print_cpu),
         ("ring-bytes", measure_bytes, print_bytes),
         ("ring-join", measure_join, print_join),
         ("ring-far", measure_far, print_far),
         ("ring-loss", measure_loss, print_loss))
