# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""doveadm director when the server is away, silent, slow, broken or hostile"""

import signal
import socket
import time

import pytest

from doveadm_runner import doveadm, several  # noqa: F401
from fake_admin import send
from node import patience, wait_for


def test_tcp(doveadm):
    fake = doveadm.fake({"HOST-LIST": "\n"}, tcp=True)
    port = fake.path.split(":")[1]
    for path in fake.path, "localhost:" + port:
        if path.startswith("127") or socket.getaddrinfo(
                "localhost", 0)[0][0] == socket.AF_INET:
            assert doveadm("status", "-a", path).returncode == 0


def test_no_connection(doveadm):
    path = doveadm.node.path("director-admin")
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    for args, said in [
            ([], "net_connect_unix(%s) failed: No such file or directory" %
             path),
            (["-a", "/" + 200 * "x"], "net_connect_unix("),
            (["-a", "127.0.0.1:%d" % port],
             "connect(127.0.0.1:%d) failed: Connection refused\n" % port),
            (["-a", "[::1]:%d" % port],
             "connect([::1]:%d) failed: Connection refused\n" % port),
            (["-a", "127.0.0.1"], "Port not known for 127.0.0.1"),
            (["-a", "nowhere.invalid:1"],
             "Lookup of host nowhere.invalid failed: ")]:
        done = doveadm("status", *args)
        assert (done.returncode, done.stdout) == (75, "")
        assert done.stderr.startswith("Fatal: " + said)


@pytest.mark.parametrize("greeting,code,said", [
    ("", 75, "Fatal: PATH disconnected\n"),
    ("VERSION\tdirector-doveadm\t1\t0", 75, "Fatal: PATH disconnected\n"),
    ("VERSION\tdirector-doveadm\t2\t0\n", 76,
     "Fatal: PATH not a compatible director-doveadm socket\n"),
    ("VERSION\tanvil-server\t1\t0\n", 76,
     "Fatal: PATH not a compatible director-doveadm socket\n"),
    ("\n", 76, "Fatal: PATH not a compatible director-doveadm socket\n"),
    (b"\0\xff\n", 76, "Fatal: PATH not a compatible director-doveadm socket\n"),
    (10000 * "x", 76, "Fatal: PATH sent a line longer than 8192 bytes\n")])
def test_bad_greeting(doveadm, greeting, code, said):
    fake = doveadm.fake(talk=lambda sock: (
        send(sock, greeting), sock.recv(1000), sock.shutdown(socket.SHUT_WR)))
    done = doveadm("status", "-a", fake.path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == said.replace("PATH", fake.path)


LONG = "Error: PATH sent a line longer than 8192 bytes\n"
GONE = "Error: PATH unexpectedly disconnected\n"
INVALID = "Error: Invalid reply from director\n"


@pytest.mark.parametrize("args,reply,code,said", [
    ("status", None, 75, GONE),
    ("status", "10.0.0.1\t100\t1\t\tU\t0\n10.0.0.2\t1", 75, GONE),
    ("status", "ERROR It's\tbroken\x1b[2J\n", 75, "Error: failed: It's"),
    ("status", 10000 * "x", 76, LONG),
    ("status", 9 * "\t" + "\n\n", 0, ""),
    ("status", "\x01\x01\x01t\x01n\n\0\0\n\n", 0, ""),
    ("status", b"\xff\xfe\t1\t\xc3\tt\x01ng\x1b[2J\tX\t-1\n\n", 0, ""),
    ("status", "1\t1\t1\t\tD\t9223372036854775807\t\n\n", 0, ""),
    ("status", "1\t1\t1\t\tD\t99999999999999999999\t\n\n", 0, ""),
    ("status x", None, 75, GONE),
    ("status x", "\n", 76, INVALID),
    ("status x", "a\tb\tc\td\n", 76, INVALID),
    ("status x", "1.1.1.1\t0\t\n", 76, INVALID),
    ("status x", "1.1.1.1\t0\t\t\t\n", 76, INVALID),
    ("status x", "TRYAGAIN\n", 76, INVALID),
    ("status x", "ERROR Go away\n", 75, "Error: failed: Go away\n"),
    ("status x", "1.1.1.1\t9223372036854775807\t\t\n", 0, ""),
    ("map -f /dev/null", None, 75, GONE),
    ("map -f /dev/null", "1\t1\n", 76, "Error: Invalid USER-LIST reply: 1 1\n"),
    ("map -f /dev/null", "4294967296\t1\t1.1.1.1\n", 76,
     "Error: Invalid USER-LIST reply: 4294967296 1 1.1.1.1\n"),
    ("map -f /dev/null", "1\tx\t1.1.1.1\n", 76,
     "Error: Invalid USER-LIST reply: 1 x 1.1.1.1\n"),
    ("map -f /dev/null", "1\t1\t1.1.1.x\n", 76,
     "Error: Invalid USER-LIST reply: 1 1 1.1.1.x\n"),
    ("map -f /dev/null", "1\t-5\t1.1.1.1\tmore\n\n", 0, ""),
    ("map -f /dev/null", "ERROR No\n", 75, "Error: failed: No\n"),
    ("dump", "ERROR No\n", 75, "Error: failed: No\n"),
    ("up 10.0.0.1", None, 75, GONE),
    ("up 10.0.0.1", "\n", 75, "Error: 10.0.0.1: \n"),
    ("up 10.0.0.1", b"\x1b[2J\xff\0\n", 75, "Error: 10.0.0.1: "),
    ("up 10.0.0.1", 10000 * "x", 76, LONG)])
def test_bad_reply(doveadm, args, reply, code, said):
    def answer(sock, _):
        if reply is not None:
            send(sock, reply)
        sock.shutdown(socket.SHUT_WR)

    fake = doveadm.fake({command: answer for command in (
        "HOST-LIST", "HOST-LIST-REMOVED", "USER-LOOKUP", "USER-LIST",
        "HOST-UP")})
    done = doveadm(*args.split(), "-a", fake.path)
    assert done.returncode == code
    said = said.replace("PATH", fake.path)
    assert done.stderr.startswith(said) if said else done.stderr == ""
    # nothing that a terminal would act on
    assert not set("\x1b\0\x01\t") & set(done.stderr + done.stdout)


def test_second_reply_missing(doveadm, several):
    def reply(sock, line):
        if line.endswith("72"):
            send(sock, "OK\n")
            sock.shutdown(socket.SHUT_WR)

    fake = doveadm.fake({"HOST-SET": reply})
    done = doveadm("add", "-a", fake.path, several, options=["-v"])
    assert done.stderr == "Info: 10.0.0.71: OK\n" + \
        GONE.replace("PATH", fake.path)
    assert done.returncode == 75


def test_too_long_command(doveadm):
    fake = doveadm.fake({"HOST-SET": "OK\n"})
    done = doveadm("add", "-a", fake.path, "-t", 2000 * "x", "10.0.0.1")
    assert done.returncode == 64
    assert "HOST-SET command is longer than 1024 bytes" in done.stderr
    assert fake.lines == []


def test_handshake_limit(doveadm):
    """5 seconds for a server that is silent, that never ends its line, or that
    doesn't even accept"""
    def silent(sock):
        sock.recv(1000)
        sock.recv(1000)

    def trickle(sock):
        while True:
            send(sock, "V")
            time.sleep(0.05)

    busy = socket.socket(socket.AF_UNIX)
    busy_path = doveadm.node.dir + "/busy"
    busy.bind(busy_path)
    busy.listen(0)
    in_queue = socket.socket(socket.AF_UNIX)
    in_queue.connect(busy_path)

    start = time.monotonic()
    paths = [doveadm.fake(talk=silent).path, doveadm.fake(talk=trickle).path,
             doveadm.fake(talk=silent, tcp=True).path, busy_path]
    running = [doveadm.popen("status", "-a", path) for path in paths]
    for process, path in zip(running, paths):
        stdout, stderr = process.communicate(timeout=patience(20))
        assert (process.returncode, stdout) == (75, "")
        if path != busy_path:
            assert stderr == "Fatal: read(%s) timed out " \
                "(is director configured?)\n" % path
        else:
            assert stderr == "Fatal: net_connect_unix(%s) failed: Server is " \
                "too busy to accept() for 5 secs\n" % path
    assert 5 <= time.monotonic() - start < patience(10)
    in_queue.close()
    busy.close()


def test_reply_and_connect_limits(doveadm):
    """A director that hangs after its greeting, and a host that drops what
    comes"""
    def trickle(sock, _):
        while True:
            sock.sendall(b"x")
            time.sleep(1)

    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    address = "127.0.0.1:%d" % full.getsockname()[1]
    in_queue = [socket.socket() for _ in range(3)]
    for sock in in_queue:
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
    silent = doveadm.fake({"HOST-LIST": ""}).path
    trickling = doveadm.fake({"HOST-LIST": trickle}).path
    limits = {
        silent: (70, "Error: read(%s) timed out: No reply in 70 secs\n"),
        trickling: (70, "Error: read(%s) timed out: No reply in 70 secs\n"),
        address: (30, "Fatal: connect(%s) failed: Timed out in 30 secs\n")}
    start = time.monotonic()
    running = {path: doveadm.popen("status", "-a", path) for path in limits}
    for path, (secs, said) in sorted(limits.items(), key=lambda x: x[1]):
        stdout, stderr = running[path].communicate(timeout=patience(100))
        assert secs <= time.monotonic() - start < secs + patience(5)
        assert running[path].returncode == 75
        assert stderr == said % path
    for sock in in_queue + [full]:
        sock.close()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(doveadm, signum):
    fake = doveadm.fake({"HOST-LIST": ""})
    process = doveadm.popen("status", "-a", fake.path)
    wait_for(lambda: fake.lines, "the command")
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=patience(5))
    assert process.returncode == 75
    assert "Error: %s: Interrupted\n" % fake.path in stderr
