# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The admin socket as scripts use it (spec: sockets.md §7)."""

import socket

import pytest

from node import patience, wait_for

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"
VERSION = "VERSION\tdirector-doveadm\t1\t0\n"
AUTHREPLY = """
service director {
  unix_listener my-authreply {
  }
}
"""


class Admin:
    def __init__(self, director):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(patience(20))
        self.sock.connect(director.path("director-admin"))
        self.file = self.sock.makefile("r", newline="\n")
        assert self.file.readline() == VERSION
        self.send(VERSION)

    def send(self, *lines):
        self.sock.sendall("".join(
            line.rstrip("\n") + "\n" for line in lines).encode())

    def line(self):
        return self.file.readline().rstrip("\n")

    def ask(self, line):
        self.send(line)
        return self.line()

    def list(self, line):
        self.send(line)
        return list(iter(self.line, ""))

    def close(self):
        self.file.close()
        self.sock.close()


@pytest.fixture
def director(nodes, backends):
    return nodes.director(BACKENDS, config=AUTHREPLY)


@pytest.fixture
def admin(director):
    conn = Admin(director)
    yield conn
    conn.close()


def populate(director, count):
    """Assigns users u0... without logins. Returns {hash: address}."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience(20))
        sock.connect(director.path("my-authreply"))
        file = sock.makefile("rw", newline="\n")
        file.write("VERSION\tdirector-authreply-client\t1\t0\n")
        file.readline()
        users = {}
        for start in range(0, count, 500):
            for number in range(start, start + 500):
                file.write("OK\t%d\tuser=u%d\tproxy\n" % (number + 1, number))
            file.flush()
            for number in range(start, start + 500):
                fields = file.readline().rstrip("\n").split("\t")
                values = dict(field.partition("=")[::2] for field in fields)
                users[values["user"]] = values["host"]
    return users


def test_poolmon(director, admin):
    """A failed backend: two commands in one write, and gone without reading.
    Both happen."""
    users = populate(director, 500)
    for _ in range(5):
        conn = Admin(director)
        assert [line.split("\t")[0] for line in conn.list("HOST-LIST")] == \
            BACKENDS.split()
        conn.send("HOST-DOWN\t127.0.0.12", "HOST-FLUSH\t127.0.0.12")
        conn.close()
        row = wait_for(lambda: next(
            (row for row in admin.list("HOST-LIST")
             if row.startswith("127.0.0.12\t100\t0\t\tD\t")), None),
            "12 to be down and empty")
        assert len(row.split("\t")) == 7
        conn = Admin(director)
        conn.send("HOST-UP\t127.0.0.12")
        conn.close()
        wait_for(lambda: any(
            row.startswith("127.0.0.12\t100\t0\t\tU\t")
            for row in admin.list("HOST-LIST")), "12 to be up")
        # the users of 12 come back
        assert populate(director, 500) == users


def test_pipelining_loses_nothing(director, admin):
    commands = []
    for number in range(200):
        ip = "10.1.1.%d" % number
        commands += ["HOST-SET\t%s\t%d" % (ip, number), "HOST-DOWN\t" + ip,
                     "HOST-UPDATE\t%s\t7" % ip, "HOST-UP\t" + ip,
                     "HOST-FLUSH\t" + ip, "HOST-REMOVE\t" + ip,
                     "HOST-REMOVE\t" + ip]
    admin.send(*commands)
    assert [admin.line() for _ in commands] == \
        (["OK"] * 6 + ["NOTFOUND"]) * 200
    assert [line.split("\t")[0] for line in admin.list("HOST-LIST")] == \
        BACKENDS.split()


REPLIES = [
    ("", "ERROR Empty line"),
    ("FOO", "ERROR Unknown command 'FOO'"),
    ("HOST-LIST\tx", "ERROR Wrong number of parameters"),
    ("HOST-SET", "ERROR Wrong number of parameters"),
    ("HOST-SET\tx", "ERROR Invalid IP address 'x'"),
    ("HOST-SET\t10.0.0.1\t-1", "ERROR Invalid vhost count '-1'"),
    ("HOST-SET\t10.0.0.1\t4294967296", "ERROR Invalid vhost count"),
    ("HOST-SET\t10.0.0.1\t1001", "vhost count too large"),
    ("HOST-SET\t127.0.0.11@x", "host tag can't be changed"),
    ("HOST-SET\t127.0.0.11@", "OK"),
    ("HOST-SET\t10.0.0.1@a b", "ERROR Invalid tag 'a b'"),
    ("HOST-SET\t10.0.0.1@a\001tb", "ERROR Invalid tag"),
    ("HOST-SET\t[fd00::1]@t\t1000", "OK"),
    ("HOST-UPDATE\t10.0.0.1\t5", "NOTFOUND"),
    ("HOST-UPDATE\t127.0.0.11", "ERROR Wrong number of parameters"),
    ("HOST-UP\t10.0.0.1", "NOTFOUND"),
    ("HOST-UP\t127.0.0.11", "OK"),
    ("HOST-DOWN\t127.0.0.11@x", "ERROR Invalid IP address"),
    ("HOST-REMOVE\t10.0.0.1", "NOTFOUND"),
    ("HOST-FLUSH\t10.0.0.1", "NOTFOUND"),
    ("HOST-FLUSH", "OK"),
    ("HOST-RESET-USERS\t10.0.0.1", "NOTFOUND"),
    ("HOST-RESET-USERS\tx", "ERROR Invalid IP address 'x'"),
    ("HOST-RESET-USERS\t\t0", "ERROR Invalid number of parallel moves '0'"),
    ("HOST-RESET-USERS\t\t-1", "ERROR Invalid number of parallel moves"),
    ("HOST-RESET-USERS\t\t4294967296", "ERROR Invalid number of parallel"),
    ("HOST-RESET-USERS\t\t1\tx", "ERROR Invalid parameter 'x'"),
    ("HOST-RESET-USERS\t\t1\tprogress\tx", "ERROR Wrong number of param"),
    ("HOST-RESET-USERS", "OK"),
    ("HOST-RESET-USERS\t127.0.0.11", "OK"),
    ("HOST-RESET-USERS\t\t1", "OK"),
    ("USER-MOVE\tjane\t10.0.0.1", "NOTFOUND"),
    ("USER-MOVE\tjane\tx", "ERROR Invalid IP address 'x'"),
    ("USER-MOVE\tjane", "ERROR Wrong number of parameters"),
    ("USER-LIST\tx", "ERROR Invalid IP address"),
    ("USER-LOOKUP", "ERROR Wrong number of parameters"),
    ("x" * 1023, "ERROR Unknown command"),
    ("x" * 1025, "ERROR Line is longer than 1024 bytes"),
    ("x" * 1000000, "ERROR Line is longer than 1024 bytes"),
]


def test_replies(director, admin):
    """Each line has its reply, and the connection goes on."""
    director.allow("director-admin", "Flushed all backend")
    for line, reply in REPLIES:
        assert admin.ask(line).startswith(reply), line[:100]


def test_flush(director, admin):
    """What comes behind it is answered behind it, and a client that has gone
    stops it only if it wanted to see the progress."""
    users = populate(director, 500)
    moved = [user for user, ip in users.items() if ip == "127.0.0.12"]
    assert len(moved) > 100
    user = moved[0]
    assert admin.ask("HOST-UPDATE\t127.0.0.12\t0") == "OK"
    admin.send("HOST-RESET-USERS\t127.0.0.12\t5", "USER-LOOKUP\t" + user)
    assert admin.line() == "OK"
    assert admin.line().split("\t")[0] in ("127.0.0.11", "127.0.0.13")
    assert admin.ask("HOST-UPDATE\t127.0.0.12\t100") == "OK"
    conn = Admin(director)
    conn.send("HOST-RESET-USERS\t\t1")
    conn.close()
    wait_for(lambda: any(row.startswith("127.0.0.12\t100\t%d\t" % len(moved))
                         for row in admin.list("HOST-LIST")), "their return")
    assert populate(director, 500) == users


def test_wrong_greeting(director):
    director.allow("director-admin")
    for wrong in b"\n", b"HOST-LIST\n", b"VERSION\tother\t1\t0\n", \
            b"VERSION\tdirector-doveadm\t2\t0\n", b"x" * 2000 + b"\n":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(patience(10))
            sock.connect(director.path("director-admin"))
            sock.sendall(wrong)
            data = b""
            try:
                while chunk := sock.recv(1000):
                    data += chunk
            except (socket.timeout, ConnectionResetError):
                pass
            lines = data.decode().splitlines()
            assert lines[0] == VERSION.strip()
            assert lines[1].startswith("ERROR "), (wrong, lines)


def test_numeric_names(director, admin):
    populate(director, 500)
    # 1480892766 is jane's hash, and may be somebody's name
    by_hash = admin.ask("USER-LOOKUP\t1480892766")
    assert by_hash == admin.ask("USER-LOOKUP\tjane")
    by_name = admin.ask("USER-LOOKUP\t1480892766\t\tuser")
    assert by_name.split("\t")[:2] == ["", "0"]
    assert admin.ask("USER-LOOKUP\tu1").split("\t")[0] != ""
    assert admin.ask("USER-LOOKUP\tu1\tother") == "\t0\t\t"


def test_slow_reader_gets_all(director, admin):
    """More than any buffer holds, read late and in small pieces; each user
    once, while others are served and hosts change."""
    users = populate(director, 30000)
    admin.send("USER-LIST")
    other = Admin(director)
    for _ in range(20):
        assert other.ask("HOST-SET\t10.0.0.1@other") == "OK"
        assert other.ask("HOST-REMOVE\t10.0.0.1") == "OK"
    other.close()
    data = b""
    while not data.endswith(b"\n\n"):
        data += admin.sock.recv(3000)
    rows = [line.split("\t") for line in data.decode().splitlines()[:-1]]
    assert len(rows) == len({row[0] for row in rows}) == len(users)
    hosts = [row[2] for row in rows]
    assert {host: hosts.count(host) for host in set(hosts)} == \
        {host: list(users.values()).count(host)
         for host in set(users.values())}
    assert len(admin.list("USER-LIST\t127.0.0.11")) == hosts.count("127.0.0.11")
