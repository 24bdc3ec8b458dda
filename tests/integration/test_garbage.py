# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Garbage on the sockets and the FIFO of the director: no crash, no spin, no
growth, and the others do not notice."""

import os
import subprocess
import sys
import threading
import time

import pytest

import clients
from garbage import (
    ADMIN_PORT, ADMIN_VERSION, BACKENDS, LISTENERS, MB, PLUGIN_VERSION,
    RING_PORT, SLOW, TOKEN, Bystander, Health, Peer, add_users, admin,
    announce_none, hosts, plugin, sessions, start)
from node import patience, wait_for


@pytest.fixture
def director(nodes):
    return nodes.director(BACKENDS, config=LISTENERS)


# director-admin

ADMIN_SOCKETS = pytest.mark.parametrize("path", [
    "director-admin", ("127.0.0.1", ADMIN_PORT)], ids=["unix", "tcp"])


WRONG_HELLOS = [
    b"HOST-LIST\n", b"\n", b"\0\n", b"VERSION\n",
    b"VERSION\tdirector-doveadm\t2\t0\n", b"VERSION\tdirector-doveadm\t1\n",
    b"VERSION\tdirector\t1\t0\n", b"VERSION\tdirector-doveadm\t-1\t0\n",
    b"VERSION\tdirector-doveadm\t1\t99999999999\n", b"\xff" * 1024 + b"\n"]


@ADMIN_SOCKETS
def test_admin_wrong_version(director, path):
    director.allow("doveadm not compatible", "Line with NUL")
    add_users(director, 1)
    health = Health(director)
    for hello in WRONG_HELLOS:
        peer = Peer(path if isinstance(path, tuple) else director.path(path))
        peer.send(hello + b"HOST-FLUSH\n")
        lines = peer.rest()
        assert lines[0] + b"\n" == ADMIN_VERSION
        assert lines[1].startswith(b"ERROR "), hello
        assert b"OK" not in lines
        peer.close()
    health.check()


# Each is answered by one line, and the connection goes on.
ADMIN_GARBAGE = [
    (b"", b"ERROR Empty line"),
    (b"\t", b"ERROR Unknown command"),
    (b"host-list", b"ERROR Unknown command"),
    (b"\0", b"ERROR Line with NUL"),
    (b"HOST-FLUSH\0\t127.0.0.11", b"ERROR Line with NUL"),
    (b"\xff\xfe\x01\x02", b"ERROR Unknown command"),
    (b"HOST-LIST\tall", b"ERROR Wrong number of parameters"),
    (b"HOST-SET", b"ERROR Wrong number of parameters"),
    (b"HOST-UP\t127.0.0.11\t1", b"ERROR Wrong number of parameters"),
    (b"HOST-SET\t\t1", b"ERROR Invalid IP"),
    (b"HOST-SET\t127.0.0.256", b"ERROR Invalid IP"),
    (b"HOST-SET\tbackend.example.com", b"ERROR Invalid IP"),
    (b"HOST-SET\tfe80::1%lo", b"ERROR Invalid IP"),
    (b"HOST-SET\t127.0.0.11\t-1", b"ERROR Invalid vhost count"),
    (b"HOST-SET\t127.0.0.11\t4294967296", b"ERROR Invalid vhost count"),
    (b"HOST-SET\t127.0.0.11\t", b"ERROR Invalid vhost count"),
    (b"HOST-SET\t127.0.0.11\t1001", b"vhost count too large"),
    (b"HOST-SET\t127.0.0.11@tag", b"host tag can't be changed"),
    (b"HOST-UPDATE\t127.0.0.99\t1", b"NOTFOUND"),
    (b"HOST-DOWN\t127.0.0.99", b"NOTFOUND"),
    (b"HOST-FLUSH\t127.0.0.99", b"NOTFOUND"),
    (b"HOST-REMOVE\t127.0.0.11@", b"ERROR Invalid IP"),
    (b"USER-LIST\tnobody", b"ERROR Invalid IP"),
    (b"USER-LOOKUP\t4294967296", b"\t0\t127.0.0.1"),
    (b"USER-LOOKUP\t\x011\tno such tag", b"\t0\t\t"),
    (b"x" * 1023, b"ERROR Unknown command"),
    (b"x" * 1024, b"ERROR Unknown command"),
    (b"x" * 1025, b"ERROR Line is longer"),
    (b"x" * (10 * MB), b"ERROR Line is longer"),
    (b"\0" * (1 * MB), b"ERROR Line is longer"),
]


@ADMIN_SOCKETS
def test_admin_garbage(director, path):
    director.allow(r"Error: conn .*(Line|Empty line|Unknown command|Wrong|"
                   "Invalid)")
    health = Health(director)
    peer = admin(director, path)
    for line, reply in ADMIN_GARBAGE:
        peer.send(line + b"\n")
        assert peer.line().startswith(reply), line[:80]
    # all at once
    peer.send(b"\n".join(line for line, _ in ADMIN_GARBAGE) + b"\nHOST-LIST\n")
    for line, reply in ADMIN_GARBAGE:
        assert peer.line().startswith(reply), line[:80]
    assert len(peer.lines_to_empty()) == 3
    peer.close()
    health.check()


def test_admin_pipeline_and_close(director):
    """All commands of one write are executed, also those that wait for the
    journal, and also when nobody reads the replies"""
    add_users(director, 20000)
    health = Health(director)
    peer = admin(director)
    changes = b"".join(
        b"HOST-SET\t127.0.0.%d\t%d\nUSER-LOOKUP\tuser1\nHOST-LIST\n" % (
            21 + i % 5, i % 1000) for i in range(1000))
    peer.send(changes + b"USER-LIST\nHOST-DOWN\t127.0.0.11\n"
              b"HOST-FLUSH\t127.0.0.11\nHOST-REMOVE\t127.0.0.21\n")
    peer.close()
    wait_for(lambda: b"127.0.0.25" in hosts(director) and
             b"127.0.0.21" not in hosts(director), "the last command")
    assert [hosts(director)[b"127.0.0.%d" % ip][0] for ip in range(22, 26)] \
        == [b"%d" % vhosts for vhosts in range(996, 1000)]
    assert hosts(director)[b"127.0.0.11"][1] == b"0"
    assert hosts(director)[b"127.0.0.11"][3] == b"D"
    for ip in range(22, 26):
        director.doveadm("director", "remove", "127.0.0.%d" % ip)
    health.check()


def test_admin_poolmon(director):
    add_users(director, 20000)
    for _ in range(20):
        peer = admin(director)
        peer.send(b"HOST-DOWN\t127.0.0.12\nHOST-FLUSH\t127.0.0.12\n")
        peer.close()
        wait_for(lambda: hosts(director)[b"127.0.0.12"][1] == b"0", "flush")
        assert hosts(director)[b"127.0.0.12"][3] == b"D"
        peer = admin(director)
        peer.send(b"HOST-UP\t127.0.0.12\n")
        peer.close()
        wait_for(lambda: hosts(director)[b"127.0.0.12"][3] == b"U", "up")
        add_users(director, 100)
        assert hosts(director)[b"127.0.0.12"][1] != b"0"


def test_admin_user_list(director):
    """Who doesn't read costs little and delays nobody; who reads gets every
    user once"""
    add_users(director, 20000 if SLOW else 200000)
    health = Health(director)
    peers = [admin(director) for _ in range(5)]
    for peer in peers:
        peer.send(b"USER-LIST\n")
        assert peer.line()
    with Bystander(director) as others:
        others.wait(50)
    health.check_rss(2 * MB)
    users = sum(int(host[1]) for host in hosts(director).values())
    listed = peers[0].lines_to_empty()
    assert len(listed) == users - 1
    # the others never read
    for peer in peers:
        peer.close()
    health.check()


def test_admins_change_hosts_during_walks(director):
    count = 5000 if SLOW else 50000
    add_users(director, count)
    health = Health(director)
    peers = [admin(director) for _ in range(3)]

    def change(peer, first):
        peer.send(b"".join(
            b"HOST-SET\t127.0.0.%d\t%d\nHOST-DOWN\t127.0.0.%d\n"
            b"HOST-REMOVE\t127.0.0.%d\n" % (
                first + i % 3, i % 100, first + i % 3, first + i % 3)
            for i in range(300)))
        replies.append([peer.line() for _ in range(900)])

    replies = []
    threads = [threading.Thread(target=change, args=args) for args in (
        (peers[0], 31), (peers[1], 41))]
    with Bystander(director):
        for thread in threads:
            thread.start()
        for _ in range(5):
            peers[2].send(b"USER-LIST\n")
            assert len(peers[2].lines_to_empty()) > count - 100
        for thread in threads:
            thread.join()
    assert replies == [[b"OK"] * 900] * 2
    assert sorted(hosts(director)) == sorted(BACKENDS.encode().split())
    for peer in peers:
        peer.close()
    health.check()


# login/director-proxy

# One error each; after ten the director closes.
PLUGIN_GARBAGE = [
    b"START", b"START\t", b"START\t1\t2\t3\t4", b"START\t\t\t\t\t",
    b"START\t-\t1\t127.0.0.11\t1\tx", b"UP", b"UP\t", b"END", b"END\t",
    b"PROCESS", b"PROCESS\t1\timap", b"UP\t" + TOKEN % 1, b"END\t" + TOKEN % 1,
    start(1).replace(b"aa-1\t", b"aa-1ffffffffffffffff\t").strip(),
    start(1).replace(b"\t1\t", b"\t4294967296\t").strip(),
    start(1).replace(b"\t1\t", b"\t-1\t").strip(),
    start(1).replace(b".11\t", b".256\t").strip(),
    start(1).replace(b"\t1700000000\t", b"\t99999999999999999999\t").strip(),
]


def test_plugin_garbage(director):
    director.allow(r"Error: conn .*director-proxy")
    health = Health(director)
    # before PROCESS, or instead of VERSION
    for hello in (b"\n", b"\0\n", start(1), PLUGIN_VERSION + start(1),
                  PLUGIN_VERSION + b"\n", PLUGIN_VERSION + b"ANNOUNCED\n",
                  PLUGIN_VERSION + b"PROCESS\t1\timap\n",
                  PLUGIN_VERSION + b"PROCESS\t%d\timap\n" % (os.getpid() + 1),
                  b"VERSION\tdirector-login-plugin\t2\t0\n", b"x" * MB):
        peer = Peer(director.path("login/director-proxy"))
        try:
            peer.send(hello + start(1))
        except BrokenPipeError:
            pass
        # VERSION and GRACE
        assert len(peer.rest()) <= 2
        peer.close()
    assert sessions(director) == 0
    for first in range(len(PLUGIN_GARBAGE)):
        peer = plugin(director)
        peer.send(b"HELLO\tof a newer plugin\n" * 100 + start(99))
        errors = len(director.log.find("Error: conn .*director-proxy"))
        for line in (PLUGIN_GARBAGE[first:] + PLUGIN_GARBAGE)[:9]:
            peer.send(line + b"\n")
        director.log.wait("Error: conn .*director-proxy", count=errors + 9)
        assert sessions(director) == 1
        peer.send(b"UP\n" * 1000)
        assert peer.line() is None
        peer.close()
    announce_none(director)
    wait_for(lambda: sessions(director) == 0, "sessions to be forgotten")
    health.check()


def test_plugin_sessions(director):
    """Those of others, twice, in any order, and very many"""
    director.allow(r"START: token .*-1 was (given to process|started already)",
                   "session wasn't started here",
                   "has a session on 127.0.0.1., ?(which isn't| although)")
    health = Health(director)
    peer = plugin(director)
    other = plugin(director)
    peer.send(start(1) + b"UP\t" + TOKEN % 1 + b"\n")
    wait_for(lambda: sessions(director) == 1, "a session")
    other.send(start(1) + b"UP\t" + TOKEN % 1 + b"\nEND\t" + TOKEN % 1 +
               b"\ttaken over\n" + start(2) + start(3))
    wait_for(lambda: sessions(director) == 2, "two sessions")
    peer.send(start(1) + start(4) + b"END\t" + TOKEN % 2 + b"\tx\nEND\t" +
              TOKEN % 1 + b"\tx\nEND\t" + TOKEN % 1 + b"\tx\n")
    wait_for(lambda: sessions(director) == 3, "the session's end")
    peer.send(b"END\t" + TOKEN % 4 + b"\tx\n")
    other.close()
    announce_none(director)
    count = 5000 if SLOW else 50000
    with Bystander(director):
        for _ in range(2):
            peer.send(b"".join(start(i) for i in range(10, 10 + count)))
            # all of one user, from the oldest to the newest
            peer.send(b"".join(start(i, user_hash=1)
                               for i in range(100000, 105000)))
            wait_for(lambda: sessions(director) == count + 5000, "sessions")
            peer.send(b"".join(b"END\t" + TOKEN % i + b"\t\n"
                               for i in range(100000, 105000)))
            wait_for(lambda: sessions(director) == count, "sessions' end")
            peer.close()
            peer = plugin(director)
            peer.send(start(7) + b"ANNOUNCED\n")
            wait_for(lambda: sessions(director) == 1, "only what is announced")
            peer.send(b"END\t" + TOKEN % 7 + b"\t\n")
            health.rss, before = health.read_rss(), health.rss
    assert SLOW or health.rss - before < 16 * MB
    peer.close()
    announce_none(director)
    wait_for(lambda: sessions(director) == 0, "sessions to be forgotten")
    health.check()


def test_plugin_is_busy(director):
    """A login process with thousands of logins a second is read in time: it
    buffers no more than 64 kB"""
    peer = plugin(director)
    peer.send(b"ANNOUNCED\n")
    began = time.monotonic()
    peer.send(b"".join(
        start(i) + b"UP\t" + TOKEN % i + b"\nEND\t" + TOKEN % i + b"\tclosed\n"
        for i in range(20000)) + start(1))
    wait_for(lambda: sessions(director) == 1, "the last session")
    # with a pause of 50 ms for each 8 kB it would be 18 s
    assert SLOW or time.monotonic() - began < 15
    peer.close()


def test_plugin_loop(director):
    health = Health(director)
    with Bystander(director):
        for i in range(1000):
            peer = plugin(director)
            peer.send(start(i) + b"START\thalf")
            peer.close()
    announce_none(director)
    wait_for(lambda: sessions(director) == 0, "sessions to be forgotten")
    health.check(growth=2 * MB)


# login/proxy-notify

def write_until_taken(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def test_notify_garbage(director):
    director.allow("notify: (Empty line|Line with NUL|Too long line), skipped")
    add_users(director, 100)
    health = Health(director)
    path = director.path("login/proxy-notify")
    fifo = os.open(path, os.O_WRONLY)

    def expires(user):
        peer = admin(director)
        peer.send(b"USER-LOOKUP\t%s\n" % user)
        line = peer.line()
        peer.close()
        return int(line.split(b"\t")[1])

    def is_refreshed():
        os.write(fifo, b"user7\n")
        # whole seconds
        return expires(b"user7") > first

    first = expires(b"user7")
    with Bystander(director):
        # 8 MB without LF, in the middle of which others write
        write_until_taken(fifo, b"x" * (4 * MB))
        write_until_taken(fifo, b"\0" * (4 * MB) + b"\n")
        write_until_taken(fifo, b"\n" * MB)
        write_until_taken(fifo, 10000 *
                          b"\0\n\0\0\n\xff\xfe\n\x01\n\x011\x01\n")
        others = [os.open(path, os.O_WRONLY) for _ in range(100)]
        for i, other in enumerate(others):
            os.write(other, b"partial%d" % i)
        for other in others:
            os.close(other)
        os.write(fifo, b"\n")
        wait_for(is_refreshed, "a refresh")
    # told, but not for each
    assert 1 <= len(director.log.find("notify:")) < 10
    os.close(fifo)
    health.check()


def test_notify_flood(director):
    """Names at full speed from several writers: logins go on"""
    add_users(director, 1000)
    health = Health(director)
    fifo = director.path("login/proxy-notify")
    writers = [subprocess.Popen("exec yes user%d >%s" % (i, fifo), shell=True)
               for i in range(2)]
    try:
        with Bystander(director) as others:
            others.wait(50)
            clients.visit("imap", director.ip, "meanwhile")
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    health.check()


# The ring's port, as long as there is no ring

def test_ring_port(director):
    director.allow("Server not listed in director_servers, dropping")
    health = Health(director)
    with Bystander(director):
        for i in range(500):
            peer = Peer(("127.0.0.1", RING_PORT))
            try:
                peer.send((i % 3) * b"VERSION\tdirector\t1\t9\n"
                          b"ME\t127.0.0.1\t9090\t0\n")
                assert peer.line() is None
            except BrokenPipeError:
                pass
            peer.close()
    health.check()


# Who has broken into a login process

ATTACKER = r"""
import os, random, socket, stat, sys
path, count = sys.argv[1], int(sys.argv[2])
rng = random.Random(path.split("/")[-1])
words = [
    b"VERSION\t1\t3\n", b"VERSION\tdirector-login-plugin\t1\t0\n",
    b"VERSION\tdirector-doveadm\t1\t0\n", b"CPID\t%d\n" % os.getpid(),
    b"AUTH\t1\tPLAIN\tprotocol=imap\tresp=AHUxAHA=\n", b"CONT\t1\tAA==\n",
    b"CANCEL\t1\n", b"PROCESS\t%d\timap\n" % os.getpid(), b"ANNOUNCED\n",
    b"START\t", b"UP\t", b"END\t", b"user1\n", b"HOST-LIST\n", b"\t", b"\n",
    b"\0", b"\1", b"-1", b"4294967296", b"127.0.0.11", b"x" * 5000] + [
    verb + b"\t00000000000000aa-%d\t%d\t127.0.0.11\t1700000000\tuser1\n" % (
        i, i) for verb in (b"START", b"UP", b"END") for i in range(1, 4)]

def garbage():
    data = b"".join(rng.choice(words) if rng.random() < 0.9 else
                    rng.randbytes(rng.randrange(50))
                    for _ in range(rng.randrange(1, 100)))
    # most begin well
    return b"".join(words[i] for i in rng.choice(
        [[0, 3], [1, 7], [1, 7], []])) + data

socks = []
for _ in range(count):
    if stat.S_ISFIFO(os.stat(path).st_mode):
        fd = os.open(path, os.O_WRONLY)
        os.write(fd, garbage())
        os.close(fd)
        continue
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    socks.append(sock)
    sock.setblocking(False)
    try:
        sock.send(garbage())
        sock.send(garbage())
        sock.recv(1000)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass
    if len(socks) > 20:
        socks.pop(rng.randrange(20)).close()
print("done")
"""


def attack(director, name):
    """With all that is random being the same each time"""
    done = subprocess.run(
        [sys.executable, "-c", ATTACKER, director.path(name),
         "50" if SLOW else "500"], user="dovenull", group="dovenull",
        extra_groups=[], capture_output=True, text=True, timeout=patience(60))
    return done.stdout + done.stderr.strip().split("\n")[-1]


def test_login_user(director):
    """He reaches what login processes need, and does no harm there."""
    director.allow("(director|auth): (Error|Warning): ")
    health = Health(director)
    for name in "director-admin", "director-userdb", "my-authreply":
        assert "Permission denied" in attack(director, name)
    with Bystander(director) as others:
        for name in ("login/director", "login/director-proxy",
                     "login/proxy-notify"):
            assert attack(director, name) == "done\n"
            others.wait(others.count + 10)
    for listener in "auth-login", "director-proxy":
        assert len(director.log.find("Error: conn .*" + listener)) > 10
    announce_none(director)
    wait_for(lambda: sessions(director) == 0, "sessions to be forgotten")
    health.check()
