# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Backends with tags, names and IPv6 addresses in a ring that is shared with
the original, and directors with IPv6 addresses."""

import pytest

from nodes import ORIGINAL_ROOT
from test_ring import Member, Ring, names

KINDS = ["ours 2.3", "2.3 ours", "ours 2.3 ours", "2.3 ours 2.3"]
NAMES = """
10.5.0.1 mail-a
fd00:5::1 mail-a
10.5.0.2 mail-b
"""
MAIL_SERVERS = "10.1.0.1 fd00:1::1 mail-a " \
    "mail-b@east fd00:1::2@east 10.1.0.2@West fd00:0:0:0:ffff::1@West"
NAMED = {"mail-a 10.5.0.1", "mail-a fd00:5::1", "mail-b 10.5.0.2"}
PLAIN = {"10.1.0.1", "fd00:1::1", "fd00:1::2", "10.1.0.2", "fd00::ffff:0:0:1"}


def tag_of(user):
    return ["", "east", "West"][sum(user.encode()) % 3]


class TaggedMember(Member):
    mail_servers = MAIL_SERVERS

    @staticmethod
    def fields(user):
        return {"director_tag": tag_of(user)}


class TaggedRing(Ring):
    member = TaggedMember


@pytest.fixture(scope="module", autouse=True)
def host_names():
    files = [root + "/etc/hosts" for root in ("", ORIGINAL_ROOT)]
    before = {}
    for file in files:
        with open(file) as f:
            before[file] = f.read()
        with open(file, "a") as f:
            f.write(NAMES)
    yield
    for file in files:
        with open(file, "w") as f:
            f.write(before[file])


@pytest.fixture(params=KINDS, ids=lambda kinds: kinds.replace(" ", "-"))
def ring(request):
    with TaggedRing(request.param.split(), address="fd00::%d") as ring:
        yield ring
        if request.node.failed:
            ring.print_logs()


def log_in_everywhere(ring, prefix):
    """Some on each member, then all on all"""
    expected = {}
    for member in ring.members:
        expected.update(member.lookup(names(prefix + member.ip, 40)))
    for member in ring.members:
        assert member.lookup(list(expected)) == expected, member.ip
    return expected


def test_placed_alike(ring):
    found = log_in_everywhere(ring, "u")
    assert set(found.values()) == NAMED | PLAIN
    ring.wait_agreed(Member.users)
    first = ring.members[0].hosts()
    for member in ring.members:
        assert member.hosts() == first
        hashed = {user: member.admin.hashed_host(user, tag_of(user))
                  for user in found}
        assert hashed == {user: host.split()[-1]
                          for user, host in found.items()}
    ring.check_logs()


def test_joins_without_knowing(ring):
    """What it has configured doesn't count: it learns tags and names."""
    users = log_in_everywhere(ring, "u")
    for member in ring.members:
        hosts = member.hosts()
        member.stop()
        ring.wait_synced()
        member.mail_servers = "10.9.0.1 10.1.0.1@other"
        member.start()
        ring.wait_synced()
        assert member.hosts() == hosts
        assert member.lookup(list(users)) == users
    ring.wait_agreed(Member.users)
    users = log_in_everywhere(ring, "new")
    assert set(users.values()) == NAMED | PLAIN
    ring.check_logs()


def test_changes(ring):
    before = log_in_everywhere(ring, "u")
    for i, member in enumerate(ring.members):
        own = "fd00:7::%d" % (i + 1)
        for command, reply in [
                (("HOST-SET", own + "@east", "300"), "OK"),
                (("HOST-SET", own + "@West"), "host tag can't be changed"),
                (("HOST-SET", "[%s]@east" % own, "200"), "OK"),
                (("HOST-UPDATE", "10.5.0.2", str(50 + i)), "OK"),
                (("HOST-DOWN", "fd00:5::1"), "OK"),
                (("HOST-FLUSH", "fd00:1::2"), "OK"),
                (("HOST-UP", "fd00:5::1"), "OK"),
                (("HOST-DOWN", own), "OK"),
                (("HOST-REMOVE", "fd00:7::9"), "NOTFOUND")]:
            assert member.admin.command(*command) == reply, command
            for other in ring.members:
                assert other.hosts() == member.hosts(), (command, other.kind)
            ring.wait_quiet()
    for member in ring.members:
        assert not [user for user in member.users()
                    if user[1] == "fd00:1::2"]
    stay = {user: host for user, host in before.items() if host != "fd00:1::2"}
    for member in ring.members:
        assert member.lookup(list(stay)) == stay
    log_in_everywhere(ring, "new")
    ring.check_logs()
