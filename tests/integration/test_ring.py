# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Real directors in one ring that fail, come back, and hear nonsense."""

import os
import signal
import socket
import threading
import time

import pytest

import clients
from node import RING_PORT, patience, went_to, wait_for
from ring import Ring

GONE = ("Ping timeout", r"disconnected: Connect timed out",
        r"Ring SYNC seq=\d+ appears to have got lost", r"Fatal: ",
        r"killed with signal 9", r"SYNC request hosts don't match",
        r"redirected to two hosts", "which we can't reach",
        "Handshaking ME timed out")


class Logins(threading.Thread):
    """Logs new and known users in, one after another, on some directors."""

    def __init__(self, ips, known):
        super().__init__(daemon=True)
        self.ips = ips
        self.known = known
        self.stopping = threading.Event()
        self.count = 0
        self.worst = 0
        self.failed = []
        self.start()

    def run(self):
        while not self.stopping.is_set():
            ip = self.ips[self.count % len(self.ips)]
            for user in "new%d" % self.count, self.known:
                begun = time.monotonic()
                try:
                    clients.close(clients.imap(ip, user))
                except Exception as error:
                    self.failed.append((ip, user, error))
                self.worst = max(self.worst, time.monotonic() - begun)
            self.count += 1

    def finish(self):
        self.stopping.set()
        self.join(patience(60))
        assert not self.is_alive()


def status_of(ring, user):
    return {member.user_status(user)["status"] for member in ring.members}


def test_known_everywhere(nodes, backends):
    ring = Ring(nodes, 3)
    ring.wait(3)
    for i, member in enumerate(ring.members):
        clients.visit("imap", member.ip, "user%d" % i)
    for i in range(3):
        user = "user%d" % i
        wait_for(lambda: len(status_of(ring, user)) == 1 and
                 "n/a" not in status_of(ring, user), "all to know " + user)
    went = went_to(backends, "user0")
    for node in backends:
        node.log.mark()
    for member in ring.members:
        clients.visit("imap", member.ip, "user0")
    assert set(went_to(backends, "user0", count=3)) == set(went)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_silent_neighbour_is_bypassed(nodes, backends, end):
    """A director that hangs or crashes: the others go on, logins too, and it
    comes back with what was done meanwhile."""
    ring = Ring(nodes, 3)
    ring.wait(3)
    first, second, third = ring.members
    for member in ring.members:
        member.allow(*GONE)
    clients.visit("imap", second.ip, "known")
    wait_for(lambda: len(status_of(ring, "known")) == 1, "all to know him")
    logins = Logins([first.ip, third.ip], "known")
    wait_for(lambda: logins.count > 2, "logins")
    pid = second.pid("director")
    begun = time.monotonic()
    if end == "stopped":
        os.kill(pid, signal.SIGSTOP)
        try:
            ring.wait_for([first, third])
            secs = time.monotonic() - begun
            count = logins.count
            wait_for(lambda: logins.count > count + 2, "more logins")
        finally:
            os.kill(pid, signal.SIGCONT)
    else:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: second.pid("director") != pid, "a new one")
        secs = time.monotonic() - begun
    ring.wait(3)
    logins.finish()
    print("%s: bypassed within %.1f s, back after %.1f s, worst login %.1f s "
          "of %d" % (end, secs, time.monotonic() - begun, logins.worst,
                     logins.count))
    assert logins.failed == []
    assert len(status_of(ring, "known")) == 1
    hosts = first.status()
    for member in second, third:
        assert [row["state"] for row in member.status()] == \
            [row["state"] for row in hosts]


def test_changes_reach_all(nodes, backends):
    """OK means that all know it; two administrators at once end in one
    state."""
    ring = Ring(nodes, 3)
    ring.wait(3)
    for member in ring.members:
        member.allow("is being updated before previous update")

    def hosts(member):
        return [(row["mail server ip"], row["vhosts"], row["state"])
                for row in member.status()]

    for i, member in enumerate(ring.members):
        member.doveadm("director", "update", "127.0.0.11", str(10 + i))
        member.doveadm("director", "down", "127.0.0.1%d" % (i + 1))
        expected = hosts(member)
        assert ("127.0.0.1%d" % (i + 1), "down") in \
            [(ip, state) for ip, _, state in expected]
        for other in ring.members:
            assert hosts(other) == expected

    def hammer(member, vhosts):
        for i in range(10):
            member.doveadm("director", "update", "127.0.0.12",
                           str(vhosts + i), check=False)
            member.doveadm("director", "up" if i % 2 else "down",
                           "127.0.0.13", check=False)

    threads = [threading.Thread(target=hammer, args=(member, 100 * i))
               for i, member in enumerate(ring.members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(60))
        assert not thread.is_alive()
    wait_for(lambda: len({str(hosts(member)) for member in ring.members}) == 1,
             "all to agree")
    ring.wait(3)


NONSENSE = [
    b"", b"\n", b"\0\n", b"x" * 5000, b"VERSION\tdirector\t2\t9\n",
    b"VERSION\timap\t1\t9\n", b"VERSION\tdirector\t1\t3\n",
    b"ME\t127.0.1.2\t9090\n",
    b"VERSION\tdirector\t1\t9\nME\t127.0.1.1\t9090\t1\n",
    b"VERSION\tdirector\t1\t9\nME\t127.0.1.9\t9090\t1\n",
    b"VERSION\tdirector\t1\t9\nUSER\t1\t127.0.0.11\n",
]
GREETING = b"VERSION\tdirector\t1\t9\nME\t127.0.1.2\t9090\t%d\n"
AFTER_GREETING = [
    b"HOST-HAND-START\t1\nHOST\t127.0.0.11\t4294967295\t\tU0\t\n"
    b"HOST-HAND-END\t1\nOPTIONS\tconsistent-hashing\nDONE\n",
    b"HOST\t127.0.1.2\t9090\t1\t127.0.0.11\t4294967295\t\tU99999999999\t\n",
    b"HOST\t127.0.1.2\t9090\t1\t127.0.0.11\t4294967296\n",
    b"USER\t0\t127.0.0.11\t1\n", b"USER\t5\t127.0.0.11\t9999999999999\n",
    b"USER-WEAK\t127.0.1.1\t9090\t1\t5\t127.0.0.11\n",
    b"USER-WEAK\t127.0.1.2\t9090\t1\t5\t127.0.0.11\n" * 100,
    b"SYNC\t127.0.1.1\t9090\t1\t9\t1\t1\n" * 100,
    b"CONNECT\t127.0.1.1\t9090\n", b"CONNECT\t127.0.1.7\t0\n",
    b"DIRECTOR\t127.0.1.1\t9090\n" * 1000, b"PING\n" * 10000,
    b"QUIT\tbecause\n", b"DONE\nDONE\n", b"NONSENSE\n",
]


def test_nonsense_from_a_member(nodes, backends):
    """Whatever somebody at another director's address sends: the same process
    goes on, and answers logins."""
    director = Ring(nodes, 1, config="")
    node = director.members[0]
    node.change_config("director_servers = 127.0.1.1",
                       "director_servers = 127.0.1.1 127.0.1.2")
    node.restart()
    node.allow(" director: (Error|Warning): ")
    pid = node.pid("director")
    cases = NONSENSE + [GREETING % time.time() + more
                        for more in AFTER_GREETING]
    for i, data in enumerate(cases):
        with socket.socket() as sock:
            sock.bind(("127.0.1.2", 0))
            sock.settimeout(patience(10))
            sock.connect(("127.0.1.1", RING_PORT))
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            except OSError:
                pass
        # (the ring has to be alone again before new users are let in)
        clients.close(clients.imap(node.ip, "user%d" % i))
        assert node.pid("director") == pid, data
