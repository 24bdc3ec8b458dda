"""Directors of ours and of the original 2.3.21.1 in one ring."""

import re
import time

import pytest

from nodes import (Admin, FakeAuth, LoginProcess, original_director,
                   our_director, wait_for)

PORT = 9090
BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"

# What the original says in every ring, also in one of its own only
USUAL = re.compile(
    r"Killed with signal 15|Time moved|"
    # who connects first is told who is nearer
    r"tried to connect to us, should use|Replacing (left|right) director|"
    r"Aborting incorrect outgoing connection|Wrong CONNECT requested|"
    # at the start, or when one goes
    r"connect\(\S*\) failed: Connection refused|"
    r"Delaying (all|new user) requests|continuing delayed requests|"
    r"Couldn't connect to right side, we must be the only|"
    r"disconnected us with reason: (Shutting down|CONNECT requested|"
    r"Replacing with|Wrong CONNECT|Invalid input: DONE|"
    r"Unwanted outgoing connection)|"
    # it was said while the other one was starting, on a busy machine
    r"clock differs from ours by -?\d secs|"
    # these tests' logins have no plugin
    r"doesn't tell of its sessions|may have sessions that nobody can see|"
    r"Director \S+ disconnected: (Connection closed|Connect timed out)|"
    r"Right side connection is unexpectedly lost, reconnecting")


class Member:
    mail_servers = BACKENDS
    # what auth tells of a user
    fields = None

    def __init__(self, kind, ip, servers, extra=""):
        self.kind = kind
        self.ip = ip
        self.servers = servers
        self.extra = extra
        self.node = self.auth = self.login = self.admin = None

    def start(self):
        config = """
director_servers = %s
service director {
  inet_listener director {
    %s = %s
    port = %d
  }
}
""" % (self.servers, "listen" if self.kind == "ours" else "address",
            self.ip, PORT)
        director = our_director if self.kind == "ours" else original_director
        self.node = director(self.mail_servers, config + self.extra)
        self.auth = FakeAuth(self.node, self.fields)
        self.admin = Admin(self.node)

    def stop(self):
        if self.node is None:
            return
        for part in (self.login, self.admin, self.auth):
            if part is not None:
                part.close()
        self.log = self.node.log()
        self.node.stop()
        self.node = self.auth = self.login = self.admin = None

    def lookup(self, users):
        if self.login is None:
            self.login = LoginProcess(self.node)
        return self.login.lookup(users)

    def directors(self):
        return self.admin.command("DIRECTOR-LIST")

    def is_synced(self):
        return any(row[2:3] == ["self"] and row[4] == "ring synced"
                   for row in self.directors() if len(row) > 4)

    def neighbours(self):
        """The addresses to the left and right"""
        found = {row[2]: row[0] for row in self.directors()}
        return found.get("left"), found.get("right")

    def hosts(self):
        """Without the number of users and what only ours tells"""
        return [row[:2] + row[3:5] for row in self.admin.command("HOST-LIST")]

    def users(self):
        return {(row[0], row[2]) for row in self.admin.command("USER-LIST")}

    def check_log(self):
        bad = [line for line in self.node.log().splitlines()
               if re.search(r"(Warning|Error|Fatal|Panic): ", line) and
               not USUAL.search(line)]
        assert not bad, self.kind + ":\n" + "\n".join(bad)


class Ring:
    member = Member

    def __init__(self, kinds, extra="", address="127.0.1.%d"):
        ips = [address % (i + 1) for i in range(len(kinds))]
        self.members = [self.member(kind, ip, " ".join(ips), extra)
                        for kind, ip in zip(kinds, ips)]

    def __enter__(self):
        try:
            for member in self.members:
                member.start()
            self.wait_synced()
        except BaseException:
            self.__exit__(None)
            raise
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.stop()

    def print_logs(self):
        for member in self.running():
            print("== %s %s\n%s" % (member.kind, member.ip,
                                    member.node.log()[-8000:]))

    def running(self):
        return [member for member in self.members if member.node is not None]

    def is_complete(self):
        """Everybody has the right neighbours and is synced"""
        members = self.running()
        for i, member in enumerate(members):
            if not member.is_synced():
                return False
            if len(members) > 1 and member.neighbours() != (
                    members[i - 1].ip, members[(i + 1) % len(members)].ip):
                return False
        return True

    def wait_synced(self, timeout=60):
        try:
            wait_for(self.is_complete, "the ring to be complete", timeout)
        except TimeoutError as error:
            text = "".join("%s %s\n%s\n%s" % (
                member.kind, member.ip, member.directors(),
                member.node.log()) for member in self.running())
            raise TimeoutError("%s\n%s" % (error, text)) from None

    def wait_quiet(self):
        """OK comes when the one who was asked is synced. For the original a
        change before another one's round has ended is a conflict."""
        wait_for(lambda: all(member.is_synced() for member in self.running()),
                 "all to be synced")

    def barrier(self):
        """Waits until nothing is under way: what a change of each one has
        overtaken has arrived."""
        for i, member in enumerate(self.running()):
            assert member.admin.command("HOST-UPDATE", "127.0.0.13",
                                        str(100 + i)) == "OK"
            self.wait_quiet()

    def wait_agreed(self, what):
        """what(member) gives the same for all."""
        def agreed():
            values = [what(member) for member in self.running()]
            return all(value == values[0] for value in values)
        try:
            wait_for(agreed, "agreement", 20)
        except TimeoutError:
            text = "".join("%s %s: %s\n%s\n" % (
                member.kind, member.ip, what(member), member.node.log())
                for member in self.running())
            raise AssertionError("No agreement:\n" + text) from None

    def check_logs(self):
        for member in self.running():
            member.check_log()


RINGS = ["ours 2.3", "2.3 ours", "ours 2.3 2.3", "2.3 ours 2.3",
         "2.3 2.3 ours", "ours ours 2.3", "2.3 ours ours", "ours 2.3 ours",
         "ours 2.3 2.3 ours 2.3"]


@pytest.fixture(params=RINGS + ["ours ours", "ours ours ours"],
                ids=lambda kinds: kinds.replace(" ", "-"))
def ring(request):
    with Ring(request.param.split()) as ring:
        yield ring
        if request.node.failed:
            ring.print_logs()


def names(prefix, count=50):
    return ["%s%d@example.com" % (prefix, i) for i in range(count)]


def test_logins(ring):
    """The same backend on whichever director, and all know all users."""
    expected = {}
    for i, member in enumerate(ring.members):
        found = member.lookup(names("m%d-" % i))
        assert all("\t" not in host for host in found.values()), found
        expected.update(found)
    for member in ring.members:
        assert member.lookup(list(expected)) == expected
    ring.wait_agreed(Member.users)
    assert len(ring.members[0].users()) == len(expected)
    ring.check_logs()


def test_host_changes(ring):
    """Whoever changes a backend, all know it when he gets OK, and users stay
    where they are."""
    before = ring.members[0].lookup(names("u"))
    for i, member in enumerate(ring.members):
        ip = "127.0.0.2%d" % i
        for command in (
                ("HOST-SET", ip, "50"), ("HOST-DOWN", "127.0.0.11"),
                ("HOST-UPDATE", "127.0.0.12", str(10 + i)), ("HOST-DOWN", ip),
                ("HOST-UP", "127.0.0.11"), ("HOST-SET", ip, "70"),
                ("HOST-UP", ip), ("HOST-SET", "127.0.0.3%d@tag" % i),
                ("HOST-REMOVE", ip)):
            assert member.admin.command(*command) == "OK", command
            for other in ring.members:
                assert other.hosts() == member.hosts(), (command, other.kind)
            ring.wait_quiet()
    for member in ring.members:
        assert member.lookup(list(before)) == before
        new = member.lookup(names("new" + member.ip))
        for other in ring.members:
            assert other.lookup(list(new)) == new
    ring.barrier()
    gone = ring.members[-1].admin.command("HOST-FLUSH", "127.0.0.13")
    assert gone == "OK"
    for member in ring.members:
        assert not [user for user in member.users() if
                    user[1] == "127.0.0.13"], member.ip
    ring.check_logs()


def test_moves(ring):
    """Whoever is told to move a user: all answer the new backend, and not the
    30 s later at which the original gives up."""
    users = ring.members[0].lookup(names("u", len(ring.members)))
    ring.wait_agreed(Member.users)
    for member, (user, old) in zip(ring.members, sorted(users.items())):
        new = [ip for ip in BACKENDS.split() if ip != old][0]
        start = time.monotonic()
        assert member.admin.command("USER-MOVE", user, new) == "OK"
        for other in ring.members:
            # the old one until it has heard of it
            wait_for(lambda: other.lookup([user]) == {user: new},
                     "%s's move on %s" % (member.kind, other.kind),
                     timeout=start + 20 - time.monotonic())
    ring.check_logs()


@pytest.mark.parametrize("kinds", ["ours 2.3", "2.3 ours 2.3"])
def test_move_back_at_once(kinds):
    """The original is still in the delay of the first move and takes the second
    one to be that; that is over when ours has ended its sessions, and it
    doesn't pass on what it doesn't know."""
    ring = Ring(kinds.split())
    for member in ring.members:
        if member.kind == "2.3":
            member.extra = "director_user_kick_delay = 4s\n"
    with ring:
        ours = next(member for member in ring.members
                    if member.kind == "ours")
        (user, old), = ours.lookup(["jane"]).items()
        new = [ip for ip in BACKENDS.split() if ip != old][0]
        ring.wait_agreed(Member.users)
        assert ours.admin.command("USER-MOVE", user, new) == "OK"
        assert ours.lookup([user]) == {user: new}
        assert ours.admin.command("USER-MOVE", user, old) == "OK"
        for member in ring.members:
            assert member.lookup([user]) == {user: old}
        ring.check_logs()


def test_restart_in_move():
    """One of ours is restarted, and its left tells it of a user who is being
    moved. Where all are ours the move would have a name."""
    ring = Ring("ours ours 2.3".split())
    for member in ring.members:
        member.extra = "director_user_kick_delay = 4s\n"
    with ring:
        first, second, _ = ring.members
        (user, old), = first.lookup(["jane"]).items()
        new = [ip for ip in BACKENDS.split() if ip != old][0]
        ring.wait_agreed(Member.users)
        assert first.admin.command("USER-MOVE", user, new) == "OK"
        second.stop()
        second.start()
        ring.wait_synced()
        for member in ring.members:
            assert member.lookup([user]) == {user: new}
        ring.check_logs()


@pytest.mark.parametrize("kinds", [("2.3", "ours"), ("ours", "2.3")])
def test_replaced(kinds):
    """Whoever isn't its neighbour knows, too, whether it is of 2.3: without a
    change of the backends."""
    with Ring(["ours", "ours", "ours", kinds[0]]) as ring:
        last = ring.members[3]
        last.stop()
        last.kind = kinds[1]
        last.start()
        ring.wait_synced()
        for member in ring.members[:3]:
            (user, old), = member.lookup(["jane" + member.ip]).items()
            new = [ip for ip in BACKENDS.split() if ip != old][0]
            ring.wait_agreed(Member.users)
            assert member.admin.command("USER-MOVE", user, new) == "OK"
            ring.wait_agreed(Member.users)
            for other in ring.members:
                assert other.lookup([user]) == {user: new}


@pytest.mark.parametrize("kinds", ["2.3 ours", "ours 2.3 ours"])
def test_flush_in_delay(kinds):
    """The original tells of moves in the delay of others, too, but never that
    their users are killed."""
    with Ring(kinds.split()) as ring:
        old = next(member for member in ring.members if member.kind == "2.3")
        users = old.lookup(names("u", 30))
        count = list(users.values()).count("127.0.0.11")
        first = next(user for user in users if users[user] == "127.0.0.12")
        ring.wait_agreed(Member.users)
        # ours waits until what was answered is over
        time.sleep(6)
        assert old.admin.command("USER-MOVE", first, "127.0.0.13") == "OK"
        time.sleep(1)
        # the second flush goes on when the first user's delay is over
        for vhosts, args in (("0", ["127.0.0.11"]),
                             ("100", ["", str(count + 1)])):
            assert old.admin.command("HOST-UPDATE", "127.0.0.11",
                                     vhosts) == "OK"
            ring.barrier()
            assert old.admin.command("HOST-RESET-USERS", *args) == "OK"
        for member in ring.members:
            if member.kind == "ours":
                # it gives up reading long before the 30 s of the original
                assert set(member.lookup(list(users))) == set(users)
        ring.check_logs()


def test_flush(ring):
    """Whoever is told to flush a backend: its users have left it everywhere."""
    ring.members[0].lookup(names("u", 30))
    for member in (ring.members[0], ring.members[-1]):
        assert member.admin.command("HOST-UPDATE", "127.0.0.11", "0") == "OK"
        ring.barrier()
        assert member.admin.command("HOST-RESET-USERS", "127.0.0.11") == "OK"
        for other in ring.members:
            wait_for(lambda: not [user for user in other.users()
                                  if user[1] == "127.0.0.11"],
                     "%s's flush on %s" % (member.kind, other.kind))
        assert member.admin.command("HOST-UPDATE", "127.0.0.11", "100") == "OK"
        ring.barrier()
        # and those who belong there go back
        assert member.admin.command("HOST-RESET-USERS", "", "7") == "OK"
        wait_for(lambda: all([user for user in other.users()
                              if user[1] == "127.0.0.11"]
                             for other in ring.members), "the way back")
    ring.wait_agreed(Member.users)
    ring.check_logs()


def test_leave_and_join(ring):
    """Each one in turn is restarted: nobody changes his backend, and who comes
    back learns what changed."""
    first = ring.members[0]
    users = first.lookup(names("u"))
    assert first.admin.command("HOST-UPDATE", "127.0.0.11", "33") == "OK"
    assert first.admin.command("HOST-DOWN", "127.0.0.12") == "OK"
    for i, member in enumerate(ring.members):
        other = ring.members[i - 1]
        member.stop()
        ring.wait_synced()
        users.update(other.lookup(names("gone%d-" % i)))
        member.start()
        ring.wait_synced()
        assert member.hosts() == other.hosts()
        assert member.lookup(list(users)) == users
    ring.wait_agreed(Member.users)
    ring.check_logs()
