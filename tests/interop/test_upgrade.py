# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""A site replaces its three directors one at a time, 2.3 by ours and back,
while people log in and read their mail."""

import hashlib
import tempfile

import pytest

from mail_site import Site, names
from nodes import LoginProcess, wait_for
from test_ring_doveadm import rows

USERS = 10000
SESSIONS = 6


def user_hash(user):
    return int.from_bytes(hashlib.md5(user.encode()).digest()[:4], "big") or 1


def log_all_in(site, users):
    """A part of them on each member"""
    for i, member in enumerate(site.members):
        login = LoginProcess(member.node)
        site.look_up(login, users[i::len(site.members)], member)
        login.close()


def command(site, member, *args):
    assert member.admin.command(*args) == "OK", args
    site.wait_quiet()


def fill(site):
    """The first half logs in, backends change, the others log in"""
    users = names("u", range(USERS))
    log_all_in(site, users[:USERS // 2])
    before = dict(site.hosts)
    for i, change in enumerate([("HOST-UPDATE", "127.0.0.11", "10"),
                                ("HOST-DOWN", "127.0.0.12"),
                                ("HOST-UPDATE", "fd00::16", "0")]):
        command(site, site.members[i], *change)
    log_all_in(site, users[USERS // 2:])
    site.base = users
    site.busy = [user for i, user in enumerate(users) if i // 4 % 2]
    assert set(site.hosts) == set(users)
    assert len({user_hash(user) for user in users}) == USERS
    assert not [host for host in site.hosts.values() if "\t" in host]
    # many of the first are where hashing would put nobody now
    assert len([user for user, host in before.items()
                if host in ("127.0.0.12", "fd00::16")]) > 500


def check_table(site):
    """Every member has everybody where he is, and until when he is"""
    reference = site.running()[0]
    tables = [(member, member.table()) for member in site.running()]
    before, after = tables[0][1], reference.table()
    # refreshes may be told up to 15 s later; clocks count whole seconds
    late = {user_hash(user): 16 for user in site.busy}
    for member, table in tables:
        wrong = []
        for user in site.base:
            key = user_hash(user)
            host, until = table.get(key, (None, 0))
            secs = late.get(key, 2)
            if host != site.hosts[user] or not \
                    before[key][1] - secs <= until <= after[key][1] + secs:
                wrong.append((user, site.hosts[user], host, before[key][1],
                              until, after[key][1]))
        assert not wrong, (str(member), len(wrong), wrong[:10])
        assert member.hosts() == reference.hosts(), member


def check_map(site, users_file):
    """What each one's doveadm tells of everybody"""
    for member in site.running():
        found = member.doveadm_map(users_file)
        wrong = [(user, site.hosts[user], found.get(user)) for user in
                 site.base if found.get(user) != site.hosts[user]]
        assert not wrong, (str(member), len(wrong), wrong[:10])


def check_rest(site):
    """When nobody logs in, all members know whoever did, and nobody else"""
    for member in site.members:
        site.withdraw(member)
    site.check_arrivals()
    assert not site.failures[:10]
    expected = {user_hash(user): host for user, host in site.hosts.items()}
    for member in site.members:
        wait_for(lambda: {user: where[0] for user, where in
                          member.table().items()} == expected,
                 "%s to know everybody" % member)


def replace(site, member, kind):
    """Returns when it is there again, and the ring complete."""
    site.withdraw(member)
    lost = [user for user, _ in site.sessions[member]]
    member.check_log()
    member.stop()
    # its people come back at once, to the others
    site.close_sessions(member)
    for i, user in enumerate(lost):
        site.open_sessions(site.running()[i % 2], [user])
    site.check_sessions()
    site.wait_synced()
    site.check_sessions()
    member.kind = kind
    member.start()
    site.wait_synced()


def check_member(site, member, users_file):
    """It is as good as the one before, for whoever logs in on it"""
    check_table(site)
    check_map(site, users_file)
    login = LoginProcess(member.node)
    site.look_up(login, site.busy, member)
    login.close()
    site.offer(member)
    site.open_sessions(member, site.some_known(SESSIONS))
    site.check_sessions()
    site.check_arrivals()
    assert not site.failures[:10]


def links(site):
    """{(of, to, side): bytes that came in}"""
    return {(member.ip, ip, side): int(size) for member in site.members
            for ip, side, status, size in
            rows(member, "director ip", "type", "status", "input")
            if side in ("left", "right") and status == "synced"}


def check_ours(site):
    """With nothing to do, both ends of each link hear from the other one every
    second or so. If one of them were 2.3 that would be every 15 s."""
    for _ in range(3):
        before = links(site)
        assert len(before) == 6
        wait_for(lambda: all(size > before[link] for link, size in
                             links(site).items()), "PINGs", 6)


def upgrade(site, members, kind, users_file, note):
    for member in site.members:
        site.offer(member)
    for vhosts, member in enumerate(members, 60):
        replace(site, member, kind)
        check_member(site, member, users_file)
        # backends change meanwhile, too
        command(site, member, "HOST-UPDATE", "127.0.0.13", str(vhosts))
        check_table(site)
        note("%s of %d" % (member, len(site.hosts)),
             "worst login: %.2f s" % site.worst)
        site.worst = 0
    check_rest(site)


@pytest.mark.parametrize("there,back", [("123", "213"), ("321", "231")])
def test_rolling_upgrade(there, back, record_testsuite_property):
    with Site(["2.3"] * 3) as site, \
            tempfile.NamedTemporaryFile("w") as users_file:
        try:
            fill(site)
            users_file.write("".join(user + "\n" for user in site.base))
            users_file.flush()
            for member in site.members:
                site.open_sessions(member, site.some_known(SESSIONS))
            for numbers, kind in (there, "ours"), (back, "2.3"):
                upgrade(site, [site.members[int(i) - 1] for i in numbers],
                        kind, users_file.name, record_testsuite_property)
                if kind == "ours":
                    check_ours(site)
            # those who never came again meanwhile
            log_all_in(site, site.base)
            site.check_sessions()
            site.check_logs()
            assert not site.failures[:10]
        except BaseException:
            site.print_logs()
            raise
