# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Users who are moved all the time, while whatever can fail fails, are on one
backend at a time, and get in."""

import os
import random
import re
import time

import clients
from crowd import Crowd
from history import history
from nemesis import Nemesis, wait_for_rest
from node import wait_for
from ring import Ring
from test_admin import Admin

MINUTES = float(os.environ.get("DIRECTOR_CHAOS_MINUTES", "0.8"))
SEED = int(os.environ.get("DIRECTOR_CHAOS_SEED") or
           random.SystemRandom().randrange(1000000))
# 200 clients. Some users come alone, and seldom.
USERS = dict([("u%d" % i, 4) for i in range(47)] +
             [("alone%d" % i, 1) for i in range(12)])
LOGIN_LIMIT = 30
# a light backend takes up to 3 s, a busy machine some more
SLACK = 5
BAD = re.compile(r"Panic|assertion|core dumped|AddressSanitizer|"
                 r"runtime error:|killed with signal (?:6|8|11)\b")
CONFIG = """
verbose_proctitle = yes
director_user_expire = 1 min
service imap-login {
  process_limit = 500
  process_min_avail = %d
}
"""


class ChaosRing(Ring):
    """Its members have different kinds of login processes: one for each
    session, one for all, and two of which each has many."""

    backends = " ".join("127.0.0.%d" % number for number in range(21, 25))
    kinds = ((1, 0, "yes"), ("unlimited", 1, "no"), ("unlimited", 2, "yes"))

    def start(self, directors):
        requests, processes, shutdown = self.kinds[len(self.members)]
        member = super().start(directors, restart_request_count=requests,
                               config=CONFIG % processes +
                               "shutdown_clients = %s\n" % shutdown)
        # judged by what may not happen, however much is killed
        member.bad_lines = lambda: [
            line for line in member.log.lines() if BAD.search(line)]
        return member


def tell(capsys, text):
    with capsys.disabled():
        # pytest's own line has not ended yet
        print("\n>> %s" % text, flush=True)


def percentile(values, share):
    return sorted(values)[int(len(values) * share)] if values else 0


class Run:
    def __init__(self, site, capsys):
        self.site, self.capsys = site, capsys
        self.oracle = site.oracle
        self.backends = [site.real_backend(21), site.real_backend(22),
                         site.light_backend(23), site.light_backend(24)]
        for backend in self.backends[:2]:
            backend.bad_lines = lambda: []
        self.ring = ChaosRing(site, 3)
        self.members = self.ring.members
        self.ring.wait(3)
        self.crowd = site.keep_busy(Crowd(
            [member.ip for member in self.members], USERS))
        self.nemesis = None
        self.overlaps = 0
        self.seen = 0
        self.late = []
        self.worst = 0
        self.sessions = []

    def everybody_in(self, timeout=60):
        wait_for(lambda: len(self.crowd.in_session()) >
                 0.7 * len(self.crowd.clients), "the crowd to be in", timeout)

    def check(self):
        """Overlaps and long waits since the last call"""
        self.sessions.append(len(self.crowd.in_session()))
        assert self.crowd.failure is None, self.crowd.failure
        for first, second in self.oracle.check():
            self.overlaps += 1
            if self.overlaps <= 5:
                tell(self.capsys, "VIOLATION: %s was on %s and %s\n%s" % (
                    second.user, first.backend, second.backend, history(
                        second.user, second.begun, self.oracle, self.nemesis,
                        self.members)))
        logins = self.crowd.logins[self.seen:]
        self.seen += len(logins)
        for login in logins:
            secs = self.nemesis.undisturbed(login)
            self.worst = max(self.worst, secs)
            if secs > LOGIN_LIMIT + SLACK:
                self.late.append(login)
                tell(self.capsys, "LATE: %s waited %.1f s: %s\n%s" % (
                    login.user, secs, login, history(
                        login.user, login.ended, self.oracle, self.nemesis,
                        self.members)))

    def disturb(self, secs):
        self.nemesis = self.site.keep_busy(Nemesis(
            SEED, self.members, self.backends, self.crowd, self.oracle))
        began = told = time.monotonic()
        while time.monotonic() - began < secs:
            time.sleep(1)
            self.check()
            assert self.nemesis.failure is None, self.nemesis.failure
            if time.monotonic() - told > 60:
                told = time.monotonic()
                tell(self.capsys, "%d min: %s" % (
                    (told - began) / 60, self.summary()))
        self.nemesis.end()

    def summary(self):
        count = self.nemesis.count
        oks = [login for login in self.crowd.logins if login.status == "OK"]
        waits = [login.ended - login.begun for login in oks]
        return (
            "%d moves (%d refused), %d of live sessions, %d of pending ones; "
            "%d processes, directors, nodes and backends killed in a move, "
            "%d stopped in one; %d flushes, %d other changes; %d sessions at "
            "a time, %d logins (p50 %.2f s, p99 %.1f s), %d refused; longest "
            "wait %.1f s; %d on two backends" % (
                count["move"], count["move refused"], count["moves of live"],
                count["moves of pending"], count["kill in a move"],
                count["stop in a move"], count["flush"],
                count["vhosts"] + count["down"],
                sum(self.sessions) / max(1, len(self.sessions)), len(oks),
                percentile(waits, 0.5), percentile(waits, 0.99),
                len(self.crowd.logins) - len(oks), self.worst,
                self.overlaps))

    def rest(self):
        """Nothing is left under way, all agree, and everybody gets in."""
        self.ring.wait_for(self.members, 60)
        wait_for_rest(self.members)
        self.crowd.staying = True
        wait_for(lambda: len(self.crowd.in_session()) ==
                 len(self.crowd.clients), "everybody to be in", 90)
        self.check_places()
        for member in self.members:
            wait_for(lambda: self.sessions_of(member) == sum(
                client.ip == member.ip for client in self.crowd.clients),
                "%s to count its sessions right" % member.name, 20)
        self.crowd.end()
        for member in self.members:
            wait_for(lambda: self.sessions_of(member) == 0,
                     "%s to have no session" % member.name, 20)
        wait_for(lambda: not self.oracle.live(), "the backends to be empty")

    @staticmethod
    def sessions_of(member):
        return sum(int(row["sessions"]) for row in member.status())

    def check_places(self):
        """All directors agree with where everybody is."""
        asked = [Admin(member) for member in self.members]
        for user in USERS:
            backends = {session.backend for session in self.oracle.live(user)}
            found = {admin.ask("USER-LOOKUP\t" + user).split("\t")[0]
                     for admin in asked}
            assert found == backends, (user, found, backends)
        for admin in asked:
            admin.close()


def test_chaos(site, capsys):
    tell(capsys, "seed %d, %g minutes" % (SEED, MINUTES))
    run = Run(site, capsys)
    run.everybody_in()
    run.disturb(MINUTES * 60)
    try:
        run.rest()
    finally:
        time.sleep(4)
        run.check()
        tell(capsys, "seed %d: %s" % (SEED, run.summary()))
    count = run.nemesis.count
    assert run.overlaps == 0
    assert run.late == []
    assert count["move"] >= MINUTES * 60
    # else nothing was tried
    for name in ("moves of live", "moves of pending", "kill in a move",
                 "stop in a move"):
        assert count[name] > 0, name
    for member in run.members:
        clients.visit("imap", member.ip, "afterwards")
