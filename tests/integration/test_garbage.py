# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Garbage on every socket and FIFO of the director, and peers that misbehave:
no crash, no spin, no growth, and the others do not notice."""

import os
import re
import select
import socket
import threading
import time

import pytest

import clients
from node import wait_for

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"
ADMIN_VERSION = b"VERSION\tdirector-doveadm\t1\t0\n"
PLUGIN_VERSION = b"VERSION\tdirector-login-plugin\t1\t0\n"
AUTHREPLY_VERSION = b"VERSION\tdirector-authreply-client\t1\t0\n"
ADMIN_PORT = 9091
RING_PORT = 9090
LISTENERS = """
service director {
  unix_listener my-authreply {
    type = authreply
    mode = 0600
  }
  inet_listener director-admin {
    port = 9091
  }
  inet_listener director {
    port = 9090
  }
}
"""
KB = 1024
MB = 1024 * 1024
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Peer:
    """A client of one of the director's sockets"""

    def __init__(self, path, timeout=20):
        family = socket.AF_UNIX if isinstance(path, str) else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.data = b""

    def send(self, data):
        self.sock.sendall(data)

    def send_until_full(self, data, limit=64 * MB):
        """Until the director has read nothing for a second"""
        sent = 0
        view = memoryview(data)
        self.sock.setblocking(False)
        while sent < limit and select.select([], [self.sock], [], 1)[1]:
            sent += self.sock.send(view[sent % len(data):])
        self.sock.settimeout(20)
        return sent

    def line(self):
        """Without LF; None when the director has closed"""
        while b"\n" not in self.data:
            if not self.read():
                return None
        line, self.data = self.data.split(b"\n", 1)
        return line

    def read(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self.data += data
        return data

    def rest(self):
        """All lines until the director closes"""
        while self.read():
            pass
        return self.data.split(b"\n")[:-1]

    def lines_to_empty(self):
        return list(iter(self.line, b""))

    def close(self):
        self.sock.close()


def admin(director, path="director-admin"):
    peer = Peer(director.path(path) if isinstance(path, str) else path)
    assert peer.line() + b"\n" == ADMIN_VERSION
    peer.send(ADMIN_VERSION)
    return peer


def plugin(director, pid=None):
    """As a login process with a director plugin would"""
    peer = Peer(director.path("login/director-proxy"))
    assert peer.line().startswith(b"VERSION\tdirector-proxy\t1\t")
    peer.send(PLUGIN_VERSION + b"PROCESS\t%d\timap\n" % (pid or os.getpid()))
    return peer


def authreply(director):
    peer = Peer(director.path("my-authreply"))
    assert peer.line().startswith(b"VERSION\tdirector-authreply-server\t1\t")
    peer.send(AUTHREPLY_VERSION)
    return peer


def add_users(director, count, prefix="user", fields=b""):
    """Users whom the director knows then"""
    peer = authreply(director)
    for first in range(0, count, 1000):
        users = range(first, min(first + 1000, count))
        peer.send(b"".join(b"OK\t%d\tuser=%s%d\tproxy%s\n" % (
            i + 1, prefix.encode(), i, fields) for i in users))
        for i in users:
            assert b"\thost=" in peer.line()
    peer.close()


class Bystander(threading.Thread):
    """Logins of others meanwhile: each has to be answered soon"""

    def __init__(self, director, limit=0.5):
        super().__init__(daemon=True)
        self.peer = authreply(director)
        self.limit = limit
        self.worst = 0
        self.count = 0
        self.ended = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def run(self):
        while not self.ended.wait(0.01):
            start = time.monotonic()
            self.peer.send(b"OK\t1\tuser=bystander%d\tproxy\n" % self.count)
            assert b"\thost=127.0.0." in self.peer.line()
            self.worst = max(self.worst, time.monotonic() - start)
            self.count += 1

    def __exit__(self, error, *_):
        self.ended.set()
        self.join(20)
        self.peer.close()
        if error is None:
            assert self.count > 0 and self.worst < self.limit


class Health:
    """What an attack must not change: process, descriptors, memory, and that
    it sleeps when there is nothing to do"""

    def __init__(self, director):
        self.director = director
        # what it opens and allocates only once
        clients.visit("imap", director.ip, "before")
        director.status()
        self.pid, = self.pids()
        self.proc = "/proc/%d/" % self.pid
        self.fds = self.count_fds()
        self.rss = self.read_rss()

    def pids(self):
        """Not "imap-login director" """
        found = []
        for pid in self.director.pids("director"):
            with open("/proc/%d/comm" % pid) as f:
                if not f.read().startswith("imap-login"):
                    found.append(pid)
        return found

    def count_fds(self):
        return len(os.listdir(self.proc + "fd"))

    def read_rss(self):
        with open(self.proc + "status") as f:
            return int(re.search(r"VmRSS:\s*(\d+) kB", f.read()).group(1)) * KB

    def read_cpu(self):
        with open(self.proc + "stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * TICK

    def check(self, growth=MB):
        """After the attack, when its peers have closed"""
        wait_for(lambda: self.count_fds() <= self.fds,
                 "descriptors to be closed")
        wait_for(lambda: self.cpu_of(0.3) < 0.03, "the director to be idle")
        assert self.read_rss() - self.rss < growth
        clients.visit("imap", self.director.ip, "afterwards")
        assert self.pids() == [self.pid]

    def cpu_of(self, secs):
        before = self.read_cpu()
        time.sleep(secs)
        return self.read_cpu() - before


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


def hosts(director):
    """{ip: [vhosts, users, tag, state, ...]}"""
    peer = admin(director)
    peer.send(b"HOST-LIST\n")
    lines = peer.lines_to_empty()
    peer.close()
    return {line.split(b"\t")[0]: line.split(b"\t")[1:] for line in lines}


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
    add_users(director, 200000)
    health = Health(director)
    peers = [admin(director) for _ in range(5)]
    for peer in peers:
        peer.send(b"USER-LIST\n")
        assert peer.line()
    with Bystander(director):
        time.sleep(1)
    assert health.read_rss() - health.rss < 2 * MB
    users = sum(int(host[1]) for host in hosts(director).values())
    assert users > 199900
    listed = peers[0].lines_to_empty()
    assert len(listed) == users - 1
    # the others never read
    for peer in peers:
        peer.close()
    health.check()


def test_admins_change_hosts_during_walks(director):
    add_users(director, 50000)
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
            assert len(peers[2].lines_to_empty()) > 49900
        for thread in threads:
            thread.join()
    assert replies == [[b"OK"] * 900] * 2
    assert sorted(hosts(director)) == sorted(BACKENDS.encode().split())
    for peer in peers:
        peer.close()
    health.check()
