# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Directors with a network between them that fails, under login load: nobody
waits long, nobody is on two backends, and all agree in the end."""

import collections
import datetime
import os
import random
import re
import signal
import subprocess
import threading
import time

import pytest

import clients
from network import Network, NetworkRing
from node import LOGIN_LINE, VALGRIND, patience, wait_for, went_to
from test_ring import GONE

pytestmark = pytest.mark.skipif(bool(VALGRIND), reason="it is about time")
# What a silent neighbour or a healed partition may cost, and a new user's
# login meanwhile
LIMIT = 5
# for a machine that does other things as well
SLACK = 2
KNOWN = ["known%d" % i for i in range(20)]
# A greeting that was sent while its receiver was stopped tells an old time.
WHEN_HEALED = ("clock differs from ours by", "CONNECT requested",
               # who logged in on both sides is kicked on one
               r"has a session on \S+ although he is assigned to",
               "is being redirected to two hosts")
# (healing takes a moment, too)
PARTLY_CUT = ("Unwanted outgoing connection",
              "can't be reached from here, but from others",
              "disconnected us with reason: Can't reach ")
# Logins that were waiting for a director's answer when its process ended
CUT_OFF = (r"imap-login: (Warning|Error): auth-client: .*(pending requests|"
           r"Error sending request to auth server)",)
CONNECTED = (r"disconnected|Connecting to|onnection from|"
             r"Handshake finished|Ping timeout")


class Load:
    """New users and known ones log in and out, through a load balancer that
    knows which directors are up: a connection that ends without an answer is
    tried again on the next one, and all of that is one login's wait."""

    def __init__(self, members, threads=2):
        self.members = list(members)
        self.rand = random.Random(1)
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.new = []
        self.count = 0
        # [(begun, secs, is new, user)]
        self.logins = []
        # {thread: the member that it logs in to}
        self.busy = {}
        self.failed = []
        self.threads = [threading.Thread(target=self.run, daemon=True)
                        for _ in range(threads)]
        for thread in self.threads:
            thread.start()
        self.wait_for_more()

    def run(self):
        while not self.stopping.wait(0.03):
            with self.lock:
                is_new = self.count % 2 == 0
                self.count += 1
                if is_new:
                    user = "new%d" % len(self.new)
                    self.new.append(user)
                else:
                    user = self.rand.choice(KNOWN + self.new[-40:-4])
            self.login(user, is_new)

    def login(self, user, is_new):
        begun = time.monotonic()
        while time.monotonic() - begun < patience(60):
            with self.lock:
                member = self.rand.choice(self.members)
                self.busy[threading.get_ident()] = member
            try:
                clients.visit("imap", member.ip, user)
            except Exception as error:
                self.failed.append((time.monotonic(), member, user, error))
                self.stopping.wait(0.05)
                continue
            finally:
                del self.busy[threading.get_ident()]
            self.logins.append((begun, time.monotonic() - begun, is_new, user))
            return
        self.logins.append((begun, float("inf"), is_new, user))

    def without(self, *members):
        """The load balancer takes them out, and waits for who is there."""
        with self.lock:
            self.members = [member for member in self.members
                            if member not in members]
        wait_for(lambda: not set(self.busy.values()) & set(members),
                 "who is logging in there")

    def add(self, *members):
        self.members = self.members + list(members)

    def wait_for_more(self, count=6):
        begun = time.monotonic()

        def enough():
            found = [login for login in self.logins if login[0] > begun]
            return len(found) >= count
        wait_for(enough, "logins")

    def finish(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(patience(70))
            assert not thread.is_alive()

    def worst(self, is_new):
        return max(secs for _, secs, new, _ in self.logins if new == is_new)

    def check(self, may_fail=()):
        self.finish()
        assert [failed for failed in self.failed
                if failed[1] not in may_fail] == []
        assert self.worst(True) <= patience(LIMIT + SLACK)
        assert self.worst(False) <= patience(LIMIT + SLACK)

    def figure(self):
        text = "worst login of a new user %.2f s, of a known one %.2f s, " \
            "of %d" % (self.worst(True), self.worst(False), len(self.logins))
        if self.failed:
            text += ", %d tried again" % len(self.failed)
        return text


class Visits:
    """Which backends users were let in to, and when"""

    TIME = re.compile(r"(\S+ \S+) ")

    def __init__(self, backends):
        self.backends = backends

    def all(self):
        for node in self.backends:
            for line in node.log.lines():
                match = LOGIN_LINE.search(line)
                if match:
                    when = datetime.datetime.strptime(
                        self.TIME.match(line).group(1), "%Y-%m-%d %H:%M:%S.%f")
                    yield when, node.name, match.group(2)

    def places(self, after=None, before=None):
        """{user: set of backends}"""
        found = collections.defaultdict(set)
        for when, name, user in self.all():
            if (after or when) <= when <= (before or when):
                found[user].add(name)
        return found


@pytest.fixture(scope="module")
def network():
    network = Network(4)
    yield network
    network.close()


@pytest.fixture
def make_load():
    loads = []

    def make(members):
        loads.append(Load(members))
        return loads[-1]

    yield make
    for load in loads:
        load.finish()


@pytest.fixture
def make_ring(network, nodes, backends):
    """A ring that has users who aren't where hashing would put them now"""
    network.heal()

    def make(count):
        ring = NetworkRing(network, nodes, count, restart_request_count=100)
        ring.wait(count)
        for i, user in enumerate(KNOWN):
            clients.visit("imap", ring.members[i % count].ip, user)
        ring.members[0].doveadm("director", "update", "fd00::11", "10")
        ring.members[0].doveadm("director", "update", "fd00::12", "200")
        wait_for_agreement(ring)
        assert any(len(set(ring.members[0].user_status(user).values())) > 1
                   for user in KNOWN)
        for member in ring.members:
            member.allow(*GONE, *WHEN_HEALED, *PARTLY_CUT)
        return ring

    return make


def wait_for_agreement(ring):
    """Of all on the members, the backends and every user"""
    def differing():
        views = ring.views(ring.members)
        return [(member.ip, theirs, ours)
                for member, view in zip(ring.members, views)
                for theirs, ours in zip(view, views[0]) if theirs != ours]
    try:
        wait_for(lambda: not differing(), "all to agree", LIMIT)
    except TimeoutError:
        assert differing() == []


def recover(ring, members, begun):
    """Until these are a ring. Returns the seconds since begun"""
    ring.wait_for(members, LIMIT + SLACK)
    return time.monotonic() - begun


def check_end(ring, backends, load, may_fail=(), whole=[(None, None)]):
    """whole: [(after, before)], the times when nothing was cut"""
    load.check(may_fail)
    wait_for_agreement(ring)
    visits = Visits(backends)
    for times in whole:
        assert {user: places for user, places in visits.places(*times).items()
                if len(places) > 1} == {}
    assert {len(places) for user, places in visits.places().items()
            if user in KNOWN} == {1}


def test_busy_machine(make_ring, make_load, backends, figure):
    """Nobody is taken for dead."""
    ring = make_ring(3)
    for member in ring.members:
        member.log.mark()
    burners = [subprocess.Popen(["sh", "-c", "while :; do :; done"])
               for _ in range(2)]
    try:
        load = make_load(ring.members)
        load.stopping.wait(12)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    check_end(ring, backends, load)
    figure(load.figure())
    for member in ring.members:
        assert member.log.find(CONNECTED) == []


def test_killed(make_ring, make_load, backends, figure):
    """A director's process, which Dovecot starts again, then a machine that
    loses power"""
    ring = make_ring(3)
    first, second, third = ring.members
    second.allow(*CUT_OFF)
    load = make_load(ring.members)
    pid = second.pid("director")
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: second.pid("director") != pid, "a new one")
    back = recover(ring, ring.members, begun)
    load.wait_for_more(20)

    load.without(third)
    begun = time.monotonic()
    ring.network.cut_both([2], [0, 1])
    third.kill()
    gone = recover(ring, [first, second], begun)
    load.wait_for_more(20)
    ring.network.heal()
    begun = time.monotonic()
    third.start()
    joined = recover(ring, ring.members, begun)
    load.add(third)
    load.wait_for_more(20)
    check_end(ring, backends, load, [second, third])
    figure("process back in the ring after %.2f s, power failure bypassed "
           "after %.2f s, joined %.2f s after its start, %s" % (
               back, gone, joined, load.figure()))


@pytest.mark.parametrize("secs", [pytest.param(10, id="seconds"),
                                  pytest.param(60, id="minute")])
def test_stopped(request, make_ring, make_load, backends, figure, secs):
    """A director that hangs. The minute only runs if it is asked for."""
    if secs == 60 and "minute" not in request.config.option.keyword:
        pytest.skip("only with: tools/check integration minute")
    ring = make_ring(3)
    first, second, third = ring.members
    load = make_load(ring.members)
    load.without(second)
    pid = second.pid("director")
    begun = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        gone = recover(ring, [first, third], begun)
        load.stopping.wait(begun + secs - time.monotonic())
    finally:
        os.kill(pid, signal.SIGCONT)
    begun = time.monotonic()
    back = recover(ring, ring.members, begun)
    load.add(second)
    load.wait_for_more(20)
    check_end(ring, backends, load)
    assert second.pid("director") == pid
    figure("bypassed after %.2f s, back after %.2f s, %s" % (
        gone, back, load.figure()))


def is_synced(ring, member):
    return "ring synced" in {row[2] for row in ring.rows(member)}


@pytest.mark.parametrize("sender,receiver", [(1, 2), (1, 4)])
def test_cut_link(make_ring, make_load, backends, figure, sender, receiver):
    """What one neighbour sends to the other is lost. No ring can have both, so
    the one whose right side it is goes on alone."""
    ring = make_ring(4)
    lonely = ring.members[0 if receiver == 2 else 3]
    rest = [member for member in ring.members if member != lonely]
    load = make_load(ring.members)
    begun = time.monotonic()
    ring.network.cut([sender - 1], [receiver - 1])
    gone = recover(ring, rest, begun)
    # it has to be sure first: its new users wait longer
    wait_for(lambda: is_synced(ring, lonely), "it to go on alone", LIMIT)
    alone = time.monotonic() - begun
    while time.monotonic() - begun < 15:
        load.stopping.wait(0.2)
        for member in rest:
            assert is_synced(ring, member)
        # not for a moment when it tries the link again
        wait_for(lambda: is_synced(ring, lonely), "it to be alone again", 1)
    ring.network.heal()
    begun = time.monotonic()
    back = recover(ring, ring.members, begun)
    load.wait_for_more(20)
    check_end(ring, backends, load)
    figure("a ring without it after %.2f s, it alone after %.2f s, one ring "
           "%.2f s after the link healed, %s" % (
               gone, alone, back, load.figure()))


def test_cut_half(make_ring, make_load, backends, figure):
    """Two and two, who change the backends meanwhile"""
    ring = make_ring(4)
    first, second, third, fourth = ring.members
    load = make_load(ring.members)
    load.wait_for_more(20)
    cut = datetime.datetime.now()
    begun = time.monotonic()
    ring.network.cut_both([0, 1], [2, 3])
    two = recover(ring, [first, second], begun)
    others = recover(ring, [third, fourth], begun)
    first.doveadm("director", "update", "fd00::12", "1")
    third.doveadm("director", "update", "fd00::13", "2")
    users = ["split%d" % i for i in range(20)]
    for user in users:
        clients.visit("imap", first.ip, user)
        clients.visit("imap", fourth.ip, user)
    went_to(backends, users[-1], count=2)
    split = {user: places for user, places in
             Visits(backends).places().items() if user in users}
    assert {len(places) for places in split.values()} == {1, 2}

    healed = datetime.datetime.now()
    begun = time.monotonic()
    ring.network.heal()
    back = recover(ring, ring.members, begun)
    wait_for_agreement(ring)
    agreed = time.monotonic() - begun
    load.stopping.wait(LIMIT - agreed)
    whole = healed + datetime.timedelta(seconds=LIMIT)
    for user in users:
        for member in ring.members:
            clients.visit("imap", member.ip, user)
    load.wait_for_more(20)
    check_end(ring, backends, load, whole=[(None, cut), (whole, None)])
    figure("two rings after %.2f s and %.2f s, one after %.2f s, agreed after "
           "%.2f s, %s" % (two, others, back, agreed, load.figure()))


@pytest.mark.parametrize("how", ["stop", "reload"])
def test_restart_each(make_ring, make_load, backends, figure, how):
    """Nobody is told of it, not even the load balancer."""
    ring = make_ring(3)
    load = make_load(ring.members)
    times = []
    for member in ring.members:
        member.allow(*CUT_OFF)
        begun = time.monotonic()
        if how == "stop":
            member.stop(doveadm=True)
            load.wait_for_more()
            begun = time.monotonic()
            member.start()
        else:
            pid = member.pid("director")
            member.reload()
            wait_for(lambda: member.pids("director") not in ([], [pid]),
                     "a new director")
        times.append(recover(ring, ring.members, begun))
        load.wait_for_more()
    check_end(ring, backends, load, ring.members)
    figure("in the ring after %s s, %s" % (
        ", ".join("%.2f" % secs for secs in times), load.figure()))
