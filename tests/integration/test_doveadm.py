# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""doveadm director: what it sends, prints and returns. These tests talk to a fake
director, since a real one neither fails nor is slow when a test wants it."""

import json
import subprocess
import threading
import time

import pytest

import fake_admin
from doveadm_runner import doveadm, several  # noqa: F401
from fake_admin import VERSION, send
from node import VALGRIND, patience

T1 = 1276885024
T2 = 1276885025
JANE = 1480892766
USER_EXAMPLE = 3045693125
HOST_LIST = ("10.0.0.1\t100\t5\ta\tU\t0\t3\n"
             "10.0.0.2\t7\t0\tb c\tD\t%d\n"
             "not\ta\thost\n"
             "2001:db8::1\t0\t2\td\tU\t%d\t1\tmore\n\n" % (T1, T2))
USER_LIST = ("%d\t%d\t10.0.0.1\n7\t0\t10.0.0.2\n"
             "%d\t%d\t2001:db8::1\n\n" % (JANE, T1, USER_EXAMPLE, T2))


def when(timestamp):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


# Lists

STATUS_TITLES = ["mail server ip", "tag", "vhosts", "state", "state changed",
                 "users", "sessions"]
STATUS_ROWS = [
    ["10.0.0.1", "a", "100", "up", "-", "5", "3"],
    ["10.0.0.2", "b c", "7", "down", when(T1), "0", "-"],
    ["2001:db8::1", "d", "0", "up", when(T2), "2", "1"]]


def formatted_rows(formatter, titles, rows):
    if formatter == "tab":
        return "".join("\t".join(row) + "\n" for row in [titles] + rows)
    if formatter == "flow":
        return "".join(" ".join(map("=".join, zip(titles, row))) + "\n"
                       for row in rows)
    assert formatter == "pager"
    return "\f\n".join("".join("%s: %s\n" % pair for pair in zip(titles, row))
                       for row in rows)


@pytest.mark.parametrize("formatter", ["tab", "flow", "pager"])
def test_status(doveadm, formatter):
    fake = doveadm.fake({"HOST-LIST": HOST_LIST}, default=True)
    done = doveadm("status", options=["-f", formatter])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == formatted_rows(formatter, STATUS_TITLES, STATUS_ROWS)
    assert fake.versions == [VERSION]
    assert fake.lines == ["HOST-LIST"]


def test_status_table(doveadm):
    doveadm.fake({"HOST-LIST": HOST_LIST}, default=True)
    lines = doveadm("status").stdout.splitlines()
    # padded, the last column too
    assert len({len(line) for line in lines}) == 1
    for column, title in enumerate(STATUS_TITLES):
        at = lines[0].index(title)
        assert [line[at:].startswith(row[column]) for line, row in
                zip(lines[1:], STATUS_ROWS)] == [True] * 3
    assert doveadm("status", options=["-h"]).stdout.splitlines() == lines[1:]


def test_status_json(doveadm):
    doveadm.fake({"HOST-LIST": HOST_LIST}, default=True)
    keys = ["mail server ip", "tag", "vhosts", "state", "state-changed",
            "users", "sessions"]
    rows = json.loads(doveadm("status", options=["-f", "json"]).stdout)
    assert rows == [dict(zip(keys, row)) for row in STATUS_ROWS]
    assert list(rows[0]) == keys


def test_empty_lists(doveadm):
    doveadm.fake({"HOST-LIST": "\n", "USER-LIST": "\n",
                  "HOST-LIST-REMOVED": "\n"}, default=True)
    assert doveadm("status").stdout.split() == " ".join(STATUS_TITLES).split()
    assert doveadm("status", options=["-f", "json"]).stdout == "[]"
    assert doveadm("map", "-f", "/dev/null").stdout.split() == \
        "user hash mail server ip expire time".split()
    assert doveadm("dump").stdout == ""


@pytest.mark.parametrize("reply,output", [
    ("10.0.0.1\t%d\t10.0.0.2\t10.0.0.3\n" % T1,
     ["10.0.0.1", when(T1), "10.0.0.2", "10.0.0.3"]),
    ("\t0\t10.0.0.2\t\n", ["n/a", "-1", "10.0.0.2", ""]),
    ("\t0\t\t\n", ["n/a", "-1", "", ""])])
def test_status_user(doveadm, reply, output):
    doveadm.fake({"USER-LOOKUP": reply}, default=True)
    done = doveadm("status", "jane")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("Current: %s (expires %s)\nHashed: %s\n"
                           "Initial config: %s\n" % tuple(output))
    done = doveadm("status", "jane", options=["-f", "json"])
    assert json.loads(done.stdout) == [dict(zip(
        ["status", "expires", "hashed", "initial-config"], output))]


@pytest.mark.parametrize("args,line", [
    (["jane"], "USER-LOOKUP\tjane\t"),
    (["jane", "a"], "USER-LOOKUP\tjane\ta"),
    (["123"], "USER-LOOKUP\t123\t"),
    (["-u", "123"], "USER-LOOKUP\t123\t\tuser"),
    (["-u", "123", "a"], "USER-LOOKUP\t123\ta\tuser"),
    (["ja\tne\n\x01", "a\tb"], "USER-LOOKUP\tja\x01tne\x01n\x011\ta\x01tb")])
def test_status_user_line(doveadm, args, line):
    fake = doveadm.fake({"USER-LOOKUP": "\t0\t\t\n"}, default=True)
    assert doveadm("status", *args).returncode == 0
    assert fake.lines == [line]


MAP_TITLES = ["user", "hash", "mail server ip", "expire time"]


def test_map(doveadm, tmp_path):
    fake = doveadm.fake({"USER-LIST": USER_LIST}, default=True)
    names = tmp_path / "names"
    names.write_text("jane\r\n\nJANE\nnobody\nuser@example.com")
    rows = [["JANE", str(JANE), "10.0.0.1", when(T1)],
            ["jane", str(JANE), "10.0.0.1", when(T1)],
            ["<unknown>", "7", "10.0.0.2", "-"],
            ["user@example.com", str(USER_EXAMPLE), "2001:db8::1", when(T2)]]
    for formatter in "tab", "flow", "pager":
        done = doveadm("map", "-f", names, options=["-f", formatter])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == formatted_rows(formatter, MAP_TITLES, rows)
    done = doveadm("map", "-f", names, options=["-f", "json"])
    assert json.loads(done.stdout) == [dict(zip(MAP_TITLES, row))
                                       for row in rows]
    assert fake.sent() == ["USER-LIST"] * 4
    assert doveadm("map", "-f", "-", input="jane").stdout.count("jane") == 1


def test_map_host(doveadm, several):
    text = "1\t1\t10.0.0.70\n2\t2\t10.0.0.71\n3\t3\t10.0.0.72\n\n"
    fake = doveadm.fake({"USER-LIST": text}, default=True)
    done = doveadm("map", "-f", "/dev/null", several, options=["-f", "tab"])
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == [
        "hash", "2", "3"]
    assert fake.sent() == ["USER-LIST"]
    # the server filters if it can
    doveadm("map", "-f", "/dev/null", "10.71")
    doveadm("map", "-f", "/dev/null", "2001:DB8::1")
    assert fake.sent() == ["USER-LIST\t10.0.0.71", "USER-LIST\t2001:db8::1"]


def test_map_without_names(doveadm, tmp_path):
    """Names that can't be had are no reason to show nothing."""
    doveadm.fake({"USER-LIST": USER_LIST}, default=True)
    names = tmp_path / "names"
    names.write_text("jane\n" + 10000 * "x" + "\nuser@example.com\n")
    for args in [], ["-f", "/nonexistent"], ["-f", names]:
        done = doveadm("map", *args)
        assert done.returncode == 75
        assert done.stderr.endswith("Error: user listing failed\n")
        assert len(done.stdout.splitlines()) == 4
        assert ("jane" in done.stdout) == (names in args)


def test_map_hash_and_user(doveadm):
    """Without any director"""
    for user, value in ("user@example.com", USER_EXAMPLE), ("JANE", JANE):
        assert doveadm("map", "-u", user).stdout.strip() == str(value)
    done = doveadm("map", "-u", "jane", options=["-f", "tab"])
    assert done.stdout == "hash\n%d\n" % JANE
    done = doveadm("map", "-f", "-", "-h", str(JANE), input="jane\nx\nJane\n",
                   options=["-f", "flow"])
    assert (done.returncode, done.stdout) == (0, "Jane\njane\n")
    done = doveadm("map", "-f", "-", "-h", "0", input="jane\n")
    assert (done.returncode, done.stdout) == (0, "")
    for word in "jane", "4294967296", "-1":
        done = doveadm("map", "-f", "/dev/null", "-h", "--", word)
        assert done.returncode == 75
        assert done.stderr == "Fatal: Invalid username hash: %s\n" % word


def test_map_own_hash_format(doveadm):
    doveadm.node.write_config(doveadm.node.config +
                              "director_username_hash = %{user | domain}\n")
    assert doveadm("map", "-u", "testuser@domain").stdout.strip() == \
        "2908717800"


def test_map_streams(doveadm):
    """A list without end takes no memory, and ends when its reader does."""
    chunk = "".join("%d\t%d\t10.0.0.1\n" % (i, T1) for i in range(100000))
    ended = threading.Event()

    def forever(sock, _):
        try:
            while True:
                send(sock, chunk)
        finally:
            ended.set()

    fake = doveadm.fake({"USER-LIST": forever})
    for formatter in "tab", "table", "json":
        ended.clear()
        process = subprocess.Popen(
            doveadm.node.doveadm_command(
                "-f", formatter, "director", "map", "-a", fake.path,
                "-f", "/dev/null"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        total = 0
        while total < 20000000:
            total += len(process.stdout.read(1000000))
        with open("/proc/%d/status" % process.pid) as f:
            rss = [line for line in f if line.startswith("VmHWM:")][0]
        assert VALGRIND or int(rss.split()[1]) < 40000
        process.stdout.close()
        process.stderr.close()
        process.wait(patience(10))
        assert ended.wait(patience(10))


def test_dump(doveadm):
    fake = doveadm.fake({
        "HOST-LIST": "10.0.0.1\t100\t5\t\tU\t0\t3\n"
                     "10.0.0.2\t7\t0\tb\tD\t1\t0\n"
                     "10.0.0.3\t0\t0\t$(x) 'y'\tD\t1\t0\n\n",
        "HOST-LIST-REMOVED": "10.0.0.9\n10.0.0.10\n\n"}, default=True)
    expected = """\
doveadm director add -a X 10.0.0.1 100
doveadm director add -a X 10.0.0.2@b 7
doveadm director add -a X '10.0.0.3@$(x) '\\''y'\\''' 0
doveadm director down -a X 10.0.0.2\x20
doveadm director down -a X 10.0.0.3\x20
doveadm director remove -a X 10.0.0.9\x20
doveadm director remove -a X 10.0.0.10\x20
"""
    done = doveadm("dump")
    assert done.stdout == expected.replace("-a X ", "")
    done = doveadm("dump", "-a", fake.path)
    assert done.stdout == expected.replace("X", fake.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert fake.lines == ["HOST-LIST-REMOVED", "HOST-LIST"] * 2
    rows = json.loads(doveadm("dump", "-a", fake.path,
                              options=["-f", "json"]).stdout)
    assert rows[1] == {"command": "add", "socket-path": fake.path,
                       "host": "10.0.0.2@b", "vhost_count": "7"}
    assert rows[3] == {"command": "down", "socket-path": fake.path,
                       "host": "10.0.0.2", "vhost_count": ""}


# Commands that change something

# command line, what is sent, said when it worked, (exit code, said) when the
# host doesn't exist and when the director refuses
CHANGES = [
    ("add 10.0.0.1", "HOST-SET\t10.0.0.1", "OK", 75, "Error: 10.0.0.1: "),
    ("add 10.1 0", "HOST-SET\t10.0.0.1\t0", "OK", 75, "Error: 10.0.0.1: "),
    ("add 10.0.0.1@x 7", "HOST-SET\t10.0.0.1@x\t7", "OK", 75,
     "Error: 10.0.0.1: "),
    ("add -t y 10.0.0.1@x", "HOST-SET\t10.0.0.1@y", "OK", 75,
     "Error: 10.0.0.1: "),
    ("add -t y ::1", "HOST-SET\t::1@y", "OK", 75, "Error: ::1: "),
    ("update 10.0.0.1 7", "HOST-UPDATE\t10.0.0.1\t7", "OK", 75,
     "Error: 10.0.0.1: "),
    ("up 10.0.0.1", "HOST-UP\t10.0.0.1", "up", 68, "Error: 10.0.0.1: "),
    ("down 10.0.0.1", "HOST-DOWN\t10.0.0.1", "down", 68, "Error: 10.0.0.1: "),
    ("remove 10.0.0.1", "HOST-REMOVE\t10.0.0.1", "removed", 68,
     "Error: 10.0.0.1: "),
    ("remove --keep-sessions 10.0.0.1", "HOST-REMOVE\t10.0.0.1\tkeep",
     "removed", 68, "Error: 10.0.0.1: "),
    ("flush 10.0.0.1", "HOST-RESET-USERS\t10.0.0.1\t100\tprogress", "flushed", 68,
     "Warning: 10.0.0.1: "),
    ("flush --max-parallel 5 10.0.0.1", "HOST-RESET-USERS\t10.0.0.1\t5\tprogress",
     "flushed", 68, "Warning: 10.0.0.1: "),
    ("flush --max-parallel 0 10.0.0.1", "HOST-RESET-USERS\t10.0.0.1\t100\tprogress",
     "flushed", 68, "Warning: 10.0.0.1: "),
    ("flush -F 10.0.0.1", "HOST-FLUSH\t10.0.0.1", "flushed", 68,
     "Warning: 10.0.0.1: "),
    ("flush 10.0.0.1 -f", "HOST-FLUSH\t10.0.0.1", "flushed", 68,
     "Warning: 10.0.0.1: "),
]


@pytest.mark.parametrize("command,line,said,notfound,prefix", CHANGES)
def test_change(doveadm, command, line, said, notfound, prefix):
    fake = doveadm.fake(default=True)

    def run(reply, *options):
        fake.replies = {line.split("\t")[0]: reply}
        done = doveadm(*command.split(), options=options)
        assert fake.sent() == [line]
        assert done.stdout == ""
        return done.returncode, done.stderr

    info = prefix.split(" ", 1)[1]
    assert run("OK\n") == (0, "")
    assert run("OK\n", "-v") == (0, "Info: %s%s\n" % (info, said))
    assert run("NOTFOUND\n") == (notfound, prefix + "doesn't exist\n")
    assert run("too large\n") == (75, prefix + "too large\n")
    assert run("ERROR Wrong thing\n") == (75, prefix + "Wrong thing\n")


@pytest.mark.parametrize("args,line", [
    (["all"], "HOST-RESET-USERS\t\t100\tprogress"),
    (["all", "--max-parallel", "9"], "HOST-RESET-USERS\t\t9\tprogress"),
    (["-F", "all"], "HOST-FLUSH"),
    (["-f", "all"], "HOST-FLUSH"),
    (["-F", "--max-parallel", "9", "all"], "HOST-FLUSH")])
def test_flush_all(doveadm, args, line):
    fake = doveadm.fake(default=True)
    for reply, code, said in [("OK", 0, "Info: flushed\n"),
                              ("NOTFOUND", 75, "Error: failed: NOTFOUND\n"),
                              ("ERROR No!", 75, "Error: failed: No!\n")]:
        fake.replies = {line.split("\t")[0]: reply + "\n"}
        done = doveadm("flush", *args, options=["-v"])
        assert (done.returncode, done.stderr) == (code, said)
        assert fake.sent() == [line]


def progress(word, *numbers):
    return "%s\t%s\n" % (word, "\t".join(map(str, numbers)))


def test_flush_progress(doveadm):
    """users, seen, moved, waiting, failed, milliseconds"""
    fake = doveadm.fake(default=True)
    fake.replies = {"HOST-RESET-USERS":
                    progress("PROGRESS", 1000, 0, 0, 0, 0, 200) +
                    progress("PROGRESS", 1000, 500, 150, 100, 0, 1500) +
                    progress("PROGRESS", 1000, 900, 350, 100, 0, 1700) +
                    progress("OK", 1000, 1000, 490, 0, 10, 4900)}
    done = doveadm("flush", "10.0.0.1", options=["-v"])
    assert done.returncode == 75
    assert done.stdout == ""
    assert done.stderr == (
        "Info: 10.0.0.1: flushed\n"
        "Info: 10.0.0.1: 490 users moved in 4.900 secs (100/s)\n"
        "Warning: 10.0.0.1: 10 users weren't moved "
        "(the director's log says why)\n")
    done = doveadm("flush", "all", options=["-f", "json"])
    assert done.returncode == 75
    assert json.loads(done.stdout) == [
        # 500 are left, half of them to be moved, and 100 wait: 350 at 100/s
        {"mail server ip": "all", "users": "1000", "moved": "150",
         "waiting": "100", "failed": "0", "rate": "100", "time-left": "4",
         "secs": "1.500"},
        {"mail server ip": "all", "users": "1000", "moved": "490",
         "waiting": "0", "failed": "10", "rate": "100", "time-left": "0",
         "secs": "4.900"}]


def test_flush_ends_early(doveadm):
    """It says how far it got."""
    fake = doveadm.fake(default=True)
    line = progress("PROGRESS", 1000, 500, 150, 100, 0, 1500)
    how_far = ("150 users were moved, the moves of 100 go on, the others stay "
               "where they are")
    fake.replies = {"HOST-RESET-USERS": line +
                    progress("PROGRESS", 1000, 500, 150, 100, 0, 60000) +
                    progress("PROGRESS", 1000, 500, 150, 100, 0, 61500)}
    done = doveadm("flush", "10.0.0.1")
    assert (done.returncode, done.stderr) == (75, (
        "Warning: 10.0.0.1: nothing has changed for 60 secs, giving up: " +
        how_far + " (the director's log says why)\n"))

    def hang_up(sock, _line):
        sock.sendall(line.encode())
        fake_admin.hang_up(sock)
    fake.replies = {"HOST-RESET-USERS": hang_up}
    done = doveadm("flush", "10.0.0.1")
    assert done.returncode == 75
    assert "unexpectedly disconnected" in done.stderr
    assert "Warning: 10.0.0.1: " + how_far in done.stderr
    # nonsense is a reply that isn't OK
    for bad in ["PROGRESS", "PROGRESS\t1\t2\t3\t4\t5\tx",
                "PROGRESS\t-1\t2\t3\t4\t5\t6"]:
        fake.replies = {"HOST-RESET-USERS": bad + "\n"}
        done = doveadm("flush", "10.0.0.1")
        assert done.returncode == 75
        assert done.stderr.startswith("Warning: 10.0.0.1: PROGRESS")


@pytest.mark.parametrize("replies,code", [
    (["OK", "OK"], 0),
    (["OK", "NOTFOUND"], 68),
    (["NOTFOUND", "OK"], 68),
    (["NOTFOUND", "no"], 75),
    (["no", "NOTFOUND"], 75)])
def test_several_addresses(doveadm, several, replies, code):
    """All commands are sent before the first is answered, all replies read."""
    def reply(sock, line):
        if line.endswith("72"):
            send(sock, "\n".join(replies) + "\n")

    fake = doveadm.fake({"HOST-UP": reply}, default=True)
    done = doveadm("up", several, options=["-v"])
    assert fake.lines == ["HOST-UP\t10.0.0.71", "HOST-UP\t10.0.0.72"]
    said = {"OK": "Info: %s: up", "NOTFOUND": "Error: %s: doesn't exist",
            "no": "Error: %s: no"}
    assert done.stderr.splitlines() == [
        said[reply] % ip for reply, ip in
        zip(replies, ["10.0.0.71", "10.0.0.72"])]
    assert done.returncode == code


def test_unknown_host_name(doveadm):
    fake = doveadm.fake(default=True)
    for command in "add", "up", "down", "remove", "flush", "map":
        done = doveadm(command, "nowhere.invalid")
        assert done.returncode == 75
        assert done.stderr.startswith(
            "Error: gethostname(nowhere.invalid) failed: ")
    assert fake.lines == []


# Usage

USAGES = {
    "status": " [<user> | -u <user name>] [<tag>]",
    "map": " [-f <users file>] [-h | -u] [<host>]",
    "add": " [-t <tag>] <host> [<vhost count>]",
    "update": " <host> <vhost count>",
    "up": " <host>",
    "down": " <host>",
    "remove": " [--keep-sessions] <host>",
    "flush": " [-F] [--max-parallel <n>] <host>|all",
    "move": " [--wait] {<user> | -u <user name>} <host>",
    "kick": " [-f <passdb field>] <user>",
    "sessions": " [<user>]",
    "dump": "",
    "ring add": " <ip> [<port>]",
    "ring remove": " <ip> [<port>]",
    "ring status": "",
}


def usage(command):
    return "doveadm director %s [-a <director socket path>]%s\n" % (
        command, USAGES[command])


@pytest.mark.parametrize("command", [
    "status -u 1 2 3", "map -u", "map -h", "map -h -u 1", "add", "add 5",
    "add 5@tag", "add @tag", "add 10.0.0.1 x", "add 10.0.0.1 -- -1", "update",
    "update 10.0.0.1", "update 10.0.0.1 x", "update 5 5", "up", "down",
    "remove", "flush", "flush -F", "ring add", "ring remove", "ring add x",
    "ring add 9090", "ring add 10.0.0.1 x", "ring add 10.0.0.1 0",
    "ring add 10.0.0.1 65536", "ring add 10.0.0.1:9090",
    "ring remove localhost", "ring remove 10.0.0.1 -- -1"])
def test_usage_error(doveadm, command):
    """Needs no director"""
    done = doveadm(*command.split())
    assert done.returncode == 64
    words = command.split()[:2 if command.startswith("ring ") else 1]
    assert done.stderr.endswith(usage(" ".join(words)))
    assert done.stdout == ""


@pytest.mark.parametrize("command", [
    "status -x", "status 1 2 3", "up 1 2", "add -t", "dump 1", "flush -Q all",
    "flush --max-parallel x all", "nonsense", "ring", "ring nonsense",
    "ring add 10.0.0.1 1 2", "ring status 10.0.0.1"])
def test_usage_error_found_by_doveadm(doveadm, command):
    done = doveadm(*command.split())
    assert (done.returncode, done.stdout) == (64, "")


def test_help(doveadm):
    done = doveadm()
    assert done.returncode == 64
    lines = [line.split(None, 1) for line in done.stderr.splitlines()[1:]]
    # doveadm's way to list what has two words
    lines.remove(["ring", "add|remove|status"])
    assert {"doveadm director %s %s\n" % tuple(line) for line in lines} == {
        usage(command) for command in USAGES if " " not in command}
    for command in USAGES:
        done = doveadm(*command.split(), "--help")
        assert (done.returncode, done.stdout) == (0, usage(command))
