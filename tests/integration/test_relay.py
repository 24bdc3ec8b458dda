# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The relay in front of auth: fields, waits, and listeners of any name."""

import os
import signal
import socket
import threading
import time

import pytest

import clients
from node import patience, wait_for, went_to

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"


def passwd_file(tmp_path, lines):
    path = tmp_path / "users"
    path.write_text("".join(line + "\n" for line in lines))
    path.chmod(0o644)
    for folder in list(path.parents)[:-2]:
        os.chmod(folder, 0o755)
    return """
passdb passwd-file {
  default_password_scheme = plain
  passwd_file_path = %s
  fields {
    pass = %%{password}
  }
}
""" % path


USERDB = """
userdb static {
  fields {
    uid = mail
    gid = mail
  }
}
"""


def director_is_backend(nodes, tmp_path, fields, config=""):
    """A director that is one of the backends: 127.0.0.10 is itself."""
    lines = ["u%d:secret::::::%s" % (number, fields) for number in range(12)]
    return nodes.director(
        "127.0.0.10 127.0.0.11", listen="127.0.0.10",
        passdb=passwd_file(tmp_path, lines), config=USERDB + config,
        restart_request_count="unlimited")


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_proxy_maybe(nodes, backends, tmp_path, protocol):
    """Remote users are proxied, those of the director's own host log in."""
    director = director_is_backend(nodes, tmp_path, "director_proxy_maybe=y")
    users = ["u%d" % number for number in range(12)]
    for user in users:
        clients.visit(protocol, director.ip, user)
    local = [user for user in users if
             director.user_status(user)["status"] == "127.0.0.10"]
    assert 0 < len(local) < len(users)
    for user in users:
        if user in local:
            director.log.wait(r"-login: Info: (Login|Logged in): user=<%s>" %
                              user)
            assert not director.log.find(r"proxy\(%s," % user)
        else:
            assert went_to(backends, user) == ["backend11"]


def test_proxy_maybe_lmtp(nodes, backends, tmp_path):
    """So it is with what auth answers to lmtp."""
    director = director_is_backend(nodes, tmp_path, "director_proxy_maybe=y")
    users = ["u%d" % number for number in range(12)]
    assert clients.deliver(director.ip, *users) == {}
    local = [user for user in users if
             director.user_status(user)["status"] == "127.0.0.10"]
    assert 0 < len(local) < len(users)
    for user in users:
        if user in local:
            director.log.wait(r"lmtp\(%s\).*saved mail to" % user)
        else:
            assert went_to(backends, user) == ["backend11"]


def test_proxy_maybe_with_other_port_is_remote(nodes, backends, tmp_path):
    """Another port of the own address is another server."""
    director = nodes.director(
        "127.0.0.10", listen="127.0.0.10",
        passdb=passwd_file(tmp_path, [
            "jane:secret::::::director_proxy_maybe=y port=10143"]),
        config=USERDB, restart_request_count="unlimited")
    nodes.backend("other", "127.0.0.10", start=False)
    sink = socket.create_server(("127.0.0.10", 10143))
    sink.settimeout(patience(20))
    director.allow("proxy")
    client = socket.create_connection((director.ip, 143), patience(20))
    client.sendall(b"a LOGIN jane secret\r\n")
    # the proxy comes here
    connection, _ = sink.accept()
    for sock in connection, client, sink:
        sock.close()


def test_host_name_and_address(nodes, backends):
    """A backend that is configured by name is answered by name, too."""
    director = nodes.director("localhost@x", passdb="""
passdb static {
  fields {
    proxy = y
    nopassword = y
    director_tag = x
    port = 10143
  }
}
""")
    director.allow("proxy")
    # nobody is there
    with pytest.raises(clients.LoginFailed):
        clients.imap(director.ip, "jane")
    ip = director.user_status("jane", "x")["status"]
    assert ip in ("127.0.0.1", "::1")
    director.log.wait(r"proxy\(jane,localhost\[%s\]:10143\)" % ip)


def test_waits_30_seconds(nodes, backends):
    """Not less, not more; then a temporary failure with a reason in the
    log."""
    director = nodes.director("127.0.0.11",
                              restart_request_count="unlimited")
    director.doveadm("director", "down", "127.0.0.11")
    director.allow("host lookup failed")
    start = time.monotonic()
    # one begins 3 s later, and waits its own 30 s
    first = socket.create_connection((director.ip, 143), patience(60))
    first.sendall(b"a LOGIN jane secret\r\n")
    wait_for(lambda: time.monotonic() - start > 3, "3 s")
    later = time.monotonic()
    with pytest.raises(clients.LoginFailed) as error:
        clients.imap(director.ip, "joe")
    assert 29.9 < time.monotonic() - later < 30 + patience(1)
    assert "UNAVAILABLE" in str(error.value)
    failed = director.log.wait(
        r"director: User jane host lookup failed: Timeout because no hosts - "
        r"queued for 30 secs \(Ring synced for \d+ secs, hash=1480892766\)")
    assert len(failed) == 1
    director.log.wait("director: User joe host lookup failed: Timeout because "
                      "no hosts - queued for 30 secs")
    reply = first.recv(4096)
    while b"\r\na " not in reply:
        reply += first.recv(4096)
    assert b"a NO [UNAVAILABLE]" in reply
    first.close()


def test_delivery_and_doveadm_wait_30_seconds(nodes, backends):
    """Their mail isn't bounced, their command can be tried again."""
    director = nodes.director("127.0.0.11", config=USERDB)
    director.doveadm("director", "down", "127.0.0.11")
    director.allow("jane|joe")
    answers = {}

    def ask(name, what):
        start = time.monotonic()
        answer = what()
        answers[name] = time.monotonic() - start, answer
    threads = [threading.Thread(target=ask, args=args) for args in (
        ("lmtp", lambda: clients.deliver(director.ip, "jane")),
        ("doveadm", lambda: director.doveadm("mailbox", "list", "-u", "joe",
                                             check=False)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(60))
    secs, refused = answers["lmtp"]
    assert 29.9 < secs < 30 + patience(3)
    assert refused["jane"][0] == 451
    secs, done = answers["doveadm"]
    assert 29.9 < secs < 30 + patience(3)
    assert done.returncode == 75
    for user in "jane", "joe":
        director.log.wait(
            "director: User %s host lookup failed: Timeout because no hosts - "
            "queued for 30 secs" % user)
    director.doveadm("director", "up", "127.0.0.11")
    assert clients.deliver(director.ip, "jane") == {}


def test_waiting_login_goes_on(nodes, backends):
    director = nodes.director("127.0.0.11",
                              restart_request_count="unlimited")
    director.doveadm("director", "down", "127.0.0.11")
    waiting = []
    for number in range(10):
        sock = socket.create_connection((director.ip, 143), patience(20))
        sock.sendall(b"a LOGIN w%d secret\r\n" % number)
        waiting.append(sock)
    director.doveadm("director", "up", "127.0.0.11")
    for number, sock in enumerate(waiting):
        data = b""
        while b"a OK" not in data:
            data += sock.recv(4096)
        sock.close()
    for number in range(10):
        assert went_to(backends, "w%d" % number) == ["backend11"]


def test_auth_is_killed(nodes, backends):
    """Login processes get a new auth, with its new cookie, through us."""
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    director.allow("Auth server disconnected unexpectedly", "killed with",
                   "auth", "Auth")
    clients.visit("imap", director.ip, "jane")
    where = went_to(backends, "jane")
    for _ in range(3):
        os.kill(director.pid("auth"), signal.SIGKILL)

        def logs_in():
            try:
                clients.visit("imap", director.ip, "jane")
                return True
            except (clients.LoginFailed, OSError, EOFError):
                return False
        wait_for(logs_in, "a login after auth was killed")
    assert set(went_to(backends, "jane", count=4)) == set(where)


def test_listeners_of_any_name(nodes, backends):
    """The type decides, or without one the end of the name."""
    director = nodes.director(BACKENDS, config="""
service director {
  unix_listener one {
    type = admin
  }
  unix_listener two-admin {
  }
  unix_listener three-doveadm {
  }
  unix_listener login/first {
    type = login
    mode = 0666
  }
  unix_listener login/second-auth {
    mode = 0666
  }
  unix_listener login/third {
    mode = 0666
  }
  unix_listener four {
    type = userdb
  }
  unix_listener five-userdb {
  }
  unix_listener six {
    type = authreply
  }
  unix_listener seven-authreply {
  }
  unix_listener eight-notify {
  }
  inet_listener nine-admin {
    port = 10090
  }
  inet_listener other {
    port = 10091
  }
}
""")

    def greeting(name):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(patience(5))
            sock.connect(director.path(name))
            if "login" in name or "userdb" in name or name == "four":
                sock.sendall(b"VERSION\t1\t2\n")
            return sock.recv(1000).split(b"\n")[0].decode()
    for name in "one", "two-admin", "three-doveadm":
        assert greeting(name) == "VERSION\tdirector-doveadm\t1\t0"
    for name in "login/first", "login/second-auth", "login/third", "four", \
            "five-userdb":
        assert greeting(name).startswith("VERSION\t1\t")
    for name in "six", "seven-authreply":
        assert greeting(name) == "VERSION\tdirector-authreply-server\t1\t0"
    with socket.create_connection((director.ip, 10090), patience(5)) as sock:
        assert sock.recv(100) == b"VERSION\tdirector-doveadm\t1\t0\n"
    # the ring, which nobody may enter yet
    director.allow("not listed in director_servers")
    with socket.create_connection((director.ip, 10091), patience(5)) as sock:
        assert sock.recv(100) == b""
    # refreshes by a socket instead of the FIFO
    clients.visit("imap", director.ip, "jane")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(director.path("eight-notify"))
        before = director.user_status("jane")["expires"]

        def refreshed():
            sock.sendall(b"jane\n")
            return director.user_status("jane")["expires"] > before
        wait_for(refreshed, "a refresh")


def test_authreply(nodes, backends):
    director = nodes.director(BACKENDS, config="""
service director {
  unix_listener my-authreply {
  }
}
""")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience(5))
        sock.connect(director.path("my-authreply"))
        file = sock.makefile("rw", newline="\n")
        assert file.readline() == "VERSION\tdirector-authreply-server\t1\t0\n"
        file.write("VERSION\tdirector-authreply-client\t1\t0\n"
                   "OK\t1\tuser=jane\tproxy\tpass=x\n"
                   "OK\t2\tuser=jane\n"
                   "FAIL\t3\tuser=jane\n"
                   "OK\t4\tuser=other\tdestuser=jane\tproxy=y\n"
                   "OK\t5\tuser=jane\tproxy\thost=1.2.3.4\n"
                   "PASS\t6\tuser=jane\tproxy\n")
        file.flush()
        lines = [file.readline() for _ in range(6)]
    host = director.user_status("jane")["status"]
    assert lines[0].startswith(
        "OK\t1\tuser=jane\tproxy\tpass=x\tproxy_refresh=450\thost=" + host)
    assert lines[1:3] == ["OK\t2\tuser=jane\n", "FAIL\t3\tuser=jane\n"]
    assert lines[3].startswith("OK\t4\tuser=other\tdestuser=jane\tproxy=y\t"
                               "proxy_refresh=450\thost=" + host)
    assert lines[4:] == ["OK\t5\tuser=jane\tproxy\thost=1.2.3.4\n",
                         "PASS\t6\tuser=jane\tproxy\n"]


def test_master_user_separator(nodes, backends):
    """What is behind the separator doesn't decide, here in destuser."""
    director = nodes.director(BACKENDS, config="""
auth_master_user_separator = *
service director {
  unix_listener my-authreply {
  }
}
""")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience(20))
        sock.connect(director.path("my-authreply"))
        file = sock.makefile("rw", newline="\n")
        file.readline()
        file.write("VERSION\tdirector-authreply-client\t1\t0\n")
        for number in range(30):
            for name in "u%d", "u%d*boss", "u%d*chief*x":
                file.write("OK\t1\tuser=x\tdestuser=%s\tproxy\n" %
                           (name % number))
        file.flush()
        hosts = [file.readline().rstrip("\n").split("\thost=")[1].split("\t")
                 [0] for _ in range(90)]
    assert hosts[::3] == hosts[1::3] == hosts[2::3]
    assert set(hosts) == set(BACKENDS.split())
    assert sum(int(row["users"]) for row in director.status()) == 30


def test_authreply_wrong_greeting(nodes, backends):
    director = nodes.director(BACKENDS, config="""
service director {
  unix_listener my-authreply {
  }
}
""")
    director.allow("my-authreply")
    for wrong in b"hello\n", b"VERSION\tauth\t1\t0\n", \
            b"VERSION\tdirector-authreply-client\t2\t0\n":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(patience(5))
            sock.connect(director.path("my-authreply"))
            sock.sendall(wrong)
            data = b""
            while chunk := sock.recv(100):
                data += chunk
            assert data == b"VERSION\tdirector-authreply-server\t1\t0\n"
    director.log.wait("Error: .*my-authreply", count=3)
