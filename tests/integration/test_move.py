# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Users are moved and kicked: with real clients, who are on one backend at a
time"""

import os
import re
import signal
import threading
import time

import pytest

import clients
from garbage import add_users
from node import VALGRIND, patience, wait_for
from ring import BACKENDS, Ring
from test_ring import GONE


def backend_of(director, user):
    return director.user_status(user)["status"].split()[0]


def other_backend(ip):
    return [b for b in BACKENDS.split() if b != ip][0]


def is_over(session):
    try:
        return session.noop()[0] != "OK"
    except Exception:
        return True


def test_move(nodes, backends):
    """The session ends, then the backend gets its time, then the new one"""
    director = nodes.director(BACKENDS)
    session = clients.imap(director.ip, "jane")
    old = backend_of(director, "jane")
    new = other_backend(old)
    start = time.monotonic()
    done = director.doveadm("-v", "director", "move", "jane", new)
    assert "moved to " + new in done.stderr
    again = clients.imap(director.ip, "jane")
    took = time.monotonic() - start
    assert is_over(session)
    assert 2 <= took <= patience(6)
    assert len(director.log.find("is kicked .1 sessions here.: moved to %s by "
                                 "doveadm" % new)) == 1
    assert len(director.log.find(r"Info: proxy\(jane,.*Kicked by director: "
                                 "moved to %s by doveadm" % new)) == 1
    assert backend_of(director, "jane") == new
    assert again.noop()[0] == "OK"
    clients.close(again)


def test_move_without_session(nodes, backends):
    director = nodes.director(BACKENDS)
    wait_for(lambda: director.doveadm(
        "director", "move", "nobody", "127.0.0.12").returncode == 0, "a move")
    clients.visit("imap", director.ip, "nobody")
    assert backend_of(director, "nobody") == "127.0.0.12"
    done = director.doveadm("director", "move", "nobody", "127.0.0.99",
                            check=False)
    assert done.returncode == 68
    assert "Host '127.0.0.99' doesn't exist" in done.stderr


def test_kick(nodes, backends):
    director = nodes.director(BACKENDS)
    sessions = [clients.imap(director.ip, "jane") for _ in range(3)]
    other = clients.imap(director.ip, "jim")
    done = director.doveadm("-v", "director", "kick", "jane")
    assert "User jane kicked" in done.stderr
    wait_for(lambda: all(is_over(session) for session in sessions),
             "the sessions to end")
    wait_for(lambda: len(director.log.find(
        r"Info: proxy\(jane,.*Kicked by director: kicked by doveadm")) == 3,
             "their log lines")
    assert other.noop()[0] == "OK"
    clients.visit("imap", director.ip, "jane")
    clients.close(other)


def test_move_in_a_ring(nodes, backends):
    """Sessions on all directors end before the new backend gets the first"""
    ring = Ring(nodes, 3)
    ring.wait(3)
    sessions = [clients.imap(member.ip, "jane") for member in ring.members]
    old = backend_of(ring.members[0], "jane")
    new = other_backend(old)
    ring.members[1].doveadm("director", "move", "jane", new)
    again = clients.imap(ring.members[2].ip, "jane")
    assert all(is_over(session) for session in sessions)
    for member in ring.members:
        assert backend_of(member, "jane") == new
    ring.members[0].doveadm("director", "kick", "jane")
    wait_for(lambda: is_over(again), "the session to end")
    ring.members[2].log.wait("Kicked by director: kicked by director " +
                             ring.members[0].ip)


class LaterLogin(threading.Thread):
    def __init__(self, ip, user):
        super().__init__(daemon=True)
        self.ip, self.user, self.session = ip, user, None
        self.start()

    def run(self):
        self.session = clients.imap(self.ip, self.user)


@pytest.mark.parametrize("count", [1, "unlimited"])
@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_login_process_stopped(nodes, backends, count, end):
    """Its sessions can't be told to the director that is started meanwhile, but
    that one knows of the process."""
    ring = Ring(nodes, 2, restart_request_count=count)
    ring.wait(2)
    first, second = ring.members
    first.allow("killed with signal 9", "don't tell of the sessions",
                "although he is assigned to", "more sessions on other")
    second.allow("Director 127.0.0.1:9090/left disconnected")
    sessions = [clients.imap(first.ip, "jane") for _ in range(2)]
    new = other_backend(backend_of(first, "jane"))
    stopped = first.pids("imap-login")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        os.kill(first.pid("director"), signal.SIGKILL)
        second.doveadm("director", "move", "jane", new)
        login = LaterLogin(second.ip, "jane")
        line = first.log.wait("Login processes don't tell of the sessions that "
                              "they may have from before")[-1]
        assert any(str(pid) in line for pid in stopped)
        # longer than all that it could wait for otherwise
        login.join(6)
        assert login.session is None
    finally:
        for pid in stopped:
            os.kill(pid, end)
    login.join(patience(20))
    assert login.session.noop()[0] == "OK"
    assert all(is_over(session) for session in sessions)
    assert backend_of(second, "jane") == new
    clients.close(login.session)


@pytest.mark.skipif(bool(VALGRIND), reason="what is to be seen ends 18 s after "
                    "a director hangs, valgrind needs longer for the rest")
def test_lost_director_is_remembered(nodes, backends):
    """It hangs with its login processes, which have sessions; those that know
    it are killed then, one after the other."""
    ring = Ring(nodes, 3)
    ring.wait(3)
    first, second, third = ring.members
    for member in ring.members:
        member.allow(*GONE, "although he is assigned to", "clock differs")
    session = clients.imap(first.ip, "jane")
    new = other_backend(backend_of(first, "jane"))
    hung = [first.pid("director")] + first.pids("imap-login")
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        ring.wait_for([second, third])
        for member in second, third:
            pid = member.pid("director")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: [new for new in member.pids("director")
                              if new != pid], "a new director")
            ring.wait_for([second, third])
        second.doveadm("director", "move", "jane", new)
        login = LaterLogin(third.ip, "jane")
        # longer than for what directors that start don't know
        login.join(begun + 13 - time.monotonic())
        assert login.session is None
    finally:
        for pid in hung:
            os.kill(pid, signal.SIGCONT)
    login.join(20)
    assert login.session.noop()[0] == "OK"
    assert is_over(session)
    assert backend_of(third, "jane") == new
    clients.close(login.session)


class Titles(threading.Thread):
    """All process titles that a director had"""

    def __init__(self, member):
        super().__init__(daemon=True)
        self.path = "/proc/%d/cmdline" % member.pid("director")
        self.seen = set()
        self.over = False
        self.start()

    def run(self):
        while not self.over:
            with open(self.path) as f:
                self.seen.add(f.read().rstrip("\0"))
            time.sleep(0.1)

    def wait(self, pattern):
        wait_for(lambda: any(re.search(pattern, title)
                             for title in set(self.seen)), pattern)


@pytest.mark.skipif(bool(VALGRIND), reason="valgrind has a title of its own")
def test_process_title(nodes, backends):
    ring = Ring(nodes, 2, config="""
verbose_proctitle = yes
service director {
  unix_listener my-authreply {
  }
}
""")
    ring.wait(2)
    first, second = ring.members
    titles = [Titles(member) for member in ring.members]
    for title in titles:
        title.wait(r"\[0 users, 0\+0 req/s, 0\+0 kB/s\]$")
    # enough for a kB in a second
    add_users(first, 1000, "title")
    titles[0].wait(r"\[\d+ users, [1-9]\d*\+0 req/s, \d+\+[1-9]\d* kB/s\]$")
    titles[1].wait(r"\[\d+ users, 0\+[1-9]\d* req/s, [1-9]\d*\+\d+ kB/s\]$")
    titles[1].wait(r"\[1000 users, 0\+0 req/s, 0\+0 kB/s\]$")
    session = clients.imap(first.ip, "title1")
    stopped = first.pids("imap-login")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        second.doveadm("director", "move", "title1",
                       other_backend(backend_of(first, "title1")))
        login = LaterLogin(second.ip, "title1")
        titles[0].wait(r"\[1000 users, 1 moving, 1 kicking, ")
        titles[1].wait(r"\[1000 users, 1 delayed, 1 moving, ")
        login.join(0)
        assert login.session is None
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        for title in titles:
            title.over = True
    login.join(patience(20))
    assert is_over(session)
    clients.close(login.session)


WITHOUT_PLUGIN = """
login_plugins {
  director_login = no
}
"""


def test_login_process_without_plugin(nodes, backends):
    """What nobody sees nobody can end: moves fail, and say why."""
    director = nodes.director(BACKENDS, config=WITHOUT_PLUGIN)
    reason = (r"ogin process \d+ \(imap\) doesn't tell of its sessions.* \(set "
              r"login_plugins { director_login = yes } for its protocol\)")
    director.allow(reason)
    session = clients.imap(director.ip, "jane")
    # one answer that isn't acted on proves nothing
    wait_for(lambda: director.log.find(reason) or
             clients.visit("imap", director.ip, "john"), "the error", 30)
    old = backend_of(director, "jane")
    done = director.doveadm("director", "move", "jane", other_backend(old),
                            check=False)
    assert done.returncode == 75
    assert re.search("Error: failed: user can't be moved safely: l" + reason,
                     done.stderr)
    # nor can a kick
    director.doveadm("director", "kick", "jane", check=False)
    director.log.wait("Warning: User jane: sessions that nobody can see aren't "
                      "ended: l" + reason)
    assert session.noop()[0] == "OK"
    # others aren't concerned
    director.doveadm("director", "move", "nobody", other_backend(
        backend_of(director, "nobody")))
    clients.close(session)


def test_remove(nodes, backends):
    """Sessions on a removed backend end, unless they are to be kept."""
    director = nodes.director(BACKENDS)
    director.allow("live sessions that (are ended|stay)")
    session = clients.imap(director.ip, "jane")
    old = backend_of(director, "jane")
    director.doveadm("director", "remove", "--keep-sessions", old)
    assert director.log.find("Host %s removed with 1 live sessions that stay"
                             % old)
    again = clients.imap(director.ip, "jane")
    assert session.noop()[0] == again.noop()[0] == "OK"
    new = backend_of(director, "jane")
    assert new != old
    director.doveadm("director", "remove", new)
    wait_for(lambda: is_over(again), "the session to end")
    director.log.wait(r"Info: proxy\(jane,%s.*Kicked by director: backend %s "
                      "was removed by doveadm" % (new, new))
    assert session.noop()[0] == "OK"
    # the wish outlives the director's process
    pid = director.pid("director")
    director.allow("killed with signal 9")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: director.pids("director") not in ([], [pid]), "another")
    wait_for(lambda: director.doveadm("director", "add", new,
                                      check=False).returncode == 0, "an answer")
    # ends when the new process knows all sessions
    director.doveadm("director", "move", "nobody", new)
    clients.visit("imap", director.ip, "nobody")
    assert session.noop()[0] == "OK"
    clients.close(session)


def test_remove_in_a_ring(nodes, backends):
    ring = Ring(nodes, 2)
    ring.wait(2)
    for member in ring.members:
        member.allow("live sessions that (are ended|stay)")
    sessions = [clients.imap(member.ip, "jane") for member in ring.members]
    old = backend_of(ring.members[0], "jane")
    ring.members[0].doveadm("director", "remove", "--keep-sessions", old)
    ring.members[0].doveadm("director", "add", old)
    assert all(session.noop()[0] == "OK" for session in sessions)
    ring.members[0].doveadm("director", "remove", old)
    wait_for(lambda: all(is_over(session) for session in sessions),
             "the sessions to end")
