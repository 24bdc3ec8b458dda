# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Kicks in a ring of both releases, started on either: sessions end on both."""

import json
import subprocess

import pytest

import mail_site
from mail_site import Site
from nodes import wait_for

KINDS = ["ours", "2.3", "ours"]


@pytest.fixture
def site(request, monkeypatch):
    """Whose users are in a team of their own"""
    for release, old, new in (
            ("2.3", "director_tag=%d", "director_tag=%d user_team=team-%n"),
            ("ours", "director_tag = %{user | domain}",
             "director_tag = %{user | domain}\n"
             "    user_team = team-%{user | username}")):
        config = mail_site.RELEASE_CONFIG[release]
        assert old in config
        monkeypatch.setitem(mail_site.RELEASE_CONFIG, release,
                            config.replace(old, new))
    with Site(KINDS) as site:
        yield site
        if request.node.failed:
            site.print_logs()


def is_over(client):
    try:
        return client.noop()[0] != "OK"
    except Exception:
        return True


def log_in(site, user):
    return [site.log_in(member, user) for member in site.members]


def doveadm(member, *args):
    return subprocess.run(
        ["doveadm", *args[:2], "director", *args[2:], "-a",
         member.node.path("director-admin")],
        capture_output=True, text=True, timeout=60)


def test_name_and_field(site):
    for member in site.members:
        jane, jim, joe = (log_in(site, user) for user in
                          ("jane", "jim", "joe"))
        assert member.admin.command("USER-KICK", "jane") == "OK"
        wait_for(lambda: all(is_over(client) for client in jane),
                 "%s's kick" % member)
        assert member.admin.command("USER-KICK-ALT", "user_team",
                                    "team-jim") == "OK"
        wait_for(lambda: all(is_over(client) for client in jim),
                 "%s's kick by field" % member)
        assert not any(is_over(client) for client in joe)
        assert member.admin.command("USER-KICK", "joe") == "OK"
        wait_for(lambda: all(is_over(client) for client in joe),
                 "%s's second kick" % member)
    site.check_logs()


def test_what_is_said(site):
    """Those of 2.3 don't count, don't list and don't know masks."""
    ours, original, third = site.members
    clients = log_in(site, "jane")
    done = doveadm(ours, "-f", "json", "sessions")
    assert "sessions of this director only" in done.stderr
    assert [(row["user"], row["director"]) for row in json.loads(done.stdout)
            ] == [("jane", ours.ip)]
    done = doveadm(ours, "-f", "json", "kick", "ja*")
    assert {row["director ip"]: row["sessions"]
            for row in json.loads(done.stdout)} == {
                ours.ip: "1", original.ip: "-", third.ip: "-"}
    assert "Director %s didn't say" % original.ip in done.stderr
    wait_for(lambda: is_over(clients[0]) and is_over(clients[2]),
             "ours to end the sessions")
    assert not is_over(clients[1])
    # our doveadm, their director
    done = doveadm(original, "-f", "tab", "kick", "jane")
    assert (done.returncode, done.stderr) == (0, "")
    wait_for(lambda: is_over(clients[1]), "the last kick")
    site.check_logs()
