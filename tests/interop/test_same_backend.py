"""Ours picks the backend that the original 2.3 director picks, for the same
backends, tags, weights and names."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from nodes import (Admin, FakeAuth, LoginProcess, original_director,
                   our_director)

THREE = "127.0.0.11 127.0.0.12 127.0.0.13"

ODD_NAMES = [
    "a", "b", "c", "jane", "Jane", "JANE", "samik", "testuser",
    "user@example.com", "USER@EXAMPLE.COM", "User@Example.Com",
    "test@user@domain", "a@b@c@d", "@domain", "domain@", "@", "@@",
    "testuser@", "john@example.com", "0x10", "-1", "1e5", "007x",
    "\u00e4rger@example.com", "\u00c4RGER@example.com", "\u65e5\u672c",
    "\u0130stanbul@example.com", "stra\u00dfe", "e\u0301@example.com",
    "user+detail@example.com", "with space", "%u", "%Lu", "%{user}",
    "a=b", "quote\"d", "back\\slash", "semi;colon", "a,b", "a/b", "a*b",
    "user*master", "*", "**", "x" * 200 + "@example.com",
]


def names(count=1000):
    """The odd ones, then ordinary ones in mixed case"""
    found = list(ODD_NAMES)
    for i in range(count - len(found)):
        name = ("user%d", "User%d@Example.COM", "u%d@d%d.example",
                "%d.box@example.org")[i % 4]
        found.append(name % ((i,) * name.count("%d")))
    return found


def both(run, *args):
    """What run(director, *args) gives for the original and for ours"""
    with ThreadPoolExecutor() as pool:
        results = [pool.submit(run, director, *(arg[i] for arg in args))
                   for i, director in enumerate((original_director,
                                                 our_director))]
    return [result.result() for result in results]


def look_up_all(director, settings, mail_servers, commands, fields):
    """{name: host} by logins, and by asking the admin socket"""
    with director(mail_servers, settings) as node:
        auth = FakeAuth(node, fields)
        admin = Admin(node)
        for command in commands:
            assert admin.command(*command) == "OK", command
        login = LoginProcess(node)
        try:
            return login.lookup(names()), {
                name: admin.hashed_host(name) for name in names()}
        finally:
            login.close()
            auth.close()
            admin.close()


def compare(mail_servers, ours="", original="", commands=(), fields=None,
            cut_at=None):
    def run(director, settings):
        return look_up_all(director, settings, mail_servers, commands, fields)

    (expected, expected_hashed), (found, found_hashed) = both(
        run, (original, ours))
    assert len(expected) == 1000
    assert not [host for host in expected.values() if "\t" in host]
    assert found == expected
    for name in found:
        if cut_at is not None and cut_at in name:
            # The original does not cut what an admin types, and so names
            # another backend than logins get
            assert found_hashed[name] == found[name]
        else:
            assert found_hashed[name] == expected_hashed[name], name
    return found


def test_three_backends():
    found = compare(THREE)
    assert found["user@example.com"] == "127.0.0.12"
    assert found["a"] == found["b"] == "127.0.0.13"
    assert found["Jane"] == found["jane"]
    assert len(set(found.values())) == 3


def test_single_backend():
    assert set(compare("127.0.0.11").values()) == {"127.0.0.11"}


def test_range_of_backends():
    assert len(set(compare("10.1.2.250-10.1.2.254 10.9.9.9").values())) == 6


def test_vhosts():
    compare(THREE, commands=[
        ("HOST-SET", "127.0.0.11", "37"), ("HOST-SET", "127.0.0.12", "1000"),
        ("HOST-UPDATE", "127.0.0.13", "1")])


def test_no_vhosts():
    found = compare(THREE, commands=[("HOST-SET", "127.0.0.12", "0")])
    assert set(found.values()) == {"127.0.0.11", "127.0.0.13"}


def test_one_down():
    found = compare(THREE, commands=[("HOST-DOWN", "127.0.0.11")])
    assert set(found.values()) == {"127.0.0.12", "127.0.0.13"}


def test_down_and_up():
    compare(THREE, commands=[("HOST-DOWN", "127.0.0.11"),
                             ("HOST-UP", "127.0.0.11")])


def test_added_and_removed():
    found = compare(THREE, commands=[
        ("HOST-SET", "127.0.0.14"), ("HOST-SET", "127.0.0.9", "250"),
        ("HOST-REMOVE", "127.0.0.12")])
    assert "127.0.0.12" not in found.values()
    assert "127.0.0.9" in found.values()


def test_ipv6():
    found = compare("fd00::1 fd00:0:0:1::a 2001:db8::ffff 10.0.0.1")
    assert len(set(found.values())) == 4


def test_ipv6_range():
    assert len(set(compare("fd00::fffe-fd00::ffff 10.0.0.1").values())) == 3


def tag_of(user):
    return {"director_tag": ["", "east", "West"][len(user) % 3]}


def test_tags():
    found = compare("127.0.0.11 127.0.0.12@east 127.0.0.13@east "
                    "127.0.0.14@West 127.0.0.15@West 127.0.0.16",
                    fields=tag_of)
    assert found["jane"] in ("127.0.0.12", "127.0.0.13")
    assert found["samik"] in ("127.0.0.14", "127.0.0.15")


def test_added_with_tag():
    compare("127.0.0.11 127.0.0.12@east 127.0.0.13@West", fields=tag_of,
            commands=[("HOST-SET", "127.0.0.17@east", "150"),
                      ("HOST-SET", "127.0.0.18@West"),
                      ("HOST-DOWN", "127.0.0.12")])


def test_destuser():
    found = compare(THREE, fields=lambda user: {
        "destuser": "dest-" + user[::2]})
    # ASCII letters only lose their case
    by_destuser = {}
    for user, host in found.items():
        key = ("dest-" + user[::2]).encode().lower()
        assert by_destuser.setdefault(key, host) == host


@pytest.mark.parametrize("original, ours", [
    ("%u", "%{user}"),
    ("%Lu", "%{user | lower}"),
    ("%Ln", "%{user | username | lower}"),
    ("%d", "%{user | domain}"),
    ("%Ld", "%{user | domain | lower}"),
    ("x%Lu", "x%{user | lower}"),
    ("%Uu", "%{user | upper}"),
])
def test_username_hash(original, ours):
    compare(THREE, ours="director_username_hash = %s\n" % ours,
            original="director_username_hash = %s\n" % original)


def test_master_user_separator():
    setting = "auth_master_user_separator = *\n"
    found = compare(THREE, ours=setting, original=setting, cut_at="*")
    assert found["a*b"] == found["a"]


def test_users_stay_when_backends_change():
    """Those who are known stay, newcomers are hashed anew"""
    def run(director):
        with director(THREE, "") as node:
            auth = FakeAuth(node)
            admin = Admin(node)
            login = LoginProcess(node)
            before = login.lookup(names()[::2])
            assert admin.command("HOST-DOWN", "127.0.0.11") == "OK"
            assert admin.command("HOST-SET", "127.0.0.12", "300") == "OK"
            after = login.lookup(names())
            assert admin.command("HOST-FLUSH", "127.0.0.11") == "OK"
            flushed = login.lookup(names())
            assert admin.command("HOST-REMOVE", "127.0.0.13") == "OK"
            removed = login.lookup(names())
            for client in login, auth, admin:
                client.close()
            return before, after, flushed, removed

    expected, found = both(run)
    assert found == expected
    before, after, flushed, _ = found
    # names that differ in case only are one user
    assert all(after[name] == host for name, host in before.items())
    assert "127.0.0.11" not in flushed.values()
