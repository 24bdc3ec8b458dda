# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The harness itself: a plain proxy to one backend, without a director."""

import os
import subprocess

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

UNIT_TESTS = """
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
static void good(void **state) { (void)state; }
static void other(void **state) { (void)state; }
static void bad(void **state) { (void)state; assert_int_equal(1, 2); }
static void worse(void **state) { (void)state; fail_msg("tests: 7 test(s)"); }
static int no_setup(void **state) { (void)state; return -1; }
int main(int argc, char *argv[])
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good), cmocka_unit_test(bad),
		cmocka_unit_test(worse),
		cmocka_unit_test_setup(other, no_setup),
	};
	(void)argv;
	return cmocka_run_group_tests(tests, argc > 1 ? no_setup : NULL, NULL);
}
"""


@pytest.mark.parametrize("args,passed,failed", [([], 1, 3), (["x"], 0, 1)])
def test_failed_unit_tests_are_counted(tmp_path, args, passed, failed):
    program, log = str(tmp_path / "tests"), str(tmp_path / "log")
    subprocess.run(["cc", "-xc", "-", "-o", program, "-lcmocka"],
                   input=UNIT_TESTS, text=True, check=True)
    with open(log, "w") as f:
        assert subprocess.run([program] + args, stdout=f, stderr=f).returncode
    check = os.path.join(os.path.dirname(__file__), "../../tools/check")
    counted = subprocess.run([check, "--count-unit", log], text=True,
                             stdout=subprocess.PIPE, check=True).stdout
    assert counted.split() == [str(passed), str(failed)]


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
