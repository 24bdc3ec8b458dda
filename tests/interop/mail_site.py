# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""A site with its mail: directors of either release with their login processes,
the backends, and people who log in all the time."""

import imaplib
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter

from nodes import (Admin, LoginProcess, Node, original_director, our_director,
                   wait_for)
from test_ring import PORT, Member, Ring

# Users go by tags, which are their domains
HOSTS = ["127.0.0.11", "127.0.0.12", "127.0.0.13", "fd00::14"]
EAST = ["127.0.0.15", "fd00::16"]
MAIL_SERVERS = " ".join(HOSTS + [host + "@east" for host in EAST])

BACKEND_CONFIG = """
protocols = imap
ssl = no
auth_allow_cleartext = yes
listen = %(listen)s
mail_driver = sdbox
mail_home = %(home)s/%%{user}
mail_path = ~/mail
mail_uid = mail
mail_gid = mail
first_valid_uid = 1
passdb static {
  fields {
    nopassword = y
  }
}
service imap-login {
  restart_request_count = unlimited
  process_min_avail = 1
  inet_listener imaps {
    port = 0
  }
}
"""

SITE_CONFIG = """
protocols = imap
listen = %(ip)s
director_servers = %(servers)s
director_user_expire = 15 mins
service director {
  inet_listener director {
    %(address)s = %(ip)s
    port = %(port)d
  }
}
service auth {
  unix_listener auth-login {
    mode = 0600
  }
}
service imap-login {
  executable = imap-login director
  process_min_avail = 1
  inet_listener imaps {
    port = 0
  }
}
"""

# What a site writes in the language of the release that it has
RELEASE_CONFIG = {"2.3": """
disable_plaintext_auth = no
service director {
  fifo_listener login/proxy-notify {
    mode = 0666
  }
}
service ipc {
  unix_listener ipc {
    user = $default_internal_user
  }
}
service imap-login {
  service_count = 0
}
passdb {
  driver = static
  args = proxy=y nopassword=y director_tag=%d
}
""", "ours": """
auth_allow_cleartext = yes
service imap-login {
  restart_request_count = unlimited
}
login_plugins {
  director_login = yes
}
passdb static {
  fields {
    proxy = y
    nopassword = y
    director_tag = %{user | domain}
  }
}
"""}


def names(prefix, numbers):
    """Every fourth one has a domain"""
    return ["%s%d%s" % (prefix, i, "" if i % 4 else "@east") for i in numbers]


class SiteMember(Member):
    """A whole Dovecot: director, auth, login processes"""

    def start(self):
        director = our_director if self.kind == "ours" else original_director
        self.node = director(MAIL_SERVERS, SITE_CONFIG % {
            "ip": self.ip, "servers": self.servers, "port": PORT,
            "address": "listen" if self.kind == "ours" else "address"
            } + RELEASE_CONFIG[self.kind])
        self.admin = Admin(self.node)

    def __str__(self):
        return "%s %s" % (self.kind, self.ip)

    def table(self):
        """{hash: (backend, when he expires)}"""
        return {int(row[0]): (row[2], int(row[1]))
                for row in self.admin.command("USER-LIST")}

    def doveadm_map(self, users_file):
        """{user: backend} as the release's own doveadm tells"""
        socket = self.node.path("director-admin")[len(self.node.root):]
        command = ["chroot", self.node.root] if self.node.root else []
        done = subprocess.run(
            command + ["doveadm", "-f", "tab", "director", "map", "-a", socket,
                       "-f", users_file],
            capture_output=True, text=True, timeout=60, check=True)
        title, *lines = [line.split("\t") for line in done.stdout.splitlines()]
        assert title[:3] == ["user", "hash", "mail server ip"]
        return {line[0]: line[2] for line in lines}


class Backends:
    """One Dovecot that has all their addresses. Its log tells who came to
    which one."""

    LOGIN = re.compile(r"imap-login: Info: (?:Login|Logged in): "
                       r"user=<([^>]*)>.*\blip=([^, ]*)")

    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="mail", dir="/tmp")
        shutil.chown(self.home, "mail", "mail")
        self.node = Node("", BACKEND_CONFIG % {
            "home": self.home, "listen": ", ".join(HOSTS + EAST)},
            ["login/login"])

    def arrivals(self):
        """[(user, address)] of all that came until now"""
        return self.LOGIN.findall(self.node.log())

    def stop(self):
        self.node.stop()
        shutil.rmtree(self.home, ignore_errors=True)


class Clients:
    """Who comes to one member as long as the load balancer sends him there"""

    def __init__(self, site, member):
        self.site, self.member = site, member
        self.ended = threading.Event()
        self.login = LoginProcess(member.node)
        self.threads = [threading.Thread(target=self.run, args=(turn,),
                                         daemon=True)
                        for turn in (self.look_up, self.read_mail)]
        for thread in self.threads:
            thread.start()

    def run(self, turn):
        try:
            while not self.ended.is_set():
                began = time.monotonic()
                turn()
                self.site.waited(time.monotonic() - began)
                self.ended.wait(0.1)
        except Exception as error:
            self.site.failures.append("%s: %s: %r" % (
                self.member, turn.__name__, error))

    def look_up(self):
        """As login processes do, for users who are known and new ones"""
        self.site.look_up(self.login, self.site.some_known(15) +
                          self.site.some_new(5), self.member)

    def read_mail(self):
        self.site.log_in(self.member, random.choice(
            self.site.some_known(2) + self.site.some_new(1))).logout()

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(60)
        self.login.close()


class Site(Ring):
    member = SiteMember

    def __init__(self, kinds):
        super().__init__(kinds)
        self.backends = None
        self.began = time.monotonic()
        # where everybody has to be, those who were there at first, and which
        # of them come again
        self.hosts, self.base, self.busy = {}, [], []
        self.clients, self.sessions = {}, {member: [] for member in
                                           self.members}
        # whoever got into his mailbox, what went wrong, what took long
        self.logged_in, self.failures, self.worst = [], [], 0

    def __enter__(self):
        self.backends = Backends()
        return super().__enter__()

    def __exit__(self, *args):
        for member in list(self.clients):
            self.withdraw(member)
        super().__exit__(*args)
        if self.backends is not None:
            self.backends.stop()

    def check(self, user, host, where):
        if host not in HOSTS + EAST:
            self.failures.append("%s: %s: %s" % (where, user, host))
        elif self.hosts.setdefault(user, host) != host:
            self.failures.append("%s: %s is on %s, not on %s" % (
                where, user, host, self.hosts[user]))

    def waited(self, seconds):
        self.worst = max(self.worst, seconds)

    def some_known(self, count):
        return random.sample(self.busy, count)

    def print_logs(self):
        for member in self.running():
            print("== %s\n%s" % (member, "".join(
                line for line in member.node.log().splitlines(True)
                if " imap-login: Info: " not in line)))

    def some_new(self, count):
        """All members meet the same new ones at about the same time."""
        first = int((time.monotonic() - self.began) * 60)
        return names("new", range(first, first + count))

    def look_up(self, login, users, where):
        for i in range(0, len(users), 500):
            for user, host in login.lookup(users[i:i + 500]).items():
                self.check(user, host, where)

    def log_in(self, member, user):
        client = imaplib.IMAP4(member.ip, timeout=40)
        client.login(user, "secret")
        self.logged_in.append(user)
        return client

    def offer(self, member):
        """The load balancer sends people to it"""
        self.clients[member] = Clients(self, member)

    def withdraw(self, member):
        self.clients.pop(member).end()

    def open_sessions(self, member, users):
        self.sessions[member] += [(user, self.log_in(member, user))
                                  for user in users]

    def close_sessions(self, member):
        for _, client in self.sessions[member]:
            client.shutdown()
        self.sessions[member] = []

    def check_sessions(self):
        for member, sessions in self.sessions.items():
            for user, client in sessions:
                try:
                    assert client.noop()[0] == "OK"
                except Exception as error:
                    self.failures.append("%s: the session of %s: %r" % (
                        member, user, error))

    def check_arrivals(self):
        """Everybody who got into a mailbox got into his own"""
        expected = Counter(self.logged_in)
        wait_for(lambda: not expected - Counter(
            user for user, _ in self.backends.arrivals()),
            "the backends to tell of all logins")
        for user, host in self.backends.arrivals():
            self.check(user, host, "backends")
