# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""A lone director that is reloaded, restarted, killed or reconfigured answers
every user the same backend as before."""

import os
import signal

import pytest

import clients
from node import VALGRIND, wait_for

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"
USERS = ["r%d" % number for number in range(24)]


def placed(director, users=USERS):
    """Where each user is: {user: address}"""
    return {user: director.user_status(user)["status"] for user in users}


def answered(director, users=USERS):
    """Logs all in and says where they are then"""
    for user in users:
        clients.visit("imap", director.ip, user)
    return placed(director, users)


def killed(director):
    pid = director.pid("director")
    director.allow("director.*Fatal: .*killed with signal 9",
                   # whoever logs in at that moment
                   "Auth process broken", "director-proxy")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: [p for p in director.pids("director") if p != pid],
             "a new director")
    director.wait_for_answer()


def restarted(director):
    director.restart()


def reloaded(director):
    pid = director.pid("director")
    director.reload()
    wait_for(lambda: pid not in director.pids("director"),
             "the old director to end")
    director.wait_for_answer()


def power_failed(director):
    director.kill()
    director.start()


ENDS = pytest.mark.parametrize("end", [killed, restarted, reloaded,
                                       power_failed])


@ENDS
def test_users_stay_where_hashing_does_not_put_them(nodes, backends, end):
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    before = answered(director)
    # whoever is on 12 and 13 stays there, but new users go elsewhere
    director.doveadm("director", "down", "127.0.0.13")
    director.doveadm("director", "update", "127.0.0.12", "0")
    moved = [user for user in USERS if before[user] != "127.0.0.11"]
    assert len(moved) > 5
    status = director.status()
    end(director)
    # nobody is in memory but those whom hashing does not find, unless the
    # old director could hand all over
    found = placed(director)
    assert {user: found[user] for user in moved} == \
        {user: before[user] for user in moved}
    assert [(row["mail server ip"], row["vhosts"], row["state"],
             row["state changed"]) for row in director.status()] == \
        [(row["mail server ip"], row["vhosts"], row["state"],
          row["state changed"]) for row in status]
    assert answered(director) == before
    # new users still go where hashing puts them
    assert set(answered(director, ["n1", "n2", "n3"]).values()) == \
        {"127.0.0.11"}


@pytest.mark.parametrize("end", [restarted, reloaded])
def test_nobody_is_forgotten_in_good_order(nodes, backends, end):
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    before = answered(director)
    expires = {user: director.user_status(user)["expires"] for user in USERS}
    end(director)
    assert placed(director) == before
    assert {user: director.user_status(user)["expires"]
            for user in USERS} == expires


@ENDS
def test_flushed_and_removed_stay_so(nodes, backends, end):
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    answered(director)
    director.doveadm("director", "down", "127.0.0.13")
    director.doveadm("director", "flush", "-F", "127.0.0.13")
    director.doveadm("director", "add", "-t", "spare", "127.0.0.15", "7")
    director.doveadm("director", "remove", "127.0.0.12")
    end(director)
    assert "127.0.0.13" not in placed(director).values()
    assert [(row["mail server ip"], row["tag"], row["vhosts"], row["state"])
            for row in director.status()] == [
                ("127.0.0.11", "", "100", "up"),
                ("127.0.0.13", "", "100", "down"),
                ("127.0.0.15", "spare", "7", "up")]
    assert set(answered(director).values()) == {"127.0.0.11"}


def test_reloaded_while_starting(nodes, backends, short_tmp):
    """A process that is overtaken by its successor leaves the journal to it"""
    slow = short_tmp + "/slow"
    with open(slow, "w") as f:
        f.write("""#!/bin/sh
if mv {0}/next {0}/waits 2>/dev/null; then
  while [ -e {0}/waits ]; do sleep 0.05; done
fi
exec "$@"
""".format(short_tmp))
    os.chmod(slow, 0o755)
    director = nodes.director(BACKENDS, before=[slow])
    waits = short_tmp + "/waits"
    with open(short_tmp + "/next", "w"):
        pass
    director.reload()
    wait_for(lambda: os.path.exists(waits), "a director that begins")
    director.doveadm("reload")
    director.log.wait("SIGHUP received", count=2)
    wait_for(lambda: len(director.pids("director")) == 2, "two directors")
    director.wait_for_answer()
    director.doveadm("director", "down", "127.0.0.12")
    os.unlink(waits)
    wait_for(lambda: len(director.pids("director")) == 1, "the end of one")
    director.doveadm("director", "down", "127.0.0.13")
    killed(director)
    assert [row["state"] for row in director.status()] == ["up", "down", "down"]


@pytest.mark.skipif(bool(VALGRIND), reason="Dovecot kills who hangs for a "
                    "minute, which is too soon for valgrind")
def test_old_process_hangs(nodes, backends):
    """The next one goes on without it; what it leaves late isn't used"""
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    answered(director)
    pid = director.pid("director")
    director.allow("director.*still has journal.lock", "SIGHUP received",
                   "director.*Another director process has taken it over",
                   "director.*killed with signal 9", "Auth process broken",
                   "director-proxy", "imap-login.*Error",
                   "Processes aren't dying|Sent SIGTERM|signal 15")
    os.kill(pid, signal.SIGSTOP)
    director.reload()
    director.log.wait("still has journal.lock after 5 secs")
    new, = [p for p in director.pids("director") if p != pid]
    director.wait_for_answer()
    director.doveadm("director", "down", "127.0.0.13")
    director.doveadm("director", "flush", "-F", "127.0.0.13")
    before = answered(director)
    assert "127.0.0.13" not in before.values()
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: pid not in director.pids("director"),
             "the old director to end")
    director.log.wait("Another director process has taken it over")
    assert not os.path.exists(director.path("director/users"))
    os.kill(new, signal.SIGKILL)
    wait_for(lambda: [p for p in director.pids("director") if p != new],
             "a new director")
    director.wait_for_answer()
    assert [row["state"] for row in director.status()] == \
        ["up", "up", "down"]
    assert answered(director) == before


def test_changed_setting_at_reload(nodes, backends):
    """The difference is applied; what was done at run time stays."""
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    director.doveadm("director", "update", "127.0.0.11", "30")
    director.doveadm("director", "add", "127.0.0.14", "1")
    director.doveadm("director", "remove", "127.0.0.12")
    before = answered(director)
    director.change_config(
        BACKENDS, "127.0.0.11 127.0.0.12 127.0.0.15@new 127.0.0.16")
    director.doveadm("director", "down", "127.0.0.14")
    reloaded(director)
    assert [(row["mail server ip"], row["tag"], row["vhosts"], row["state"])
            for row in director.status()] == [
                ("127.0.0.11", "", "30", "up"),
                ("127.0.0.14", "", "1", "down"),
                ("127.0.0.15", "new", "100", "up"),
                ("127.0.0.16", "", "100", "up")]
    after = placed(director)
    for user in USERS:
        if before[user] == "127.0.0.13":
            assert after[user] not in before.values(), user
        else:
            assert after[user] == before[user], user
    director.log.wait("director_mail_servers changed: Host 127.0.0.13 removed")
    director.log.wait("director_mail_servers changed: Host 127.0.0.16 added")


def test_sessions_on_a_removed_backend(nodes, backends):
    """The setting removes it: its users are let in elsewhere when their
    sessions have ended, the others' sessions live on."""
    director = nodes.director(
        BACKENDS, restart_request_count="unlimited",
        config="shutdown_clients = no\n")
    sessions = {user: clients.imap(director.ip, user) for user in USERS}
    before = placed(director)
    director.change_config(BACKENDS, "127.0.0.11 127.0.0.12")
    director.allow("127.0.0.13", "sessions on what isn't a backend")
    reloaded(director)
    again = {user: clients.imap(director.ip, user) for user in USERS}
    after = placed(director)
    assert "127.0.0.13" in before.values()
    for user in USERS:
        if before[user] == "127.0.0.13":
            with pytest.raises((clients.LoginFailed, OSError,
                                clients.imaplib.IMAP4.error)):
                sessions[user].noop()
            assert after[user] != before[user]
        else:
            assert sessions[user].noop()[0] == "OK"
            assert after[user] == before[user]
            clients.close(sessions[user])
        clients.close(again[user])


def test_changed_setting_after_a_crash(nodes, backends):
    """Users with a session stay; whom the change moves waits until sessions
    could be announced."""
    director = nodes.director(
        BACKENDS, restart_request_count="unlimited",
        config="shutdown_clients = no\n")
    sessions = [clients.imap(director.ip, user) for user in USERS]
    before = placed(director)
    director.change_config(BACKENDS, BACKENDS + " 127.0.0.14")
    director.allow("director.*killed with signal 9", "SIGHUP received",
                   "imap-login.*Error", "broken")
    pid = director.pid("director")
    os.kill(pid, signal.SIGSTOP)
    director.reload()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: [p for p in director.pids("director") if p != pid],
             "a new director")
    director.wait_for_answer()
    wait_for(lambda: sum(int(row["sessions"]) for row in director.status())
             == len(USERS), "all sessions to be announced")
    assert placed(director) == before
    for session in sessions:
        assert session.noop()[0] == "OK"
        clients.close(session)


@pytest.mark.parametrize("end", [reloaded, killed])
def test_sessions_live_on(nodes, backends, end):
    director = nodes.director(BACKENDS, config="shutdown_clients = no\n")
    sessions = [clients.imap(director.ip, user) for user in USERS[:6]]
    before = placed(director, USERS[:6])
    end(director)
    wait_for(lambda: sum(int(row["sessions"]) for row in director.status())
             == 6, "the sessions to be announced", timeout=4)
    assert placed(director, USERS[:6]) == before
    for session in sessions:
        assert session.noop()[0] == "OK"
        clients.close(session)
    wait_for(lambda: sum(int(row["sessions"]) for row in director.status())
             == 0, "the sessions to end")


def damage_line(text):
    lines = text.split("\n")
    place = next(i for i, line in enumerate(lines)
                 if line.startswith("user\t"))
    lines[place] = lines[place].replace("127.0.0.1", "127.0.0.9")
    return "\n".join(lines)


@pytest.mark.parametrize("change,said,used", [
    (damage_line, "1 of .* lines are damaged", True),
    (lambda text: text[:-5], "1 of .* lines are damaged", True),
    (lambda text: text + "later\tx\t%08x\n" % 0, "lines are damaged", True),
    (lambda text: "something else\n" + text, "isn't a journal", False),
    (lambda text: text.replace("journal\t1\t", "journal\t2\t"),
     "has version 2", False),
    (lambda text: "", "", False),
])
def test_damaged_journal(nodes, backends, change, said, used):
    director = nodes.director(BACKENDS, restart_request_count="unlimited")
    before = answered(director)
    director.doveadm("director", "down", "127.0.0.13")
    staying = [user for user in USERS if before[user] == "127.0.0.13"]
    director.kill()
    path = director.path("director/journal")
    with open(path) as f:
        text = f.read()
    with open(path, "w") as f:
        f.write(change(text))
    director.allow("journal: ")
    director.start()
    if said:
        director.log.wait("director: Error: journal: .*" + said)
        assert os.path.exists(path + ".bad")
    after = answered(director)
    lost = [user for user in staying if after[user] != before[user]]
    if used:
        # at most the one whose line it was
        assert len(lost) <= 1
    else:
        # the setting and hashing are all there is
        assert {row["state"] for row in director.status()} == {"up"}
    assert {user: after[user] for user in USERS if user not in staying} == \
        {user: before[user] for user in USERS if user not in staying}


def test_slow_log_process(nodes):
    """Dovecot's log process starts after the director has logged: what it said
    is in the log without anything more being said."""
    director = nodes.director("", start=False)
    slow = director.dir + "/slow-log"
    with open(slow, "w") as f:
        f.write("#!/bin/sh\nsleep 0.5\nexec /usr/lib/dovecot/log \"$@\"\n")
    os.chmod(slow, 0o755)
    director.allow("There are no backends: set ")
    director.write_config(director.config +
                          "service log {\n  executable = %s\n}\n" % slow)
    director.start()
    director.log.wait("director: Warning: There are no backends: ")
