# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""doveadm director move, kick and sessions with a fake director"""

import json
import socket

import pytest

from doveadm_runner import doveadm  # noqa: F401
from fake_admin import send
from test_doveadm import T1, formatted_rows, when

NONE = "User jane has no sessions: nobody was kicked"
UNTOLD = "Warning: Director %s didn't say how many sessions it ended\n"


@pytest.mark.parametrize("command,line", [
    ("kick jane", "USER-KICK\tjane\tcount"),
    ("kick -f user_a jane", "USER-KICK-ALT\tuser_a\tjane\tcount")])
def test_kick(doveadm, command, line):
    fake = doveadm.fake(default=True)

    def run(reply, *options):
        fake.replies = {line.split("\t")[0]: reply}
        done = doveadm(*command.split(), options=options)
        assert fake.sent() == [line]
        return done.returncode, done.stdout, done.stderr

    some = "OK\t10.0.0.1\t2\t10.0.0.2\t0\t10.0.0.3\t1\n"
    assert run(some) == (0, "", "")
    assert run(some, "-v") == (
        0, "", "Info: User jane kicked (sessions ended: 2 on 10.0.0.1, "
        "1 on 10.0.0.3)\n")
    code, rows, said = run(some, "-f", "json")
    assert (code, said) == (0, "")
    assert json.loads(rows) == [
        {"director ip": "10.0.0.%d" % i, "sessions": count}
        for i, count in ((1, "2"), (2, "0"), (3, "1"))]
    nobody = "OK\t10.0.0.1\t0\t10.0.0.2\t0\n"
    assert run(nobody) == (0, "", "Warning: %s\n" % NONE)
    # the rows say so, too
    assert run(nobody, "-f", "flow") == (
        0, "director ip=10.0.0.1 sessions=0\n"
        "director ip=10.0.0.2 sessions=0\n", "")
    # not all have answered
    assert run("OK\t10.0.0.1\t0\t10.0.0.2\t?\n", "-v") == (
        0, "", UNTOLD % "10.0.0.2" + "Info: User jane kicked\n")
    code, rows, said = run("OK\t10.0.0.1\t5\t10.0.0.2\t?\n", "-f", "json")
    assert (code, said) == (0, UNTOLD % "10.0.0.2")
    assert [row["sessions"] for row in json.loads(rows)] == ["5", "-"]
    # a director that doesn't count
    assert run("OK\n", "-v") == (0, "", "Info: User jane kicked\n")
    assert run("TRYAGAIN\n") == (75, "", "Error: failed: TRYAGAIN\n")
    assert run("OKAY\n") == (75, "", "Error: failed: OKAY\n")
    assert run("ERROR No\x1b!\n", "-v") == (
        75, "", "Error: failed: No\ufffd!\n")


@pytest.mark.parametrize("args,line", [
    (["jane", "10.0.0.1"], "USER-MOVE\tjane\t10.0.0.1\tcount"),
    (["77", "10.0.0.1"], "USER-MOVE\t77\t10.0.0.1\tcount"),
    (["-u", "77", "10.0.0.1"], "USER-MOVE\t77\t10.0.0.1\tuser\tcount"),
    (["--wait", "jane", "10.0.0.1"], "USER-MOVE\tjane\t10.0.0.1\twait"),
    (["--wait", "-u", "77", "10.0.0.1"],
     "USER-MOVE\t77\t10.0.0.1\tuser\twait")])
def test_move(doveadm, args, line):
    fake = doveadm.fake(default=True)
    whom = "hash 77" if args == ["77", "10.0.0.1"] else line.split("\t")[1]

    def run(reply, *options):
        fake.replies = {"USER-MOVE": reply}
        done = doveadm("move", *args, options=options)
        assert fake.sent() == [line]
        return done.returncode, done.stdout, done.stderr

    assert run("OK\t10.0.0.1\t2\n") == (0, "", "")
    assert run("OK\t10.0.0.1\t2\n", "-v") == (
        0, "", "Info: User %s moved to 10.0.0.1 (sessions ended: 2 on "
        "10.0.0.1)\n" % whom)
    assert run("OK\t10.0.0.1\t0\n", "-v") == (
        0, "", "Info: User %s moved to 10.0.0.1 (he had no sessions)\n" % whom)
    code, rows, said = run("OK\t10.0.0.1\t2\n", "-f", "json")
    assert (code, said) == (0, "")
    assert json.loads(rows) == [{"director ip": "10.0.0.1", "sessions": "2"}]
    assert run("NOTFOUND\n") == (
        68, "", "Error: Host '10.0.0.1' doesn't exist\n")
    assert run("TRYAGAIN\n") == (
        75, "", "Error: User is already being moved, wait a while for it to "
        "be finished\n")
    assert run("WAITING\tsome sessions\n") == (
        75, "", "Error: User's move to 10.0.0.1 hasn't ended within 60 s, it "
        "goes on: some sessions\n")
    assert run("WAITING\n")[0] == 75
    assert run("ERROR No!\n") == (75, "", "Error: failed: No!\n")


ROWS = "".join("\t".join(row) + "\n" for row in [
    ("jane", "7", "imap", "10.0.0.1", "10.1.0.1", str(T1), "up"),
    ("", "8", "pop3", "10.0.0.2", "2001:db8::1", "0", "starting"),
    ("j\x01ti\x1bm", "9", "x", "10.0.0.2", "10.1.0.2", "-1", "y", "more")])
TITLES = ["user", "hash", "service", "director", "backend", "since", "state"]
LISTED = [
    ["jane", "7", "imap", "10.0.0.1", "10.1.0.1", when(T1), "up"],
    ["<unknown>", "8", "pop3", "10.0.0.2", "2001:db8::1", "-", "starting"],
    ["j\ufffdi\ufffdm", "9", "x", "10.0.0.2", "10.1.0.2", "-", "y"]]


@pytest.mark.parametrize("formatter", ["tab", "flow", "pager"])
def test_sessions(doveadm, formatter):
    fake = doveadm.fake({"SESSION-LIST": ROWS + "\n"}, default=True)
    done = doveadm("sessions", options=["-f", formatter])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == formatted_rows(formatter, TITLES, LISTED)
    assert fake.sent() == ["SESSION-LIST"]
    doveadm("sessions", "j*\t")
    assert fake.sent() == ["SESSION-LIST\tj*\x01t"]


def test_sessions_json_and_table(doveadm):
    doveadm.fake({"SESSION-LIST": ROWS + "\n"}, default=True)
    rows = json.loads(doveadm("sessions", options=["-f", "json"]).stdout)
    assert rows == [dict(zip(TITLES, row)) for row in LISTED]
    assert list(rows[0]) == TITLES
    assert doveadm("sessions").stdout.splitlines()[0].split() == TITLES


@pytest.mark.parametrize("reply,code,said", [
    ("\n", 0, ""),
    ("ONLYOWN\n" + ROWS + "\n", 0,
     "Warning: These are the sessions of this director only: others can't be "
     "asked (it is alone, or some are of Dovecot 2.3)\n"),
    (ROWS + "NOANSWER\t10.0.0.3\n\n", 75,
     "Error: Director 10.0.0.3 doesn't answer: sessions of it are missing\n"),
    ("ERROR No\n", 75, "Error: failed: No\n"),
    (ROWS, 75, "Error: PATH unexpectedly disconnected\n"),
    ("x" * 10000, 76, "Error: PATH sent a line longer than 8192 bytes\n"),
    (b"\xff\t\x1b\nNOANSWER\nONLYOWN\tx\ty\n\n", 0, None)])
def test_sessions_replies(doveadm, reply, code, said):
    def answer(sock, _):
        send(sock, reply)
        sock.shutdown(socket.SHUT_WR)

    fake = doveadm.fake({"SESSION-LIST": answer}, default=True)
    done = doveadm("sessions", options=["-f", "json"])
    assert done.returncode == code
    if said is not None:
        assert done.stderr == said.replace("PATH", fake.path)
    json.loads(done.stdout)


@pytest.mark.parametrize("command", [
    "kick", "kick -f user_a", "move jane", "move --wait 10.0.0.1",
    "sessions a b"])
def test_usage_error(doveadm, command):
    done = doveadm(*command.split())
    assert (done.returncode, done.stdout) == (64, "")
