"""What the parts of the benchmark share: load drivers, values, the table."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from nodes import original_director, our_director, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = (("director-load", "admin-load"), ("imap-load",), ("copy-relay",),
            ("ring-probe",), ("session-load",))
# What could be in a director's place: {side: (program, title)}
RELAYS = {"relay": ("copy-relay", "a relay that only copies instead"),
          "streams": ("stream-relay", "  made of libdovecot's streams")}
SIDES = {"original": original_director, "ours": our_director}
CPUS = os.sched_getaffinity(0)


def note(text):
    print("%s %s" % (time.strftime("%H:%M:%S"), text), file=sys.stderr,
          flush=True)


def favour(pid):
    """Let others that run on this machine disturb it less. nice() alone counts
    only within a session where the kernel groups processes by session."""
    try:
        os.setpriority(os.PRIO_PROCESS, pid, -20)
        with open("/proc/%d/autogroup" % pid, "w") as f:
            f.write("-20")
    except OSError:
        pass


def place(pid, number):
    """A CPU of its own, if there are two"""
    cpus = sorted(CPUS)
    if len(cpus) > 1:
        os.sched_setaffinity(pid, {cpus[number]})


def settled(cpu_ns):
    """What it counts, once those whom it is about have no more to do"""
    last = cpu_ns()
    while True:
        time.sleep(0.1)
        cpu = cpu_ns()
        if cpu - last < 4000000:
            return cpu
        last = cpu


class Bench:
    def __init__(self, quick):
        self.quick = quick
        self.rounds = 1 if quick else 5
        self.users = 1000000
        self.many_users = 0 if quick else 10000000
        self.lookups = 200000
        # {what: {side: [values]}}
        self.values = {}
        self.bin = tempfile.mkdtemp(prefix="bench")

    def close(self):
        shutil.rmtree(self.bin, ignore_errors=True)

    def add(self, what, side, value):
        self.values.setdefault(what, {}).setdefault(side, []).append(value)

    def build(self):
        for name, *more in PROGRAMS:
            subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-o",
                            self.bin + "/" + name] +
                           ["%s/%s.c" % (HERE, source)
                            for source in (name, *more)], check=True)
        subprocess.run("""
            . /usr/lib/dovecot/dovecot-config
            eval cc -std=gnu11 -O2 -Wall -DHAVE_CONFIG_H $LIBDOVECOT_INCLUDE \
                -Wl,-rpath,/usr/lib/dovecot -o %s/stream-relay \
                %s/stream-relay.c "$LIBDOVECOT" """ % (self.bin, HERE),
                       shell=True, check=True)

    @contextlib.contextmanager
    def relay(self, side, login, auth):
        """The least that something in a director's place can do"""
        program = RELAYS[side][0]
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL",
                                    self.bin + "/" + program, login, auth])
        try:
            wait_for(lambda: os.path.exists(login), program)
            favour(process.pid)
            yield process.pid
        finally:
            process.kill()
            process.wait()

    def start(self, program, cpu=1, **options):
        """A driver on the CPU that the director or the node doesn't have, or on
        any (None). A list is an option that is given several times."""
        command = ["setpriv", "--pdeathsig", "KILL", self.bin + "/" + program]
        for name, value in options.items():
            for one in value if isinstance(value, list) else [value]:
                command.append("--" + name.replace("_", "-"))
                if one is not True:
                    command.append(str(one))
        if cpu is not None:
            place(0, cpu)
        try:
            return subprocess.Popen(command, stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, text=True)
        finally:
            os.sched_setaffinity(0, CPUS)

    @staticmethod
    def result(process):
        """What a driver printed"""
        with process:
            output = process.stdout.read()
        if process.returncode != 0:
            raise RuntimeError("%s ended with %d" % (process.args[3],
                                                     process.returncode))
        return json.loads(output)

    def load(self, program, **options):
        return self.result(self.start(program, **options))


class Table:
    FORMAT = "%-50s %24s %24s %7s  %s"

    def __init__(self, bench):
        self.bench = bench
        self.missed = 0
        print(self.FORMAT % ("what (median, minimum-maximum)", "original",
                             "ours", "ratio", "goal"))

    def cell(self, what, side, digits):
        values = self.bench.values[what].get(side)
        if values is None:
            return "-"
        text = "%.*f" % (digits, statistics.median(values))
        if len(values) > 1:
            text += " (%.*f-%.*f)" % (digits, min(values),
                                      digits, max(values))
        return text

    def limit(self, what, digits):
        """What the least that takes the director's place costs"""
        values = self.bench.values[what]
        for side, (_, title) in RELAYS.items():
            print(self.FORMAT % ("  " + title, "",
                                 self.cell(what, side, digits), "%.2f" % (
                statistics.median(values[side]) /
                statistics.median(values["original"])), ""))

    def row(self, title, what, digits=1, ratio=None, limit=None, unit="",
            goal=None, least=None):
        """Goal: ours/original at most ratio, or ours at most limit, or ours at
        least that"""
        if what not in self.bench.values:
            return
        medians = {side: statistics.median(values) for side, values in
                   self.bench.values[what].items()}
        quotient = float("nan")
        if medians.get("original", 0) > 0:
            quotient = medians["ours"] / medians["original"]
        if least is not None:
            met = medians["ours"] >= least
            self.missed += not met
            goal = ">= %d%s %s" % (least, unit, "met" if met else "MISSED")
        elif ratio is not None or limit is not None:
            met = quotient <= ratio if ratio is not None else \
                medians["ours"] <= limit
            self.missed += not met
            goal = "%s %s" % (goal or "<= %g%s" % (
                limit if ratio is None else ratio, unit),
                "met" if met else "MISSED")
        print(self.FORMAT % (
            title, self.cell(what, "original", digits),
            self.cell(what, "ours", digits),
            "" if limit is not None or quotient != quotient else
            "%.2f" % quotient, goal or ""))
