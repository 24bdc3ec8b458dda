# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The oracle sees what it has to see"""

import os
import signal
import socket
import time

import pytest

import clients
from node import wait_for
from oracle import Session, find_overlaps


def session(backend, begun, ended):
    one = Session()
    one.user, one.backend, one.begun, one.ended = "u", backend, begun, ended
    return one


@pytest.mark.parametrize("sessions,overlaps", [
    ([("a", 1, 2), ("b", 2.1, 3)], 0),
    ([("a", 1, 2.1), ("a", 2, 3), ("b", 3.1, 4)], 0),
    ([("a", 1, 2.1), ("b", 2, 3)], 1),
    # inside of each other
    ([("a", 1, 9), ("a", 2, 3), ("b", 4, 5)], 1),
    # not over yet
    ([("a", 1, None), ("b", 4, 5)], 1),
    # a login that was given up is no session
    ([("a", None, 4), ("b", 3, 5)], 0),
    ([("a", 1, 4), ("a", 1, 5), ("b", 3, None)], 2),
])
def test_overlaps(sessions, overlaps):
    sessions = [session(*one) for one in sessions]
    for some in sessions, sessions[::-1]:
        assert len(find_overlaps(some)) == overlaps


def one_session(oracle, user, condition):
    return wait_for(lambda: [one for one in oracle.sessions(user)
                             if condition(one)], "the oracle to know")[0]


@pytest.mark.parametrize("kind", ["real_backend", "light_backend"])
def test_backends_tell(site, kind):
    """When a session begins, how it ends"""
    backend = getattr(site, kind)(21)
    oracle = site.oracle
    before = time.monotonic()
    client = clients.imap(backend.ip, "jane")
    begun = one_session(oracle, "jane", Session.is_live).begun
    assert before < begun < time.monotonic()
    client.shutdown()
    one_session(oracle, "jane", lambda one: one.ended and not one.killed)
    client = clients.imap(backend.ip, "jim")
    assert one_session(oracle, "jim", Session.is_live).backend == backend.ip
    backend.kill()
    one_session(oracle, "jim", lambda one: one.killed)
    assert oracle.live() == []
    backend.start()
    clients.imap(backend.ip, "jim")
    wait_for(lambda: oracle.logins == 3, "the third login")


def test_two_backends_are_seen(site):
    backends = [site.real_backend(21), site.light_backend(22)]
    sessions = [clients.imap(backend.ip, "jane") for backend in backends]
    wait_for(lambda: len(site.oracle.live("jane")) == 2, "both")
    for client in sessions:
        client.shutdown()
    wait_for(lambda: not site.oracle.live(), "the ends")
    assert len(site.oracle.check(lag=0)) == 1
    # once
    assert site.oracle.check(lag=0) == []


def test_pending_logins(site):
    backend = site.light_backend(21, login=20)
    with socket.create_connection((backend.ip, 143)) as sock:
        sock.sendall(b"a LOGIN jane secret\r\n")
        wait_for(lambda: site.oracle.pending("jane"), "a pending login")
    wait_for(lambda: not site.oracle.pending("jane"), "its end")
    assert site.oracle.logins == 0


def test_nobody_there(site):
    """The client has gone before the backend lets him in. (Its auth process is
    stopped meanwhile.)"""
    backend = site.real_backend(21)
    clients.visit("imap", backend.ip, "jane")
    auth = backend.pid("auth")
    os.kill(auth, signal.SIGSTOP)
    with socket.create_connection((backend.ip, 143)) as sock:
        sock.recv(1000)
        sock.sendall(b"a LOGIN jim secret\r\n")
        time.sleep(0.5)
    os.kill(auth, signal.SIGCONT)
    one = one_session(site.oracle, "jim", lambda one: one.ended)
    assert one.begun is None and one.pending is not None
