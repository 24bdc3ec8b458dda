# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Clients of all protocols. Each logs in, or raises LoginFailed."""

import base64
import imaplib
import poplib
import re
import smtplib
import socket
import subprocess
import threading

from node import patience

TIMEOUT = patience(40)


class LoginFailed(Exception):
    """What the server said"""


def imap(host, user, password="secret", port=143, ssl_context=None,
         starttls=None):
    try:
        if ssl_context:
            client = imaplib.IMAP4_SSL(host, port, ssl_context=ssl_context,
                                       timeout=TIMEOUT)
        else:
            client = imaplib.IMAP4(host, port, timeout=TIMEOUT)
        if starttls:
            client.starttls(starttls)
        client.login(user, password)
    except imaplib.IMAP4.error as error:
        raise LoginFailed(str(error)) from error
    return client


def pop3(host, user, password="secret", port=110):
    client = poplib.POP3(host, port, timeout=TIMEOUT)
    try:
        client.user(user)
        client.pass_(password)
    except poplib.error_proto as error:
        client.close()
        raise LoginFailed(str(error)) from error
    return client


def submission(host, user, password="secret", port=587):
    client = smtplib.SMTP(host, port, timeout=TIMEOUT)
    try:
        client.login(user, password, initial_response_ok=True)
    except smtplib.SMTPException as error:
        client.close()
        raise LoginFailed(str(error)) from error
    return client


class Sieve:
    """What the tests need of RFC 5804"""

    def __init__(self, host, user, password="secret", port=4190):
        self.sock = socket.create_connection((host, port), TIMEOUT)
        self.file = self.sock.makefile("rb")
        self.greeting = self.response()
        data = "\0%s\0%s" % (user, password)
        try:
            self.command('AUTHENTICATE "PLAIN" "%s"' %
                         base64.b64encode(data.encode()).decode())
        except RuntimeError as error:
            self.close()
            raise LoginFailed(str(error)) from error

    def response(self):
        """The lines before OK"""
        lines = []
        while True:
            line = self.file.readline().decode()
            if not line:
                raise EOFError("sieve connection closed")
            if line.startswith("OK"):
                return lines
            if line.startswith(("NO", "BYE")):
                raise RuntimeError(line.strip())
            literal = re.search(r"\{(\d+)\}\r\n$", line)
            if literal:
                line += self.file.read(int(literal.group(1))).decode()
            lines.append(line.rstrip("\r\n"))

    def command(self, line):
        self.sock.sendall(line.encode() + b"\r\n")
        return self.response()

    def put(self, name, script):
        data = script.encode()
        self.command('PUTSCRIPT "%s" {%d+}\r\n%s' % (name, len(data), script))

    def scripts(self):
        return self.command("LISTSCRIPTS")

    def close(self):
        self.file.close()
        self.sock.close()


def close(client):
    """Ends a session, of whatever protocol, politely where it is alive"""
    try:
        if isinstance(client, imaplib.IMAP4):
            client.logout()
        elif isinstance(client, (poplib.POP3, smtplib.SMTP)):
            client.quit()
        else:
            client.command("LOGOUT")
            client.close()
    except (OSError, EOFError, imaplib.IMAP4.abort, poplib.error_proto,
            smtplib.SMTPException):
        pass


LOGINS = {"imap": imap, "pop3": pop3, "managesieve": Sieve,
          "submission": submission}


def visit(protocol, host, user, password="secret", **kwargs):
    """Logs in and out"""
    close(LOGINS[protocol](host, user, password, **kwargs))


MESSAGE = "From: <sender@example.com>\nTo: <%s>\nSubject: hello\n\nhello\n"


class LMTP:
    """What the tests need of RFC 2033. (smtplib's LMTP reads one reply for
    all recipients, and greets by the socket's path on unix sockets.)"""

    def __init__(self, host, port=24):
        if host.startswith("/"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(TIMEOUT)
            self.sock.connect(host)
        else:
            self.sock = socket.create_connection((host, port), TIMEOUT)
        self.file = self.sock.makefile("rb")
        self.reply()
        self.command("LHLO client.example.com")

    def reply(self):
        while True:
            line = self.file.readline().decode()
            if not line:
                raise EOFError("lmtp connection closed")
            if line[3] == " ":
                return int(line[:3]), line[4:].strip()

    def command(self, line):
        self.sock.sendall(line.encode() + b"\r\n")
        return self.reply()

    def close(self):
        self.command("QUIT")
        self.file.close()
        self.sock.close()


def deliver(host, *users, port=24):
    """By LMTP, to an address or to the path of a unix socket. Returns
    {user: (code, text)} of those who did not get the mail."""
    client = LMTP(host, port)
    refused = {}
    accepted = []
    client.command("MAIL FROM:<sender@example.com>")
    for user in users:
        code, text = client.command("RCPT TO:<%s>" % user)
        if code == 250:
            accepted.append(user)
        else:
            refused[user] = (code, text)
    if accepted:
        assert client.command("DATA")[0] == 354
        client.sock.sendall((MESSAGE % accepted[0]).replace(
            "\n", "\r\n").encode() + b".\r\n")
        for user in accepted:
            code, text = client.reply()
            if code != 250:
                refused[user] = (code, text)
    client.close()
    return refused


def run(*command, check=True, data=None):
    done = subprocess.run(command, capture_output=True, text=True, input=data,
                          timeout=patience(120))
    if check and done.returncode != 0:
        raise AssertionError("%s: exit code %d\n%s%s" % (
            command, done.returncode, done.stdout, done.stderr))
    return done


class MailSink(threading.Thread):
    """The relay behind the submission service: takes all mail, keeps it"""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address = address
        self.messages = []
        self.listener = socket.create_server(address)
        self.start()

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,),
                             daemon=True).start()

    def serve(self, sock):
        with sock, sock.makefile("rb") as lines:
            sock.sendall(b"220 sink\r\n")
            for line in lines:
                command = line.split()[0].upper() if line.strip() else b""
                if command == b"DATA":
                    sock.sendall(b"354 go on\r\n")
                    message = b""
                    for text in lines:
                        if text == b".\r\n":
                            break
                        message += text
                    self.messages.append(message.decode(errors="replace"))
                    sock.sendall(b"250 taken\r\n")
                elif command == b"QUIT":
                    sock.sendall(b"221 bye\r\n")
                    return
                else:
                    sock.sendall(b"250 sink\r\n")

    def close(self):
        # wakes accept() up, which close() alone does not
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
