# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Real Dovecot nodes on loopback addresses: backends and directors."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time

DOVEADM_PORT = 24245
DOVEADM_PASSWORD = "doveadm-secret"
LMTP_PORT = 24
LIBEXEC = "/usr/lib/dovecot/"
LOGIN_SERVICES = ("imap-login", "pop3-login", "submission-login",
                  "managesieve-login")

COMMON_CONFIG = """
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = imap pop3 lmtp sieve submission
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/log
log_timestamp = "%Y-%m-%d %H:%M:%S.%{{usecs}} "
listen = {listen}
ssl = no
auth_allow_cleartext = yes
login_trusted_networks = 127.0.0.0/8 ::1 fd00::/8
first_valid_uid = 1
mail_uid = mail
mail_gid = mail
mail_home = {dir}/home/%{{user | lower}}
mail_driver = sdbox
mail_path = ~/mail
submission_relay_host = {relay}
submission_relay_port = {relay_port}
doveadm_password = {doveadm_password}
protocol lmtp {{
  postmaster_address = postmaster@example.com
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp_port}
  }}
}}
service doveadm {{
  inet_listener doveadm {{
    port = {doveadm_port}
  }}
  inet_listener http {{
    port = 8080
  }}
}}
"""

BACKEND_CONFIG = """
namespace inbox {
  inbox = yes
}
"""

# Anybody gets in
OPEN_PASSDB = """
passdb static {
  fields {
    nopassword = y
  }
}
"""

# For a director that authenticates nobody and leaves it to the backend
PROXY_PASSDB = """
passdb static {
  fields {
    proxy = y
    nopassword = y
  }
}
"""

# As the platform guide has it in §12
DIRECTOR_CONFIG = """
director_mail_servers = {mail_servers}
login_plugins {{
  director_login = yes
}}
lmtp_proxy = yes
doveadm_port = {doveadm_port}
protocol lmtp {{
  auth_socket_path = director-userdb
}}
protocol doveadm {{
  auth_socket_path = director-userdb
}}
"""

RING_PORT = 9090
RING_CONFIG = """
director_servers = {directors}
service director {{
  inet_listener director {{
    listen = {ip}
    port = {port}
  }}
}}
"""

LOG_FAILURE = re.compile(
    r"(?:^|[ :])(?:Panic|Fatal|Error|Warning): |assert|core dumped|"
    r"ERROR: AddressSanitizer|runtime error:")
# With this set, a director's own processes and those with its plugins run
# under valgrind
VALGRIND = os.environ.get("DIRECTOR_TEST_VALGRIND")
HERE = os.path.dirname(os.path.abspath(__file__))
SLOWDOWN = 10 if VALGRIND else 1
VALGRIND_COMMAND = ["/usr/bin/valgrind", "-q", "--leak-check=full",
                    "--show-leak-kinds=definite", "--num-callers=30",
                    "--keep-debuginfo=yes", "--suppressions=" +
                    os.path.join(HERE, "valgrind.supp")]
SERVICE_CONFIG = """
service %s {
  executable = %s
}
"""
VALGRIND_CONFIG = """
default_vsz_limit = unlimited
service director {
  vsz_limit = unlimited
}
"""
# In a stack: our program and modules, or one of our files
OUR_CODE = re.compile(
    r"/usr/lib/dovecot/director\b|director_[a-z_]+\.so|\((?:%s):\d+\)" %
    "|".join(re.escape(name) for _, _, names in os.walk(HERE + "/../../src")
             for name in names if name.endswith((".c", ".h"))))
# What stop() and reload() leave
USUAL = (r"master: Warning: (?:Killed with signal 15 |"
         r"SIGHUP received - reloading configuration)|"
         # a machine that is busy, or was asleep
         r"Warning: Time moved |"
         # a process that starts while Dovecot stops (its Fatal says why)
         r"Fatal: Failed to read configuration: stat\(\S+/run/config\) failed: "
         r"No such file or directory|child \d+ returned error 89 |"
         r"connect\(director\) failed: No such file or directory")
# What the directors of a ring say when one comes or goes
RING_USUAL = (
    r"Delaying (?:all|new user) requests|continuing delayed requests|"
    r"Couldn't connect to right side, we must be the only|"
    r"Replacing (?:left|right) director connection|"
    r"Aborting incorrect outgoing connection|"
    r"tried to connect to us, should use|"
    r"Director \S+ disconnected: (?:Connection closed|Connect timed out)|"
    # (two may connect to each other at once)
    r"disconnected us with reason: (?:Shutting down|Replacing with |CONNECT re|"
    r"Unwanted outgoing connection|Connecting again to hand over)|"
    # the machine is busy
    r"clock differs from ours by -?[12] secs|"
    r"Right side connection is unexpectedly lost, reconnecting")
# The package is installed for all nodes here, also for those without backends
NO_DIRECTOR = "director: Warning: There are no backends: "
# 2.4.1 says "Login:", 2.4.5 "Logged in:"
LOGIN_LINE = re.compile(
    r"\b(imap|pop3|managesieve|submission)-login: Info: "
    r"(?:Login|Logged in): user=<([^>]*)>")
LMTP_LINE = re.compile(r"\blmtp\(([^)]*)\).*saved mail to")


def patience(secs):
    """How long to wait for what takes at most secs without valgrind"""
    return secs * SLOWDOWN


def wait_for(condition, what, timeout=20):
    """Polls until condition() is true and returns what it gave."""
    deadline = time.monotonic() + patience(timeout)
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError("%s: not within %g s" % (
                what, patience(timeout)))
        time.sleep(0.02)


def is_alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Log:
    """A log file of which the lines are looked at since the last mark()."""

    def __init__(self, path):
        self.path = path
        self.offset = 0

    def mark(self):
        """Later calls see only what comes after now."""
        if os.path.exists(self.path):
            self.offset = os.path.getsize(self.path)

    def lines(self, everything=False):
        if not os.path.exists(self.path):
            return []
        with open(self.path, errors="replace") as f:
            f.seek(0 if everything else self.offset)
            return f.read().splitlines()

    def find(self, pattern):
        return [line for line in self.lines() if re.search(pattern, line)]

    def wait(self, pattern, timeout=10, count=1):
        def enough():
            found = self.find(pattern)
            return found if len(found) >= count else None
        try:
            return wait_for(enough, "%s: %r" % (self.path, pattern), timeout)
        except TimeoutError as error:
            raise TimeoutError("%s; its end:\n%s" % (
                error, "\n".join(self.lines(everything=True)[-20:])))


class Node:
    """One Dovecot: its own base_dir, addresses, log and mail."""

    # What the log may always have
    usual = [USUAL, NO_DIRECTOR]

    def __init__(self, folder, name, listen, config, relay=("127.0.0.1", 25),
                 enter=()):
        """enter: words of a command that runs Dovecot somewhere else"""
        self.name = name
        self.enter = list(enter)
        self.dir = os.path.join(str(folder), name)
        self.addresses = listen.split()
        self.ip = self.addresses[0]
        self.config_path = self.dir + "/dovecot.conf"
        self.log = Log(self.dir + "/log")
        self.master = None
        self.allowed = []
        os.makedirs(self.dir + "/home", 0o755, exist_ok=True)
        os.chmod(os.path.dirname(self.dir), 0o755)
        shutil.chown(self.dir + "/home", "mail", "mail")
        self.write_config(COMMON_CONFIG.format(
            dir=self.dir, listen=", ".join(self.addresses),
            relay=relay[0], relay_port=relay[1],
            doveadm_password=DOVEADM_PASSWORD, doveadm_port=DOVEADM_PORT,
            lmtp_port=LMTP_PORT) + config)

    def write_config(self, text):
        self.config = text
        with open(self.config_path, "w") as f:
            f.write(text)

    def change_config(self, old, new):
        """Takes effect at the next reload() or start()"""
        assert old in self.config, old
        self.write_config(self.config.replace(old, new))

    def path(self, name):
        return self.dir + "/run/" + name

    # Running

    def start(self):
        if os.path.exists(self.path("master.pid")):
            # left by kill()
            os.unlink(self.path("master.pid"))
        with open(self.dir + "/output", "ab") as output:
            self.master = subprocess.Popen(
                self.enter + ["dovecot", "-F", "-c", self.config_path],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/",
                start_new_session=True)
        try:
            wait_for(self.is_ready, "%s to start" % self.name)
        except BaseException:
            self.kill()
            raise
        return self

    def is_ready(self):
        if self.master.poll() is not None:
            raise RuntimeError("%s ended with %d:\n%s" % (
                self.name, self.master.returncode, self.tail()))
        return os.path.exists(self.path("master.pid")) and all(
            os.path.exists(self.path(name)) for name in self.sockets())

    def sockets(self):
        """What has to be there before the node is ready"""
        return ["login/login", "anvil"]

    def stop(self, timeout=20, doveadm=False):
        """Ends it as an administrator would."""
        if self.master is None:
            return
        if self.master.poll() is None:
            children = self.pids()
            if doveadm:
                self.doveadm("stop")
            else:
                self.master.terminate()
            try:
                self.master.wait(patience(timeout))
            except subprocess.TimeoutExpired:
                self.kill()
                raise TimeoutError("%s did not stop within %d s\n%s" % (
                    self.name, patience(timeout), self.tail()))
            # They have the addresses that the next node wants. Login processes
            # with sessions stay if the configuration says so.
            if "shutdown_clients = no" not in self.config:
                wait_for(lambda: not any(is_alive(pid) for pid in children),
                         "the processes of %s to end" % self.name)
        self.master = None

    def kill(self):
        """Ends it as a power failure would: nobody sees another one's end."""
        self.master.send_signal(signal.SIGSTOP)
        children = self.pids()
        for end in (signal.SIGSTOP, signal.SIGKILL):
            for pid in children:
                try:
                    os.kill(pid, end)
                except ProcessLookupError:
                    pass
        self.master.kill()
        self.master.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in children),
                 "%s to be gone" % self.name)
        self.master = None

    def restart(self):
        self.stop()
        return self.start()

    def reload(self):
        """Returns when new processes are used."""
        # Dovecot's own: the old configuration process goes away while a new
        # process is asking it
        self.allow(r"-login: Fatal: Failed to read configuration: ",
                   r"service\([a-z0-9]+-login\): child \d+ returned error 89 ",
                   # and anvil, before the auth process that asks it
                   r"Auth penalty lookup failed: Connection closed",
                   r"Anvil not connected - restarting auth process")
        if VALGRIND:
            # a process that just begins may take more than the 12 s that it
            # has to end
            self.allow(r"service\([a-z0-9]+-login\): (Sent SIGKILL to |"
                       r"child \d+ killed with signal 9)",
                       "Processes aren't dying after reload, sent SIGKILL ")
        count = len(self.log.find("SIGHUP received"))
        self.doveadm("reload")
        self.log.wait("SIGHUP received", count=count + 1)
        self.doveadm("process", "status")

    def pids(self, process=None):
        """The processes of this node, or those of one name"""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/stat" % pid) as f:
                    stat = f.read()
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    argv = f.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) != self.master.pid:
                continue
            # the first word of a title, or what valgrind runs
            names = {os.path.basename(arg.split()[0]) for i, arg in
                     enumerate(argv) if arg.strip() and
                     (i == 0 or arg.startswith(LIBEXEC))}
            names.add(stat.split("(", 1)[1].rsplit(")", 1)[0])
            if process is None or process in names:
                found.append(int(pid))
        return found

    def pid(self, process):
        """The only one of that name; waits for it"""
        return wait_for(lambda: self.pids(process), "process " + process)[0]

    # Talking

    def doveadm(self, *args, check=True, **kwargs):
        kwargs.setdefault("timeout", patience(60))
        done = subprocess.run(self.doveadm_command(*args), capture_output=True,
                              text=True, **kwargs)
        if check and done.returncode != 0:
            raise AssertionError("doveadm %s: exit code %d\n%s%s" % (
                " ".join(map(str, args)), done.returncode, done.stdout,
                done.stderr))
        return done

    def doveadm_command(self, *args):
        return self.wrapper() + ["doveadm", "-c", self.config_path] + [
            str(arg) for arg in args]

    def wrapper(self):
        return []

    # Judging

    def allow(self, *patterns):
        """Lines with these do not fail the test."""
        self.allowed += patterns

    def bad_lines(self):
        return [line for line in self.log.lines() if
                LOG_FAILURE.search(line) and not any(
                    re.search(pattern, line)
                    for pattern in self.usual + self.allowed)]

    def valgrind_errors(self):
        """What valgrind says of our own code, once everything has ended"""
        found = []
        folder = self.dir + "/valgrind"
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            with open(os.path.join(folder, name), errors="replace") as f:
                # each error is a block that ends with an empty line
                blocks = re.split(r"\n==\d+== *\n", f.read())
            found += [block for block in blocks if OUR_CODE.search(block)]
        return found

    def tail(self, count=40):
        lines = self.log.lines(True)
        output = self.dir + "/output"
        if os.path.exists(output):
            with open(output, errors="replace") as f:
                lines += f.read().splitlines()
        return "\n".join(lines[-count:])


class Backend(Node):
    """A mail server: everybody gets in with any password, unless another
    passdb is given."""

    def __init__(self, folder, name, listen, passdb=OPEN_PASSDB, config="",
                 **kwargs):
        super().__init__(folder, name, listen,
                         BACKEND_CONFIG + passdb + config, **kwargs)

    def visits(self, user=None, protocol=None):
        """[(protocol, user)] of what came here since the log's mark"""
        found = []
        for line in self.log.lines():
            match = LOGIN_LINE.search(line)
            if match:
                found.append((match.group(1), match.group(2)))
            match = LMTP_LINE.search(line)
            if match:
                found.append(("lmtp", match.group(1)))
        return [visit for visit in found if user in (None, visit[1]) and
                protocol in (None, visit[0])]


def went_to(backends, user, protocol=None, count=1):
    """The backends' names, one for each of count visits since the mark"""
    def visited():
        found = [node.name for node in backends
                 for _ in node.visits(user, protocol)]
        return found if len(found) >= count else None
    found = wait_for(visited, "%d visits of %s by %s" % (
        count, user, protocol or "any protocol"))
    assert len(found) == count, (user, protocol, found)
    return found


class Proxy(Node):
    """A proxy in front of backends, without a director unless the
    configuration brings one."""

    def __init__(self, folder, name="proxy", listen="127.0.0.1 ::1",
                 passdb=PROXY_PASSDB, config="", restart_request_count=1,
                 auth_socket="", **kwargs):
        self.valgrind_dir = os.path.join(str(folder), name, "valgrind")
        text = passdb + config
        for service in LOGIN_SERVICES:
            text += self.service(service, auth_socket)
            text += "service %s {\n  restart_request_count = %s\n}\n" % (
                service, restart_request_count)
        super().__init__(folder, name, listen, text, **kwargs)
        if VALGRIND:
            # a busy machine may need longer for it than Dovecot gives it
            self.allow(r"service\(([a-z0-9]+-login|director)\): ("
                       r"Initial status notification not received|"
                       r"child \d+ killed with signal 9)")

    def service(self, name, *args, program=None, before=()):
        """Its configuration, for valgrind if need be"""
        before = list(before) + self.wrapper()
        # what comes before it knows nothing of Dovecot's folder
        program = (LIBEXEC if before else "") + (program or name)
        return SERVICE_CONFIG % (name, " ".join(
            before + [program, *args]).strip())

    def wrapper(self):
        """What goes before a program"""
        if not VALGRIND:
            return []
        # a child of a process that isn't root any more begins a file, too
        os.makedirs(self.valgrind_dir, exist_ok=True)
        os.chmod(self.valgrind_dir, 0o777)
        return VALGRIND_COMMAND + ["--log-file=%s/%%p" % self.valgrind_dir]


class Director(Proxy):
    """A proxy whose users are assigned by a director"""

    usual = [USUAL]

    def __init__(self, folder, mail_servers, name="director", config="",
                 before=(), directors="", **kwargs):
        """before: what starts the director, as words of a command
        directors: of its ring, itself at the first address of listen"""
        self.valgrind_dir = os.path.join(str(folder), name, "valgrind")
        if directors:
            config += RING_CONFIG.format(directors=directors, port=RING_PORT,
                                         ip=kwargs["listen"].split()[0])
            self.usual = self.usual + [RING_USUAL]
        config += self.service("director", before=before)
        if VALGRIND:
            config += VALGRIND_CONFIG
            # the HTTP API's doveadm director
            config += self.service("doveadm", program="doveadm-server")
        super().__init__(
            folder, name, auth_socket="director", config=DIRECTOR_CONFIG.format(
                mail_servers=mail_servers, doveadm_port=DOVEADM_PORT) + config,
            **kwargs)

    def sockets(self):
        return super().sockets() + ["login/director", "director-admin",
                                    "login/proxy-notify"]

    def start(self):
        """Returns when the director answers, or will not run."""
        super().start()
        self.wait_for_answer()
        return self

    def wait_for_answer(self):
        """doveadm waits for it itself, but not as long as it takes with
        valgrind on a busy machine."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(patience(20))
            try:
                admin.connect(self.path("director-admin"))
                admin.recv(1)
            except ConnectionError:
                pass

    def status(self, *args):
        """doveadm director status as a list of dicts"""
        lines = self.doveadm("-f", "tab", "director", "status",
                             *args).stdout.splitlines()
        keys = lines[0].split("\t")
        return [dict(zip(keys, line.split("\t"))) for line in lines[1:]]

    def user_status(self, user, *tag):
        """{"status": current backend's address or text, "hashed": address}"""
        row = self.doveadm("-f", "tab", "director", "status", user,
                           *tag).stdout.splitlines()
        return dict(zip(*(line.split("\t") for line in row)))
