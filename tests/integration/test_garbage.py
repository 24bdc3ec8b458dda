# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Garbage on every socket and FIFO of the director, and peers that misbehave:
no crash, no spin, no growth, and the others do not notice."""

import os
import re
import select
import socket
import subprocess
import threading
import time

import pytest

import clients
from node import VALGRIND, wait_for

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
# valgrind and the like: less work, and no figures
SLOW = bool(VALGRIND or os.environ.get("DIRECTOR_TEST_SLOW"))
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

    def send_until_full(self, data, limit=64 * MB, idle=1):
        """Until the director has read nothing for idle seconds"""
        sent = 0
        view = memoryview(data)
        self.sock.setblocking(False)
        while sent < limit and select.select([], [self.sock], [], idle)[1]:
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


class FakeAuth(threading.Thread):
    """In the place of one of auth's sockets. serve(sock) handles a connection;
    by default each AUTH or PASS line is answered with self.answer."""

    def __init__(self, director, serve=None, name="auth-login", backlog=1024):
        super().__init__(daemon=True)
        director.allow("Auth server disconnected unexpectedly")
        self.path = director.path(name)
        self.serve_one = serve or self.answer_all
        self.answer = b"OK\t%(id)s\tuser=%(user)s\tproxy\n"
        self.socks = []
        os.rename(self.path, self.path + ".real")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o666)
        self.listener.listen(backlog)

    def __enter__(self):
        self.start()
        return self

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.socks.append(sock)
            threading.Thread(target=self.serve, args=(sock,),
                             daemon=True).start()

    def serve(self, sock):
        try:
            with sock:
                self.serve_one(sock)
        except OSError:
            pass

    def answer_all(self, sock):
        with sock.makefile("rb") as lines:
            for line in lines:
                fields = line.rstrip(b"\n").split(b"\t")
                if fields[0] == b"END":
                    sock.sendall(b"END\n")
                elif fields[0] in (b"AUTH", b"PASS") and len(fields) > 2:
                    sock.sendall(self.answer % {b"id": fields[1],
                                                b"user": fields[2]})

    def __exit__(self, *_):
        """auth itself is there again"""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        os.rename(self.path + ".real", self.path)


def login(director):
    return Peer(director.path("login/director"))


class Bystander(threading.Thread):
    """Logins of others meanwhile: each has to be answered soon. The machine
    may be busy, so the director's own CPU time until then counts for more."""

    MAX_SECS = 2
    MAX_CPU_SECS = 0.05

    def __init__(self, director):
        super().__init__(daemon=True)
        self.peer = authreply(director)
        self.schedstat = "/proc/%d/schedstat" % director_pids(director)[0]
        self.worst = self.worst_cpu = self.count = 0
        self.ended = threading.Event()

    def read_cpu(self):
        with open(self.schedstat) as f:
            return int(f.read().split()[0]) / 1e9

    def __enter__(self):
        self.start()
        return self

    def run(self):
        while self.count == 0 or not self.ended.wait(0.01):
            start, cpu = time.monotonic(), self.read_cpu()
            self.peer.send(b"OK\t1\tuser=bystander%d\tproxy\n" % self.count)
            assert b"\thost=127.0.0." in self.peer.line()
            self.worst_cpu = max(self.worst_cpu, self.read_cpu() - cpu)
            self.worst = max(self.worst, time.monotonic() - start)
            self.count += 1

    def __exit__(self, error, *_):
        self.ended.set()
        self.join(60)
        self.peer.close()
        if error is None:
            assert self.count > 0
            assert SLOW or self.worst < self.MAX_SECS
            assert SLOW or self.worst_cpu < self.MAX_CPU_SECS


def director_pids(director):
    """Not those of "imap-login director" """
    found = []
    for pid in director.pids("director"):
        try:
            with open("/proc/%d/comm" % pid) as f:
                if not f.read().startswith("imap-login"):
                    found.append(pid)
        except FileNotFoundError:
            pass
    return found


class Health:
    """What an attack must not change: process, descriptors, memory, and that
    it sleeps when there is nothing to do"""

    def __init__(self, director):
        self.director = director
        # what it opens and allocates only once
        clients.visit("imap", director.ip, "before")
        director.status()
        self.pid, = director_pids(director)
        self.proc = "/proc/%d/" % self.pid
        self.fds = self.count_fds()
        self.rss = self.read_rss()

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
        self.wait_idle()
        self.check_rss(growth)
        clients.visit("imap", self.director.ip, "afterwards")
        assert director_pids(self.director) == [self.pid]

    def check_rss(self, growth):
        assert SLOW or self.read_rss() - self.rss < growth

    def wait_idle(self):
        wait_for(lambda: self.cpu_of(0.3) < 0.03, "the director to be idle")

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
    add_users(director, 20000 if SLOW else 200000)
    health = Health(director)
    peers = [admin(director) for _ in range(5)]
    for peer in peers:
        peer.send(b"USER-LIST\n")
        assert peer.line()
    with Bystander(director):
        time.sleep(1)
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
    # its queue is full for two seconds
    auth = FakeAuth(director, backlog=100)
    with Bystander(director):
        peers = [login(director) for _ in range(300)]
        for peer in peers:
            peer.send(b"AUTH\t1\tjane\n")
        time.sleep(1)
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


# login/director-proxy

TOKEN = b"00000000000000aa-%x"


def start(number, ip=b"127.0.0.11", user_hash=None):
    return b"START\t" + TOKEN % number + b"\t%d\t%s\t1700000000\tuser%d\n" % (
        user_hash or number, ip, number)


def sessions(director):
    return sum(int(host[5]) for host in hosts(director).values())


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
        assert len(peer.rest()) <= 1
        peer.close()
    assert sessions(director) == 0
    for first in range(len(PLUGIN_GARBAGE)):
        peer = plugin(director)
        peer.send(b"HELLO\tof a newer plugin\n" * 100 + start(99))
        errors = len(director.log.find("Error: conn .*director-proxy"))
        for i in range(9):
            peer.send(PLUGIN_GARBAGE[(first + i) % len(PLUGIN_GARBAGE)] + b"\n")
        director.log.wait("Error: conn .*director-proxy", count=errors + 9)
        assert sessions(director) == 1
        peer.send(b"UP\n" * 1000)
        assert peer.line() is None
        peer.close()
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
               b"\tstolen\n" + start(2))
    wait_for(lambda: sessions(director) == 2, "a session")
    peer.send(start(1) + b"END\t" + TOKEN % 2 + b"\tx\nEND\t" + TOKEN % 1 +
              b"\tx\nEND\t" + TOKEN % 1 + b"\tx\n")
    wait_for(lambda: sessions(director) == 1, "the session's end")
    other.close()
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
    wait_for(lambda: sessions(director) == 0, "sessions to be forgotten")
    health.check()


def test_plugin_is_busy(director):
    """A login process with thousands of logins a second is read in time: it
    buffers no more than 64 kB"""
    peer = plugin(director)
    peer.send(b"ANNOUNCED\n")
    began = time.monotonic()
    for i in range(20000):
        peer.send(start(i) + b"UP\t" + TOKEN % i + b"\nEND\t" + TOKEN % i +
                  b"\tclosed\n")
    peer.send(start(1))
    wait_for(lambda: sessions(director) == 1, "the last session")
    assert SLOW or time.monotonic() - began < 5
    peer.close()


def test_plugin_loop(director):
    health = Health(director)
    with Bystander(director):
        for i in range(1000):
            peer = plugin(director)
            peer.send(start(i) + b"START\thalf")
            peer.close()
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

    first = expires(b"user7")
    time.sleep(1.1)
    with Bystander(director):
        # 8 MB without LF, in the middle of which others write
        write_until_taken(fifo, b"x" * (4 * MB))
        write_until_taken(fifo, b"\0" * (4 * MB) + b"\n")
        write_until_taken(fifo, b"\n" * MB)
        write_until_taken(fifo, b"\0\n\0\0\n\xff\xfe\n\x01\n\x011\x01\n" * 10000)
        others = [os.open(path, os.O_WRONLY) for _ in range(100)]
        for i, other in enumerate(others):
            os.write(other, b"partial%d" % i)
        for other in others:
            os.close(other)
        os.write(fifo, b"\nuser7\n")
        wait_for(lambda: expires(b"user7") > first, "a refresh")
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
        with Bystander(director):
            time.sleep(1)
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
                peer.send(b"VERSION\tdirector\t1\t9\nME\t127.0.0.1\t9090\t0\n" *
                          (i % 3))
                assert peer.line() is None
            except BrokenPipeError:
                pass
            peer.close()
    health.check()
