# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""A director-admin socket that says whatever a test wants."""

import os
import socket
import threading

VERSION = "VERSION\tdirector-doveadm\t1\t0\n"


class FakeAdmin:
    """replies: {command: text, bytes or function(sock, line)}. To a command that
    isn't there it hangs up. With talk, that function(sock) is all it does.
    lines has what clients sent after their VERSION."""

    def __init__(self, path=None, replies=None, greeting=VERSION, talk=None):
        self.replies = replies or {}
        self.greeting = greeting
        self.talk = talk
        self.versions = []
        self.lines = []
        self.socks = []
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.path = "127.0.0.1:%d" % self.listener.getsockname()[1]
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen()
            self.path = path
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.socks.append(sock)
            threading.Thread(target=self.serve, args=(sock,),
                             daemon=True).start()

    def serve(self, sock):
        try:
            if self.talk:
                self.talk(sock)
            else:
                send(sock, self.greeting)
                self.answer(sock)
        except OSError:
            pass
        finally:
            hang_up(sock)

    def answer(self, sock):
        with sock.makefile("rb") as lines:
            self.versions.append(lines.readline().decode())
            for line in lines:
                line = line.decode().rstrip("\n")
                self.lines.append(line)
                reply = self.replies.get(line.split("\t")[0])
                if reply is None:
                    return
                if callable(reply):
                    reply(sock, line)
                else:
                    send(sock, reply)

    def sent(self):
        """What came since the last call"""
        lines, self.lines = self.lines, []
        return lines

    def close(self):
        # wakes accept() up, which close() alone does not
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.socks:
            hang_up(sock)
        if os.path.exists(self.path):
            os.unlink(self.path)


def send(sock, data):
    sock.sendall(data.encode() if isinstance(data, str) else data)


def hang_up(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()
