# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""What tools/try shows, where the director is installed"""

import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__),
                                "../tests/integration"))

import clients  # noqa: E402
from node import Backend, Director, went_to  # noqa: E402

FOLDER = "/run/try"
RELAY = ("127.0.0.250", 25)
USERS = ["jane", "john", "mary", "sam", "kate", "paul"]
CONFIG = "/etc/dovecot/dovecot.conf"


def show(command, director):
    print("\n# " + command)
    done = director.doveadm(*command.split()[1:])
    print(done.stdout, end="")


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


def main():
    backends = []
    director = None
    sink = clients.MailSink(RELAY)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        print("== Starting three backends: 127.0.0.11, 127.0.0.12, 127.0.0.13")
        for i in 1, 2, 3:
            backends.append(Backend(FOLDER, "backend%d" % i, "127.0.0.1%d" % i,
                                    relay=RELAY).start())
        print("== Starting a director: 127.0.0.1")
        director = Director(FOLDER, "127.0.0.11 127.0.0.12 127.0.0.13",
                            relay=RELAY).start()
        os.rename(CONFIG, CONFIG + ".debian")
        os.symlink(director.config_path, CONFIG)
        print("== Users log in at the director, and get mail by LMTP. "
              "Where they arrive:")
        fine = log_in(director, backends)
        print("== Each user was always on the same backend." if fine else
              "== A user was on two backends!")
        session = clients.imap(director.ip, USERS[0])
        print("== What the director knows, while jane is logged in by IMAP:")
        show("doveadm director status", director)
        show("doveadm director status jane", director)
        clients.close(session)
        if "--keep" in sys.argv:
            print("READY")
            signal.pause()
        return 0 if fine else 1
    finally:
        for node in [director] + backends:
            if node is not None:
                node.stop()
        sink.close()


sys.exit(main())
