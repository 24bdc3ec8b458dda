# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""doveadm director ring: with a fake director, and in real rings"""

import json
import socket

import pytest

from doveadm_runner import doveadm  # noqa: F401
from fake_admin import FakeAdmin, send
from node import RING_PORT, wait_for
from ring import BACKENDS, Ring, ring_status, rows_with
from test_doveadm import T1, T2, formatted_rows, when
from test_doveadm_live import API

TITLES = ["director ip", "port", "type", "last failed", "status", "ping ms",
          "input", "output", "buffered", "buffered peak", "last read",
          "last write"]

# (line, row), - for what isn't there
LINES = [
    # the original: hasn't introduced itself
    ("handshaking - 0 USERs received\t0\t0\t50\t0\t9\t0\t%d" % T1,
     "- - in - handshaking=-=0=USERs=received 0 0 50 0 9 never T1"),
    # ours
    ("10.0.0.9\t0\tin\t0\thandshaking - 0 USERs received\t0\t1\t50\t0\t0\t%d\t"
     "%d" % (T1, T2),
     "10.0.0.9 - in never handshaking=-=0=USERs=received 0 1 50 0 0 T1 T2"),
    ("10.0.0.1\t9090\tself\t0\tring synced\t3",
     "10.0.0.1 9090 self never ring=synced 3 - - - - - -"),
    ("10.0.0.2\t9090\tright\t%d\tsynced\t1\t220\t903\t5\t192\t%d\t%d" % (
        T1, T1, T2), "10.0.0.2 9090 right T1 synced 1 220 903 5 192 T1 T2"),
    # more than there are columns
    ("10.0.0.2\t9090\tleft\t0\tsyncing\t1\t2\t3\t4\t5\t%d\t0\tmore\tmore" % T2,
     "10.0.0.2 9090 left never syncing 1 2 3 4 5 T2 never"),
    ("10.0.0.3\t9091\tremoved\t%d\t" % T2,
     "10.0.0.3 9091 removed T2 = - - - - - - -"),
    ("2001:db8::1\t9090\t\t0\t", "2001:db8::1 9090 = never = - - - - - - -"),
    ("10.0.0.4", "10.0.0.4 - - - - - - - - - - -")]
DIRECTOR_LIST = "".join(line + "\n" for line, _ in LINES) + "\n"
ROWS = [[{"=": "", "T1": when(T1), "T2": when(T2)}.get(
    word, word.replace("=", " ")) for word in row.split()]
    for _, row in LINES]


@pytest.mark.parametrize("formatter", ["tab", "flow", "pager"])
def test_status(doveadm, formatter):
    fake = doveadm.fake({"DIRECTOR-LIST": DIRECTOR_LIST}, default=True)
    done = doveadm("ring", "status", options=["-f", formatter])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == formatted_rows(formatter, TITLES, ROWS)
    assert fake.lines == ["DIRECTOR-LIST"]


def test_status_table(doveadm):
    """Too wide for 80 columns: Dovecot's formatter doesn't align it then. That
    of 2.4.5 also makes - of what is empty."""
    def words(line):
        return [word for word in line.split() if word != "-"]

    fake = doveadm.fake({"DIRECTOR-LIST": DIRECTOR_LIST}, tcp=True)
    args = "ring", "status", "-a", fake.path
    lines = doveadm(*args).stdout.splitlines()
    assert [words(line) for line in lines] == [
        words(" ".join(row)) for row in [TITLES] + ROWS]
    assert doveadm(*args, options=["-h"]).stdout.splitlines() == lines[1:]


def test_status_json(doveadm):
    fake = doveadm.fake({"DIRECTOR-LIST": DIRECTOR_LIST})
    rows = json.loads(doveadm("ring", "status", "-a", fake.path,
                              options=["-f", "json"]).stdout)
    assert rows == [dict(zip(TITLES, row)) for row in ROWS]
    assert list(rows[0]) == TITLES


def test_empty_status(doveadm):
    doveadm.fake({"DIRECTOR-LIST": "\n"}, default=True)
    assert doveadm("ring", "status").stdout.split() == \
        " ".join(TITLES).split()
    assert doveadm("ring", "status", options=["-f", "json"]).stdout == "[]"


@pytest.mark.parametrize("reply,code,said", [
    (None, 75, "Error: PATH unexpectedly disconnected\n"),
    ("10.0.0.1\t9090\tself\t0\tring synced\t3\n", 75,
     "Error: PATH unexpectedly disconnected\n"),
    ("ERROR It's\tbroken\x1b[2J\n", 75, "Error: failed: It's"),
    (10000 * "x", 76, "Error: PATH sent a line longer than 8192 bytes\n"),
    (30 * "\t" + "\n\n", 0, ""),
    (b"\xff\x1b[2J\0\x01t\t\x01n\n\n", 0, ""),
    ("10.0.0.1\x01n\tx\x01n\x1b\tx\x01n\t-5\x01n\tx\x01n\tx\x01n\t" +
     7 * "x\x01n\x1b\t" + "\n\n", 0, ""),
    ("10.0.0.1\t-1\tin\t9223372036854775807\t\t\t\t\t\t\t-1\t"
     "99999999999999999999\n\n", 0, "")])
def test_bad_reply(doveadm, reply, code, said):
    def answer(sock, _):
        if reply is not None:
            send(sock, reply)
        sock.shutdown(socket.SHUT_WR)

    fake = doveadm.fake({"DIRECTOR-LIST": answer})
    for formatter in "table", "json":
        done = doveadm("ring", "status", "-a", fake.path,
                       options=["-f", formatter])
        assert done.returncode == code
        said = said.replace("PATH", fake.path)
        assert done.stderr.startswith(said) if said else done.stderr == ""
        # nothing that a terminal would act on
        assert not set("\x1b\0\x01\t") & set(done.stderr + done.stdout)


@pytest.mark.parametrize("command,line", [
    ("add 10.0.0.1", "DIRECTOR-ADD\t10.0.0.1"),
    ("add 10.1 9091", "DIRECTOR-ADD\t10.0.0.1\t9091"),
    ("add 10.0.0.1 65535", "DIRECTOR-ADD\t10.0.0.1\t65535"),
    ("add 2001:DB8::1", "DIRECTOR-ADD\t2001:db8::1"),
    ("remove 10.0.0.1", "DIRECTOR-REMOVE\t10.0.0.1"),
    ("remove [2001:db8::1] 1", "DIRECTOR-REMOVE\t2001:db8::1\t1")])
def test_change(doveadm, command, line):
    fake = doveadm.fake(tcp=True)
    for reply, code, said in [
            ("OK\n", 0, ""),
            ("NOTFOUND\n", 68, "Error: Not found\n"),
            ("Ring sync timed out\n", 75,
             "Error: Failed: Ring sync timed out\n"),
            ("ERROR Not\x1bnow\n", 75, "Error: Failed: Not\ufffdnow\n"),
            ("\n", 75, "Error: Failed: \n"),
            (10000 * "x", 76, "Error: %s sent a line longer than 8192 bytes\n" %
             fake.path),
            (None, 75, "Error: %s unexpectedly disconnected\n" % fake.path)]:
        fake.replies = {line.split("\t")[0]: reply}
        done = doveadm("ring", *command.split(), "-a", fake.path,
                       options=["-v"])
        assert (done.returncode, done.stderr, done.stdout) == (code, said, "")
        assert fake.sent() == [line]


@pytest.mark.parametrize("command,said", [
    ("add x", "Invalid IP address 'x'"),
    ("remove 9090", "Invalid IP address '9090'"),
    ("remove 10.0.0.1 0", "Invalid port '0': not from 1 to 65535")])
def test_invalid_argument(doveadm, command, said):
    done = doveadm("ring", *command.split())
    assert done.returncode == 64
    assert done.stderr.splitlines()[0] == "Error: " + said


# Real directors

def ring_command(node, *args):
    done = node.doveadm("director", "ring", *args, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_ring_of_two(nodes):
    """The other one is to the left and to the right."""
    ring = Ring(nodes, 2)
    ring.wait(2)
    first = ring.members[0]
    columns = "director ip", "port", "type", "last failed", "status"
    assert sorted(rows_with(first, *columns)) == [
        ("127.0.1.1", "9090", "self", "never", "ring synced"),
        ("127.0.1.2", "9090", "left", "never", "synced"),
        ("127.0.1.2", "9090", "right", "never", "synced")]
    for row in ring_status(first):
        for column in TITLES[6:]:
            if row["type"] == "self":
                assert row[column] == "-"
            elif column.startswith("last"):
                assert row[column].startswith("20")
            else:
                assert row[column].isdigit()
        assert row["type"] == "self" or int(row["input"]) > 0
    ring.members[1].stop()
    wait_for(lambda: rows_with(first, *columns[:3], "status") == [
        ("127.0.1.1", "9090", "self", "ring synced"),
        ("127.0.1.2", "9090", "", "")], "the other one to be missed")
    wait_for(lambda: ring_status(first)[1]["last failed"].startswith("20"),
             "the failure to connect to it")


def test_add_and_remove(nodes):
    """A third one that the others don't know is dropped, until it is added by
    one of them; removed by one, it is gone for both; and back again."""
    ring = Ring(nodes, 2)
    ring.wait(2)
    third = ring.start(["127.0.1.%d" % i for i in (1, 2, 3)])
    for member in ring.members:
        member.allow("Server not listed in director_servers, dropping",
                     "Director 127.0.1.[12]:9090 disconnected",
                     "was removed from the ring", "Was removed from the ring",
                     "We were removed from the ring",
                     # both were connecting
                     "Unwanted outgoing connection",
                     # the third one, shortly after it was dropped
                     "CONNECT to 127.0.1.1:9090 requested, which we can't",
                     r"Ring SYNC seq=\d+ appears to have got lost, resending")
    first, second = ring.members[:2]
    first.log.wait("Connection from 127.0.1.3: Server not listed")
    assert not [ip for ip, in rows_with(first, "director ip")
                if ip == third.ip]

    for args in ["127.0.1.9"], ["127.0.1.2", "9091"], [third.ip]:
        assert ring_command(first, "remove", *args) == (
            68, "Error: Not found\n")
    assert ring_command(second, "add", third.ip) == (0, "")
    ring.wait(3)
    # those who are there already
    for ip in third.ip, second.ip:
        assert ring_command(second, "add", ip, "9090") == (0, "")
    ring.wait(3)

    for args in [third.ip], [third.ip, "9090"]:
        assert ring_command(first, "remove", *args) == (0, "")
        # all know it when it's done
        for member in first, second:
            assert [row for row in rows_with(
                member, "director ip", "type", "status")
                if row[0] == third.ip] == [(third.ip, "removed", "")]
        ring.wait(2)
        assert ring_command(first, "remove", *args) == (
            68, "Error: Not found\n")
        assert ring_command(first, "add", *args) == (0, "")
        ring.wait(3)


def test_not_introduced(nodes):
    """Its row is in order."""
    ring = Ring(nodes, 1)
    ring.wait(1)
    with socket.socket() as sock:
        sock.bind(("127.0.1.1", 0))
        sock.connect(("127.0.1.1", RING_PORT))
        assert wait_for(lambda: [row for row in rows_with(
            ring.members[0], *TITLES[:7]) if row[2] == "in"], "its row") == [
            ("127.0.1.1", "-", "in", "never",
             "handshaking - 0 USERs received", "0", "0")]


def test_no_ring(nodes):
    node = nodes.director(BACKENDS)
    node.allow("Error: .*: There is no ring")
    assert ring_command(node, "add", "127.0.1.2") == (
        75, "Error: Failed: There is no ring: director_servers is empty\n")
    assert ring_command(node, "remove", "127.0.1.2") == (
        68, "Error: Not found\n")
    assert rows_with(node, *TITLES[1:6]) == [
        ("-", "self", "never", "ring synced", "0")]


def test_http(nodes):
    ring = Ring(nodes, 2)
    ring.wait(2)
    first = ring.members[0]
    first.allow(r"doveadm\(.*Error: ")
    api = API(first)
    assert api("directorRingAdd", ip="127.0.1.3", port=9091) == []
    rows = api("directorRingStatus")
    assert list(rows[0]) == TITLES
    assert [(row["director ip"], row["port"]) for row in rows] == [
        ("127.0.1.1", "9090"), ("127.0.1.2", "9090"), ("127.0.1.2", "9090"),
        ("127.0.1.3", "9091")]
    assert api("directorRingRemove", ip="127.0.1.3", port="9091") == []
    assert api("directorRingStatus")[-1]["type"] == "removed"
    path = first.dir + "/fake"
    for command, params, code in [
            ("directorRingAdd", {}, 64),
            ("directorRingAdd", {"ip": "x"}, 64),
            ("directorRingAdd", {"ip": "127.0.1.3", "port": 0}, 64),
            ("directorRingRemove", {"ip": "127.0.1.3"}, 68),
            ("directorRingStatus", {"socketPath": path}, 75)]:
        assert (command, params, api(command, **params)) == (
            command, params, code)
    fake = FakeAdmin(path, {"DIRECTOR-LIST": "ERROR no\n",
                            "DIRECTOR-ADD": "no\n"})
    assert api("directorRingStatus", socketPath=path) == 75
    assert api("directorRingAdd", socketPath=path, ip="127.0.1.3") == 75
    fake.close()
    assert not first.log.find("doveadm.*Fatal")
