"""One director by itself, and logins through it"""

import os
import time

from bench import RELAYS, SIDES, favour, note, place, settled
from nodes import Node

# Two backends, so that each has half of the users
BACKENDS = "127.0.0.11 127.0.0.12"
# Lookups a second
STREAM_RATE = 20000
STREAM = STREAM_RATE * 7
MANY_USERS = 10000000
LOGINS = {"unlimited": 5000, "1": 1000}
IMAP_PORT, BACKEND_PORT = 14143, 14144

IMAP_CONFIG = """
protocols = imap
ssl = no
auth_allow_cleartext = yes
passdb static {
  fields {
    proxy = y
    nopassword = y
    port = %(backend_port)d
    %(host)s
  }
}
service auth {
  client_limit = 20000
}
service imap-login {
  executable = %(executable)s
  restart_request_count = %(restart)s
  process_min_avail = %(min_avail)d
  client_limit = 1000
  inet_listener imap {
    port = %(port)d
  }
  inet_listener imaps {
    port = 0
  }
}
"""

IMAP_DIRECTOR_CONFIG = """
director_mail_servers = 127.0.0.11 127.0.0.12 127.0.0.13
login_plugins {
  director_login = yes
}
"""


def cpu_per_lookup(bench, side, load):
    for depth in 1, 16:
        done = load(users=bench.users, random=True, requests=bench.lookups,
                    depth=depth)
        bench.add("cpu %d" % depth, side, done["director_ns"] / 1000)
        bench.add("driver %d" % depth, side, done["driver_ns"] / 1000)


class Director:
    """A director under load"""

    def __init__(self, bench, side):
        self.bench, self.side = bench, side
        self.node = SIDES[side](BACKENDS)
        self.pid = self.node.pid_of("director")
        favour(self.pid)
        place(self.pid, 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.node.stop()

    def load(self, **options):
        return self.bench.load(
            "director-load", auth=self.node.path("auth-login"),
            login=self.node.path("login/director"), pid=self.pid, **options)

    def populate(self, users):
        self.load(users=users, requests=users, clients=8, depth=256)

    def settled_rss(self, at_least=6.5):
        """After the answers' leases are over (5 s) and memory is steady"""
        last, since = self.node.rss(self.pid), time.monotonic()
        start = since
        while time.monotonic() - since < 1 or \
                time.monotonic() - start < at_least:
            time.sleep(0.1)
            rss = self.node.rss(self.pid)
            if rss != last:
                last, since = rss, time.monotonic()
            if time.monotonic() - start > 30:
                break
        return last

    def bytes_per_user(self, users):
        # what any user would need is there before the first is counted
        self.load(users=1000, requests=1000)
        before = self.settled_rss(at_least=1)
        self.populate(users)
        return (self.settled_rss() - before) / (users - 1000)

    def walk(self, what, command, **options):
        """How much a paced stream of lookups suffers from an admin command"""
        done = self.load(users=self.bench.users, random=True, rate=2000,
                         realtime=True, admin=self.node.path("director-admin"),
                         command=command, **options)
        if done["admin"]["reply"] not in ("", "OK"):
            raise RuntimeError("%s: %s" % (command, done["admin"]["reply"]))
        idle, during = done["latency"], done["during"]
        self.bench.add(what, self.side, (during["p99"] - idle["p99"]) / 1000)
        self.bench.add(what + " idle", self.side, idle["p99"] / 1000)
        self.bench.add(what + " max", self.side, during["max"] / 1000)
        self.bench.add(what + " secs", self.side, done["admin"]["seconds"])

    def stream(self):
        """What lookups of known users hold while they go on, and how many
        bytes each one leaves behind: (at most, growth)"""
        rss = [self.node.rss(self.pid)]
        # each part is longer than an answer's lease (5 s)
        for _ in range(2):
            self.load(users=1000, random=True, requests=STREAM,
                      rate=STREAM_RATE)
            rss.append(self.node.rss(self.pid))
        return (max(rss[1:]) - rss[0]) / 2**20, \
            (rss[2] - rss[1]) / STREAM


def director_round(bench, side):
    with Director(bench, side) as director:
        bench.add("bytes 1M", side, director.bytes_per_user(bench.users))
        cpu_per_lookup(bench, side, director.load)
        director.walk("map", "USER-LIST", tail=0.1)
        director.walk("flush", "HOST-FLUSH\t127.0.0.11")
        director.populate(bench.users)
        director.walk("remove", "HOST-REMOVE\t127.0.0.11", may_change=True)


def relay_round(bench, side):
    login, auth = bench.bin + "/login", bench.bin + "/auth"
    with bench.relay(side, login, auth) as pid:
        place(pid, 0)
        cpu_per_lookup(bench, side, lambda **options: bench.load(
            "director-load", login=login, auth=auth, pid=pid, **options))
    os.unlink(login)


def imap_node(side, restart):
    config = IMAP_CONFIG % {
        "host": "host = 127.0.0.11" if side == "original" else "",
        "executable": {"original": "imap-login",
                       "ours": "imap-login director"}.get(side,
                                                          "imap-login relay"),
        "restart": restart, "min_avail": 0 if restart == "unlimited" else 4,
        "port": IMAP_PORT, "backend_port": BACKEND_PORT}
    if side == "ours":
        config += IMAP_DIRECTOR_CONFIG
    return Node("", config, ["login/login"])


def imap_load(bench, node, side, restart, relay_pid):
    def load(logins):
        return bench.load("imap-load", port=IMAP_PORT, logins=logins,
                          backend_port=BACKEND_PORT,
                          backends="127.0.0.11,127.0.0.12,127.0.0.13")

    def cpu_ns():
        return node.cpu_ns() + (node.running_ns(relay_pid) if relay_pid else 0)

    logins = LOGINS[restart]
    load(200)
    before = settled(cpu_ns)
    done = load(logins)
    bench.add("imap " + restart, side,
              (settled(cpu_ns) - before) / logins / 1000)
    bench.add("imap driver " + restart, side, done["driver_ns"] / 1000)


def imap_round(bench, side, restart):
    """Side "original" is 2.4 with a fixed host here"""
    with imap_node(side, restart) as node:
        favour(node.master.pid)
        if side not in RELAYS:
            imap_load(bench, node, side, restart, None)
            return
        with bench.relay(side, node.path("login/relay"),
                         node.path("auth-login")) as pid:
            imap_load(bench, node, side, restart, pid)


def measure_director(bench):
    for number in range(bench.rounds):
        for side in SIDES:
            note("round %d of %d: %s" % (number + 1, bench.rounds, side))
            director_round(bench, side)
        for side in RELAYS:
            relay_round(bench, side)


def print_director(table):
    for depth, title in (1, "one at a time"), (16, "16 at a time"):
        table.row("director CPU per lookup, us, " + title, "cpu %d" % depth,
                  2, ratio=0.7)
        table.limit("cpu %d" % depth, 2)
        table.row("  load driver's CPU per lookup, us", "driver %d" % depth, 2)
    table.row("bytes per user, 1 M users", "bytes 1M", ratio=0.4)
    for what, title in (("map", "map of 1 M users"),
                        ("flush", "flush -F of 500 k"),
                        ("remove", "removal of 500 k")):
        table.row("lookup p99 over idle, ms, " + title, what, 2, limit=2,
                  unit=" ms")
        table.row("  its p99 when idle, ms", what + " idle", 2)
        table.row("  its maximum, ms", what + " max", 2)
        table.row("  seconds until the reply", what + " secs", 3)


def measure_many_users(bench):
    if bench.quick:
        return
    for number in range(bench.rounds):
        for side in SIDES:
            note("%d users, round %d of %d: %s" % (
                MANY_USERS, number + 1, bench.rounds, side))
            with Director(bench, side) as director:
                bench.add("bytes 10M", side,
                          director.bytes_per_user(MANY_USERS))


def print_many_users(table):
    table.row("bytes per user, 10 M users", "bytes 10M", ratio=0.4)


def measure_stream(bench):
    for number in range(bench.rounds):
        for side in SIDES:
            note("stream of lookups, round %d of %d: %s" % (
                number + 1, bench.rounds, side))
            with Director(bench, side) as director:
                director.load(users=1000, requests=1000)
                held, left = director.stream()
                bench.add("stream held", side, held)
                bench.add("stream", side, left)


def print_stream(table):
    table.row("bytes left by each lookup, %d/s of 1000 users" % STREAM_RATE,
              "stream", 2, limit=1)
    table.row("  MiB held meanwhile", "stream held", 2)


def measure_imap(bench):
    for number in range(bench.rounds):
        note("logins, round %d of %d" % (number + 1, bench.rounds))
        for restart in LOGINS:
            for side in *SIDES, *RELAYS:
                imap_round(bench, side, restart)


def print_imap(table):
    print("\nNode CPU per proxied IMAP login, us: \"original\" is 2.4 with a "
          "fixed host and no director")
    for restart, title in (("unlimited", "login processes stay"),
                           ("1", "a process for each login")):
        table.row(title, "imap " + restart, 1, ratio=1.05)
        table.limit("imap " + restart, 1)
        table.row("  load driver's CPU per login, us",
                  "imap driver " + restart, 1)


PARTS = (("director", measure_director, print_director),
         ("stream", measure_stream, print_stream),
         ("many-users", measure_many_users, print_many_users),
         ("imap", measure_imap, print_imap))
