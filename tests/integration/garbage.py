# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Clients of the director's sockets that may say anything, an auth server that
does as well, and what shows whether the director minds."""

import os
import re
import select
import socket
import threading
import time

import clients
from node import VALGRIND, patience, wait_for

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
        self.sock.settimeout(patience(timeout))
        self.data = b""
        wait_for(lambda: self.connect(path), "a place in the listen queue")

    def connect(self, path):
        try:
            self.sock.connect(path)
            return True
        except BlockingIOError:
            return False

    def send(self, data):
        self.sock.sendall(data)

    def send_until_full(self, data, limit=64 * MB, idle=1):
        """Until the director has read nothing for idle seconds"""
        sent = 0
        view = memoryview(data)
        self.sock.setblocking(False)
        while sent < limit and select.select([], [self.sock], [], idle)[1]:
            sent += self.sock.send(view[sent % len(data):])
        self.sock.settimeout(patience(20))
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
    assert peer.line().startswith(b"GRACE\t")
    peer.send(PLUGIN_VERSION + b"PROCESS\t%d\timap\n" % (pid or os.getpid()))
    return peer


def announce_none(director):
    """What this process has told before is over. (As long as it lives, the
    director waits for it to announce again what it lost a connection of.)"""
    peer = plugin(director)
    peer.send(b"ANNOUNCED\n")
    peer.close()


TOKEN = b"00000000000000aa-%x"


def start(number, ip=b"127.0.0.11", user_hash=None):
    """The plugin's line for a session that this director didn't allow"""
    return b"START\t" + TOKEN % number + b"\t%d\t%s\t1700000000\tuser%d\n" % (
        user_hash or number or 1, ip, number)


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


def hosts(director):
    """{ip: [vhosts, users, tag, state, ...]}"""
    peer = admin(director)
    peer.send(b"HOST-LIST\n")
    lines = peer.lines_to_empty()
    peer.close()
    return {line.split(b"\t")[0]: line.split(b"\t")[1:] for line in lines}


def sessions(director):
    return sum(int(host[5]) for host in hosts(director).values())


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
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path + ".fake")
        os.chmod(self.path + ".fake", 0o666)
        self.listener.listen(backlog)
        # there is one at any time: others may be logging in
        os.link(self.path, self.path + ".real")
        os.rename(self.path + ".fake", self.path)

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

    def wait(self, count):
        """Until so many were answered"""
        wait_for(lambda: self.count >= count or not self.is_alive(),
                 "%d lookups of others" % count)

    def __exit__(self, error, *_):
        self.ended.set()
        self.join(patience(60))
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
        count = sessions(director)
        clients.visit("imap", director.ip, "before")
        wait_for(lambda: sessions(director) == count, "the session's end")
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
