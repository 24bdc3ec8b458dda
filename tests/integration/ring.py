# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Directors in one ring, on 127.0.1.1, 127.0.1.2 and so on"""

import json

from node import VALGRIND, wait_for

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"


def ring_status(node):
    done = node.doveadm("-f", "json", "director", "ring", "status")
    assert done.stderr == ""
    return json.loads(done.stdout)


def rows_with(node, *columns):
    return [tuple(row[column] for column in columns)
            for row in ring_status(node)]


class Ring:
    address = "127.0.1.%d"
    backends = BACKENDS

    def __init__(self, nodes, count, **kwargs):
        self.nodes = nodes
        self.kwargs = kwargs
        self.members = []
        for i in range(count):
            self.start([self.address % (j + 1) for j in range(count)])

    def start(self, directors, **kwargs):
        ip = self.address % (len(self.members) + 1)
        self.members.append(self.nodes.director(
            self.backends, name="director" + ip[-1], listen=ip,
            directors=" ".join(directors), **self.kwargs, **kwargs))
        if VALGRIND:
            # what the others send waits until it has begun, and who has to
            # wait for the CPU may be taken for dead
            self.members[-1].allow("clock differs from ours by",
                                   "Handshaking ME timed out", "Ping timeout")
        return self.members[-1]

    def rows(self, member):
        return rows_with(member, "type", "director ip", "status")

    def is_complete(self, members):
        """Everyone has the right neighbours and is synced"""
        count = len(members)
        for i, member in enumerate(members):
            expected = {("self", member.ip, "ring synced")}
            if count > 1:
                expected |= {
                    ("left", members[i - 1].ip, "synced"),
                    ("right", members[(i + 1) % count].ip, "synced")}
            if not expected <= set(self.rows(member)):
                return False
        return True

    def wait(self, count):
        """Until the first so many are a ring"""
        self.wait_for(self.members[:count])

    def wait_for(self, members, timeout=40):
        wait_for(lambda: self.is_complete(members),
                 "a ring of %d" % len(members), timeout)
