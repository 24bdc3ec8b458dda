# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Garbage between login processes and auth, from both sides: no crash, no
spin, no growth, and the others do not notice."""

import os

import pytest

from garbage import (BACKENDS, LISTENERS, MB, SLOW, Bystander, FakeAuth,
                     Health, Peer, authreply, login)
from node import wait_for


@pytest.fixture
def director(nodes):
    return nodes.director(BACKENDS, config=LISTENERS)


# login/director, director-userdb and *-authreply, and auth behind them

LOGIN_GARBAGE = [
    b"", b"\t", b"\0", b"\0\t\xff" * 100, b"VERSION", b"VERSION\tauth\t9\t9",
    b"CPID", b"CPID\t", b"CPID\t0", b"CPID\t-1", b"CPID\t99999999999",
    b"CPID\tpid", b"CPID\t1\t2", b"CPID\t1", b"CPID\t1", b"AUTH",
    b"AUTH\t", b"AUTH\tx\t", b"AUTH\t4294967296\t", b"AUTH\t-1\t",
    b"AUTH\t7\t", b"AUTH\t7\t", b"AUTH\t8\tlip=\tlport=99999999\tlip=::1%lo",
    b"AUTH\t9\tlip=" + b"1" * 1000, b"CANCEL", b"CANCEL\t", b"CANCEL\t7",
    b"CANCEL\t4294967303", b"CONT\t7\t" + b"=" * 16000, b"x" * 100000,
]


def test_login_garbage(director):
    """It is auth's business, and goes there as it is"""
    director.allow("Line longer than 131072 bytes")
    health = Health(director)
    got = []

    def serve(sock):
        got.append(b"")
        while data := sock.recv(65536):
            got[-1] += data
            if got[-1].endswith(b"\nend\n"):
                sock.sendall(b"OK\t7\tuser=jane\tproxy\n")

    with FakeAuth(director, serve):
        data = b"\n".join(LOGIN_GARBAGE) + b"\nend\n"
        for size in 1, 7, 4096, len(data):
            peer = login(director)
            for start in range(0, min(len(data), size * 1000), size):
                peer.send(data[start:start + size])
            peer.send(data[start + size:])
            assert b"\thost=127.0.0." in peer.line()
            assert got[-1] == data
            peer.close()
        # a line that doesn't end
        peer = login(director)
        with Bystander(director):
            try:
                peer.send(b"AUTH\t1\t" + b"x" * MB)
            except BrokenPipeError:
                pass
            assert peer.line() is None
    peer.close()
    health.check()


REPLY_GARBAGE = [
    b"", b"\t", b"\0", b"OK", b"OK\t", b"OK\t\t\t", b"OK\t1", b"OK\t1\tproxy",
    b"OK\tproxy\tuser=jane", b"OK\t1\tuser=\tproxy", b"OK\t1\tuser\tproxy",
    b"OK\t1\tdestuser=\tuser=\tproxy", b"ok\t1\tuser=jane\tproxy",
    b"OK \t1\tuser=jane\tproxy", b"OK\t1\tuser=jane\tproxy\thost=x",
    b"OK\t1\tuser=jane\tproxy\thost", b"OK\t1\tuser=jane\tproxyy",
    b"FAIL", b"FAIL\t", b"FAIL\t99999999999\tuser=jane\tproxy", b"CONT\t1",
    b"MECH\t\0", b"PASS\t1\tproxy", b"\xff" * 1000, b"x" * 100000,
]
# These get a host.
REPLIES_TO_ADD = [
    b"OK\t1\tuser=jane\tproxy", b"OK\t1\tuser=jane\tproxy",
    b"OK\t99999999999\tuser=\xff\tproxy=", b"OK\t\tproxy\tuser=a\001nb\001",
    b"OK\t-1\tproxy\tuser=j\0ne\0", b"OK\tid with spaces\tproxy=y\tuser==",
    b"OK\t1\tproxy\tuser=" + b"x" * 100000,
    b"OK\t1\tproxy\tuser=a\tport=99999999\tlip=\tlport=-1\tdirector_tag",
    b"OK\t1\tdirector_proxy_maybe\tuser=a\tlip=::1%lo" + b"\t" * 1000,
]


def check_replies(peer):
    for line in REPLY_GARBAGE:
        assert peer.line() == line
    for line in REPLIES_TO_ADD:
        reply = peer.line()
        assert reply.startswith(line) and b"\thost=127.0.0." in reply, line


REPLIES = b"\n".join(REPLY_GARBAGE + REPLIES_TO_ADD) + b"\n"


def test_auth_garbage(director):
    director.allow("auth sent a line longer than 131072 bytes")
    health = Health(director)

    def serve(sock):
        sock.sendall(REPLIES)
        sock.recv(1)
        sock.sendall(b"OK\t1\tuser=jane\tproxy")

    with FakeAuth(director, serve):
        for _ in range(5):
            peer = login(director)
            check_replies(peer)
            peer.send(b"\n")
            # the half line is dropped
            assert peer.line() is None
            peer.close()
    with FakeAuth(director, lambda sock: sock.sendall(b"OK\t1\tx" * MB)):
        peer = login(director)
        assert peer.line() is None
        peer.close()
    health.check()


def test_authreply_garbage(director):
    director.allow("Expected 'VERSION", "wrong socket path", "Line longer",
                   "we support only 1")
    health = Health(director)
    for hello in (b"\n", b"\0\n", b"VERSION\n", REPLIES, b"x" * (2 * MB),
                  b"VERSION\tdirector-authreply-client\t2\t0\n",
                  b"VERSION\tdirector-authreply-client\t-1\t0\n",
                  b"VERSION\tdirector-authreply-server\t1\t0\n"):
        peer = Peer(director.path("my-authreply"))
        try:
            peer.send(hello + b"OK\t1\tuser=jane\tproxy\n")
        except BrokenPipeError:
            pass
        assert not any(b"host=" in line for line in peer.rest())
        peer.close()
    peer = authreply(director)
    peer.send(REPLIES)
    check_replies(peer)
    peer.close()
    health.check()


def test_userdb_garbage(director):
    health = Health(director)
    with FakeAuth(director, name="auth-userdb") as auth:
        auth.answer = b"PASS\t%(id)s\tuser=%(user)s\tproxy\n"
        peer = Peer(director.path("director-userdb"))
        for line in LOGIN_GARBAGE:
            peer.send(line + b"\nPASS\t1\tjane\n")
            while not (reply := peer.line()).endswith(b"proxy_refresh=450"
                       b"\thost=127.0.0.12") and b"user=jane" not in reply:
                assert reply.startswith(b"PASS\t")
            assert b"\thost=" in reply
        peer.close()
    health.check()


def test_waiting_lookups(director):
    """They are cancelled, left behind by their client, and answered"""
    director.doveadm("director", "add", "127.0.0.14@none")
    director.doveadm("director", "down", "127.0.0.14")
    health = Health(director)
    rest = b"\tproxy\tdirector_tag=none\tx=\0" + b"x" * 100
    with FakeAuth(director) as auth, Bystander(director):
        auth.answer = b"OK\t%(id)s\tuser=%(user)s" + rest + b"\n"
        peers = [login(director) for _ in range(3)]
        for peer in peers:
            peer.send(b"".join(b"AUTH\t%d\tjane%d\n" % (i, i)
                               for i in range(4000)) + b"END\n")
            assert peer.line() == b"END"
        health.check_rss(8 * MB)
        cpu = health.read_cpu()
        peers[0].send(b"CANCEL\t4001\n" * 10000)
        peers[0].send(b"".join(b"CANCEL\t%d\n" % i for i in range(3990)))
        peers[0].send(b"END\n")
        assert peers[0].line() == b"END"
        peers[1].close()
        assert SLOW or health.read_cpu() - cpu < 0.5
        director.doveadm("director", "up", "127.0.0.14")
        for peer, first in (peers[0], 3990), (peers[2], 0):
            replies = [peer.line() for _ in range(first, 4000)]
            assert sorted(int(reply.split(b"\t")[1]) for reply in replies) \
                == list(range(first, 4000))
            for reply in replies:
                request_id = reply.split(b"\t")[1]
                assert reply.startswith(b"OK\t%s\tuser=jane%s%s\tproxy_" % (
                    request_id, request_id, rest)), reply
                assert b"\thost=127.0.0.14" in reply
            peer.close()
    health.check(growth=4 * MB)


def test_cancelled_requests(director):
    """auth doesn't answer them. A login process may live for months."""
    health = Health(director)

    def swallow(sock):
        while sock.recv(65536):
            pass

    with FakeAuth(director, swallow):
        peer = login(director)
        for first in range(1, 70000, 1000):
            peer.send(b"".join(b"AUTH\t%d\tjane\nCANCEL\t%d\n" % (i, i)
                               for i in range(first, first + 1000)))
        health.wait_idle()
        health.check_rss(MB)
        peer.close()
    health.check()


def test_cancelled_too_late(director):
    """The answer is there already: nothing is left of it, and its process
    isn't one that doesn't tell of its sessions."""
    health = Health(director)
    with FakeAuth(director) as auth:
        auth.answer = b"OK\t%(id)s\tuser=%(user)s\tproxy\n"
        peer = login(director)
        peer.send(b"CPID\t123456\n")
        # more than it may have without being told
        for i in range(1, 1100):
            peer.send(b"AUTH\t%d\tjane\n" % i)
            assert b"\tdirector_id=" in peer.line()
            peer.send(b"CANCEL\t%d\n" % i)
        peer.close()
    health.check()


def test_login_process_does_not_read(director):
    """And auth doesn't either: what is held is limited, and given back"""
    health = Health(director)

    def serve(sock):
        while True:
            sock.sendall(b"OK\t1\tuser=jane\tproxy\n" * 1000)

    with FakeAuth(director, serve), Bystander(director):
        peers = [login(director) for _ in range(10)]
        for peer in peers:
            assert peer.send_until_full(
                b"AUTH\t1\tx\n" * 1000, idle=0.3) < 4 * MB
        health.check_rss(10 * MB)
        for peer in peers:
            peer.close()
        wait_for(lambda: health.count_fds() <= health.fds + 1,
                 "connections to be closed")
    health.check(growth=4 * MB)


def open_many(director, health):
    with FakeAuth(director):
        peers = [login(director) for _ in range(500)]
        for peer in peers[::2]:
            peer.send(b"AUTH\t1\tjane")
        assert SLOW or health.cpu_of(0.5) < 0.1
        for peer in peers[:100]:
            peer.send(b"\nAUTH\t2\tjane\n")
        for peer in peers[:100]:
            assert b"\thost=" in peer.line()
        for peer in peers:
            peer.close()
        # but the bystander's
        wait_for(lambda: health.count_fds() <= health.fds + 1,
                 "connections to be closed")


def test_many_connections(director):
    """Idle ones, and half lines"""
    health = Health(director)
    open_many(director, health)
    # the heap keeps its size
    health.rss = health.read_rss()
    with Bystander(director):
        open_many(director, health)
    health.check()


def test_auth_not_there(director):
    director.allow(r"connect\(.*auth-login\) failed")
    health = Health(director)
    # its queue is full for a second
    auth = FakeAuth(director, backlog=100)
    with Bystander(director):
        peers = [login(director) for _ in range(300)]
        for peer in peers:
            peer.send(b"AUTH\t1\tjane\n")
        wait_for(lambda: health.count_fds() >= health.fds + 300, "them")
        assert SLOW or health.cpu_of(1) < 0.05
        with auth:
            for peer in peers:
                assert b"\thost=" in peer.line()
                peer.close()
    assert not director.log.find("connect.* failed")
    # there is no socket
    path = director.path("auth-login")
    os.rename(path, path + ".real")
    for _ in range(100):
        peer = login(director)
        assert peer.line() is None
        peer.close()
    os.rename(path + ".real", path)
    director.log.wait(r"connect\(.*auth-login\) failed: No such file",
                      count=100)
    health.check(growth=8 * MB)
