# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""How long a user is remembered: as long as he is logged in, and exactly
director_user_expire after that."""

import os
import time

import pytest

import clients
from garbage import LISTENERS, add_users
from node import patience, wait_for

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"
EXPIRE = 10


def is_known(director, user):
    return director.user_status(user)["status"] != "n/a"


def waited(secs):
    start = time.monotonic()
    wait_for(lambda: time.monotonic() - start >= secs, "%g s" % secs,
             timeout=secs + 5)


NO_NOTIFY = "login_proxy_notify_path = no-such-fifo\n"
NO_PLUGIN = "login_plugins {\n  director_login = no\n}\n"


@pytest.mark.parametrize("plugin", [True, False],
                         ids=["login-plugin", "proxy-notify"])
def test_user_with_a_session_stays(nodes, backends, plugin):
    """Told by the login plugin alone, or by login/proxy-notify alone: each
    would hide that the other doesn't work"""
    director = nodes.director(
        BACKENDS, restart_request_count="unlimited",
        config="director_user_expire = %d secs\n" % EXPIRE +
        (NO_NOTIFY if plugin else NO_PLUGIN))
    director.allow("doesn't tell of its sessions",
                   r"open\(no-such-fifo\) failed: No such file")
    came = time.monotonic()
    clients.visit("imap", director.ip, "gone")
    left = time.monotonic()
    session = clients.imap(director.ip, "stays")
    wait_for(lambda: not is_known(director, "gone"), "the user to expire",
             timeout=EXPIRE + 5)
    # a second is what the commands' times round to
    gone = time.monotonic()
    assert gone - came >= EXPIRE - 1
    assert gone - left <= EXPIRE + patience(2)
    for _ in range(3):
        waited(EXPIRE / 2)
        assert is_known(director, "stays")
    assert session.noop()[0] == "OK"
    sessions = sum(int(row["sessions"]) for row in director.status())
    assert sessions == (1 if plugin else 0)
    clients.close(session)
    left = time.monotonic()
    wait_for(lambda: not is_known(director, "stays"), "the user to expire",
             timeout=EXPIRE + 5)
    if plugin:
        assert EXPIRE - 1 <= time.monotonic() - left <= EXPIRE + patience(2)
    assert [row["users"] for row in director.status()] == ["0", "0", "0"]


def test_notify_with_escaped_name(nodes):
    """A name is escaped as in all lines of Dovecot's."""
    director = nodes.director(
        BACKENDS, config="director_user_expire = %d secs\n" % EXPIRE +
        LISTENERS)
    add_users(director, 1, "some\1tbody")
    add_users(director, 1, "somebody")
    for _ in range(EXPIRE + 2):
        fd = os.open(director.path("login/proxy-notify"), os.O_WRONLY)
        os.write(fd, b"some\1tbody0\n")
        os.close(fd)
        waited(1)
    assert is_known(director, "some\tbody0")
    assert not is_known(director, "somebody0")


def test_missing_plugin_is_told(nodes, backends):
    director = nodes.director(
        BACKENDS, restart_request_count="unlimited",
        config="login_plugins {\n  director_login = no\n}\n")
    director.allow("doesn't tell of its sessions")
    session = clients.imap(director.ip, "jane")
    told = (r"director: Error: Login process %d \(imap\) doesn't tell of its "
            r"sessions: .*login_plugins { director_login = yes }" %
            director.pid("imap-login"))

    def login_again():
        clients.visit("imap", director.ip, "jane")
        waited(0.2)
        return director.log.find(told)
    # one login proves nothing
    began = time.monotonic()
    wait_for(login_again, "the error", timeout=30)
    assert time.monotonic() - began > 13
    clients.close(session)
