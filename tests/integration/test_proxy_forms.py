# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The ways of proxying that the users' documents describe."""

import base64
import hashlib
import hmac
import json
import os
import ssl
import subprocess

import pytest

import clients
from node import DOVEADM_PASSWORD, PROXY_PASSDB, wait_for, went_to

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"

# Users whose passwords the director does not know, and a master user
STRICT_PASSDB = """
passdb masters {
  driver = static
  master = yes
  static_password = master-secret
}
passdb static {
  password = %(password)s
}
"""

# The director knows other passwords than the backend
MASTER_PASSDB = """
passdb passwd-file {
  passwd_file_path = %s
}
"""
PASSWD = "jane:{PLAIN}director-secret::::::proxy=y master=boss " \
    "pass=master-secret\n"


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o644)
    return str(path)


@pytest.fixture
def strict(nodes, relay):
    """Two backends where only the master user gets in, for others"""
    return [nodes.backend("strict%d" % i, "127.0.0.%d" % i,
                          passdb=STRICT_PASSDB % {"password": "unknown%d" % i})
            for i in (21, 22)]


STRICT_BACKENDS = "127.0.0.21 127.0.0.22"


def test_strict_backends(strict):
    """The other tests rely on this"""
    with pytest.raises(clients.LoginFailed):
        clients.imap(strict[0].ip, "jane", "director-secret")


@pytest.mark.parametrize("restart_request_count", [1, "unlimited"])
def test_passwd_file_with_master(nodes, strict, restart_request_count):
    passwd = write(nodes.folder + "/passwd", PASSWD)
    director = nodes.director(STRICT_BACKENDS, passdb=MASTER_PASSDB % passwd,
                              restart_request_count=restart_request_count)
    for protocol in clients.LOGINS:
        clients.visit(protocol, director.ip, "jane", "director-secret")
    assert len(set(went_to(strict, "jane", count=4))) == 1
    with pytest.raises(clients.LoginFailed):
        clients.visit("imap", director.ip, "jane", "master-secret")


LDIF = """
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: example

dn: uid=jane,dc=example,dc=com
objectClass: inetOrgPerson
uid: jane
cn: Jane
sn: Doe
userPassword: director-secret
employeeType: y
title: boss
description: master-secret
"""

SLAPD_CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=example,dc=com
rootdn cn=admin,dc=example,dc=com
rootpw admin
directory %s
"""

LDAP_PASSDB = """
ldap_uris = ldap://127.0.0.251:3389
ldap_auth_dn = cn=admin,dc=example,dc=com
ldap_auth_dn_password = admin
ldap_base = dc=example,dc=com
passdb ldap {
  ldap_filter = (uid=%{user})
  fields {
    password = {PLAIN}%{ldap:userPassword}
    proxy = %{ldap:employeeType}
    master = %{ldap:title}
    pass = %{ldap:description}
  }
}
"""


@pytest.fixture
def slapd(short_tmp):
    """A real LDAP server with one user"""
    folder = short_tmp + "/ldap"
    os.mkdir(folder)
    config = write(short_tmp + "/slapd.conf", SLAPD_CONFIG % folder)
    clients.run("/usr/sbin/slapadd", "-f", config, data=LDIF)
    uri = "ldap://127.0.0.251:3389"
    server = subprocess.Popen(["/usr/sbin/slapd", "-d", "0", "-f", config,
                               "-h", uri], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: clients.run("ldapsearch", "-x", "-H", uri, "-s",
                                     "base", check=False).returncode == 0,
                 "slapd")
        yield server
    finally:
        server.terminate()
        server.wait(20)


def test_ldap_with_master(slapd, nodes, strict):
    director = nodes.director(STRICT_BACKENDS, passdb=LDAP_PASSDB)
    for protocol in clients.LOGINS:
        clients.visit(protocol, director.ip, "jane", "director-secret")
    assert clients.deliver(director.ip, "jane") == {}
    assert len(set(went_to(strict, "jane", count=5))) == 1
    with pytest.raises(clients.LoginFailed):
        clients.visit("imap", director.ip, "jane", "wrong")


def scram_sha256(host, user, password):
    """An IMAP login by SCRAM-SHA-256"""
    client = clients.imaplib.IMAP4(host, timeout=clients.TIMEOUT)
    first = "n=%s,r=clientnonce" % user
    steps = []

    def respond(challenge):
        steps.append(challenge.decode())
        if len(steps) == 1 and not challenge:
            return ("n,," + first).encode()
        if challenge.startswith(b"v="):
            return b""
        server_first = challenge.decode()
        fields = dict(part.split("=", 1) for part in server_first.split(","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", password.encode(), base64.b64decode(fields["s"]),
            int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        final = "c=biws,r=" + fields["r"]
        message = ",".join((first, server_first, final)).encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message,
                                "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        return (final + ",p=" + base64.b64encode(proof).decode()).encode()
    try:
        client.authenticate("SCRAM-SHA-256", respond)
    except clients.imaplib.IMAP4.error as error:
        raise clients.LoginFailed(str(error)) from error
    return client


def cram_md5(host, user, password):
    client = clients.imaplib.IMAP4(host, timeout=clients.TIMEOUT)
    try:
        client.login_cram_md5(user, password)
    except clients.imaplib.IMAP4.error as error:
        raise clients.LoginFailed(str(error)) from error
    return client


@pytest.mark.parametrize("login", [scram_sha256, cram_md5])
@pytest.mark.parametrize("restart_request_count", [1, "unlimited"])
def test_challenge_response(nodes, strict, login, restart_request_count):
    """The client's password is never seen, so a master user has to do"""
    passwd = write(nodes.folder + "/passwd", PASSWD)
    director = nodes.director(
        STRICT_BACKENDS, passdb=MASTER_PASSDB % passwd,
        config="auth_mechanisms = plain cram-md5 scram-sha-256\n",
        restart_request_count=restart_request_count)
    for _ in range(2):
        client = login(director.ip, "jane", "director-secret")
        assert client.select()[0] == "OK"
        clients.close(client)
    assert len(set(went_to(strict, "jane", count=2))) == 1
    with pytest.raises(clients.LoginFailed):
        login(director.ip, "jane", "wrong")


def test_master_user_of_the_director(nodes, strict):
    """jane*boss goes where jane goes, as the master user of the backend"""
    director = nodes.director(STRICT_BACKENDS, passdb="""
auth_master_user_separator = *
passdb masters {
  driver = static
  master = yes
  static_password = master-secret
  result_success = continue
}
passdb static {
  fields {
    proxy = y
    nopassword = y
  }
}
""")
    for user in "jane", "john", "mary", "sam":
        for protocol in clients.LOGINS:
            clients.visit(protocol, director.ip, user + "*boss",
                          "master-secret")
        [name] = set(went_to(strict, user, count=4))
        status = director.user_status(user)
        assert [node.name for node in strict if node.ip == status["hashed"]
                ] == [name]


# TLS to the backends

@pytest.fixture(scope="module")
def certificates(short_tmp):
    """A CA, and a certificate for two backends' addresses, and a name"""
    folder = short_tmp + "/tls"
    os.mkdir(folder)
    san = "subjectAltName=IP:127.0.0.31,IP:127.0.0.32,DNS:localhost"
    clients.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                "/CN=Test CA", "-addext",
                "keyUsage=critical,keyCertSign", "-keyout", folder + "/ca.key", "-out",
                folder + "/ca.crt")
    clients.run("openssl", "req", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=backend",
                "-keyout", folder + "/key", "-out", folder + "/csr")
    write(folder + "/ext", san + "\n")
    clients.run("openssl", "x509", "-req", "-in", folder + "/csr", "-CA",
                folder + "/ca.crt", "-CAkey", folder + "/ca.key", "-days", "2",
                "-extfile", folder + "/ext", "-out", folder + "/crt")
    return folder


TLS_CONFIG = """
ssl = required
auth_allow_cleartext = no
login_trusted_networks =
ssl_server_cert_file = {0}/crt
ssl_server_key_file = {0}/key
service submission-login {{
  inet_listener submissions {{
    port = 465
    ssl = yes
  }}
}}
service imap-login {{
  inet_listener odd {{
    port = 10993
    ssl = yes
  }}
}}
"""

TLS_BACKENDS = "127.0.0.31 127.0.0.32"
TLS_PASSDB = """
passdb static {
  fields {
    proxy = y
    nopassword = y
    %s
  }
}
ssl_client_ca_file = %s
"""
# submission has no port of its own for TLS
TLS_SUBMISSION = """
protocol submission {
  passdb static {
    fields {
      port = 465
    }
  }
}
"""


@pytest.fixture
def tls_backends(nodes, certificates, relay):
    """They take no password in clear text"""
    return [nodes.backend("tls%d" % i, "127.0.0.%d" % i,
                          config=TLS_CONFIG.format(certificates))
            for i in (31, 32)]


@pytest.mark.parametrize("fields, protocols", [
    ("ssl = yes", ["imap", "pop3", "submission"]),
    ("ssl = yes\n    port = 10993", ["imap"]),
    ("starttls = yes", ["imap", "pop3", "managesieve", "submission"]),
    ("ssl = any-cert", ["imap", "pop3", "submission"]),
], ids=["ssl", "port", "starttls", "any-cert"])
def test_tls(nodes, tls_backends, certificates, fields, protocols):
    director = nodes.director(
        TLS_BACKENDS, passdb=TLS_PASSDB % (fields, certificates + "/ca.crt"),
        config=TLS_SUBMISSION if fields.startswith("ssl") else "")
    for protocol in protocols:
        clients.visit(protocol, director.ip, "jane")
    assert len(set(went_to(tls_backends, "jane", count=len(protocols)))) == 1


def test_tls_by_name(nodes, certificates, relay):
    """A backend that is configured by name has that in its certificate."""
    backend = nodes.backend("tlsname", "127.0.0.1 ::1",
                            config=TLS_CONFIG.format(certificates))
    director = nodes.director(
        "localhost", listen="127.0.0.10",
        passdb=TLS_PASSDB % ("ssl = yes", certificates + "/ca.crt"))
    clients.visit("imap", director.ip, "jane")
    assert director.user_status("jane")["status"].split()[0] in (
        "127.0.0.1", "::1")
    wait_for(backend.visits, "the visit")


def test_wrong_certificate_is_refused(nodes, certificates, relay):
    """The backend's certificate is for other addresses"""
    backend = nodes.backend("tls33", "127.0.0.33",
                            config=TLS_CONFIG.format(certificates))
    backend.allow("SSL_accept|SSL_read|SSL ")
    director = nodes.director(
        "127.0.0.33", config="login_proxy_max_reconnects = 0\n",
        passdb=TLS_PASSDB % ("ssl = yes", certificates + "/ca.crt"))
    director.allow("127.0.0.33")
    with pytest.raises(clients.LoginFailed):
        clients.visit("imap", director.ip, "jane")
    director.log.wait("[Cc]ertificate|doesn't match")
    assert not backend.visits()


@pytest.mark.parametrize("restart_request_count", [1, "unlimited"])
def test_tls_client(nodes, backends, certificates, restart_request_count):
    """Clients with TLS are proxied as well"""
    director = nodes.director(
        BACKENDS, restart_request_count=restart_request_count, config="""
ssl = yes
ssl_server_cert_file = {0}/crt
ssl_server_key_file = {0}/key
""".format(certificates))
    context = ssl.create_default_context(cafile=certificates + "/ca.crt")
    context.check_hostname = False
    clients.visit("imap", director.ip, "jane", starttls=context)
    clients.visit("imap", director.ip, "jane", port=993, ssl_context=context)
    done = clients.run("openssl", "s_client", "-connect", director.ip + ":995",
                       "-quiet", check=False,
                       data="USER jane\r\nPASS secret\r\nQUIT\r\n")
    # the greeting, and each command's
    assert done.stdout.count("+OK") == 4, done.stdout
    clients.run("curl", "-sS", "--cacert", certificates + "/ca.crt",
                "--insecure", "imaps://%s/" % director.ip, "--user",
                "jane:secret")
    assert len(set(went_to(backends, "jane", count=4))) == 1


def test_port(nodes, backends, relay):
    odd = nodes.backend("odd", "127.0.0.41", config="""
service imap-login {
  inet_listener imap {
    port = 10143
  }
}
""")
    director = nodes.director("127.0.0.41", passdb="""
passdb static {
  fields {
    proxy = y
    nopassword = y
  }
}
protocol imap {
  passdb static {
    fields {
      port = 10143
    }
  }
}
""")
    clients.visit("imap", director.ip, "jane")
    clients.visit("pop3", director.ip, "jane")
    assert went_to([odd], "jane", count=2)


# LMTP and doveadm

def test_lmtp_unix_socket_goes_to_port_24(nodes, backends):
    """The original went to port 0 there"""
    director = nodes.director(BACKENDS)
    assert clients.deliver(director.path("lmtp"), "unix1", "unix2") == {}
    for user in "unix1", "unix2":
        clients.visit("imap", director.ip, user)
        assert len(set(went_to(backends, user, count=2))) == 1
    assert len(director.log.find(r"Sent message to <unix\d> at "
                                 r"127\.0\.0\.1\d:24:")) == 2


def test_doveadm_reaches_the_users_backend(nodes, backends):
    director = nodes.director(BACKENDS)
    users = ["adm%d" % i for i in range(4)]
    for user in users:
        director.doveadm("mailbox", "create", "-u", user, "made-" + user)
        client = clients.imap(director.ip, user)
        assert client.select("made-" + user)[0] == "OK"
        clients.close(client)
        [name] = went_to(backends, user)
        owner = next(node for node in backends if node.name == name)
        assert "made-" + user in owner.doveadm("mailbox", "list", "-u",
                                               user).stdout
        assert "made-" + user in director.doveadm("mailbox", "list", "-u",
                                                  user).stdout


def test_doveadm_http_reaches_the_users_backend(nodes, backends):
    director = nodes.director(BACKENDS)
    director.doveadm("mailbox", "create", "-u", "web", "made-by-cli")
    done = clients.run(
        "curl", "-sS", "--user", "doveadm:" + DOVEADM_PASSWORD, "--json",
        json.dumps([["mailboxList", {"user": "web"}, "tag1"]]),
        "http://%s:8080/doveadm/v1" % director.ip)
    [reply] = json.loads(done.stdout)
    assert reply[0] == "doveadmResponse" and reply[2] == "tag1"
    assert "made-by-cli" in [row["mailbox"] for row in reply[1]]


# Addresses

@pytest.mark.parametrize("restart_request_count", [1, "unlimited"])
def test_ipv6_backends(nodes, backends, restart_request_count):
    director = nodes.director("fd00::11 fd00::12 fd00::13",
                              restart_request_count=restart_request_count)
    users = ["six%d" % i for i in range(6)]
    for user in users:
        for protocol in clients.LOGINS:
            clients.visit(protocol, "::1", user)
    assert clients.deliver("::1", *users) == {}
    for user in users:
        assert len(set(went_to(backends, user, count=5))) == 1
        assert director.user_status(user)["status"].startswith("fd00::1")
    assert "INBOX" in director.doveadm("mailbox", "list", "-u",
                                       "six0").stdout


# What 2.3's users have, in 2.4's words
OLD_CONFIG = """
auth_socket_path = director-userdb
service director {
  unix_listener login/director {
    mode = 0666
  }
  fifo_listener login/proxy-notify {
    mode = 0666
  }
  unix_listener director-userdb {
    mode = 0600
  }
  inet_listener director {
    port = 9090
  }
}
"""


def test_configuration_of_2_3(nodes, backends):
    director = nodes.director(BACKENDS, passdb=OLD_CONFIG + PROXY_PASSDB)
    for protocol in clients.LOGINS:
        clients.visit(protocol, director.ip, "jane")
    assert clients.deliver(director.ip, "jane") == {}
    assert len(set(went_to(backends, "jane", count=5))) == 1
    assert "INBOX" in director.doveadm("mailbox", "list", "-u",
                                       "jane").stdout
