# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""What the manual tells an administrator to type works, in its order."""

import glob
import re
import shlex

import clients
import pytest
from node import HERE, VALGRIND, wait_for, went_to
from ring import Ring
from test_move import backend_of

pytestmark = pytest.mark.skipif(bool(VALGRIND),
                                reason="the commands themselves are tested "
                                "with valgrind elsewhere")

SOURCES = HERE + "/../../"
USER = "jane@example.com"


def manual():
    with open(SOURCES + "doc/manual.md") as f:
        return f.read()


def sections(chapter):
    """[(title, its commands)]; a command is (on a backend, words)"""
    text = re.split("^## ", manual(), flags=re.M)
    text = [part for part in text if part.startswith(chapter)][0]
    for part in re.split("^### ", text, flags=re.M)[1:]:
        title, body = part.split("\n", 1)
        yield title, [(place != "", shlex.split(
            re.sub(r"\b10\.0\.0\.(\d\d?)\b", local_ip, line)))
            for place, line in re.findall(
                "^    (backend)?# doveadm (.*)$", body, flags=re.M)]


def local_ip(match):
    number = int(match.group(1))
    return "127.0.%d.%d" % (number < 10, number)


OPERATE = list(sections("Operate"))


def test_it_has_commands():
    assert len(OPERATE) >= 7
    assert sum(len(commands) for _, commands in OPERATE) >= 12


@pytest.mark.parametrize("title,commands", OPERATE,
                         ids=[title for title, _ in OPERATE])
def test_operate(nodes, backends, title, commands):
    """Each section by itself, with a user who is there"""
    ring = Ring(nodes, 2)
    ring.wait(2)
    director = ring.members[0]
    director.doveadm("director", "move", USER, "127.0.0.12")
    session = clients.imap(director.ip, USER)
    assert backend_of(director, USER) == "127.0.0.12"
    for on_backend, words in commands:
        node = [b for b in backends if b.ip == "127.0.0.12"][0] if on_backend \
            else director
        if words[1:3] == ["ring", "remove"]:
            ring.members[1].stop()
        done = node.doveadm(*words, check=False)
        # nobody is left there
        expected = (0, 68) if on_backend else (0,)
        assert done.returncode in expected, (words, done.stderr)
    clients.close(session)
    director.allow("This is an unsafe operation", "until they end, their users",
                   "although he is assigned to")
    wait_for(lambda: clients.visit("imap", director.ip, USER) is None,
             "a login")


def test_failure_modes():
    """Each text that is said to be in a log, or in a reply, is one of ours."""
    text = manual().split("## Failure modes")[1].split("###")[0]
    source = ""
    for path in glob.glob(SOURCES + "src/**/*.c", recursive=True):
        with open(path) as f:
            source += re.sub(r'"\s*(?:PRI\w+)?\s*"', "", f.read())
    rows = [line.split(" | ") for line in text.splitlines()
            if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        assert len(row) == 4, row
        for quoted in re.findall("`([^`]*)`", row[0]):
            words = quoted.removeprefix("Timeout because ") \
                .removesuffix(" - queued for")
            assert words in source, quoted
