# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Our doveadm director ring, with the original's director at the other end"""

import json
import socket
import subprocess

from nodes import wait_for
from test_ring import PORT, Ring


def ring_command(member, name, *args):
    """(exit code, output as JSON or what it says)"""
    done = subprocess.run(
        ["doveadm", "-f", "json", "director", "ring", name, "-a",
         member.node.path("director-admin"), *args],
        capture_output=True, text=True, timeout=100)
    return done.returncode, done.stderr or json.loads(done.stdout)


def rows(member, *columns):
    code, found = ring_command(member, "status")
    assert code == 0
    return [tuple(row[column] for column in columns) for row in found]


def test_status():
    columns = "director ip", "port", "type", "last failed", "status"
    with Ring(["2.3", "2.3"]) as ring:
        first = ring.members[0]
        expected = [("127.0.1.1", "9090", "self", "never", "ring synced"),
                    ("127.0.1.2", "9090", "left", "never", "synced"),
                    ("127.0.1.2", "9090", "right", "never", "synced")]
        assert sorted(rows(first, *columns)) == expected
        with socket.socket() as sock:
            sock.bind(("127.0.1.2", 0))
            sock.connect(("127.0.1.1", PORT))
            # it hasn't said who it is: its line is shorter
            wait_for(lambda: len(first.directors()) == 4, "its connection")
            assert first.directors()[0][0] == "handshaking - 0 USERs received"
            found = rows(first, *columns, "ping ms", "input", "last read")
            assert found[0] == ("-", "-", "in", "-",
                                "handshaking - 0 USERs received", "0", "0",
                                "never")
            assert sorted(row[:5] for row in found[1:]) == expected


def test_add_and_remove():
    with Ring(["2.3", "2.3", "ours"]) as ring:
        first, _, ours = ring.members
        assert ring_command(first, "remove", "127.0.1.9") == (
            68, "Error: Not found\n")
        for args, port in (["127.0.1.9"], "9090"), (["127.0.1.8", "1"], "1"):
            assert ring_command(first, "add", *args) == (0, [])
            row = (args[0], port)
            for member in ring.members:
                wait_for(lambda: row in rows(member, "director ip", "port"),
                         "all to know it")
            assert ring_command(first, "remove", *args) == (0, [])
            # ours shows for a while what was removed
            assert row not in rows(first, "director ip", "port")
            assert [row for row in rows(ours, "director ip", "type")
                    if row[0] == args[0]] == [(args[0], "removed")]
        ring.wait_synced()
