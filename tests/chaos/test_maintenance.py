# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""What administrators do to backends while people read their mail"""

import time

import pytest

import clients
from crowd import Crowd
from node import wait_for
from poolmon import Poolmon
from ring import Ring

OUT = "127.0.0.22"
USERS = {"m%d" % i: 3 for i in range(20)}
LOGIN_LIMIT = 30


class MaintenanceRing(Ring):
    backends = "127.0.0.21 %s 127.0.0.23" % OUT


class Maintenance:
    def __init__(self, site):
        self.site = site
        self.backends = [site.real_backend(number) for number in (21, 22, 23)]
        self.backend = self.backends[1]
        self.ring = MaintenanceRing(site, 2,
                                    restart_request_count="unlimited")
        self.ring.wait(2)
        self.crowd = site.keep_busy(Crowd(
            [member.ip for member in self.ring.members], USERS))
        wait_for(lambda: len(self.crowd.in_session()) ==
                 len(self.crowd.clients), "everybody to be in")
        wait_for(lambda: self.is_used(), "somebody on " + OUT)

    def poolmons(self):
        return [self.site.keep_busy(Poolmon(member))
                for member in self.ring.members]

    @staticmethod
    def row(member):
        return next(row for row in member.status()
                    if row["mail server ip"] == OUT)

    def is_used(self):
        return any(one.backend == OUT for one in self.site.oracle.live())

    def begun_there(self, since, until):
        return [one.user for user in list(self.site.oracle.users)
                for one in self.site.oracle.sessions(user)
                if one.backend == OUT and since < (one.begun or 0) < until]

    def finish(self, until=None):
        wait_for(lambda: len(self.crowd.in_session()) >
                 0.8 * len(self.crowd.clients), "the crowd to be in", 40)
        # a user who is new goes where hashing puts him
        for i in range(100):
            if self.is_used():
                break
            clients.visit("imap", self.ring.members[i % 2].ip, "new%d" % i)
        assert self.is_used() or self.begun_there(until, time.monotonic())
        self.crowd.end()
        assert max(login.ended - login.begun
                   for login in self.crowd.logins) < LOGIN_LIMIT


@pytest.mark.parametrize("count", [1, 2])
def test_take_out_and_back(site, count):
    """The procedure that sites have written down, on one director or all"""
    site = Maintenance(site)
    poolmons = site.poolmons()
    wait_for(lambda: all(one.rounds > 1 for one in poolmons), "poolmon")

    def on_directors(*command):
        for member in site.ring.members[:count]:
            member.doveadm("director", *command)

    for one in poolmons:
        one.end()
    on_directors("add", OUT, "0")
    on_directors("flush", OUT)
    site.backend.doveadm("kick", "0.0.0.0/0", check=False)
    wait_for(lambda: not site.is_used(), "%s to be empty" % OUT)
    empty = time.monotonic()
    site.backend.stop()
    time.sleep(3)
    site.backend.start()
    back = time.monotonic()
    on_directors("add", OUT, "100")
    poolmons = site.poolmons()
    site.finish(back)
    # nobody came while it was out
    assert site.begun_there(empty, back) == []
    for one in poolmons:
        one.end()
        assert one.reported == []


def test_poolmon(site):
    """A backend that crashes: its users are let in elsewhere soon, and it is
    used again when it is back."""
    site = Maintenance(site)
    poolmons = site.poolmons()
    site.backend.kill()
    wait_for(lambda: any(one.reported for one in poolmons),
             "poolmon to see it")
    died = time.monotonic()
    for member in site.ring.members:
        member.allow(r"imap-login: (Warning|Error): proxy\(.*%s" % OUT,
                     # that is what poolmon does
                     "Host %s flushed with [0-9]+ live sessions" % OUT)
        wait_for(lambda: site.row(member)["state"] == "down", "the down")
    try:
        wait_for(lambda: all(site.row(member)["users"] == "0"
                             for member in site.ring.members), "no users", 5)
    except TimeoutError:
        # whose login was answered in the same moment may be there again
        site.ring.members[0].doveadm("director", "flush", OUT)
    wait_for(lambda: len(site.crowd.in_session()) == len(site.crowd.clients),
             "everybody to be in")
    site.backend.start()
    back = time.monotonic()
    for member in site.ring.members:
        wait_for(lambda: site.row(member)["state"] == "up", "the up")
    assert site.begun_there(died, back) == []
    site.finish(back)
    for one in poolmons:
        one.end()
    assert {what for one in poolmons for what, _ in one.reported} == \
        {"up", "down"}
