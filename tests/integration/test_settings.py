# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The director_* settings: what is taken, and what is said of the rest."""

import subprocess

import pytest


@pytest.fixture
def doveconf(tmp_path):
    def run(text, *args):
        path = tmp_path / "dovecot.conf"
        path.write_text("dovecot_config_version = 2.4.0\n"
                        "dovecot_storage_version = 2.4.0\n" + text)
        return subprocess.run(["doveconf", "-c", str(path)] + list(args),
                              capture_output=True, text=True, timeout=20)
    return run


@pytest.mark.parametrize("setting,value,right", [
    ("director_username_hash", "%Lu", "%{user | lower}"),
    ("director_username_hash", "%u", "%{user}"),
    ("director_username_hash", "%n", "%{user | username}"),
    ("director_username_hash", "%Ln", "%{user | username | lower}"),
    ("director_username_hash", "%d", "%{user | domain}"),
    ("director_username_hash", "%Ld", "%{user | domain | lower}"),
    ("director_username_hash", "x%Lu", "%{user | lower}"),
    ("director_username_hash", "fixed", "user"),
    ("director_username_hash", "%{pid}", "user"),
    ("director_username_hash", "%{user | nothing}", "nothing"),
    ("director_user_expire", "9 secs", "between 10 secs and"),
    ("director_user_expire", "1000 days", "between 10 secs and"),
    ("director_user_expire", "15", "units"),
    ("director_user_expire", "-1 s", "director_user_expire"),
    ("director_user_kick_delay", "2 hours", "between 0 secs and"),
    ("director_max_parallel_moves", "0", "between 1 and"),
    ("director_max_parallel_moves", "many", "director_max_parallel_moves"),
    ("director_max_parallel_kicks", "0", "between 1 and"),
    ("director_ping_idle_timeout", "0 secs", "between 1 secs and"),
    ("director_ping_max_timeout", "2 hours", "between 1 secs and"),
    ("director_output_buffer_size", "much", "director_output_buffer_size"),
    ("director_output_buffer_size", "1000", "at least 256 k"),
    ("director_consistent_hashing", "perhaps", "director_consistent_hashing"),
    ("director_mail_servers", "10.0.0.5-10.0.0.1", "reversed"),
    ("director_mail_servers", "10.0.0.1-10.0.1.5", "too large"),
    ("director_mail_servers", "10.0.0.1-fd00::1", "family mismatch"),
    ("director_mail_servers", "10.0.0.1:143", "port comes from the passdb"),
    ("director_mail_servers", "10.0.0.300", "must be <ip>"),
    ("director_mail_servers", "10.0.0.1@", "tag missing"),
    ("director_servers", "10.0.0.1:0", "1 to 65535"),
    ("director_servers", "10.0.0.1:x", "1 to 65535"),
    ("director_servers", "[10.0.0.1]:9090", "IPv6"),
    ("director_servers", "[::1", "[<IPv6 address>]"),
    ("director_servers", "a/b", "must be <ip>"),
])
def test_wrong_value(doveconf, setting, value, right):
    done = doveconf("%s = %s\n" % (setting, value), "-n")
    assert done.returncode != 0
    # the setting, its value, and what would be right
    assert setting in done.stderr, done.stderr
    if setting not in ("director_mail_servers", "director_servers"):
        assert value in done.stderr, done.stderr
    else:
        assert value.split("@")[0] in done.stderr, done.stderr
    assert right in done.stderr, done.stderr


@pytest.mark.parametrize("setting,value", [
    ("director_username_hash", "%{user}"),
    ("director_username_hash", "%{user | username | lower}"),
    ("director_username_hash", "%{user | domain}"),
    ("director_username_hash", "%{user | domain | lower}"),
    ("director_user_expire", "10 secs"),
    ("director_user_expire", "365 days"),
    ("director_user_kick_delay", "0 secs"),
    ("director_flush_socket", "exec:/bin/true"),
    ("director_consistent_hashing", "no"),
    ("director_servers", "10.0.0.1 10.0.0.2:9091 fd00::1 [fd00::2] "
     "[fd00::3]:9090 director.example.com director.example.com:9090"),
    ("director_mail_servers", "10.0.0.1 10.0.0.3-10.0.0.9@tag fd00::1 "
     "[fd00::2]@other fd00::10-fd00::1f mail.example.com mail-1.example.com@x"),
])
def test_right_value(doveconf, setting, value):
    done = doveconf("%s = %s\n" % (setting, value), "-n")
    assert done.returncode == 0, done.stderr
    assert setting in done.stdout


def test_blocks_parse_too(doveconf):
    done = doveconf("director_mail_servers {\n  10.0.0.1 = yes\n"
                    "  fd00::2@tag = yes\n}\n", "-n")
    assert done.returncode == 0, done.stderr


def backends_of(director):
    return [(row["mail server ip"], row["tag"]) for row in director.status()]


def test_lists(nodes, backends):
    director = nodes.director(
        "10.0.0.1 10.0.0.3-10.0.0.5@tag fd00::1 [fd00::2]@other "
        "fd00::ff-fd00::101 localhost@named")
    assert backends_of(director) == [
        ("10.0.0.1", ""), ("10.0.0.3", "tag"), ("10.0.0.4", "tag"),
        ("10.0.0.5", "tag"), ("127.0.0.1", "named"), ("::1", "named"),
        ("fd00::1", ""), ("fd00::2", "other"), ("fd00::ff", ""),
        ("fd00::100", ""), ("fd00::101", "")]


def test_duplicates_count_once(nodes, backends):
    # (the same entry twice is one already for Dovecot's own list settings)
    director = nodes.director("127.0.0.11 127.0.0.11 127.0.0.10-127.0.0.12 "
                              "127.0.0.12@tag")
    director.allow("listed more than once")
    assert backends_of(director) == [
        ("127.0.0.10", ""), ("127.0.0.11", ""), ("127.0.0.12", "")]
    for what in ("127.0.0.11 .in '127.0.0.10-127.0.0.12'.",
                 "127.0.0.12 .in '127.0.0.12@tag'.*first tag ''"):
        director.log.wait("Warning: director_mail_servers: " + what)


def test_unknown_name(nodes, backends):
    director = nodes.proxy(
        config="director_mail_servers = no-such-host.invalid\n")
    director.allow("director", "throttling")
    director.log.wait("director.*Fatal: Invalid value for "
                      "director_mail_servers setting: Unknown mail host: "
                      "no-such-host.invalid")


def test_consistent_hashing_is_obsolete(nodes, backends):
    director = nodes.director("127.0.0.11",
                              config="director_consistent_hashing = no\n")
    director.allow("director_consistent_hashing")
    director.log.wait("Warning: director_consistent_hashing = no is obsolete")
    assert backends_of(director) == [("127.0.0.11", "")]


def test_debug_option(nodes, backends):
    """What sites had in 2.3"""
    director = nodes.proxy(config="""
director_mail_servers = 127.0.0.11
director_servers = 127.0.0.1 127.0.0.19
service director {
  executable = director -D
  inet_listener ring {
    listen = 127.0.0.1
    port = 9090
  }
}
""")
    director.allow("connect|Connect")
    director.log.wait(r"director: Debug: .*127\.0\.0\.19")


def test_service_defaults(doveconf):
    done = doveconf("", "-d")
    assert done.returncode == 0, done.stderr
    service = done.stdout.split("\nservice director {\n")[1].split("\n}\n")[0]
    values = dict(line.strip().split(" =", 1)
                  for line in service.split("\n")
                  if not line.startswith("    ") and " =" in line)
    assert values["process_min_avail"] == " 1"
    assert values["process_limit"] == " 1"
    assert int(values["client_limit"]) >= 10000
    for listener in ("login/director", "login/director-proxy",
                     "director-userdb", "director-admin",
                     "login/proxy-notify"):
        assert "_listener %s {" % listener in service
    assert "port = 0" in service.split("inet_listener director {")[1]


def test_other_dovecot_release(nodes, backends, tmp_path):
    """Nothing else compares the release that a service binary was built for
    with the one that runs it."""
    with open("/usr/lib/dovecot/director", "rb") as f:
        program = f.read()
    version = subprocess.run(["dovecot", "--version"], capture_output=True,
                             text=True).stdout.split()[0].encode()
    other = version.replace(b"2.4.", b"2.3.")
    assert b"\0" + version + b"\0" in program
    path = tmp_path / "director"
    path.write_bytes(program.replace(b"\0" + version + b"\0",
                                     b"\0" + other + b"\0"))
    path.chmod(0o755)
    director = nodes.proxy(
        config="service director {\n  executable = %s\n}\n" % path)
    director.allow("director", "throttling")
    director.log.wait("director: Fatal: .*built for Dovecot %s.* but this is "
                      "Dovecot %s.*rebuild it" % (other.decode(),
                                                  version.decode()))


def test_not_by_hand():
    done = subprocess.run(["/usr/lib/dovecot/director"], capture_output=True,
                          text=True, timeout=20)
    assert done.returncode != 0
    assert "can't be run by hand" in done.stderr
