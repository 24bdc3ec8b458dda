# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""doveadm director with a real director, and its HTTP API"""

import base64
import json
import os
import subprocess
import urllib.request

import pytest

import clients
from fake_admin import FakeAdmin
from node import DOVEADM_PASSWORD, patience, wait_for

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"
USERS = ["jane", "john", "mary", "12345"]

USERDB = """
userdb passwd-file {
  passwd_file_path = %s
}
"""


@pytest.fixture
def users_file(tmp_path):
    """A user database that can be listed"""
    path = tmp_path / "users"
    path.write_text("".join("%s:::::/tmp\n" % user for user in USERS))
    for folder in [tmp_path] + list(tmp_path.parents)[:2]:
        os.chmod(folder, 0o755)
    return path


def rows(node, *args):
    """Output with titles, as a list of dicts"""
    done = node.doveadm("-f", "json", "director", *args)
    assert done.stderr == ""
    return json.loads(done.stdout)


def sessions(node):
    return {row["mail server ip"]: (row["users"], row["sessions"])
            for row in node.status()}


def test_users_and_sessions(nodes, users_file):
    node = nodes.director(BACKENDS, config=USERDB % users_file)
    assert set(sessions(node).values()) == {("0", "0")}
    assert rows(node, "map") == []
    logged_in = {user: clients.imap(node.ip, user) for user in USERS}

    found = {row["user"]: row for row in rows(node, "map")}
    assert sorted(found) == sorted(USERS)
    for user in USERS:
        args = ["-u", user] if user.isdigit() else [user]
        status = rows(node, "status", *args)[0]
        assert status["status"] == status["hashed"] == \
            status["initial-config"] == found[user]["mail server ip"]
        assert status["expires"] != "-1"
        assert found[user]["hash"] == \
            node.doveadm("director", "map", "-u", user).stdout.strip()
        assert rows(node, "map", "-h", found[user]["hash"]) == [{"user": user}]
        by_hash = rows(node, "status", found[user]["hash"])[0]
        assert by_hash["status"] == status["status"]
    # a number is a hash
    assert rows(node, "status", "12345")[0]["status"] == "n/a"

    for ip, (users, live) in sessions(node).items():
        there = [user for user in USERS if found[user]["mail server ip"] == ip]
        assert (int(users), int(live)) == (len(there), len(there))
        assert sorted(row["user"] for row in rows(node, "map", ip)) == \
            sorted(there)
    node.allow("Flushed all backend hosts with 4 users")
    for client in logged_in.values():
        clients.close(client)
    # remembered, but no longer there
    wait_for(lambda: {live for _, live in sessions(node).values()} == {"0"},
             "all sessions to end")
    assert sum(int(users) for users, _ in sessions(node).values()) == 4
    assert node.doveadm("director", "flush", "-F", "all").stdout == ""
    assert rows(node, "map") == []


def host_table(node):
    return [(row["mail server ip"], row["tag"], row["vhosts"], row["state"])
            for row in node.status()]


CHANGES = """\
add 127.0.0.14
add 127.0.0.15@tag 7
add -t tag fd00::11 50
update 127.0.0.11 0
down 127.0.0.12
down 127.0.0.15
remove 127.0.0.13
"""
CHANGED = [("127.0.0.11", "", "0", "up"), ("127.0.0.12", "", "100", "down"),
           ("127.0.0.14", "", "100", "up"), ("127.0.0.15", "tag", "7", "down"),
           ("fd00::11", "tag", "50", "up")]


def test_hosts(nodes):
    node = nodes.director(BACKENDS)
    for line in CHANGES.splitlines():
        done = node.doveadm("-v", "director", *line.split())
        assert done.stderr.startswith("Info: ")
    assert host_table(node) == CHANGED
    changed = {row["mail server ip"]: row["state changed"]
               for row in node.status()}
    assert changed["127.0.0.11"] == "-" and changed["127.0.0.12"] != "-"
    node.doveadm("director", "up", "127.0.0.12")
    assert host_table(node)[1] == ("127.0.0.12", "", "100", "up")

    for line, code, said in [
            ("add 127.0.0.14@x", 75, "host tag can't be changed"),
            ("add 127.0.0.14 1001", 75, "vhost count too large"),
            ("update 127.0.0.99 1", 75, "doesn't exist"),
            ("up 127.0.0.99", 68, "doesn't exist"),
            ("down 127.0.0.99", 68, "doesn't exist"),
            ("remove 127.0.0.99", 68, "doesn't exist"),
            ("flush -F 127.0.0.99", 68, "doesn't exist")]:
        done = node.doveadm("director", *line.split(), check=False)
        assert done.returncode == code
        assert done.stderr.split(" ", 1)[1] == "%s: %s\n" % (
            line.split()[-1] if code == 68 else
            line.split()[1].split("@")[0], said)


def test_dump_restores(nodes):
    node = nodes.director(BACKENDS)
    for line in CHANGES.splitlines():
        node.doveadm("director", *line.split())
    dump = node.doveadm("director", "dump").stdout
    node.stop()
    # one that knows the configuration only
    other = nodes.director(BACKENDS, name="other")
    assert [row[0] for row in host_table(other)] == BACKENDS.split()
    subprocess.run(["sh", "-ec", dump.replace(
        "doveadm ", "doveadm -c %s " % other.config_path)], check=True)
    assert host_table(other) == CHANGED
    assert other.doveadm("director", "dump").stdout == dump


def test_dump_restores_tags(nodes):
    """Also of those that the configuration has with another tag, or without"""
    configured = "127.0.0.11 127.0.0.12@old"
    node = nodes.director(configured)
    for line in ("remove 127.0.0.11", "add 127.0.0.11@new 7",
                 "remove 127.0.0.12", "add 127.0.0.12"):
        node.doveadm("director", *line.split())
    changed = host_table(node)
    assert [row[:2] for row in changed] == [("127.0.0.11", "new"),
                                            ("127.0.0.12", "")]
    dump = node.doveadm("director", "dump").stdout
    node.stop()
    other = nodes.director(configured, name="other")
    assert host_table(other) != changed
    subprocess.run(["sh", "-ec", dump.replace(
        "doveadm ", "doveadm -c %s " % other.config_path)], check=True)
    assert host_table(other) == changed


def test_socket_option(nodes):
    """-a with the path, and with a TCP listener of the type admin"""
    node = nodes.director(BACKENDS, config="""
service director {
  inet_listener director-admin {
    type = admin
    port = 9091
  }
}
""")
    expected = host_table(node)
    for path in node.path("director-admin"), "127.0.0.1:9091", "[::1]:9091":
        assert len(rows(node, "status", "-a", path)) == len(expected)
    dump = node.doveadm("director", "dump", "-a", "127.0.0.1:9091").stdout
    assert dump.splitlines()[0] == \
        "doveadm director add -a 127.0.0.1:9091 127.0.0.11 100"


# HTTP API

class API:
    def __init__(self, node):
        self.url = "http://%s:8080/doveadm/v1" % node.ip
        self.auth = base64.b64encode(b"doveadm:" + DOVEADM_PASSWORD.encode())

    def __call__(self, command, **params):
        """The rows, or the exit code"""
        request = urllib.request.Request(
            self.url, json.dumps([[command, params, "tag1"]]).encode(),
            {"Content-Type": "application/json",
             "Authorization": "Basic " + self.auth.decode()})
        with urllib.request.urlopen(request, timeout=patience(60)) as response:
            kind, result, tag = json.load(response)[0]
        assert tag == "tag1"
        if kind == "doveadmResponse":
            return result
        assert (kind, result["type"]) == ("error", "exitCode")
        return result["exitCode"]

    def commands(self):
        request = urllib.request.Request(self.url, headers={
            "Authorization": "Basic " + self.auth.decode()})
        with urllib.request.urlopen(request, timeout=patience(60)) as response:
            return {row["command"]: [p["name"] for p in row["parameters"]]
                    for row in json.load(response)}


def test_http_names(nodes):
    commands = API(nodes.director(BACKENDS)).commands()
    assert {name: params for name, params in commands.items()
            if name.startswith("director")} == {
        "directorStatus": ["socketPath", "userName", "user", "tag"],
        "directorMap": ["socketPath", "usersFile", "hashMap", "userMap",
                        "host"],
        "directorAdd": ["socketPath", "tag", "host", "vhostCount"],
        "directorUpdate": ["socketPath", "host", "vhostCount"],
        "directorUp": ["socketPath", "host"],
        "directorDown": ["socketPath", "host"],
        "directorRemove": ["socketPath", "keepSessions", "host"],
        "directorFlush": ["socketPath", "forceFlush", "maxParallel", "host"],
        "directorMove": ["socketPath", "wait", "userName", "user", "host"],
        "directorKick": ["socketPath", "passdbField", "user"],
        "directorSessions": ["socketPath", "user"],
        "directorDump": ["socketPath"],
        "directorRingAdd": ["socketPath", "ip", "port"],
        "directorRingRemove": ["socketPath", "ip", "port"],
        "directorRingStatus": ["socketPath"]}


def test_http(nodes):
    node = nodes.director(BACKENDS)
    node.allow("Flushed all backend hosts with 1 users")
    api = API(node)
    assert [row["mail server ip"] for row in api("directorStatus")] == \
        BACKENDS.split()
    client = clients.imap(node.ip, "jane")
    status = api("directorStatus", user="jane")[0]
    assert list(status) == ["status", "expires", "hashed", "initial-config"]
    assert api("directorStatus", userName="jane") == [status]
    assert api("directorStatus", user="jane", tag="x")[0]["status"] == "n/a"
    jane = {"user": "jane", "hash": "1480892766",
            "mail server ip": status["status"]}
    found = api("directorMap", usersFile="john\njane\n")
    assert len(found) == 1 and jane.items() <= found[0].items()
    assert api("directorMap", usersFile="jane", host=status["status"],
               hashMap=False) == found
    assert api("directorMap", host="jane", userMap=True) == [
        {"hash": jane["hash"]}]
    assert api("directorMap", host=jane["hash"], hashMap=True,
               usersFile="jane") == [{"user": "jane"}]
    clients.close(client)

    assert api("directorAdd", host="127.0.0.14", tag="x", vhostCount="7") == []
    assert api("directorUpdate", host="127.0.0.14", vhostCount=9) == []
    assert api("directorDown", host="127.0.0.14") == []
    assert host_table(node)[3] == ("127.0.0.14", "x", "9", "down")
    assert [row["command"] for row in api("directorDump")] == \
        ["add"] * 4 + ["down"]
    assert api("directorUp", host="127.0.0.14") == []
    assert api("directorFlush", host="127.0.0.14", forceFlush=True) == []
    assert api("directorFlush", host="all", forceFlush=True) == []
    assert api("directorRemove", host="127.0.0.14") == []
    assert len(host_table(node)) == 3


def test_http_failures(nodes):
    """Each gets an answer"""
    node = nodes.director(BACKENDS)
    node.allow(r"doveadm\(.*Error: ", r"doveadm\(.*Warning: ")
    api = API(node)
    path = node.dir + "/fake"
    for command, params, code in [
            ("directorUp", {}, 64),
            ("directorAdd", {"host": ""}, 64),
            ("directorAdd", {"host": "5"}, 64),
            ("directorUpdate", {"host": "127.0.0.11"}, 64),
            ("directorStatus", {"userName": "x", "user": "y"}, 64),
            ("directorStatus", {"tag": "y"}, 64),
            ("directorMap", {"hashMap": True}, 64),
            ("directorMap", {"hashMap": True, "host": "x",
                             "usersFile": ""}, 75),
            ("directorFlush", {}, 64),
            ("directorUp", {"host": "127.0.0.99"}, 68),
            ("directorFlush", {"host": "127.0.0.99", "forceFlush": True}, 68),
            ("directorUpdate", {"host": "127.0.0.99", "vhostCount": 1}, 75),
            ("directorStatus", {"socketPath": path}, 75),
            ("directorStatus", {"socketPath": "127.0.0.1"}, 75),
            ("directorStatus", {"socketPath": "127.0.0.1:1"}, 75)]:
        assert (command, params, api(command, **params)) == (
            command, params, code)
    for kwargs, code in [({"talk": lambda sock: sock.recv(1000)}, 75),
                         ({"talk": lambda sock: sock.recv(1000) and
                           sock.recv(1000)}, 75),
                         ({"greeting": "hello\n"}, 76),
                         ({"replies": {"HOST-LIST": "ERROR no\n"}}, 75),
                         ({"replies": {"HOST-LIST": "1" * 10000}}, 76)]:
        fake = FakeAdmin(path, **kwargs)
        assert api("directorStatus", socketPath=path) == code
        fake.close()
    assert len(api("directorStatus")) == 3
    # no process ended for it
    assert not node.log.find("doveadm.*Fatal")
