# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""What the documents tell an administrator to write works as it stands."""

import re
import shutil

import pytest

import clients
from node import (DOVEADM_PASSWORD, HERE, RING_USUAL, USUAL, VALGRIND, Node,
                  wait_for, went_to)
from ring import rows_with

pytestmark = pytest.mark.skipif(bool(VALGRIND),
                                reason="nothing of it runs with valgrind")

BACKENDS = "127.0.0.11 127.0.0.12 127.0.0.13"
DOCUMENTS = HERE + "/../../"
# Places of this test, and no TLS
LOCAL_CONFIG = """
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/log
listen = {ip}
ssl = no
auth_allow_cleartext = yes
"""


class DebianNode(Node):
    """Dovecot as Debian configures it, with one file more"""

    # a service of systemd has a higher limit than we may have here
    usual = [USUAL, RING_USUAL, "Warning: fd limit "]

    def __init__(self, folder, ip, extra):
        super().__init__(folder, "debian", ip, "")
        etc = self.dir + "/etc"
        shutil.copytree("/etc/dovecot", etc)
        self.config_path = etc + "/dovecot.conf"
        # what our file says
        replace(etc + "/conf.d/10-auth.conf",
                r"^!include auth-system\.conf\.ext$", "")
        replace(etc + "/conf.d/20-lmtp.conf", r"^ *auth_username_format = .*", "")
        for name, text in (
                ("conf.d/10-director.conf", extra),
                ("local.conf", LOCAL_CONFIG.format(dir=self.dir, ip=ip))):
            with open("%s/%s" % (etc, name), "w") as f:
                f.write(text)


def read(name):
    with open(DOCUMENTS + name) as f:
        return f.read()


def replace(path, pattern, new):
    """In exactly one place"""
    with open(path) as f:
        text, count = re.subn(pattern, new, f.read(), flags=re.M)
    assert count == 1, (path, pattern, count)
    with open(path, "w") as f:
        f.write(text)


def fill_in(text):
    """The marked lines"""
    values = {"director_mail_servers": BACKENDS,
              "doveadm_password": DOVEADM_PASSWORD}
    text = re.sub(r"^(\w+) = +# <--$", lambda match: "%s = %s" % (
        match.group(1), values.pop(match.group(1))), text, flags=re.M)
    assert not values, values
    return text


def uncomment(text):
    """Settings begin right after the #, other than words."""
    lines = []
    depth = 0
    for line in text.splitlines():
        if depth > 0 or re.match(r" *#\w", line):
            line = line.replace("#", "", 1)
            depth += line.count("{") - line.count("}")
        lines.append(line)
    assert depth == 0
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("comments", [False, True])
def test_example_config(nodes, backends, comments):
    """comments: with all that is commented out, too"""
    text = fill_in(read("doc/example-config/conf.d/10-director.conf"))
    if comments:
        text = uncomment(text).replace("10.0.0.1 10.0.0.2", "127.0.0.1")
        text = text.replace("listen = 10.0.0.1", "listen = 127.0.0.1")
    node = nodes.add(DebianNode(nodes.folder, "127.0.0.1", text))
    users = ["user%d@example.com" % i for i in range(6)]
    for user in users:
        for protocol in clients.LOGINS:
            clients.visit(protocol, node.ip, user)
        assert "INBOX" in node.doveadm("mailbox", "list", "-u", user).stdout
    assert clients.deliver(node.ip if comments else node.path("lmtp"),
                           *users) == {}
    places = [set(went_to(backends, user, count=len(clients.LOGINS) + 1))
              for user in users]
    assert all(len(place) == 1 for place in places), places
    assert len(set.union(*places)) > 1


def test_settings():
    """The manual has them all, with their defaults"""
    rows = {}
    for line in read("doc/manual.md").splitlines():
        cells = re.split(r"(?<!\\) *\| *", line)
        if len(cells) == 5:
            rows.update(dict.fromkeys(re.findall(r"director_\w+", cells[1]),
                                      cells[2].replace("\\|", "|")))
    settings = dict(re.findall(r"^(director_\w+) = ?(.*?) *(?:\{ *)?$",
                               clients.run("doveconf", "-d").stdout, re.M))
    assert len(settings) > 10
    for name, value in settings.items():
        assert value in rows[name], name


def test_readme(nodes, backends):
    """The lines that make a director, on two"""
    text, = [block for block in re.findall(r"(?:^(?:    .*)?\n)+",
                                           read("README.md"), flags=re.M)
             if "director_mail_servers" in block]
    ips = ["127.0.1.1", "127.0.1.2"]
    for old, new in (("10.0.0.11 10.0.0.12 10.0.0.13", BACKENDS),
                     ("10.0.0.1 10.0.0.2", " ".join(ips))):
        assert old in text
        text = text.replace(old, new)
    directors = []
    for ip in ips:
        node = Node(nodes.folder, "director" + ip[-1], ip, text)
        node.usual = [USUAL, RING_USUAL]
        directors.append(nodes.add(node))
    wait_for(lambda: all(("right", "synced") in rows_with(node, "type", "status")
                         for node in directors), "the ring")
    for user in ["user%d@example.com" % i for i in range(6)]:
        for node in directors:
            clients.visit("imap", node.ip, user)
        assert len(set(went_to(backends, user, count=2))) == 1
