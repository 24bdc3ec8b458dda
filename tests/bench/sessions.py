"""Live sessions: what each one costs, and backends emptied of users who have
some"""

import contextlib
import time

from bench import SIDES, note, settled
from flush import FEW, OTHERS, OTHER_USERS, Site, print_during

# Each has one session.
LIVE_USERS = range(100000, 101000)
# The original takes 2 s (director_user_kick_delay) for each parallel lot, and so
# does ours when there are sessions.
PARALLEL = ("", "1000")

# How many log in, and out again soon, this often a second
VISITS, VISIT_RATE = 10000, 2000

LOGINS = 100
# So many are held at the same time in the end, after the first: users from this
# number on
HELD_USERS, HELD_FIRST, HELD = 100000, 10000, 100000
HELD_PARALLEL = "20000"


class LiveSite(Site):
    def __init__(self, bench, side, count):
        super().__init__(bench, side, count)
        self.what = "live %d " % count
        self.pair = FEW
        self.visit(OTHERS, OTHER_USERS)

    def round(self, parallel):
        """All log in, and are flushed."""
        source, target = self.pair
        self.pair = target, source
        self.only(source)
        before = self.sessions("hold %d %d" % (LIVE_USERS[0],
                                               len(LIVE_USERS)))
        what = self.what + parallel
        secs, count, _ = self.flush(source, target, LIVE_USERS, parallel, what)
        # (the original tells each login process of each one)
        kicked = self.sessions("wait 0")["kicked"] - before["kicked"]
        if kicked < count:
            raise RuntimeError("%s: only %d of %d sessions were kicked" %
                               (self.side, kicked, count))
        self.bench.add(what, self.side, secs)


def measure_live(bench, count):
    with contextlib.ExitStack() as stack:
        sites = [stack.enter_context(LiveSite(bench, side, count))
                 for side in SIDES]
        for number in range(bench.rounds):
            for site in sites:
                note("live users flushed, ring of %d, round %d of %d: %s" % (
                    count, number + 1, bench.rounds, site.side))
                for parallel in PARALLEL:
                    site.round(parallel)


def print_live(table, count):
    print("\n%d users with a live session each flushed off a backend, %s" % (
        len(LIVE_USERS), "one director" if count == 1 else "ring of %d" %
        count))
    for parallel in PARALLEL:
        what = "live %d %s" % (count, parallel)
        table.row("seconds, " + ("--max-parallel " + parallel if parallel else
                                 "defaults"), what, 3, ratio=1.005,
                  goal="<= 1.00")
        print_during(table, what)


def visits_round(bench, site):
    for what in ("visit", "look") if site.side == "ours" else ("look",):
        before = settled(site.cpu_ns)
        site.sessions("%s %d %d %d" % (what, LIVE_USERS[0], VISITS,
                                       VISIT_RATE))
        cpu = settled(site.cpu_ns) - before
        bench.add(what + " cpu", site.side, cpu / VISITS / 1000)


def measure_visits(bench):
    with contextlib.ExitStack() as stack:
        sites = [stack.enter_context(Site(bench, side, 1, LOGINS))
                 for side in SIDES]
        for site in sites:
            site.only(OTHERS)
            site.sessions("visit %d %d" % (LIVE_USERS[0], VISITS))
        for number in range(bench.rounds):
            for site in sites:
                note("sessions that come and go, round %d of %d: %s" % (
                    number + 1, bench.rounds, site.side))
                visits_round(bench, site)


def steady_rss(site):
    """What a director holds when its answers' leases are over and memory is
    steady"""
    node, pid = site.nodes[0], site.pids[0]
    last, since = node.rss(pid), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        rss = node.rss(pid)
        if rss != last:
            last, since = rss, time.monotonic()
    return last


def held_flush(bench, site, source, target, busy):
    kicked = site.sessions("wait %d" % HELD)["kicked"]
    secs, _, cpu = site.flush(source, target, range(HELD), HELD_PARALLEL,
                                  busy)
    kicked = site.sessions("wait 0")["kicked"] - kicked
    if kicked != HELD:
        raise RuntimeError("only %d sessions were kicked" % kicked)
    if not busy:
        bench.add("held", site.side, secs)
        bench.add("held cpu", site.side, cpu)


def held_list(bench, site):
    """All are listed, and then ended by one mask, while others log in."""
    site.rest()
    with site.others("listed"):
        start = time.monotonic()
        count = len(site.admin.command("SESSION-LIST"))
        bench.add("listed", site.side, time.monotonic() - start)
    if count != HELD:
        raise RuntimeError("%d sessions are listed instead of %d" % (count,
                                                                     HELD))
    kicked = site.sessions("wait %d" % HELD)["kicked"]
    with site.others("masked"):
        start = time.monotonic()
        reply = site.admin.command("USER-KICK", "u*@example.com", "count")
        kicked = site.sessions("wait 0")["kicked"] - kicked
        bench.add("masked", site.side, time.monotonic() - start)
    if kicked != HELD:
        raise RuntimeError("only %d sessions were kicked: %s" % (kicked, reply))


def held_round(bench):
    source, target = FEW
    with Site(bench, "ours", 1, LOGINS) as site:
        site.visit(OTHERS, OTHER_USERS)
        site.only(source)
        site.sessions("hold %d %d" % (HELD_USERS, HELD_FIRST))
        before = steady_rss(site)
        site.sessions("hold %d %d" % (HELD_USERS + HELD_FIRST,
                                      HELD - HELD_FIRST))
        bench.add("held bytes", site.side,
                  (steady_rss(site) - before) / (HELD - HELD_FIRST))
        held_flush(bench, site, source, target, None)
        site.only(target)
        site.sessions("hold %d %d" % (HELD_USERS, HELD))
        held_flush(bench, site, target, source, "held")
        site.sessions("hold %d %d" % (HELD_USERS, HELD))
        held_list(bench, site)


def measure_held(bench):
    for number in range(bench.rounds):
        note("%d live sessions, round %d of %d" % (HELD, number + 1,
                                                   bench.rounds))
        held_round(bench)


def print_visits(table):
    print("\nSessions that come and go, %d a second, of %d login processes" %
          (VISIT_RATE, LOGINS))
    table.row("director's CPU per lookup, us", "look cpu", 2)
    table.row("with the session's start and end, us", "visit cpu", 2)


def print_held(table):
    print("\n%d live sessions of %d login processes on one director" % (
        HELD, LOGINS))
    table.row("bytes per live session and its user", "held bytes", 0)
    table.row("seconds to flush them, --max-parallel " + HELD_PARALLEL, "held",
              2)
    table.row("  director's CPU per session, us", "held cpu", 2)
    print_during(table, "held")
    table.row("seconds to list them", "listed", 2)
    print_during(table, "listed")
    table.row("seconds to kick them by a mask", "masked", 2)
    print_during(table, "masked", None)


PARTS = (("sessions-flush", lambda bench: measure_live(bench, 1),
          lambda table: print_live(table, 1)),
         ("sessions-flush-ring", lambda bench: measure_live(bench, 2),
          lambda table: print_live(table, 2)),
         ("sessions-visits", measure_visits, print_visits),
         ("sessions-held", measure_held, print_held))
