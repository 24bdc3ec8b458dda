# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The login plugin: what it tells of proxied sessions, when, and what it does
when it is told to end them."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

import clients
import fake_director
from fake_director import FakeDirector, now_msecs
from node import patience, wait_for

MODES = pytest.mark.parametrize("mode", [1, "unlimited"])
PORTS = {"imap": 143, "pop3": 110, "managesieve": 4190, "submission": 587}
# What clients are told who may try again
TEMPORARY = (("imap", "UNAVAILABLE"), ("pop3", "SYS/TEMP"),
             ("managesieve", "TRYLATER"), ("submission", "454"))
BACKEND = "127.0.0.11"
OTHER_BACKEND = "127.0.0.12"
NOBODY = "127.0.0.99"
SILENT = "127.0.0.98"

CHROOT = """
service imap-login {
  chroot = %s
}
"""

TLS = """
ssl = yes
ssl_server_cert_file = %s/cert.pem
ssl_server_key_file = %s/key.pem
"""


@pytest.fixture
def fake(nodes, backends):
    """Makes a node whose logins ask a fake director."""
    made = []

    def make(mode="unlimited", config="", **kwargs):
        node = nodes.proxy(auth_socket="fake", restart_request_count=mode,
                           config=fake_director.CONFIG + config, **kwargs)
        made.append(FakeDirector(node, BACKEND))
        return made[-1]
    yield make
    for director in made:
        director.relay.shutdown(socket.SHUT_RDWR)
        director.close()


class Imap:
    """A client that may be left hanging in the middle"""

    def __init__(self, host, port=143):
        self.sock = socket.create_connection((host, port), clients.TIMEOUT)
        self.lines = self.sock.makefile("rb")
        self.lines.readline()

    def send(self, text):
        self.sock.sendall(b"a " + text.encode() + b"\r\n")

    def reply(self):
        for line in self.lines:
            if line.startswith(b"a "):
                return line.decode().strip()[2:]
        raise EOFError

    def command(self, text):
        self.send(text)
        return self.reply()

    def close(self):
        self.lines.close()
        self.sock.close()


def live_sessions(director):
    return {row["mail server ip"]: int(row["sessions"])
            for row in director.status() if row["sessions"] != "0"}


# With the real director


@MODES
@pytest.mark.parametrize("chroot", ["login", ""])
def test_sessions_are_counted(nodes, backends, mode, chroot):
    director = nodes.director(BACKEND, restart_request_count=mode,
                              config=CHROOT % chroot)
    sessions = []
    for protocol, login in clients.LOGINS.items():
        sessions.append(login(director.ip, protocol + "user"))
        wait_for(lambda: live_sessions(director) == {BACKEND: len(sessions)},
                 "%d sessions" % len(sessions))
    while sessions:
        clients.close(sessions.pop())
        wait_for(lambda: live_sessions(director) == (
            {BACKEND: len(sessions)} if sessions else {}),
            "%d sessions" % len(sessions))


@MODES
def test_tls_sessions_are_counted(nodes, backends, mode, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
                    "-subj", "/CN=localhost", "-keyout", tmp_path / "key.pem",
                    "-out", tmp_path / "cert.pem"], check=True,
                   capture_output=True)
    director = nodes.director(BACKEND, restart_request_count=mode, start=False)
    director.change_config("ssl = no\n", TLS % (tmp_path, tmp_path))
    director.start()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    first = clients.imap(director.ip, "jane", port=993, ssl_context=context)
    second = clients.imap(director.ip, "john", starttls=context)
    wait_for(lambda: live_sessions(director) == {BACKEND: 2}, "2 sessions")
    clients.close(first)
    clients.close(second)
    wait_for(lambda: live_sessions(director) == {}, "no session")


def bytes_written(pids):
    count = 0
    for pid in pids:
        with open("/proc/%d/io" % pid) as f:
            count += int(dict(line.split(": ") for line in f)["wchar"])
    return count


@contextlib.contextmanager
def stopped(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@MODES
def test_login_process_is_stopped_too_long(nodes, backends, mode):
    """It comes to the director's answer after its deadline: the backend sees
    no login, the client may try again."""
    director = nodes.director(BACKEND, restart_request_count=mode)
    director.allow("Director's answer came too late")
    client = Imap(director.ip)
    daemon = director.pid("director")
    logins = director.pids("imap-login")
    # The question lies in the daemon's socket when the login process stops.
    with stopped([daemon]):
        written = bytes_written(logins)
        client.send("LOGIN late secret")
        wait_for(lambda: bytes_written(logins) > written + 100, "the AUTH line")
        for pid in logins:
            os.kill(pid, signal.SIGSTOP)
    with stopped(logins):
        wait_for(lambda: director.status()[0]["users"] == "1", "the answer")
        over = time.monotonic() + 5.1
        wait_for(lambda: time.monotonic() > over, "the deadline")
    assert client.reply().startswith("NO [UNAVAILABLE]")
    assert len(director.log.wait("Error: .*Director's answer came too late")
               ) == 1
    assert not backends[0].visits("late")
    assert client.command("LOGIN late secret").startswith("OK")
    wait_for(lambda: live_sessions(director) == {BACKEND: 1}, "1 session")
    assert backends[0].visits("late") == [("imap", "late")]
    client.close()
    wait_for(lambda: live_sessions(director) == {}, "no session")


@MODES
def test_director_is_killed(nodes, backends, mode):
    """Sessions live on; the next director process hears of them."""
    director = nodes.director(BACKEND, restart_request_count=mode)
    director.allow("killed with signal 9")
    sessions = [clients.imap(director.ip, "user%d" % i) for i in range(5)]
    wait_for(lambda: live_sessions(director) == {BACKEND: 5}, "5 sessions")
    old = director.pid("director")
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: director.pids("director") not in ([], [old]),
             "another director")
    wait_for(lambda: live_sessions(director) == {BACKEND: 5},
             "5 sessions again", 3)
    for session in sessions:
        assert session.noop()[0] == "OK"
        clients.close(session)
    wait_for(lambda: live_sessions(director) == {}, "no session")


@MODES
def test_login_process_is_killed(nodes, backends, mode):
    director = nodes.director(BACKEND, restart_request_count=mode)
    director.allow("killed with signal 9")
    session = clients.imap(director.ip, "jane")
    wait_for(lambda: live_sessions(director) == {BACKEND: 1}, "1 session")
    for pid in director.pids("imap-login"):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: live_sessions(director) == {}, "no session")
    session.shutdown()


def test_grace_is_told(nodes, backends):
    """What the ring waits for, less what backends need to finish"""
    director = nodes.director(BACKEND, config="director_lost_grace = 30 s\n")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience(10))
        sock.connect(director.path("login/director-proxy"))
        lines = sock.makefile("rb")
        assert lines.readline() == fake_director.HELLO
        assert lines.readline() == b"GRACE\t27000\n"


# With a fake one


@MODES
def test_order(fake, mode):
    director = fake(mode)
    for protocol, login in clients.LOGINS.items():
        director.forget()
        user = protocol + "user"
        session = login(director.node.ip, user)
        director.wait(user, "START UP")
        start = director.starts(user)[0]
        assert start[2:4] == [str(director.hash(user)), BACKEND]
        assert abs(int(start[4]) - time.time()) < 30
        clients.close(session)
        director.wait(user, "START UP END")
        words = [line[0] for _, line in director.heard]
        assert words[:4] == ["VERSION", "PROCESS", "START", "ANNOUNCED"]
        name = {"managesieve": "sieve"}.get(protocol, protocol)
        assert director.heard[1][1][2] == name


def test_others_answers_are_not_ours(fake, backends):
    """A passdb may name the host itself."""
    director = fake()

    def change(user, fields):
        for name in "director_id", "director_deadline", "user_director_hash":
            del fields[name]
    director.change = change
    clients.visit("imap", director.node.ip, "jane")
    assert director.heard == []


def test_late_answer(fake, backends):
    director = fake()
    director.node.allow("Director's answer came too late")

    def change(user, fields):
        fields["director_deadline"] = now_msecs() - 1
    for protocol, word in TEMPORARY:
        user = protocol + "user"
        director.change = change
        with pytest.raises(clients.LoginFailed, match=word):
            clients.LOGINS[protocol](director.node.ip, user)
        assert director.starts(user) == []
        assert backends[0].visits(user) == []
        director.change = None
        clients.visit(protocol, director.node.ip, user)
        director.wait(user, "START UP END")


def test_answer_that_makes_no_sense(fake):
    director = fake()
    director.node.allow("Director's answer can't be used")
    for name, value in (
            ("director_id", ""), ("director_id", "X"),
            ("director_id", "a" * 65), ("director_deadline", "soon"),
            ("director_deadline", "-1"), ("user_director_hash", "0"),
            ("user_director_hash", "4294967296")):
        director.change = lambda user, fields: fields.update({name: value})
        with pytest.raises(clients.LoginFailed):
            clients.imap(director.node.ip, "jane")
    assert director.heard == []


def test_answer_is_used_twice(fake):
    director = fake()
    director.node.allow("Director's answer was used already")
    director.change = lambda user, fields: fields.update(director_id="a-1")
    session = clients.imap(director.node.ip, "jane")
    with pytest.raises(clients.LoginFailed):
        clients.imap(director.node.ip, "john")
    assert session.noop()[0] == "OK"
    clients.close(session)
    director.wait("jane", "START UP END")
    clients.visit("imap", director.node.ip, "john")


def test_retry_on_one_connection(fake, backends):
    """Each try is a session of its own; the backend's retries are not."""
    director = fake(config="login_proxy_max_reconnects = 1\n")
    director.node.allow(r"connect\(127.0.0.99, 143\) failed")
    director.backend = NOBODY
    client = Imap(director.node.ip)
    assert client.command("LOGIN jane secret").startswith("NO [UNAVAILABLE]")
    director.wait("jane", "START END")
    # it did not end at the first failure
    end = next(line for _, line in director.heard if line[0] == "END")
    assert "1 reconnects" in end[2]
    director.backend = BACKEND
    assert client.command("LOGIN jane secret").startswith("OK")
    director.wait("jane", "START END", "START UP")
    client.close()
    director.wait("jane", "START END", "START UP END")


def test_backend_refuses_the_login(nodes, fake):
    nodes.backend("strict", "127.0.0.20", passdb="""
passdb static {
  password = secret
}
""")
    director = fake()
    director.backend = "127.0.0.20"
    client = Imap(director.node.ip)
    assert client.command("LOGIN jane wrong").startswith("NO ")
    director.wait("jane", "START END")
    assert client.command("LOGIN jane secret").startswith("OK")
    director.wait("jane", "START END", "START UP")
    client.close()


# Backends that send logins elsewhere

REFERRING = """
passdb static {
  fields {
    nologin = y
    nopassword = y
    host = %s
    port = %s
  }
}
"""


def test_redirect_to_another_backend(nodes, fake, backends):
    """Where a user is, is the director's to say."""
    nodes.backend("referring", "127.0.0.20", passdb=REFERRING.replace(
        "    port = %s\n", "") % OTHER_BACKEND)
    director = fake()
    director.node.allow("Backend 127.0.0.20 redirected the login")
    director.backend = "127.0.0.20"
    for protocol, word in TEMPORARY:
        user = protocol + "user"
        with pytest.raises(clients.LoginFailed, match=word):
            clients.LOGINS[protocol](director.node.ip, user)
        director.wait(user, "START END")
        director.node.log.wait(r"Error: proxy\(%s,%s.*Backend 127.0.0.20 "
                               "redirected the login" % (user, OTHER_BACKEND))
    assert not any(node.visits() for node in backends)


def test_redirect_to_another_port(nodes, fake, backends):
    """The same machine"""
    nodes.backend("referring", "127.0.0.20", passdb=REFERRING % (
        "127.0.0.20", 10143))
    director = fake()
    director.backend = "127.0.0.20"
    with forwarder(("127.0.0.20", 10143), (BACKEND, 143)):
        session = clients.imap(director.node.ip, "jane")
        director.wait("jane", "START UP")
        assert session.noop()[0] == "OK"
        clients.close(session)
        director.wait("jane", "START UP END")
    assert backends[0].visits() == [("imap", "jane")]


@contextlib.contextmanager
def forwarder(address, target):
    """Copies the first connection there."""
    def serve():
        with listener.accept()[0] as one, \
                socket.create_connection(target) as two:
            thread = threading.Thread(target=FakeDirector.copy,
                                      args=(one, two))
            thread.start()
            FakeDirector.copy(two, one)
            thread.join()
    with socket.create_server(address) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(patience(10))


# Kicks


@MODES
def test_kick_established(fake, mode):
    director = fake(mode)
    for protocol, login in clients.LOGINS.items():
        user = protocol + "user"
        session = login(director.node.ip, user)
        other = login(director.node.ip, "other" + user)
        director.wait(user, "START UP")
        director.wait("other" + user, "START UP")
        director.kick(user)
        director.wait(user, "START UP END")
        director.node.log.wait(
            r"Info: proxy\(%s,.*Kicked by director: kicked by the test" % user)
        with pytest.raises((OSError, EOFError, clients.smtplib.SMTPException,
                            clients.imaplib.IMAP4.abort,
                            clients.poplib.error_proto)):
            (session.command("NOOP") if protocol == "managesieve" else
             session.noop())
        assert director.sessions("other" + user) == ["START UP"]
        clients.close(other)
        director.wait("other" + user, "START UP END")


@MODES
def test_kick_pending(fake, mode):
    """The backend has not answered yet. The client may try again."""
    director = fake(mode)
    for protocol, word in TEMPORARY:
        director.backend = SILENT
        user = protocol + "user"
        assert word in kick_while_pending(director, protocol, user)
        director.wait(user, "START END")
        director.node.log.wait(r"Info: proxy\(%s,.*Aborting login: Kicked by "
                               "director: kicked by the test" % user)
        director.backend = BACKEND
        clients.visit(protocol, director.node.ip, user)
        director.wait(user, "START END", "START UP END")


def kick_while_pending(director, protocol, user):
    failures = []

    def log_in():
        try:
            clients.LOGINS[protocol](director.node.ip, user)
        except clients.LoginFailed as error:
            failures.append(str(error))
    with socket.create_server((SILENT, PORTS[protocol])) as silent:
        silent.settimeout(patience(10))
        thread = threading.Thread(target=log_in)
        thread.start()
        with silent.accept()[0] as backend:
            backend.settimeout(patience(10))
            director.wait(user, "START")
            director.kick(user)
            assert backend.recv(100) == b""
        thread.join(patience(10))
    assert len(failures) == 1
    return failures[0]


def test_kick_is_exact(fake):
    """One user, two backends, two hashes: only what is meant ends."""
    director = fake()
    first = clients.imap(director.node.ip, "jane")
    director.backend = OTHER_BACKEND
    second = clients.imap(director.node.ip, "jane")
    director.hashes["jane"] = 77
    third = clients.imap(director.node.ip, "jane")
    director.wait("jane", "START UP", "START UP", "START UP")
    director.tell(b"KICK\t1000\t127.0.0.12\n")
    director.wait("jane", "START UP END", "START UP", "START UP")
    assert second.noop()[0] == third.noop()[0] == "OK"
    director.tell(b"KICK\t1000\n")
    director.wait("jane", "START UP END", "START UP END", "START UP")
    assert third.noop()[0] == "OK"
    clients.close(third)
    for session in first, second:
        session.shutdown()


@pytest.mark.parametrize("max_disconnect_delay", [0, 60])
def test_kick_client_that_does_not_read(fake, backends, max_disconnect_delay):
    """Nothing of the session remains, although the proxy waits for the client
    to take what the backend has sent."""
    for node in backends:
        # Dovecot's own imap may fail an assertion when its client is gone
        # while it sends a large mail
        node.allow(r"imap\(jane\).*(Panic|Raw backtrace)",
                   r"imap\(jane\).*killed with signal 6")
    director = fake(config="login_proxy_max_disconnect_delay = %d s\n" %
                    max_disconnect_delay)
    mail = b"x" * 12000000
    client = Imap(director.node.ip)
    assert client.command("LOGIN jane secret").startswith("OK")
    client.sock.sendall(b"b APPEND INBOX {%d+}\r\n%s\r\n" % (len(mail), mail))
    assert client.command("SELECT INBOX").startswith("OK")
    client.sock.sendall(b"c FETCH 1 BODY[]\r\n")
    login = director.node.pid("imap-login")
    descriptors = "/proc/%d/fd" % login
    before = len(os.listdir(descriptors))
    wait_for(lambda: all_quiet(login), "the proxy to be stuck")
    director.kick("jane")
    director.wait("jane", "START UP END")
    wait_for(lambda: len(os.listdir(descriptors)) == before - 2,
             "both sockets to be closed")
    client.close()


def all_quiet(pid):
    """It has written nothing for a while, and a lot before."""
    written = bytes_written([pid])
    time.sleep(0.3)
    return written > 12000000 and bytes_written([pid]) == written


# The connection to the director


def test_director_comes_back(fake):
    director = fake()
    sessions = {user: clients.imap(director.node.ip, user)
                for user in ["user%d" % i for i in range(10)]}
    for user in sessions:
        director.wait(user, "START UP")
    director.close()
    director.forget()
    # while it is away
    clients.close(sessions.pop("user0"))
    sessions["late"] = clients.imap(director.node.ip, "late")
    director.open()
    for user in sessions:
        director.wait(user, "START UP", timeout=2)
    assert director.sessions("user0") == []
    wait_for(lambda: director.heard[-1][1] == ["ANNOUNCED"], "ANNOUNCED")
    words = [line[0] for _, line in director.heard]
    assert words[:2] == ["VERSION", "PROCESS"]
    assert words.count("ANNOUNCED") == 1
    for user, session in sessions.items():
        clients.close(session)
        director.wait(user, "START UP END")


@MODES
def test_director_stays_away(fake, mode):
    director = fake(mode)
    director.node.allow("director-proxy.*failed: No such file")
    director.close()
    sessions = [clients.imap(director.node.ip, "user%d" % i) for i in range(3)]
    director.node.log.wait("director-proxy.*failed: No such file", timeout=15)
    for session in sessions:
        assert session.noop()[0] == "OK"
        clients.close(session)
    if mode == 1:
        wait_for(lambda: not director.node.pids("imap-login"),
                 "the login processes to end")
    director.open()
    clients.visit("imap", director.node.ip, "jane")
    director.wait("jane", "START UP END")


@MODES
def test_no_director(fake, mode):
    """Nobody could end the sessions, so they end themselves."""
    director = fake(mode)
    director.node.allow("director-proxy.*failed: No such file")
    director.hello += b"GRACE\t2000\n"
    sessions = [login(director.node.ip, protocol + "user")
                for protocol, login in clients.LOGINS.items()]
    for protocol in clients.LOGINS:
        director.wait(protocol + "user", "START UP")
    director.close()
    start = time.monotonic()
    for protocol in clients.LOGINS:
        director.node.log.wait(r"Info: proxy\(%suser,.*Disconnecting: There "
                               "has been no director for 2.000 secs" %
                               protocol)
    assert time.monotonic() - start > 1.5
    for session in sessions:
        with pytest.raises((OSError, EOFError, clients.imaplib.IMAP4.abort,
                            clients.smtplib.SMTPException,
                            clients.poplib.error_proto)):
            (session.command("NOOP") if isinstance(session, clients.Sieve)
             else session.noop())
    director.open()
    clients.visit("imap", director.node.ip, "jane")
    director.wait("jane", "START UP END")


def test_director_hangs(nodes, backends):
    """It is there, but would neither kick nor tell of these sessions."""
    director = nodes.director(BACKEND, config="director_lost_grace = 5 s\n")
    director.allow("director")
    session = clients.imap(director.ip, "jane")
    idle = clients.imap(director.ip, "jim")
    wait_for(lambda: live_sessions(director) == {BACKEND: 2}, "2 sessions")
    # one that is there is asked, and answers
    for _ in range(6):
        time.sleep(1)
        assert session.noop()[0] == "OK"
    pid = director.pid("director")
    os.kill(pid, signal.SIGSTOP)
    try:
        director.log.wait(r"Info: proxy\(jane,.*Disconnecting: There "
                          "has been no director for 4.000 secs")
        director.log.wait(r"Info: proxy\(jim,.*Disconnecting: There ")
    finally:
        os.kill(pid, signal.SIGCONT)
    for one in session, idle:
        with pytest.raises((OSError, clients.imaplib.IMAP4.abort)):
            one.noop()
    clients.visit("imap", director.ip, "jane")
    wait_for(lambda: live_sessions(director) == {}, "no session")


GARBAGE = [b"x" * 100000, b"\n", b"\0\0\0\n", b"KICK\n", b"KICK\tx\n",
           b"KICK\t0\n", b"KICK\t4294967296\n", b"KICK\t1\tnobody\n",
           bytes(range(256)) * 20 + b"\n", b"UNKNOWN\ta\tb\n", b"KICK"]


def test_director_says_garbage(fake):
    director = fake()
    director.node.allow("director-proxy.*(director|VERSION|socket type)")
    session = clients.imap(director.node.ip, "jane")
    director.wait("jane", "START UP")
    for garbage in GARBAGE:
        wait_for(lambda: director.plugins, "the plugin")
        director.tell(garbage)
        assert session.noop()[0] == "OK"
    director.close()
    director.hello = b"VERSION\tsomething-else\t1\t0\n"
    director.open()
    wait_for(lambda: len(director.starts("jane")) > 5, "retries")
    # and it was not a storm
    assert len(director.starts("jane")) < 30
    director.close()
    director.forget()
    director.hello = fake_director.HELLO
    director.open()
    director.wait("jane", "START UP")
    # told once, not at every retry
    assert len(director.node.log.find("Error: ")) <= 2
    director.kick("jane")
    director.wait("jane", "START UP END")
    session.shutdown()


def test_director_does_not_read(fake):
    """What is buffered for it is limited; then everything is told again."""
    director = fake()
    director.node.allow("Director doesn't read, disconnecting")
    session = clients.imap(director.node.ip, "jane")
    director.wait("jane", "START UP")
    director.reading.clear()

    def log_in_often():
        while not director.node.log.find("Director doesn't read"):
            clients.visit("imap", director.node.ip, "j" * 200)
    threads = [threading.Thread(target=log_in_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.noop()[0] == "OK"
    director.forget()
    director.reading.set()
    wait_for(lambda: director.sessions("jane")[-1:] == ["START UP"],
             "jane's session")
    clients.close(session)


def test_reload(fake):
    """The old login process ends its sessions and itself."""
    director = fake()
    session = clients.imap(director.node.ip, "jane")
    director.wait("jane", "START UP")
    old = director.node.pids("imap-login")
    director.node.reload()
    director.wait("jane", "START UP END")
    wait_for(lambda: not set(old) & set(director.node.pids("imap-login")),
             "the old process to end")
    clients.visit("imap", director.node.ip, "john")
    director.wait("john", "START UP END")
    session.shutdown()
