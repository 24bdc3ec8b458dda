# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The harness itself: a plain proxy to one backend, without a director."""

import pytest

import clients
from node import wait_for, went_to

FIXED_HOST = """
passdb static {
  fields {
    proxy = y
    nopassword = y
    host = %s
  }
}
"""


@pytest.mark.parametrize("restart_request_count", [1, "unlimited"])
@pytest.mark.parametrize("host", ["127.0.0.12", "fd00::12"])
def test_fixed_host(nodes, backends, relay, host, restart_request_count):
    proxy = nodes.proxy(passdb=FIXED_HOST % host, config="lmtp_proxy = yes\n",
                        restart_request_count=restart_request_count)
    for protocol in clients.LOGINS:
        clients.visit(protocol, proxy.ip, "jane")
    assert clients.deliver(proxy.ip, "jane") == {}
    assert went_to(backends, "jane", count=5) == ["backend12"] * 5
    assert {protocol for protocol, _ in backends[1].visits("jane")} == {
        "imap", "pop3", "managesieve", "submission", "lmtp"}


def test_mail_arrives(nodes, backends, relay):
    """What clients do after login works too"""
    proxy = nodes.proxy(passdb=FIXED_HOST % "127.0.0.11",
                        config="lmtp_proxy = yes\n")
    assert clients.deliver(proxy.ip, "mary") == {}
    client = clients.imap(proxy.ip, "mary")
    assert client.select() == ("OK", [b"1"])
    clients.close(client)
    sieve = clients.Sieve(proxy.ip, "mary")
    sieve.put("test", "keep;\r\n")
    assert sieve.scripts() == ['"test"']
    clients.close(sieve)
    smtp = clients.submission(proxy.ip, "mary")
    smtp.sendmail("mary@example.com", ["x@example.com"], clients.MESSAGE % "x")
    clients.close(smtp)
    assert "Subject: hello" in relay.messages[-1]


def test_login_failure_is_told(nodes, backends):
    proxy = nodes.proxy(passdb=FIXED_HOST % "127.0.0.99",
                        config="login_proxy_max_reconnects = 0\n")
    proxy.allow(r"connect\(127.0.0.99, \d+\) failed")
    for protocol in clients.LOGINS:
        with pytest.raises(clients.LoginFailed):
            clients.visit(protocol, proxy.ip, "jane")


def test_bad_lines_are_found(nodes, backends):
    proxy = nodes.proxy(passdb=FIXED_HOST % "127.0.0.99",
                        config="login_proxy_max_reconnects = 0\n")
    with pytest.raises(clients.LoginFailed):
        clients.visit("imap", proxy.ip, "jane")
    wait_for(lambda: [line for line in nodes.judge() if "127.0.0.99" in line],
             "the error line")
    proxy.allow("127.0.0.99")
    assert nodes.judge() == []


def test_kill_restart_reload(nodes, backends):
    proxy = nodes.proxy(passdb=FIXED_HOST % "127.0.0.11")
    clients.visit("imap", proxy.ip, "jane")
    proxy.kill()
    with pytest.raises(OSError):
        clients.imap(proxy.ip, "jane")
    proxy.start()
    clients.visit("imap", proxy.ip, "jane")
    proxy.change_config("127.0.0.11", "127.0.0.13")
    proxy.reload()
    clients.visit("imap", proxy.ip, "john")
    assert went_to(backends, "john") == ["backend13"]
    assert went_to(backends, "jane", count=2) == ["backend11"] * 2
