# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""What tools/try shows, where the director is installed"""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(__file__),
                                "../tests/integration"))

import clients  # noqa: E402
from node import Backend, Director, wait_for, went_to  # noqa: E402

FOLDER = "/run/try"
RELAY = ("127.0.0.250", 25)
DIRECTORS = ["127.0.0.1", "127.0.0.2"]
USERS = ["jane", "john", "mary", "sam", "kate", "paul"]
# logs in later
NEWCOMER = "lucy"
CONFIG = "/etc/dovecot/dovecot.conf"


def show(command):
    """Shows what a doveadm command prints in a terminal that is wide enough."""
    print("\n# " + command)
    terminal, stdout = pty.openpty()
    fcntl.ioctl(stdout, termios.TIOCSWINSZ,
                struct.pack("HHHH", 50, 160, 0, 0))
    with open(terminal, encoding="utf-8") as lines:
        process = subprocess.Popen(command.split(), stdout=stdout)
        os.close(stdout)
        try:
            for line in lines:
                print(line.rstrip())
        except OSError:
            # the end of a terminal
            pass
        process.wait()


def is_ring(directors):
    """Is each one synced with the other, to its left and to its right?"""
    return all(node.doveadm("-f", "tab", "director", "ring",
                            "status").stdout.count("synced\t") == 3
               for node in directors)


def log_in(director, backends):
    """Everybody over all protocols, in two rounds. True if each user was
    always on one backend."""
    columns = list(clients.LOGINS) + ["lmtp"]
    print("%-6s" % "" + "".join("%-13s" % name for name in columns) + "again")
    fine = True
    for user in USERS:
        places = []
        for protocol in columns * 2:
            for node in backends:
                node.log.mark()
            if protocol == "lmtp":
                assert clients.deliver(director.ip, user) == {}
            else:
                clients.visit(protocol, director.ip, user)
            places += went_to(backends, user)
        first, second = places[:len(columns)], places[len(columns):]
        print("%-6s" % user + "".join("%-13s" % name for name in first) +
              ("same" if second == first else " ".join(second)))
        fine = fine and len(set(places)) == 1
    return fine


def log_in_once(director, backends):
    """The backend where the newcomer arrives"""
    for node in backends:
        node.log.mark()
    clients.visit("imap", director.ip, NEWCOMER)
    name = went_to(backends, NEWCOMER)[0]
    return [node for node in backends if node.name == name][0]


def log_in_elsewhere(directors, backends):
    """A user of the first director comes to the second one. True if that knew
    him, and he was on the same backend."""
    first, second = directors
    place = log_in_once(first, backends)
    print("\n== %s logs in at the first director: %s" % (NEWCOMER, place.name))
    print("== The second director knows:")
    show("doveadm director status -a %s %s" % (
        second.path("director-admin"), NEWCOMER))
    known = second.user_status(NEWCOMER)["status"] == place.ip
    again = log_in_once(second, backends)
    print("\n== %s logs in at the second director: %s" % (
        NEWCOMER, again.name))
    return known and again == place


def main():
    backends = []
    directors = []
    sink = clients.MailSink(RELAY)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        print("== Starting three backends: 127.0.0.11, 127.0.0.12, 127.0.0.13")
        for i in 1, 2, 3:
            backends.append(Backend(FOLDER, "backend%d" % i, "127.0.0.1%d" % i,
                                    relay=RELAY).start())
        print("== Starting two directors, a ring: " + ", ".join(DIRECTORS))
        for number, ip in enumerate(DIRECTORS, 1):
            directors.append(Director(
                FOLDER, "127.0.0.11 127.0.0.12 127.0.0.13", relay=RELAY,
                name="director%d" % number, listen=ip,
                directors=" ".join(DIRECTORS)).start())
        wait_for(lambda: is_ring(directors), "the ring")
        first = directors[0]
        os.rename(CONFIG, CONFIG + ".debian")
        os.symlink(first.config_path, CONFIG)
        print("== Users log in at the first director, and get mail by LMTP. "
              "Where they arrive:")
        fine = log_in(first, backends)
        fine = log_in_elsewhere(directors, backends) and fine
        print("== Each user was always on the same backend." if fine else
              "== A user was on two backends!")
        session = clients.imap(first.ip, USERS[0])
        print("== What the directors know, while jane is logged in by IMAP:")
        show("doveadm director status")
        show("doveadm director status jane")
        show("doveadm director ring status")
        clients.close(session)
        if "--keep" in sys.argv:
            print("READY")
            signal.pause()
        return 0 if fine else 1
    finally:
        for node in directors + backends:
            node.stop()
        sink.close()


sys.exit(main())
