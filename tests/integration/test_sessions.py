# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Kicks by name, mask and field, what kicks and moves say of it, and the list of
sessions: with real clients, in rings"""

import json
import os
import signal
import subprocess
import time

import pytest

import clients
from garbage import LISTENERS, Health, admin, announce_none, plugin, start
from node import patience, wait_for
from ring import BACKENDS, Ring
from test_doveadm_live import API
from test_move import backend_of, is_over, other_backend

# Each user has an owner; "alias" is somebody else at the backend.
PASSDB = """
passdb passwd-file {
  passwd_file_path = %s
  fields {
    proxy = y
    nopassword = y
  }
}
"""
USERS = """\
jane:{PLAIN}secret::::::user_owner=5
jim:{PLAIN}secret::::::user_owner=6 user_team=blue
jane@example.com:{PLAIN}secret::::::user_owner=5
alias:{PLAIN}secret::::::destuser=jim
"""


@pytest.fixture
def passdb(tmp_path):
    path = tmp_path / "passwd"
    path.write_text(USERS)
    for folder in [tmp_path] + list(tmp_path.parents)[:2]:
        os.chmod(folder, 0o755)
    return PASSDB % path


def rows(node, *args):
    done = node.doveadm("-f", "json", "director", *args)
    assert done.stderr == ""
    return json.loads(done.stdout)


def counts(node, *args):
    return {row["director ip"]: row["sessions"] for row in rows(node, *args)}


def names(node, *args):
    return sorted(row["user"] for row in rows(node, "sessions", *args))


def logged_in(director, *users):
    return {user: clients.imap(director.ip, user) for user in users}


def wait_over(sessions, *users):
    wait_for(lambda: {user for user, session in sessions.items()
                      if is_over(session)} == set(users),
             "exactly these sessions to end: %s" % (users,))


def test_kick_by_mask_and_field(nodes, backends, passdb):
    director = nodes.director(BACKENDS, passdb=passdb)
    users = ["jane", "jim", "jane@example.com", "alias"]
    sessions = logged_in(director, *users)
    assert counts(director, "kick", "*@EXAMPLE.com") == {"127.0.0.1": "1"}
    wait_over(sessions, "jane@example.com")
    sessions.pop("jane@example.com")
    assert counts(director, "kick", "-f", "user_team", "blue") == {
        "127.0.0.1": "1"}
    wait_over(sessions, "jim")
    sessions.pop("jim")
    # another name at the backend, and the name that was given
    sessions.update(logged_in(director, "jim"))
    assert counts(director, "kick", "JIM") == {"127.0.0.1": "2"}
    wait_over(sessions, "jim", "alias")
    sessions.update(logged_in(director, "alias", "jim"))
    assert counts(director, "kick", "alias") == {"127.0.0.1": "1"}
    wait_over(sessions, "alias")
    assert counts(director, "kick", "-f", "user_owner", "5") == {
        "127.0.0.1": "1"}
    wait_over(sessions, "alias", "jane")
    for user, field in ("nobody", []), ("6*", ["-f", "user_owner"]), \
            ("5", ["-f", "owner"]):
        done = director.doveadm("director", "kick", *field, user)
        assert done.stdout == ""
        assert done.stderr == \
            "Warning: User %s has no sessions: nobody was kicked\n" % user
    assert names(director) == ["jim"]
    clients.close(sessions["jim"])
    wait_for(lambda: names(director) == [], "all sessions to end")


def test_ring(nodes, backends):
    """What all directors have, and what they say of it"""
    ring = Ring(nodes, 3)
    ring.wait(3)
    first, second, third = ring.members
    sessions = [clients.imap(member.ip, "jane") for member in ring.members]
    sessions += [clients.imap(third.ip, "jim"), clients.pop3(first.ip, "joe")]
    # (a director hears of UP a moment after the client)
    wait_for(lambda: {row["state"] for row in rows(second, "sessions")} ==
             {"up"}, "all sessions to be up")
    listed = rows(second, "sessions")
    assert sorted((row["user"], row["service"], row["director"])
                  for row in listed) == sorted(
        [("jane", "imap", member.ip) for member in ring.members] +
        [("jim", "imap", third.ip), ("joe", "pop3", first.ip)])
    for row in listed:
        assert row["backend"] == backend_of(first, row["user"])
        assert abs(time.mktime(time.strptime(
            row["since"], "%Y-%m-%d %H:%M:%S")) - time.time()) < 300
    jane = [row for row in listed if row["user"] == "jane"]
    assert rows(first, "sessions", "JANE") and sorted(
        row["director"] for row in rows(first, "sessions", jane[0]["hash"])
    ) == [member.ip for member in ring.members]
    assert names(third, "j?[em]*") == []
    assert names(third, "jo*") == ["joe"]

    done = second.doveadm("-v", "director", "kick", "jo?")
    assert done.stderr == ("Info: User jo? kicked (sessions ended: "
                           "1 on 127.0.1.1)\n")
    new = other_backend(backend_of(first, "jane"))
    done = second.doveadm("-v", "director", "move", "--wait", "jane", new)
    assert done.stderr == (
        "Info: User jane moved to %s (sessions ended: 1 on 127.0.1.1, "
        "1 on 127.0.1.2, 1 on 127.0.1.3)\n" % new)
    # the move has ended
    assert all(is_over(session) for session in sessions[:3])
    start_time = time.monotonic()
    again = clients.imap(third.ip, "jane")
    assert time.monotonic() - start_time < patience(1)
    assert backend_of(third, "jane") == new
    assert counts(first, "move", "jim", other_backend(
        backend_of(first, "jim"))) == {
            "127.0.1.1": "0", "127.0.1.2": "0", "127.0.1.3": "1"}
    assert counts(first, "kick", "nobody") == dict.fromkeys(
        (member.ip for member in ring.members), "0")
    clients.close(again)


def test_director_that_does_not_answer(nodes, backends):
    ring = Ring(nodes, 3)
    ring.wait(3)
    first, _, third = ring.members
    for member in ring.members:
        member.allow("127.0.1.3", "Pong timeout", "Ping timeout",
                     "clock differs")
    session = clients.imap(first.ip, "jane")
    pid = third.pid("director")
    os.kill(pid, signal.SIGSTOP)
    try:
        start_time = time.monotonic()
        done = first.doveadm("-v", "director", "kick", "jane")
        assert time.monotonic() - start_time < 10
        assert "Director 127.0.1.3 didn't say how many" in done.stderr
        assert "User jane kicked (sessions ended: 1 on 127.0.1.1" in \
            done.stderr
        done = first.doveadm("director", "sessions", check=False)
        assert done.returncode == 75
        assert "Director 127.0.1.3 doesn't answer" in done.stderr
    finally:
        os.kill(pid, signal.SIGCONT)
    assert is_over(session)
    ring.wait(3)
    assert rows(first, "sessions") == []


def test_director_that_is_down(nodes, backends):
    """It isn't waited for as long as for one that is slow."""
    ring = Ring(nodes, 3)
    ring.wait(3)
    *left, third = ring.members
    third.stop()
    for member in left:
        member.allow("127.0.1.3")
    wait_for(lambda: ring.is_complete(left), "the ring to be whole again")

    def kick_secs(member):
        peer = admin(member)
        begun = time.monotonic()
        peer.send(b"USER-KICK\tjane\tcount\n")
        assert peer.line() == \
            b"OK\t127.0.1.1\t0\t127.0.1.2\t0\t127.0.1.3\t?"
        return time.monotonic() - begun

    for member in left:
        wait_for(lambda: 0.2 <= kick_secs(member) < 1, "a quick kick")


def test_many_sessions(nodes):
    """Pages from all, and no login that waits for a kick of all"""
    ring = Ring(nodes, 2)
    ring.wait(2)
    first, second = ring.members
    second.allow("has a session on", "more sessions on")
    count = 3000
    peer = plugin(second)
    lines = [start(i).rstrip(b"\n").rsplit(b"\t", 1)[0] + b"\tu%d\tuser_n=%d\n" %
             (i, i % 10) for i in range(1, count + 1)]
    peer.send(b"".join(lines) + b"ANNOUNCED\n")
    wait_for(lambda: len(rows(second, "sessions")) == count, "all sessions")
    listed = rows(first, "sessions")
    assert len({row["user"] for row in listed}) == len(listed) == count
    assert {row["director"] for row in listed} == {second.ip}
    assert len(rows(first, "sessions", "u12?")) == 10
    # a client that reads nothing for a while gets all the same
    reader = admin(first)
    reader.send(b"SESSION-LIST\nHOST-LIST\n")
    time.sleep(1)
    assert len(reader.lines_to_empty()) == count
    assert len(reader.lines_to_empty()) == 3
    # one that goes away
    reader.send(b"SESSION-LIST\n" * 20)
    reader.close()
    done = first.doveadm("-v", "director", "kick", "-f", "user_n", "7")
    assert "%d on %s" % (count // 10, second.ip) in done.stderr
    kicked = {peer.line().split(b"\t")[1] for _ in range(count // 10)}
    assert len(kicked) == count // 10
    assert {row["state"] for row in rows(first, "sessions", "u17")} == {
        "ending"}
    peer.close()
    announce_none(second)
    wait_for(lambda: rows(first, "sessions") == [], "the sessions to go", 30)


def test_move_that_does_not_end(nodes, backends):
    """The sessions are some that nobody ends; Ctrl-C, and a time limit, leave
    the move going."""
    director = nodes.director(BACKENDS)
    director.allow("has a session on", "isn't a backend")
    peer = plugin(director)

    def waiting_move(user, session):
        number = director.doveadm("director", "map", "-u",
                                  user).stdout.strip()
        peer.send(start(session, b"127.0.0.11", int(number)))
        wait_for(lambda: rows(director, "sessions", number), "the session")
        return subprocess.Popen(
            director.doveadm_command("director", "move", "--wait", user,
                                     "127.0.0.12"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    begun = time.monotonic()
    other = waiting_move("jim", 2)
    wait_for(lambda: b"KICK" in peer.read(), "the kick")
    process = waiting_move("jane", 1)
    peer.send(b"ANNOUNCED\n")
    wait_for(lambda: b"KICK" in peer.read(), "the kick")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "Interrupted" in said
    done = director.doveadm("director", "move", "jane", "127.0.0.12",
                            check=False)
    assert done.returncode == 75 and "already being moved" in done.stderr
    _, said = other.communicate(timeout=100)
    assert time.monotonic() - begun > 60
    assert other.returncode == 75
    assert said.endswith(
        "Error: User's move to 127.0.0.12 hasn't ended within 60 s, it goes "
        "on: 1 sessions on this director haven't ended\n")
    peer.close()
    announce_none(director)
    wait_for(lambda: director.doveadm(
        "director", "move", "--wait", "jane", "127.0.0.13",
        check=False).returncode == 0, "the next move", 30)


def test_http(nodes, backends):
    director = nodes.director(BACKENDS)
    api = API(director)
    session = clients.imap(director.ip, "jane")
    wait_for(lambda: [row["state"] for row in api("directorSessions")] ==
             ["up"], "the session to be up")
    assert api("directorSessions", user="jim") == []
    row = api("directorSessions", user="jane")[0]
    assert list(row) == ["user", "hash", "service", "director", "backend",
                         "since", "state"]
    assert api("directorKick", user="jim*") == [
        {"director ip": director.ip, "sessions": "0"}]
    assert api("directorKick", user="jane") == [
        {"director ip": director.ip, "sessions": "1"}]
    assert is_over(session)
    assert api("directorMove", user="jane", host="127.0.0.12", wait=True) == [
        {"director ip": director.ip, "sessions": "0"}]


def test_login_process_that_reads_nothing(nodes):
    """Its sessions can't all be told to end; nobody waits for it for long."""
    director = nodes.director(
        BACKENDS, config=LISTENERS + "director_max_parallel_kicks = 1\n")
    director.allow("has a session on", "more sessions on",
                   r"Users u\*: \d+ sessions couldn't be ended")
    count = 20000
    peer = plugin(director)
    peer.send(b"".join(
        start(i).rstrip(b"\n").rsplit(b"\t", 1)[0] + b"\tu%d\n" % i
        for i in range(1, count + 1)) + b"ANNOUNCED\n")
    wait_for(lambda: sum(int(row["sessions"]) for row in director.status()) ==
             count, "all sessions", 60)
    first, second = admin(director), admin(director)
    first.send(b"USER-KICK\tu*\nHOST-LIST\n")
    assert first.line() == b"OK"
    assert len(first.lines_to_empty()) == 3
    # others are refused if they don't want to wait, and wait else
    began = time.monotonic()
    second.send(b"USER-KICK\tjane\tnowait\nUSER-KICK\tjane\tcount\n")
    assert second.line() == b"TRYAGAIN"
    assert time.monotonic() - began < patience(5)
    assert second.line() == b"OK\t127.0.0.1\t0"
    assert 2 < time.monotonic() - began < patience(20)
    assert director.log.find(r"Users u\* are kicked \(\d+ sessions here\): "
                             "kicked by doveadm")
    peer.close()
    announce_none(director)
    wait_for(lambda: rows(director, "sessions") == [], "the sessions to go", 60)


GARBAGE = [
    (b"USER-KICK", b"ERROR Wrong number of parameters"),
    (b"USER-KICK\t", b"ERROR Nobody named"),
    (b"USER-KICK\t" + b"x" * 256, b"ERROR Name, field or value is longer"),
    (b"USER-KICK\t*\x01t\xff?", b"OK"),
    (b"USER-KICK\t" + b"*?" * 127, b"OK"),
    (b"USER-KICK\tjane\tnowait\tcount", b"OK\t127.0.0.1\t0"),
    (b"USER-KICK\tjane\tcount\tnowait\tnow", b"ERROR Wrong number"),
    (b"USER-KICK\tjane\tnonsense", b"OK"),
    (b"USER-KICK-ALT\tuser_a", b"ERROR Wrong number of parameters"),
    (b"USER-KICK-ALT\t\tx", b"ERROR Nobody named"),
    (b"USER-KICK-ALT\tuser_a\t", b"ERROR Nobody named"),
    (b"USER-KICK-ALT\tuser_a=\x01t\t=\tcount", b"OK\t127.0.0.1\t0"),
    (b"USER-KICK-ALT\t" + b"f" * 256 + b"\tx", b"ERROR Name, field or"),
    (b"USER-MOVE\tjane\t127.0.0.99\tcount", b"NOTFOUND"),
    (b"USER-MOVE\tjane\tx\twait", b"ERROR Invalid IP"),
    (b"SESSION-LIST\t" + b"x" * 256, b"ERROR Name is longer"),
    (b"SESSION-LIST\t1\t2", b"ERROR Wrong number of parameters"),
    (b"SESSION-LIST", b""),
    (b"SESSION-LIST\t", b""),
    (b"SESSION-LIST\t4294967295", b""),
    (b"SESSION-LIST\t*\xff?\x01n", b""),
]


def test_admin_garbage(nodes):
    director = nodes.director(BACKENDS, config=LISTENERS)
    director.allow(r"Error: conn .*(Wrong|Invalid|longer|Nobody named)")
    health = Health(director)
    peer = admin(director)
    for line, reply in GARBAGE:
        peer.send(line + b"\n")
        assert peer.line().startswith(reply), line[:80]
    peer.send(b"\n".join(line for line, _ in GARBAGE) + b"\nHOST-LIST\n")
    for line, reply in GARBAGE:
        assert peer.line().startswith(reply), line[:80]
    assert len(peer.lines_to_empty()) == 3
    # all that waits, and nobody who reads
    for _ in range(20):
        peer = admin(director)
        peer.send(b"USER-KICK\t*\tcount\nUSER-MOVE\tu\t127.0.0.12\twait\n"
                  b"SESSION-LIST\n" * 5)
        peer.close()
    health.check()


PLUGIN_NAMES = [
    b"jane\t" + b"x" * 300 + b"=1", b"\x01\x01\x01", b"j\x01tane\tuser_a=\x01n",
    b"\xff" * 1000, b"jane" + b"\tuser_a=1" * 100, b"\t\t\t", b"jane\t=\t=x"]


def test_plugin_garbage(nodes):
    """Names that make no sense are listed and matched all the same."""
    director = nodes.director(BACKENDS, config=LISTENERS)
    director.allow("has a session on", "more sessions on")
    health = Health(director)
    peer = plugin(director)
    for i, text in enumerate(PLUGIN_NAMES):
        peer.send(start(i + 1).rstrip(b"\n").rsplit(b"\t", 1)[0] + b"\t" + text +
                  b"\n")
    peer.send(b"ANNOUNCED\n")
    wait_for(lambda: len(rows(director, "sessions")) == len(PLUGIN_NAMES),
             "all sessions")
    done = director.doveadm("-f", "tab", "director", "sessions")
    assert not set("\x1b\0\x01") & set(done.stdout)
    assert counts(director, "kick", "*") == {
        director.ip: str(len(PLUGIN_NAMES))}
    peer.close()
    announce_none(director)
    wait_for(lambda: rows(director, "sessions") == [], "the sessions to go", 30)
    health.check()
