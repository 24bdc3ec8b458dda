# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The oracle: backends tell it of every session, and it tells who was on two
backends at the same moment.

Each session is a connection to its socket, with lines that have the time in
nanoseconds of CLOCK_MONOTONIC:
  pending TIME BACKEND USER   a login that the backend has not accepted yet
  login TIME BACKEND USER     it has; the session begins
  end TIME                    the backend saw that the connection is closed,
                              and has finished
A connection that is closed without "end" is of a backend that was killed: the
session ends then."""

import collections
import os
import selectors
import socket
import threading
import time

# A line that was written earlier may still come so much later
LAG = 3
# How far back a user's history is kept
MEMORY = 120


class Session:
    """Times are seconds; those that have not come yet are None"""

    def __init__(self):
        self.user = self.backend = None
        self.pending = self.begun = self.ended = None
        self.killed = False

    def line(self, words):
        when = int(words[1]) / 1e9
        if words[0] == "end":
            self.ended = when
            return
        assert words[0] in ("pending", "login"), words
        self.backend, self.user = words[2:]
        if words[0] == "pending":
            self.pending = when
        else:
            self.begun = when

    def end(self):
        if self.ended is None:
            self.ended = time.monotonic()
            self.killed = self.begun is not None

    def is_live(self):
        return self.begun is not None and self.ended is None

    def is_pending(self):
        return self.begun is None and self.ended is None

    def overlaps(self, later):
        return later.begun < (self.ended or float("inf"))

    def events(self):
        """[(time, text)]"""
        found = [(when, "%s %s" % (self.backend, text)) for when, text in (
            (self.pending, "has a login"), (self.begun, "SESSION BEGINS"))
            if when is not None]
        if self.ended is not None:
            found.append((self.ended, "%s %s" % (
                self.backend, "gives the login up" if self.begun is None else
                "SESSION IS KILLED" if self.killed else "SESSION ENDS")))
        return found


def find_overlaps(sessions, checked=()):
    """[(earlier, later)] of one user's sessions, to different backends. Those
    that begin are looked at unless they are checked already."""
    found, active = [], []
    for later in sorted((session for session in sessions
                         if session.begun is not None),
                        key=lambda session: session.begun):
        active = [earlier for earlier in active if earlier.overlaps(later)]
        if later not in checked:
            found += [(earlier, later) for earlier in active
                      if earlier.backend != later.backend]
        active.append(later)
    return found


class Oracle(threading.Thread):
    def __init__(self, path):
        super().__init__(daemon=True)
        self.path = path
        self.lock = threading.Lock()
        # {user: [Session]}
        self.users = collections.defaultdict(list)
        self.checked = set()
        self.logins = 0
        self.gave_up = 0
        self.errors = []
        self.ending = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        os.chmod(path, 0o666)
        self.listener.listen(1000)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.start()

    def run(self):
        while not self.ending:
            for key, _ in self.selector.select(0.5):
                if key.fileobj is self.listener:
                    conn, _ = self.listener.accept()
                    self.selector.register(conn, selectors.EVENT_READ,
                                           [b"", Session()])
                else:
                    self.read(key.fileobj, key.data)

    def read(self, conn, data):
        try:
            text = conn.recv(4096)
        except OSError:
            text = b""
        session = data[1]
        with self.lock:
            *lines, data[0] = (data[0] + text).split(b"\n")
            for line in lines:
                self.line(session, line.decode().split(" "))
            if not text:
                session.end()
                self.gave_up += session.begun is None
        if not text:
            self.selector.unregister(conn)
            conn.close()

    def line(self, session, words):
        try:
            session.line(words)
        except (AssertionError, ValueError, IndexError) as error:
            self.errors.append(repr(error))
            return
        if session not in self.users[session.user][-1:] and \
                session not in self.users[session.user]:
            self.users[session.user].append(session)
        self.logins += words[0] == "login"

    def close(self):
        self.ending = True
        self.join()
        self.listener.close()

    def live(self, user=None):
        with self.lock:
            return [session for name, sessions in self.users.items()
                    if user in (None, name) for session in sessions
                    if session.is_live()]

    def pending(self, user):
        with self.lock:
            return [session for session in self.users.get(user, ())
                    if session.is_pending()]

    def pending_users(self):
        with self.lock:
            return sorted(user for user, sessions in self.users.items()
                          if any(one.is_pending() for one in sessions[-8:]))

    def sessions(self, user):
        with self.lock:
            return list(self.users.get(user, ()))

    def check(self, lag=LAG):
        """[(earlier, later)] that were not told before. Forgets what is
        long over."""
        now = time.monotonic()
        found = []
        with self.lock:
            assert not self.errors, self.errors
            for user, sessions in self.users.items():
                known = [session for session in sessions
                         if session.begun is not None and
                         session.begun <= now - lag]
                found += find_overlaps(known, self.checked)
                kept = [session for session in sessions
                        if (session.ended or now) > now - MEMORY]
                self.users[user] = kept
                self.checked.update(known)
                self.checked.difference_update(set(sessions) - set(kept))
        return found
