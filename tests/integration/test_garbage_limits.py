# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""What happens at the director's limits, and when its files or the processes
around it fail: logins go on, or go on as soon as they can."""

import ctypes
import os
import re
import resource
import signal
import threading
import time

import pytest

import clients
from garbage import (BACKENDS, LISTENERS, MB, SLOW, TOKEN, Bystander, Health,
                     Peer, add_users, admin, announce_none, authreply,
                     director_pids, hosts, login, plugin, sessions, start)
from node import VALGRIND, wait_for

libc = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT = 1, 32


def mount(target, options, flags=0):
    if libc.mount(b"tmpfs", target.encode(), b"tmpfs", flags,
                  options.encode()) < 0:
        raise OSError(ctypes.get_errno(), "mount " + target)


def unmount(target):
    if libc.umount2(target.encode(), 2) < 0:
        raise OSError(ctypes.get_errno(), "umount " + target)


def lookup(director, user):
    """The user's backend as a login would get it"""
    peer = authreply(director)
    peer.send(b"OK\t1\tproxy\tuser=%s\n" % user.encode())
    line = peer.line()
    peer.close()
    return re.search(rb"\thost=([0-9.]+)", line).group(1)


@pytest.fixture
def director(nodes):
    return nodes.director(BACKENDS, config=LISTENERS)


def test_client_limit(nodes, backends):
    director = nodes.director(BACKENDS, config=LISTENERS + """
service director {
  client_limit = 40
}
""")
    director.allow("client_limit.*reached")
    health = Health(director)
    for _ in range(3):
        peers = [Peer(director.path("director-admin")) for _ in range(45)]
        wait_for(lambda: health.count_fds() >= health.fds + 30, "clients")
        assert SLOW or health.cpu_of(0.5) < 0.03
        # the others wait until there is room
        for peer in peers:
            assert peer.line()
            peer.close()
    health.check()


def limited(short_tmp, limit):
    """What starts a program so, as words of a command"""
    path = short_tmp + "/limited"
    with open(path, "w") as f:
        f.write("#!/bin/sh\nulimit %s\nexec \"$@\"\n" % limit)
    os.chmod(path, 0o755)
    return [path]


def test_descriptor_limit(nodes, backends, short_tmp):
    # valgrind keeps 12 for itself
    director = nodes.director(BACKENDS, config=LISTENERS, before=limited(
        short_tmp, "-n %d" % (72 if VALGRIND else 60)))
    director.allow("Too many open files")
    health = Health(director)
    for _ in range(3):
        peers = [login(director) for _ in range(60)]
        wait_for(lambda: health.count_fds() >= 58, "clients")
        assert SLOW or health.cpu_of(0.5) < 0.1
        for peer in peers:
            peer.close()
        wait_for(lambda: health.count_fds() <= health.fds, "their end")
        assert lookup(director, "jane")
    assert director.log.find("Too many open files")
    health.check()


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_login_processes(nodes, short_tmp, many_descriptors):
    """More than the descriptors that the director has at first"""
    director = nodes.director(BACKENDS, config=LISTENERS,
                              before=limited(short_tmp, "-S -n 1024"))
    health = Health(director)
    count = 300 if SLOW else 3000
    peers = []
    with Bystander(director):
        for i in range(count):
            peers.append(plugin(director))
            peers[-1].send(start(i, user_hash=i) + b"UP\t" + TOKEN % i +
                           b"\nANNOUNCED\n")
        wait_for(lambda: sessions(director) == count, "sessions")
        assert SLOW or health.cpu_of(0.5) < 0.1
        for peer in peers:
            peer.close()
        announce_none(director)
        wait_for(lambda: sessions(director) == 0, "sessions to be forgotten")
        wait_for(lambda: health.count_fds() <= health.fds + 1,
                 "connections to be closed")


def test_memory_limit(nodes, backends, short_tmp):
    """The director ends when it has no memory, and starts again with what it
    has to know"""
    # valgrind itself has about 110 MB, and Dovecot's limit would end it
    before = limited(short_tmp, "-v 200000") if VALGRIND else []
    director = nodes.director(BACKENDS, before=before, config=LISTENERS + """
service director {
  vsz_limit = 100 M
}
""")
    director.allow("Out of memory", "Raw backtrace",
                   "Auth server disconnected", "returned error 83")
    director.doveadm("director", "add", "127.0.0.14", "50")
    director.doveadm("director", "down", "127.0.0.14")
    pid, = director_pids(director)
    try:
        for i in range(20):
            add_users(director, 200000, "user%dof" % i)
        assert False, "no limit"
    except (ConnectionError, TypeError, BrokenPipeError):
        pass
    director.log.wait("Out of memory")
    wait_for(lambda: director_pids(director) not in ([], [pid]), "a new one")
    assert hosts(director)[b"127.0.0.14"][0] == b"50"
    assert hosts(director)[b"127.0.0.14"][3] == b"D"
    clients.visit("imap", director.ip, "afterwards")


def stays(director, count):
    """Users of whom the director has to know where they are: {name: where}.
    Hashing would put many of them elsewhere."""
    users = {"stays%d" % i: None for i in range(count)}
    for user in users:
        users[user] = lookup(director, user)
    director.doveadm("director", "update", "127.0.0.11", "10")
    director.doveadm("director", "update", "127.0.0.12", "1000")
    return users


def test_killed_under_logins(director):
    """Again and again: everyone stays where he is"""
    director.allow("killed with signal 9", "Auth server|auth-client|auth: ",
                   "Disconnected", "director-admin|director-proxy")
    users = stays(director, 50)
    wrong = []
    answers = []
    ended = threading.Event()

    def logins(first):
        names = list(users)[first::3]
        while not ended.is_set():
            for user in names:
                try:
                    answer = lookup(director, user)
                except (ConnectionError, AssertionError, AttributeError,
                        TypeError):
                    # just now there is none
                    continue
                answers.append(user)
                if answer != users[user]:
                    wrong.append((user, answer))

    threads = [threading.Thread(target=logins, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        pid = wait_for(lambda: director_pids(director), "a director")[0]
        count = len(answers)
        wait_for(lambda: len(answers) > count + 20, "answers")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: pid not in director_pids(director), "its end")
    wait_for(lambda: director_pids(director), "a director")
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert {user: lookup(director, user) for user in users} == users
    Health(director).check()


def test_stopped_processes(director):
    """auth and login processes that are stopped hold up nobody else"""
    health = Health(director)
    client = clients.imap(director.ip, "live")
    auth = director.pids("auth")
    imap_login = director.pids("imap-login")
    done = []
    for pid in auth + imap_login:
        os.kill(pid, signal.SIGSTOP)
    late = threading.Thread(target=lambda: done.append(
        clients.visit("pop3", director.ip, "late")))
    late.start()
    with Bystander(director):
        assert SLOW or health.cpu_of(1) < 0.1
        assert sessions(director) == 1
        assert not done
    for pid in auth + imap_login:
        os.kill(pid, signal.SIGCONT)
    late.join()
    assert len(done) == 1
    clients.close(client)
    wait_for(lambda: sessions(director) == 0, "the session's end")
    health.check(growth=2 * MB)


def count_saved(director, word):
    with open(director.path("director/journal"), "rb") as f:
        return f.read().count(b"\n" + word + b"\t")


def test_disk_full(nodes, backends):
    """Logins go on; when there is room again, all is written"""
    director = nodes.director(BACKENDS, start=False, config=LISTENERS)
    folder = director.path("director")
    os.makedirs(folder)
    mount(folder, "size=64k,mode=755")
    try:
        director.start()
        director.allow(r"journal: write\(journal\) failed: No space left",
                       r"write\(users.*failed: No space left",
                       "1 of [0-9]* lines are damaged")
        users = stays(director, 20)
        assert {user: lookup(director, user) for user in users} == users
        with open(folder + "/junk", "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"x" * 4096)
            except OSError:
                pass
        with Bystander(director):
            peer = admin(director)
            for i in range(2000):
                peer.send(b"HOST-SET\t127.0.0.13\t%d\n" % (i % 100))
                assert peer.line() == b"OK"
            peer.close()
            director.log.wait("until this is mended")
            assert {user: lookup(director, user) for user in users} == users
        assert len(director.log.find("journal: ")) < 5
        health = Health(director)
        assert SLOW or health.cpu_of(1) < 0.05
        # still full at the end of this one and at the start of the next
        director.restart()
        assert sorted(hosts(director)) == sorted(BACKENDS.encode().split())
        os.unlink(folder + "/junk")
        director.log.wait("Is kept again")
        director.doveadm("director", "update", "127.0.0.13", "77")
        director.kill()
        director.start()
        assert hosts(director)[b"127.0.0.13"][0] == b"77"
    finally:
        director.stop()
        unmount(folder)


def test_read_only_folder(nodes, backends):
    director = nodes.director(BACKENDS, start=False, config=LISTENERS)
    folder = director.path("director")
    os.makedirs(folder)
    mount(folder, "size=64k,mode=755")
    try:
        mount(folder, "size=64k,mode=755", MS_RDONLY | MS_REMOUNT)
        director.allow("Read-only file system", "failed: ")
        director.start()
        health = Health(director)
        with Bystander(director):
            for i in range(100):
                director.doveadm("director", "update", "127.0.0.13", i)
        health.check()
    finally:
        director.stop()
        unmount(folder)


def test_old_director_hangs(director):
    """At a reload the next one doesn't wait for it for ever"""
    director.allow("Another director process (still has|has taken it over)",
                   "Auth server",
                   r"(anvil|director|auth).*(isn't responding|Timeout)",
                   "Processes aren't dying|Sent SIGTERM|Killed with signal 15")
    users = stays(director, 20)
    old, = director_pids(director)
    os.kill(old, signal.SIGSTOP)
    director.master.send_signal(signal.SIGHUP)
    began = time.monotonic()
    new = wait_for(lambda: [pid for pid in director_pids(director)
                            if pid != old], "the next director")[0]

    def answers():
        try:
            return {user: lookup(director, user) for user in users}
        except (ConnectionError, TypeError, AssertionError, OSError):
            return None
    assert wait_for(answers, "answers") == users
    assert SLOW or time.monotonic() - began < 8
    os.kill(old, signal.SIGCONT)
    wait_for(lambda: director_pids(director) == [new], "the old one's end")
    assert answers() == users
    director.kill()
    director.start()
    assert answers() == users


@pytest.mark.parametrize("shutdown_clients", ["yes", "no"])
def test_reload_under_logins(nodes, backends, shutdown_clients):
    director = nodes.director(
        BACKENDS, restart_request_count="unlimited", config=LISTENERS +
        "shutdown_clients = %s\n" % shutdown_clients)
    director.allow("Auth|auth|Disconnected|director-proxy|Killed")
    users = stays(director, 50)
    live = [clients.imap(director.ip, user) for user in list(users)[:10]]
    wait_for(lambda: sessions(director) == 10, "sessions")
    failed = []
    ended = threading.Event()

    def logins(first):
        while not ended.is_set():
            for user in list(users)[10 + first::2]:
                try:
                    clients.visit("imap", director.ip, user)
                except (clients.LoginFailed, OSError) as error:
                    failed.append((user, error))

    threads = [threading.Thread(target=logins, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            old, = director_pids(director)
            director.reload()
            wait_for(lambda: old not in director_pids(director) and
                     director_pids(director), "the next director")
            if shutdown_clients == "no":
                began = time.monotonic()
                wait_for(lambda: sessions(director) >= 10, "sessions")
                assert SLOW or time.monotonic() - began < 3
                for client in live:
                    assert client.noop()[0] == "OK"
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert {user: lookup(director, user) for user in users} == users
    # those that were under way
    assert len(failed) < 30
    if shutdown_clients == "no":
        for client in live:
            clients.close(client)
    wait_for(lambda: sessions(director) == 0, "the sessions' end")
    Health(director).check()


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: b"x", lambda data: data[:-1],
    lambda data: data + b"x", lambda data: data[:100],
    lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    # counts beyond all bounds
    lambda data: data[:28] + b"\xff" * 4 + data[32:],
    lambda data: data[:32] + b"\xff" * 8 + data[40:],
    lambda data: b"director-users\n\0" + b"\xff" * (len(data) - 16),
    lambda data: os.urandom(2 * MB)], ids=range(10))
def test_damaged_users(director, damage):
    """What was saved of the users at a stop isn't used if it is wrong"""
    director.allow("users is .*: ignored")
    add_users(director, 1000)
    director.stop()
    with open(director.path("director/users"), "r+b") as f:
        data = damage(f.read())
        f.seek(0)
        f.truncate()
        f.write(data)
    director.start()
    assert sum(int(host[1]) for host in hosts(director).values()) == 0
    assert lookup(director, "user1")
    if len(data) > 0:
        director.log.wait("users is .*: ignored")
    Health(director).check()
