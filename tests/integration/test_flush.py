# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Backends are flushed: their users are moved, one backend at a time; and the
flush hook (director_flush_socket)"""

import json
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import threading

import clients
import pytest
from node import patience, wait_for
from ring import BACKENDS, Ring
from test_move import backend_of, is_over, other_backend

SCRIPT = """#!/bin/sh
exec 9>>%(log)s
echo "$@" >&9
%(more)s
"""


def users_on(director, ip):
    done = director.doveadm("-f", "json", "director", "status")
    return [int(row["users"]) for row in json.loads(done.stdout)
            if row["mail server ip"] == ip][0]


def visit(director, count):
    for i in range(count):
        clients.visit("imap", director.ip, "u%d" % i)


def test_flush(nodes, backends):
    """Users leave a backend that is to be taken out; sessions end first."""
    director = nodes.director(BACKENDS)
    visit(director, 30)
    session = clients.imap(director.ip, "jane")
    old = backend_of(director, "jane")
    before = users_on(director, old)
    assert before >= 2
    director.doveadm("director", "update", old, "0")
    done = director.doveadm("-v", "director", "flush", old)
    assert done.stdout == ""
    assert "Info: %s: flushed\n" % old in done.stderr
    assert "%d users moved in" % before in done.stderr
    assert users_on(director, old) == 0
    assert is_over(session)
    clients.visit("imap", director.ip, "jane")
    assert backend_of(director, "jane") != old
    director.log.wait("doveadm: Moved %d users in 1 hosts in" % before)
    # and back
    director.doveadm("director", "update", old, "100")
    done = director.doveadm("-f", "json", "director", "flush",
                            "--max-parallel", "3", "all")
    rows = json.loads(done.stdout)
    assert int(rows[-1]["moved"]) == before
    assert rows[-1]["waiting"] == rows[-1]["failed"] == "0"
    assert users_on(director, old) == before
    done = director.doveadm("director", "flush", "127.0.0.99", check=False)
    assert (done.returncode, done.stderr) == \
        (68, "Warning: 127.0.0.99: doesn't exist\n")


def test_flush_in_a_ring(nodes, backends):
    """Sessions of all directors end, and all agree on where the users are."""
    ring = Ring(nodes, 3)
    ring.wait(3)
    visit(ring.members[0], 20)
    sessions = [clients.imap(member.ip, "jane") for member in ring.members]
    old = backend_of(ring.members[0], "jane")
    before = users_on(ring.members[0], old)
    ring.members[1].doveadm("director", "update", old, "0")
    ring.members[2].doveadm("director", "flush", old)
    assert all(is_over(session) for session in sessions)
    for member in ring.members:
        assert users_on(member, old) == 0
    clients.visit("imap", ring.members[1].ip, "jane")
    new = backend_of(ring.members[1], "jane")
    assert new != old
    assert backend_of(ring.members[0], "jane") == new
    # to nowhere: they are ended and forgotten
    session = clients.imap(ring.members[0].ip, "jane")
    for ip in BACKENDS.split():
        ring.members[0].doveadm("director", "down", ip)
    done = ring.members[1].doveadm("-v", "director", "flush", "all")
    assert "users moved in" in done.stderr
    assert is_over(session)
    for member in ring.members:
        wait_for(lambda: all(users_on(member, ip) == 0
                             for ip in BACKENDS.split()), "an empty table")
    assert before > 1


def read_until(fd, text):
    """What a terminal shows until there is this text, or until it is closed"""
    said = ""
    while text is None or text not in said:
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b""
        if not data:
            assert text is None, said
            return said
        said += data.decode()
    return said


def test_interrupted(nodes, backends):
    """Ctrl-C: what was begun comes to its end, the others stay."""
    director = nodes.director(BACKENDS)
    users = ["u%d" % i for i in range(12)]
    sessions = [clients.imap(director.ip, user) for user in users]
    old = backend_of(director, users[0])
    before = users_on(director, old)
    assert before >= 2
    director.doveadm("director", "update", old, "0")
    ours, terminal = pty.openpty()
    proc = subprocess.Popen(director.doveadm_command(
        "director", "flush", "--max-parallel", "1", old), stderr=terminal)
    os.close(terminal)
    said = read_until(ours, "0 moved, 1 waiting, 0 failed; 0/s, - s left")
    proc.send_signal(signal.SIGINT)
    said += read_until(ours, None)
    assert proc.wait(patience(20)) != 0
    assert "Interrupted" in said
    assert "users were moved, the moves of 1 go on, the others stay" in said
    director.log.wait("Client has gone: the flush stops")
    director.log.wait("doveadm: Moved ")
    left = users_on(director, old)
    assert 0 < left < before
    for session in sessions:
        clients.close(session)


@pytest.fixture
def folder(nodes):
    """Where the director's user may write"""
    path = pathlib.Path(nodes.folder) / "hook"
    path.mkdir()
    path.chmod(0o777)
    return path


def hook(folder, more=""):
    path = folder / "hook"
    path.write_text(SCRIPT % {"log": folder / "log", "more": more})
    path.chmod(0o755)
    return path


def setting(value):
    return "director_flush_socket = %s\n" % value


def move_jane(director):
    clients.visit("imap", director.ip, "jane")
    old = backend_of(director, "jane")
    new = other_backend(old)
    director.doveadm("director", "move", "jane", new)
    clients.visit("imap", director.ip, "jane")
    assert backend_of(director, "jane") == new
    return "FLUSH 1480892766 %s %s up 100" % (old, new)


@pytest.mark.parametrize("prefix", ["exec:", ""])
def test_hook_program(nodes, backends, folder, prefix):
    """It has run when the user is let in, in the default configuration."""
    path = hook(folder, "ls -l /proc/self/fd >&9")
    director = nodes.director(BACKENDS, config=setting(prefix + str(path)))
    expected = move_jane(director)
    lines = (folder / "log").read_text().splitlines()
    assert lines[0] == expected
    # it has none of our sockets
    assert not [line for line in lines if "socket:" in line]


def serve(listener, reply, seen, dot):
    """2.3's script protocol"""
    sock, _ = listener.accept()
    data = b""
    while True:
        more = sock.recv(4096)
        if not more:
            break
        data += more
    seen.append(data)
    sock.sendall(reply.encode())
    sock.close()


@pytest.mark.parametrize("form", ["unix:", "path", "tcp:"])
def test_hook_service(nodes, backends, folder, form):
    seen = []
    if form == "tcp:":
        listener = socket.create_server(("127.0.0.1", 0))
        value = "tcp:%{ip}:" + str(listener.getsockname()[1])
        # the new backend's own service
        listener.close()
        listeners = [socket.create_server((ip, listener_port(value)))
                     for ip in BACKENDS.split()]
        reply = ".\r\n+\n"
    else:
        path = folder / "sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        os.chmod(path, 0o777)
        listeners = [listener]
        value = ("unix:" if form == "unix:" else "") + str(path)
        reply = "+\n"
    for listener in listeners:
        threading.Thread(target=serve_quietly, daemon=True,
                         args=(listener, reply, seen, form)).start()
    director = nodes.director(BACKENDS, config=setting(value))
    expected = move_jane(director)
    assert len(seen) == 1
    lines = seen[0].decode().split("\n")
    assert lines[0] == "VERSION\tscript\t4\t0"
    assert lines[1] == "-"
    assert lines[2:8] == expected.split()
    for listener in listeners:
        listener.close()


def listener_port(value):
    return int(value.rsplit(":", 1)[1])


def serve_quietly(listener, reply, seen, form):
    try:
        serve(listener, reply, seen, form)
    except OSError:
        pass


def test_hook_fails(nodes, backends, folder):
    """The user is let in; the log says what it said."""
    path = hook(folder, "echo cannot flush; echo at all; exit 1")
    director = nodes.director(BACKENDS, config=setting("exec:%s" % path))
    director.allow("Failed to flush user hash")
    move_jane(director)
    director.log.wait("exec:%s: Failed to flush user hash 1480892766 in host "
                      % path)
    director.log.wait(": cannot flush")
    director.log.wait(": at all")


@pytest.mark.parametrize("more,said", [
    ("exit 3", "(no output to stdout)"), ("kill -9 $$", "")])
def test_hook_says_nothing(nodes, backends, folder, more, said):
    path = hook(folder, more)
    director = nodes.director(BACKENDS, config=setting(str(path)))
    director.allow("Failed to flush user hash", "Terminated abnormally")
    move_jane(director)
    director.log.wait("Failed to flush user hash 1480892766 in host ")
    director.log.wait(re.escape(said))


def test_hook_says_much(nodes, backends, folder):
    """What it prints neither grows the director nor fills the log."""
    path = hook(folder, "head -c 3000000 /dev/zero | tr '\\0' x; exit 1")
    director = nodes.director(BACKENDS, config=setting(path))
    director.allow("Failed to flush user hash", "Terminated abnormally")
    move_jane(director)
    director.log.wait("Failed to flush user hash 1480892766 in host ")
    assert len(director.log.find("Failed to flush user hash")) <= 21
    # one that succeeds isn't held up, either
    path.write_text(path.read_text().replace("exit 1", "exit 0"))
    director.log.mark()
    director.doveadm("director", "kick", "jane")
    move_jane(director)
    assert director.log.find("Failed to flush user hash") == []


def test_hook_is_missing(nodes, backends):
    director = nodes.director(BACKENDS, config=setting("unix:/nonexistent/flush"))
    director.allow("Failed to flush user hash", "/nonexistent/flush")
    move_jane(director)
    director.log.wait("Failed to flush user hash 1480892766 in host ")


def test_hook_holds_all_directors(nodes, backends, folder):
    """Nobody lets the user in before it has ended, wherever it runs."""
    path = hook(folder, "while [ ! -e %s ]; do sleep 0.1; done" %
                     (folder / "go"))
    ring = Ring(nodes, 2, config=setting(str(path)))
    ring.wait(2)
    clients.visit("imap", ring.members[0].ip, "jane")
    old = backend_of(ring.members[0], "jane")
    new = other_backend(old)
    ring.members[1].doveadm("director", "move", "jane", new)
    wait_for((folder / "log").exists, "the hook")
    done = []
    threads = [threading.Thread(target=lambda member=member: done.append(
        clients.visit("imap", member.ip, "jane"))) for member in ring.members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(1)
    assert done == []
    (folder / "go").touch()
    for thread in threads:
        thread.join(patience(20))
    assert len(done) == 2
    assert len((folder / "log").read_text().splitlines()) == 1
    assert {backend_of(member, "jane") for member in ring.members} == {new}
