# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Garbage on every socket and FIFO: no crash, no spin, no growth, and other
users' logins do not notice. Bytes are random, but the same each time."""

import errno
import os
import pwd
import random
import socket
import threading
import time

import pytest

import clients
from node import wait_for, went_to

# The child does nothing that needs another thread
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded")

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"
SOCKETS = ["login/director", "login/director-proxy", "director-userdb",
           "director-admin"]
# Those that the login user reaches
LOGIN_SOCKETS = ["login/director", "login/director-proxy"]
FIFO = "login/proxy-notify"

HELLO = {
    "login/director": b"VERSION\t1\t3\nCPID\t%d\n",
    "login/director-proxy": b"VERSION\tdirector-proxy\t1\t0\n",
    "director-userdb": b"VERSION\t1\t3\n",
    "director-admin": b"VERSION\tdirector-doveadm\t1\t0\n",
}
NUMBERS = [b"0", b"-1", b"4294967295", b"4294967296", b"99999999999999999999",
           b"0x10", b"1e9", b"", b" 1", b"1 "]
WORDS = [b"HOST-SET", b"HOST-REMOVE", b"HOST-UP", b"HOST-DOWN", b"HOST-FLUSH",
         b"HOST-RESET-USERS", b"HOST-UPDATE", b"USER-LOOKUP", b"USER-LIST",
         b"HOST-LIST", b"DIRECTOR-LIST", b"USER-MOVE", b"USER-KICK", b"AUTH",
         b"CONT", b"CANCEL", b"PASS", b"USER", b"LIST", b"CPID", b"START",
         b"UP", b"END", b"ANNOUNCE", b"ANNOUNCED", b"KICKED", b"VERSION",
         b"OK", b"FAIL", b"proxy", b"host=", b"user=x", b"127.0.0.99",
         b"resp=AGphbmUAc2VjcmV0", b"999.1.1.1", b"::", b"@tag", b"127.0.0.1@"]


def lines_of_words(rnd):
    """Lines that look nearly right. They must not add a real backend."""
    out = b""
    for _ in range(rnd.randint(1, 30)):
        parts = [rnd.choice(WORDS)] + [
            rnd.choice([rnd.choice(WORDS), rnd.choice(NUMBERS),
                        rnd.randbytes(rnd.randint(0, 20)).replace(b"\n", b"")])
            for _ in range(rnd.randint(0, 6))]
        # what would change the backends for good is left to other tests
        if not parts[0].startswith(b"HOST-") or parts[0] == b"HOST-LIST":
            out += b"\t".join(parts) + b"\n"
    return out


def garbage(rnd, name):
    """Some bytes for one connection"""
    hello = HELLO.get(name, b"")
    if b"%d" in hello:
        hello = hello % os.getpid()
    return rnd.choice([
        lambda: rnd.randbytes(rnd.randint(1, 5000)),
        lambda: hello + rnd.randbytes(rnd.randint(1, 5000)),
        lambda: hello + lines_of_words(rnd),
        lambda: lines_of_words(rnd),
        lambda: hello + b"\n" * rnd.randint(1, 2000),
        lambda: hello + b"\t" * 4000 + b"\n",
        lambda: hello + b"\1" * 300 + b"\n\0\n",
        lambda: hello + b"A" * rnd.choice([8191, 8192, 16384, 70000]) + b"\n",
        lambda: hello + b"A" * 200000,
        lambda: hello[:rnd.randint(0, len(hello))],
        lambda: hello + b"VERSION\t99\t0\n" + hello,
        lambda: hello + rnd.choice(WORDS),
    ])()


def send(path, data, wait):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    try:
        sock.connect(path)
        sock.sendall(data)
        if wait:
            sock.settimeout(0.05)
            sock.recv(4096)
    except (BrokenPipeError, ConnectionResetError, TimeoutError):
        pass
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
    finally:
        sock.close()


def send_fifo(path, data):
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fd, data)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def as_user(name, function):
    """In a child with that user's rights. The paths have to be reachable."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            user = pwd.getpwnam(name)
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            function()
            code = 0
        except BaseException as error:  # noqa: BLE001
            print(repr(error), flush=True)
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0


def rss(pid):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f
                    if line.startswith("VmRSS:"))


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Others(threading.Thread):
    """Users who log in meanwhile"""

    def __init__(self, director):
        super().__init__()
        self.director = director
        self.ended = threading.Event()
        self.count = 0
        self.slowest = 0
        self.errors = []

    def run(self):
        while not self.ended.is_set():
            start = time.monotonic()
            try:
                clients.visit("imap", self.director.ip,
                              "other%d" % (self.count % 10))
            except Exception as error:  # noqa: BLE001
                self.errors.append(error)
            self.slowest = max(self.slowest, time.monotonic() - start)
            self.count += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()
        assert not self.errors
        assert self.count
        assert self.slowest < 10


@pytest.fixture
def director(nodes, backends):
    node = nodes.director(BACKENDS, restart_request_count="unlimited")
    # What is wrong with the garbage is told, by whoever got it. Crashes fail.
    node.allow(r"(director|auth|login|doveadm)[^:]*: (Error|Warning): "
               r"(?!.*(assert|Panic|Fatal|master: service))")
    pid = node.pid("director")
    yield node
    assert node.pid("director") == pid, "the director was restarted"


def settle(director):
    """Everybody has hung up"""
    pid = director.pid("director")
    before = cpu_seconds(pid)
    time.sleep(1)
    # does not spin
    assert cpu_seconds(pid) - before < 0.3


def rounds(director, names, count, seed):
    rnd = random.Random(seed)
    for i in range(count):
        name = names[i % len(names)]
        data = garbage(rnd, name)
        if name == FIFO:
            send_fifo(director.path(name), data[:4096])
        else:
            send(director.path(name), data, wait=i % 3 == 0)


@pytest.mark.parametrize("name", SOCKETS + [FIFO])
def test_as_root(director, name):
    with Others(director):
        rounds(director, [name], 150, seed=name)
    settle(director)
    clients.visit("imap", director.ip, "after")


def test_as_login_user(director):
    # the login user's own way in; the folders above are for root
    os.chmod(director.path("login"), 0o755)
    os.chmod(director.path(""), 0o755)
    with Others(director):
        as_user("dovenull", lambda: rounds(
            director, LOGIN_SOCKETS + [FIFO], 300, seed="login user"))
    settle(director)


def test_admin_socket_is_closed_to_the_login_user(director):
    os.chmod(director.path(""), 0o755)

    def connect():
        for name in "director-admin", "director-userdb":
            with pytest.raises(PermissionError):
                socket.socket(socket.AF_UNIX).connect(director.path(name))
    as_user("dovenull", connect)


def test_memory_stays(director):
    """The same garbage again and again costs no more memory"""
    pid = director.pid("director")
    names = SOCKETS + [FIFO]
    for seed in range(3):
        rounds(director, names, 100, seed=seed)
    settle(director)
    before = rss(pid)
    for _ in range(4):
        for seed in range(3):
            rounds(director, names, 100, seed=seed)
    settle(director)
    assert rss(pid) < before + 2000


def test_silent_connections(director):
    """Those who say nothing, or half a line, keep nobody waiting"""
    silent = []
    for name in SOCKETS:
        for i in range(50):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(director.path(name))
            if i % 2:
                sock.sendall(b"VERS")
            silent.append(sock)
    with Others(director) as others:
        wait_for(lambda: others.count >= 20, "20 logins", 30)
    for sock in silent:
        sock.close()
    settle(director)


def test_client_that_does_not_read(director):
    """An admin who asks and asks, and never reads"""
    pid = director.pid("director")
    before = rss(pid)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(director.path("director-admin"))
    sock.sendall(HELLO["director-admin"])
    sock.setblocking(False)
    sent = 0
    with Others(director) as others:
        deadline = time.monotonic() + 5
        while sent < 20000000 and time.monotonic() < deadline:
            try:
                sent += sock.send(b"HOST-LIST\n" * 1000)
            except BlockingIOError:
                if others.count > 5:
                    break
                time.sleep(0.01)
            except (BrokenPipeError, ConnectionResetError):
                break
        wait_for(lambda: others.count > 5, "other logins")
    assert rss(pid) < before + 10000
    sock.close()
    settle(director)


def test_fifo_survives(director, backends):
    """The original closed it for good after one long line"""
    clients.visit("imap", director.ip, "jane")
    went_to(backends, "jane")

    def expires():
        return director.user_status("jane")["expires"]

    def refreshed():
        send_fifo(director.path(FIFO), b"jane\n")
        return expires() > before
    for junk in b"x" * 20000 + b"\n", b"\n" * 4000, b"\1" * 1500 + b"\n":
        before = expires()
        send_fifo(director.path(FIFO), junk)
        wait_for(refreshed, "a later expiry", 10)
    director.log.wait("notify: .*skipped: xxxx")
