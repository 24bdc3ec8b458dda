# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""A director that answers what a test wants and writes down what the login
plugins tell it. It is an auth relay (login/fake) and a login registry
(login/director-proxy) of a node that has no director of its own."""

import itertools
import os
import socket
import threading
import time

from node import wait_for

# For the node: its login processes have to use the auth socket "fake".
CONFIG = """
login_plugins {
  director_login = yes
}
service director {
  unix_listener login/director-proxy {
    mode = 0
  }
}
"""
HELLO = b"VERSION\tdirector-proxy\t1\t0\n"


def now_msecs():
    return int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1000)


def fields_of(line):
    return dict(field.partition("=")[::2] for field in line[2:])


class FakeDirector:
    def __init__(self, node, backend):
        self.node = node
        # Where everybody goes
        self.backend = backend
        self.hashes = {}
        self.tokens = ("f-%x" % number for number in itertools.count(1))
        # change(user, fields) may change what is answered
        self.change = None
        self.hello = HELLO
        # Whether plugins are listened to
        self.reading = threading.Event()
        self.reading.set()
        # (number of the plugin's connection, fields)
        self.heard = []
        self.plugins = {}
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.relay = self.listen("fake", self.serve_login)
        self.registry = None
        self.open()

    def path(self, name):
        return self.node.path("login/" + name)

    def listen(self, name, serve):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path(name))
        os.chmod(self.path(name), 0o666)
        listener.listen(128)
        threading.Thread(target=self.accept, args=(listener, serve),
                         daemon=True).start()
        return listener

    @staticmethod
    def accept(listener, serve):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    # Logins

    def serve_login(self, sock):
        auth = socket.socket(socket.AF_UNIX)
        auth.connect(self.path("login"))
        threading.Thread(target=self.copy, args=(sock, auth),
                         daemon=True).start()
        self.copy(auth, sock, self.amend)

    @staticmethod
    def copy(source, target, amend=lambda line: line):
        try:
            for line in source.makefile("rb"):
                target.sendall(amend(line))
        except OSError:
            pass
        for sock in source, target:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def hash(self, user):
        return self.hashes.setdefault(user, 1000 + len(self.hashes))

    def amend(self, data):
        line = data.decode().rstrip("\n").split("\t")
        if line[0] != "OK":
            return data
        user = fields_of(line)["user"]
        fields = {"host": self.backend, "director_id": next(self.tokens),
                  "director_deadline": now_msecs() + 5000,
                  "user_director_hash": self.hash(user)}
        if self.change:
            self.change(user, fields)
        line += ["%s=%s" % field for field in fields.items()]
        return ("\t".join(line) + "\n").encode()

    # Login plugins

    def open(self):
        self.registry = self.listen("director-proxy", self.serve_plugin)

    def close(self):
        """As if the director had ended"""
        os.unlink(self.path("director-proxy"))
        self.registry.shutdown(socket.SHUT_RDWR)
        self.registry.close()
        for sock in list(self.plugins.values()):
            sock.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: not self.plugins, "the plugins' connections to end")

    def serve_plugin(self, sock):
        number = next(self.numbers)
        self.plugins[number] = sock
        try:
            sock.sendall(self.hello)
        except OSError:
            # it may have ended already, and has still said something
            pass
        try:
            lines = sock.makefile("rb")
            while self.reading.wait():
                line = lines.readline()
                if not line:
                    break
                if line == b"PING\n":
                    sock.sendall(b"PONG\n")
                    continue
                with self.lock:
                    self.heard.append(
                        (number, line.decode().rstrip("\n").split("\t")))
        except OSError:
            pass
        sock.close()
        del self.plugins[number]

    def tell(self, data):
        for sock in list(self.plugins.values()):
            try:
                sock.sendall(data)
            except OSError:
                pass

    def kick(self, user, reason="kicked by the test"):
        self.tell(b"KICK\t%d\t\t%s\n" % (self.hash(user), reason.encode()))

    # What they said

    def forget(self):
        with self.lock:
            self.heard.clear()

    def starts(self, user):
        with self.lock:
            return [line for _, line in self.heard
                    if line[0] == "START" and line[5] == user]

    def sessions(self, user):
        """The commands of each of the user's sessions, such as "START UP" """
        tokens = dict.fromkeys(line[1] for line in self.starts(user))
        with self.lock:
            return [" ".join(line[0] for _, line in self.heard
                             if line[1:2] == [token]) for token in tokens]

    def wait(self, user, *sessions, timeout=10):
        try:
            wait_for(lambda: self.sessions(user) == list(sessions), user,
                     timeout)
        except TimeoutError:
            raise AssertionError("%s: %s instead of %s" % (
                user, self.sessions(user), list(sessions))) from None
