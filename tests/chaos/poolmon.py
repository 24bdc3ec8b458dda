# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Sites run poolmon beside each director: it looks after the backends. This
says byte for byte what it says (spec: sockets.md §7.6)."""

import socket
import threading

INTERVAL_SECS = 1
GREETING = b"VERSION\tdirector-doveadm\t1\t0\n"


class Poolmon(threading.Thread):
    def __init__(self, director):
        super().__init__(daemon=True)
        self.director = director
        self.ending = threading.Event()
        self.rounds = 0
        # [(what, address)]
        self.reported = []
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self.ending.wait(INTERVAL_SECS):
                for ip, state in self.hosts():
                    self.look_after(ip, state)
                self.rounds += 1
        except Exception as error:
            self.failure = error
            raise

    def end(self):
        self.ending.set()
        self.join(60)
        assert self.failure is None, self.failure

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        sock.connect(self.director.path("director-admin"))
        sock.sendall(GREETING)
        file = sock.makefile("rb")
        # all of the line
        assert file.readline() == GREETING
        return sock, file

    def hosts(self):
        sock, file = self.connect()
        sock.sendall(b"HOST-LIST\n")
        rows = [line.decode().rstrip("\n").split("\t")
                for line in iter(file.readline, b"\n")]
        file.close()
        sock.close()
        return [(row[0], row[4]) for row in rows]

    def look_after(self, ip, state):
        try:
            socket.create_connection((ip, 143), 5).close()
            up = True
        except OSError:
            up = False
        if up == (state == "U"):
            return
        # gone without reading anything
        sock, file = self.connect()
        sock.sendall(b"HOST-UP\t%s\n" % ip.encode() if up else
                     b"HOST-DOWN\t%s\nHOST-FLUSH\t%s\n" % (
                         ip.encode(), ip.encode()))
        file.close()
        sock.close()
        self.reported.append(("up" if up else "down", ip))
