# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Logins that are connecting to a backend when their user is moved"""

import threading
import time

import clients
from node import wait_for
from ring import Ring
from test_move import backend_of

NEW = "127.0.0.22"
# Who is at a backend that says nothing: after which moment it doesn't
SILENT = {"jane": ("127.0.0.21", "greeting"), "jim": ("127.0.0.23", "login")}
SILENCE = 20
# How soon a move has to be over
SOON = 10


class PendingLogin(threading.Thread):
    def __init__(self, ip, user):
        super().__init__(daemon=True)
        self.ip, self.user = ip, user
        self.answer = self.answered = None
        self.start()

    def run(self):
        try:
            clients.imap(self.ip, self.user)
            self.answer = "in"
        except clients.LoginFailed as error:
            self.answer = str(error)
        self.answered = time.monotonic()


class PendingRing(Ring):
    backends = "127.0.0.21 127.0.0.22 127.0.0.23"

    def start(self, directors):
        """Login processes of both kinds"""
        member = super().start(directors, restart_request_count=(
            1, "unlimited")[len(self.members) % 2])
        member.allow("Kicked by director")
        return member


def test_move_while_pending(site):
    """The backend accepts the connection, and then says nothing for 20 s: the
    login ends, the user is let in to the new one, nobody reaches the old one."""
    for number, silent in (21, "greeting"), (23, "login"):
        site.light_backend(number, **{silent: SILENCE})
    site.real_backend(22)
    ring = PendingRing(site, 3)
    ring.wait(3)
    first, second, third = ring.members
    for user, (old, _) in SILENT.items():
        first.doveadm("director", "move", user, old)
    wait_for(lambda: all(backend_of(member, user) == old
                         for member in ring.members
                         for user, (old, _) in SILENT.items()), "the places")
    stuck = [PendingLogin(member.ip, user) for member in (first, second)
             for user in SILENT for _ in range(2)]
    for member in first, second:
        wait_for(lambda: sum(int(row["sessions"]) for row in member.status())
                 == 4, "the logins to be pending")
    moved = time.monotonic()
    for user in SILENT:
        third.doveadm("director", "move", user, NEW)
    sessions = [clients.imap(member.ip, user)
                for member in (third, first, second) for user in SILENT]
    assert time.monotonic() - moved < SOON
    for login in stuck:
        login.join(SILENCE)
        assert login.answer is not None and login.answer != "in"
        assert login.answered - moved < SOON
    # what the backends do later concerns nobody
    time.sleep(max(0, moved + SILENCE + 1 - time.monotonic()))
    for user, (old, silent) in SILENT.items():
        seen = site.oracle.sessions(user)
        assert [one.backend for one in seen if one.begun is not None] == \
            [NEW] * 3
        at_old = [one for one in seen if one.backend == old]
        assert len(at_old) == (4 if silent == "login" else 0)
        assert all(one.ended < moved + SOON for one in at_old)
    for client in sessions:
        clients.close(client)
