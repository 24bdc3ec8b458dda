"""A Dovecot of either release, run for a test: the original 2.3 in its own
root, ours on the 2.4 that is installed here. Also both ends of a director's
sockets: a stand-in for the auth process, a login process, an admin client."""

import base64
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

ORIGINAL_ROOT = os.environ.get("DIRECTOR_ORIGINAL_ROOT", "/bookworm")

# The auth process' sockets are left out: the test makes auth-login itself
DIRECTOR_COMMON = """
protocols =
ssl = no
director_user_expire = 1 days
service auth {
  unix_listener auth-login {
    mode = 0
  }
  unix_listener login/login {
    mode = 0
  }
}
"""

ORIGINAL_CONFIG = DIRECTOR_COMMON + """
default_vsz_limit = 0
service director {
  process_min_avail = 1
  client_limit = 10000
  unix_listener login/director {
    mode = 0666
  }
}
"""

# What ours ships as defaults has to do
OURS_CONFIG = DIRECTOR_COMMON


def wait_for(condition, what, timeout=20):
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError("%s: not within %d s" % (what, timeout))
        time.sleep(0.02)


def processes():
    """{pid: (parent, name)} of all that run"""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as f:
                text = f.read()
        except OSError:
            continue
        name, rest = text.split("(", 1)[1].rsplit(")", 1)
        if rest.split()[0] != "Z":
            found[int(pid)] = (int(rest.split()[1]), name)
    return found


class Node:
    """One running Dovecot. root: "" or the root that it is chrooted to."""

    def __init__(self, root, config, sockets=()):
        self.root = root
        self.dir = tempfile.mkdtemp(prefix="dn", dir=root + "/tmp")
        os.chmod(self.dir, 0o755)
        self.run_dir = self.dir + "/run"
        inside = self.dir[len(root):]
        head = ""
        if not root:
            head = ("dovecot_config_version = 2.4.0\n"
                    "dovecot_storage_version = 2.4.0\n")
        with open(self.dir + "/dovecot.conf", "w") as f:
            f.write("%sbase_dir = %s/run\nlog_path = %s/log\n%s" %
                    (head, inside, inside, config))
        command = ["dovecot", "-F", "-c", inside + "/dovecot.conf"]
        if root:
            command = ["chroot", root] + command
        self.output = open(self.dir + "/output", "wb")
        # master goes when the test goes, whatever happens to it
        self.master = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM"] + command,
            stdin=subprocess.DEVNULL, stdout=self.output,
            stderr=subprocess.STDOUT, start_new_session=True)
        try:
            for name in ["master"] + list(sockets):
                wait_for(lambda: self.exists(name), name)
        except BaseException:
            self.stop()
            raise

    def exists(self, name):
        if self.master.poll() is not None:
            raise RuntimeError("Dovecot ended:\n" + self.log())
        return os.path.exists(self.path(name))

    def path(self, name):
        return self.run_dir + "/" + name

    def log(self):
        text = ""
        for name in "output", "log":
            if os.path.exists(self.dir + "/" + name):
                with open(self.dir + "/" + name, errors="replace") as f:
                    text += f.read()
        return text

    def children(self):
        return {pid: name for pid, (parent, name) in processes().items()
                if parent == self.master.pid}

    def pid_of(self, name):
        def find():
            return next((pid for pid, process in self.children().items()
                         if process == name), None)
        return wait_for(find, "process " + name)

    def rss(self, pid):
        with open("/proc/%d/status" % pid) as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    @staticmethod
    def running_ns(pid):
        try:
            with open("/proc/%d/schedstat" % pid) as f:
                return int(f.read().split()[0])
        except OSError:
            return 0

    def cpu_ns(self):
        """CPU time of all processes of this node, ended ones included"""
        with open("/proc/%d/stat" % self.master.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        ended = (int(fields[13]) + int(fields[14])) * 10**9 // \
            os.sysconf("SC_CLK_TCK")
        return ended + sum(self.running_ns(pid) for pid in
                           [self.master.pid] + list(self.children()))

    def stop(self):
        children = []
        if self.master.poll() is None:
            children = self.children()
            self.master.terminate()
            try:
                self.master.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.master.pid, signal.SIGKILL)
                self.master.wait()
        # they have the addresses that the next one may want
        wait_for(lambda: not set(children) & set(processes()),
                 "the processes to end")
        self.output.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


DIRECTOR_SOCKETS = ("login/director", "director-admin")


def original_director(mail_servers, extra=""):
    return Node(ORIGINAL_ROOT, ORIGINAL_CONFIG +
                "director_mail_servers = %s\n" % mail_servers + extra,
                DIRECTOR_SOCKETS)


def our_director(mail_servers, extra=""):
    return Node("", OURS_CONFIG +
                "director_mail_servers = %s\n" % mail_servers + extra,
                DIRECTOR_SOCKETS)


def escape(text):
    """TAB-escaping, as bytes"""
    data = text.encode()
    for char, code in (b"\1", b"1"), (b"\t", b"t"), (b"\r", b"r"), \
            (b"\n", b"n"):
        data = data.replace(char, b"\1" + code)
    return data


class FakeAuth:
    """auth-login behind a director: everybody gets in and is to be proxied.
    fields(user) gives what else the answer has."""

    def __init__(self, node, fields=None):
        self.fields = fields or (lambda user: {})
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(node.path("auth-login"))
        os.chmod(node.path("auth-login"), 0o666)
        self.listener.listen(100)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,),
                             daemon=True).start()

    def serve(self, sock):
        sock.sendall(b"VERSION\t1\t2\n")
        for line in sock.makefile("rb"):
            args = line.rstrip(b"\n").split(b"\t")
            if args[0] == b"VERSION":
                sock.sendall(b"MECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\n"
                             b"COOKIE\t" + b"0" * 32 + b"\nDONE\n")
            elif args[0] == b"AUTH":
                resp = base64.b64decode(args[-1].split(b"=", 1)[1])
                sock.sendall(self.reply(args[1], resp.split(b"\0")[1]))
        sock.close()

    def reply(self, request, user):
        user = user.decode()
        fields = {"user": user, "proxy": "y", "lip": "127.0.0.1",
                  "lport": "143", "pass": "secret"}
        fields.update(self.fields(user))
        return b"OK\t" + request + b"".join(
            b"\t" + name.encode() + b"=" + escape(value)
            for name, value in fields.items()) + b"\n"

    def close(self):
        self.listener.close()


class LoginProcess:
    """A login process' connection to a director"""

    # Each has another one, which no process has: auth tells them apart by it
    pids = itertools.count(1 << 22)

    def __init__(self, node):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(node.path("login/director"))
        self.file = self.sock.makefile("rb")
        self.sock.sendall(b"VERSION\t1\t2\nCPID\t%d\n" %
                          next(self.pids))
        while self.file.readline() not in (b"DONE\n", b""):
            pass
        self.last_id = 0

    def lookup(self, users):
        """{user: host, or "name address" of one that has a name, or the whole
        answer where there is none}"""
        pending, found = {}, {}
        for user in users:
            self.last_id += 1
            pending[b"%d" % self.last_id] = user
            resp = base64.b64encode(b"\0" + user.encode() + b"\0secret")
            self.sock.sendall(
                b"AUTH\t%d\tPLAIN\tservice=imap\tlip=127.0.0.1"
                b"\trip=127.0.0.2\tresp=%s\n" % (self.last_id, resp))
        while pending:
            line = self.file.readline()
            if not line:
                raise EOFError("the director closed the connection")
            args = line.rstrip(b"\n").split(b"\t")
            if args[0] not in (b"OK", b"FAIL"):
                continue
            host = [arg.split(b"=", 1)[1] for arg in args
                    if arg.startswith((b"host=", b"hostip="))]
            found[pending.pop(args[1])] = (b" ".join(host) or line).decode()
        return found

    def close(self):
        self.file.close()
        self.sock.close()


class Admin:
    VERSION = b"VERSION\tdirector-doveadm\t1\t0\n"

    def __init__(self, node):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(node.path("director-admin"))
        self.file = self.sock.makefile("rb")
        self.sock.sendall(self.VERSION)
        assert self.file.readline() == self.VERSION

    def command(self, *args):
        """The reply: one line, or a list of lines for *-LIST"""
        self.sock.sendall(b"\t".join(escape(arg) for arg in args) + b"\n")
        reply = []
        while True:
            line = self.file.readline().decode()
            if not line:
                raise EOFError("%s: the director closed the connection" %
                               args[0])
            if "-LIST" not in args[0]:
                return line.rstrip("\n")
            if line == "\n":
                return reply
            reply.append(line.rstrip("\n").split("\t"))

    def hashed_host(self, user, tag=""):
        """Where hashing puts the user now"""
        return self.command("USER-LOOKUP", user, tag).split("\t")[2]

    def close(self):
        self.file.close()
        self.sock.close()
