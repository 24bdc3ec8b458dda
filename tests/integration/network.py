# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""A network of directors: each in a network namespace of its own, on a bridge
where packets can be dropped between any two, also in one direction only."""

import subprocess

from ring import Ring
from test_admin import Admin

BACKENDS = "fd00::11 fd00::12 fd00::13"
# Where everything that isn't sent to a neighbour vanishes
NOWHERE = "02:00:00:00:00:ff"


def ip_batch(lines, *options):
    """Many commands of ip at once"""
    done = subprocess.run(["ip", *options, "-batch", "-"], text=True,
                          input="\n".join(lines) + "\n", capture_output=True)
    assert done.returncode == 0, (options, lines, done.stderr)


class Network:
    """The tests' own processes, which are clients and backends, are at the
    bridge itself: they reach everybody, and are reached, whatever is cut."""

    def __init__(self, count):
        self.names = ["director%d" % (i + 1) for i in range(count)]
        ip_batch(["link add ring type bridge",
                  "addr add 10.9.0.254/24 dev ring",
                  "addr add fd01::fe/64 dev ring nodad", "link set ring up"])
        for i, name in enumerate(self.names):
            ip_batch(["netns add " + name])
            ip_batch(["link add %s type veth peer name eth0 address %s "
                      "netns %s" % (name, self.mac(i), name),
                      "link set %s master ring up" % name])
            ip_batch(["link set lo up", "link set eth0 up",
                      "addr add 10.9.0.%d/24 dev eth0" % (i + 1),
                      "addr add fd01::%d/64 dev eth0 nodad" % (i + 1),
                      "route add fd00::/64 via fd01::fe"], "-n", name)

    @staticmethod
    def mac(i):
        return "02:00:00:00:00:0%d" % (i + 1)

    def enter(self, i):
        """The words of a command that runs another one there"""
        return ["nsenter", "--net=/run/netns/" + self.names[i]]

    def set_ways(self, senders, receivers, mac):
        """mac: of a receiver's number, as the senders will see it"""
        for i in senders:
            ip_batch(["neigh replace 10.9.0.%d lladdr %s nud permanent "
                      "dev eth0" % (j + 1, mac(j)) for j in receivers
                      if j != i], "-n", self.names[i])

    def cut(self, senders, receivers):
        """What these send to those is lost without a word."""
        self.set_ways(senders, receivers, lambda _: NOWHERE)

    def cut_both(self, some, others):
        self.cut(some, others)
        self.cut(others, some)

    def heal(self):
        everybody = range(len(self.names))
        self.set_ways(everybody, everybody, self.mac)

    def close(self):
        ip_batch(["link del " + name for name in self.names + ["ring"]])
        for name in self.names:
            ip_batch(["netns del " + name])


class NetworkRing(Ring):
    address = "10.9.0.%d"
    backends = BACKENDS

    def __init__(self, network, nodes, count, **kwargs):
        self.network = network
        super().__init__(nodes, count, **kwargs)

    def start(self, directors, **kwargs):
        return super().start(directors, **kwargs,
                             enter=self.network.enter(len(self.members)))

    def rows(self, member):
        return {(row[2], row[0], row[4])
                for row in self.ask(member, "DIRECTOR-LIST")}

    @staticmethod
    def ask(member, command):
        """The rows of a list. Costs less than doveadm, so that more often can
        be looked."""
        admin = Admin(member)
        try:
            return [line.split("\t") for line in admin.list(command)]
        finally:
            admin.close()

    def views(self, members):
        """What each of them knows of members, backends and users"""
        return [(sorted({(row[0], row[1], row[2] == "removed") for row in
                         self.ask(member, "DIRECTOR-LIST")}),
                 [row[:2] + row[3:5] for row in
                  self.ask(member, "HOST-LIST")],
                 sorted((row[0], row[2]) for row in
                        self.ask(member, "USER-LIST")))
                for member in members]
