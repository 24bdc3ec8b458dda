# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Real logins through a director: who goes where, and that they stay there."""

import pytest

import clients
from node import wait_for, went_to

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"
MODES = pytest.mark.parametrize("restart_request_count", [1, "unlimited"])
PROTOCOLS = ["imap", "pop3", "managesieve", "submission"]


def name_of(backends, ip):
    return next(node.name for node in backends if ip in node.addresses)


@MODES
def test_all_protocols_same_backend(nodes, backends, restart_request_count):
    director = nodes.director(BACKENDS,
                              restart_request_count=restart_request_count)
    users = ["jane", "john@example.com", "mary", "user.name-1_2@example.com"]
    for user in users:
        for protocol in PROTOCOLS * 2:
            clients.visit(protocol, director.ip, user)
    for user in users:
        found = went_to(backends, user, count=8)
        assert len(set(found)) == 1, (user, found)
        status = director.user_status(user)
        assert name_of(backends, status["status"]) == found[0]
        assert status["status"] == status["hashed"]


@MODES
def test_lmtp_same_backend(nodes, backends, restart_request_count):
    director = nodes.director(BACKENDS,
                              restart_request_count=restart_request_count)
    users = ["lm%s%d" % (restart_request_count, i) for i in range(8)]
    assert clients.deliver(director.ip, *users) == {}
    for user in users:
        client = clients.imap(director.ip, user)
        # the mail is where the user is
        assert client.select() == ("OK", [b"1"])
        clients.close(client)
        assert len(set(went_to(backends, user, count=2))) == 1


def test_users_are_spread(nodes, backends):
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    users = ["spread%d" % i for i in range(30)]
    for user in users:
        clients.visit("imap", director.ip, user)
    found = [went_to(backends, user)[0] for user in users]
    assert len(set(found)) == 3
    counts = {name_of(backends, row["mail server ip"]): int(row["users"])
              for row in director.status()}
    assert counts == {node.name: found.count(node.name) for node in backends}


def test_case_does_not_matter(nodes, backends):
    """By default the hash is of the name in lower case"""
    director = nodes.director(BACKENDS,
                              config="auth_username_format = %{user}\n")
    for user in "Jane@Example.com", "jane@example.com", "JANE@EXAMPLE.COM":
        clients.visit("imap", director.ip, user)
    found = [node.name for node in backends for _, user in node.visits()
             if user.lower() == "jane@example.com"]
    wait_for(lambda: sum(len(node.visits()) for node in backends) == 3,
             "three visits")
    assert len(set(found)) == 1


@MODES
def test_many_at_once(nodes, backends, restart_request_count):
    director = nodes.director(BACKENDS,
                              restart_request_count=restart_request_count)
    users = ["many%d" % i for i in range(10)]
    sessions = [clients.imap(director.ip, user) for user in users * 3]
    for user in users:
        assert len(set(went_to(backends, user, count=3))) == 1
    # all of them work at the same time
    for session in sessions:
        assert session.noop()[0] == "OK"
    for session in sessions:
        clients.close(session)


def test_no_backend_is_a_temporary_failure(nodes, backends):
    """And the login waits until there is one"""
    director = nodes.director("")
    director.allow("There are no backends")
    director.doveadm("director", "add", "127.0.0.12")
    clients.visit("imap", director.ip, "jane")
    assert went_to(backends, "jane") == ["backend12"]


def test_fixed_host_is_left_alone(nodes, backends):
    director = nodes.director(BACKENDS, passdb="""
passdb static {
  fields {
    proxy = y
    nopassword = y
    host = 127.0.0.13
  }
}
""")
    for user in "a", "b", "c", "d", "e", "f":
        clients.visit("imap", director.ip, user)
        assert went_to(backends, user) == ["backend13"]
    assert sum(int(row["users"]) for row in director.status()) == 0


def test_local_login_passes(nodes, backends):
    """A user of the director's own host is not proxied"""
    director = nodes.director(BACKENDS, passdb="""
passdb static {
  fields {
    nopassword = y
  }
}
namespace inbox {
  inbox = yes
}
""")
    for protocol in PROTOCOLS:
        clients.visit(protocol, director.ip, "local")
    wait_for(lambda: len(director.log.find(
        r"-login: Info: (Login|Logged in): user=<local>")) == 4, "local logins")
    assert [node.name for node in backends if node.visits()] == []


def test_wrong_password(nodes, backends):
    director = nodes.director(BACKENDS, passdb="""
passdb static {
  password = right
  fields {
    proxy = y
  }
}
""")
    clients.visit("imap", director.ip, "jane", "right")
    with pytest.raises(clients.LoginFailed):
        clients.visit("imap", director.ip, "jane", "wrong")
    assert len(went_to(backends, "jane")) == 1


@MODES
def test_curl_and_swaks(nodes, backends, restart_request_count):
    director = nodes.director(BACKENDS,
                              restart_request_count=restart_request_count)
    clients.run("swaks", "--protocol", "LMTP", "--server", director.ip,
                "--port", "24", "--from", "sender@example.com",
                "--to", "curly")
    done = clients.run("curl", "-sS", "imap://%s/INBOX;MAILINDEX=1" %
                       director.ip, "--user", "curly:secret")
    assert "This is a test mailing" in done.stdout
    done = clients.run("curl", "-sS", "pop3://%s/1" % director.ip, "--user",
                       "curly:secret")
    assert "This is a test mailing" in done.stdout
    assert len(set(went_to(backends, "curly", count=3))) == 1


@MODES
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_live_sessions_are_counted(nodes, backends, protocol,
                                   restart_request_count):
    """What the login plugin reports"""
    director = nodes.director(BACKENDS,
                              restart_request_count=restart_request_count)

    def live():
        return sum(int(row["sessions"]) for row in director.status())
    clients_ = [clients.LOGINS[protocol](director.ip, "jane")
                for _ in range(3)]
    wait_for(lambda: live() == 3, "3 sessions")
    clients.close(clients_.pop())
    wait_for(lambda: live() == 2, "2 sessions")
    for client in clients_:
        clients.close(client)
    wait_for(lambda: live() == 0, "no session")
    assert sum(int(row["users"]) for row in director.status()) == 1


def test_users_stay_when_a_backend_is_added(nodes, backends):
    director = nodes.director("127.0.0.11 127.0.0.12",
                              restart_request_count="unlimited")
    users = ["stay%d" % i for i in range(20)]
    for user in users:
        clients.visit("imap", director.ip, user)
    before = {user: went_to(backends, user)[0] for user in users}
    director.doveadm("director", "add", "127.0.0.13", "500")
    hashed = [director.user_status(user)["hashed"] for user in users]
    assert "127.0.0.13" in hashed
    for user in users:
        clients.visit("imap", director.ip, user)
    for user in users:
        assert went_to(backends, user, count=2) == [before[user]] * 2


def test_down_backend_gets_no_new_users(nodes, backends):
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    director.doveadm("director", "down", "127.0.0.12")
    users = ["down%d" % i for i in range(15)]
    for user in users:
        clients.visit("imap", director.ip, user)
    found = {went_to(backends, user)[0] for user in users}
    assert found == {"backend11", "backend13"}
    director.doveadm("director", "up", "127.0.0.12")
    more = ["up%d" % i for i in range(15)]
    for user in more:
        clients.visit("imap", director.ip, user)
    assert "backend12" in {went_to(backends, user)[0] for user in more}


def test_one_user_per_destuser(nodes, backends):
    """destuser decides, whatever the login name is"""
    director = nodes.director(BACKENDS, passdb="""
passdb static {
  fields {
    proxy = y
    nopassword = y
    destuser = the-one
  }
}
""")
    for user in "a", "b", "c", "d", "e":
        clients.visit("imap", director.ip, user)
    assert len(set(went_to(backends, "the-one", count=5))) == 1
    assert sum(int(row["users"]) for row in director.status()) == 1


@MODES
def test_tags(nodes, backends, restart_request_count):
    director = nodes.director("127.0.0.11@east 127.0.0.12@west 127.0.0.13",
                              restart_request_count=restart_request_count,
                              passdb="""
passdb static {
  fields {
    proxy = y
    nopassword = y
    director_tag = %{user | domain}
  }
}
""")
    for user, backend in [("a@east", "backend11"), ("b@west", "backend12"),
                          ("c", "backend13"), ("d@east", "backend11")]:
        clients.visit("imap", director.ip, user)
        assert went_to(backends, user) == [backend]
