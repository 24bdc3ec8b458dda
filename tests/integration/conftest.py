# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Backends for all tests, nodes for one test, and the judgement of every log
when a test ends."""

import os
import re
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from clients import MailSink  # noqa: E402
from node import Backend, Director, Proxy  # noqa: E402

RELAY = ("127.0.0.250", 25)
# Where the logs of failed tests are kept, and how the host names it
KEEP_LOGS = os.environ.get("DIRECTOR_TEST_KEEP", "/build/logs")
KEEP_LOGS_NAME = os.environ.get("DIRECTOR_TEST_LOGS", KEEP_LOGS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.stash.setdefault(FAILED, False)
    if report.failed:
        item.stash[FAILED] = True
    return report


def pytest_report_teststatus(report):
    figures = [text for name, text in report.user_properties
               if name == "figure"]
    if report.when == "call" and report.passed and figures:
        return "passed", ".", "PASSED (%s)" % "; ".join(figures)
    return None


@pytest.fixture
def figure(request):
    """Tells what is worth knowing of a test also when it passes"""
    return lambda text: request.node.user_properties.append(("figure", text))


FAILED = pytest.StashKey()


def keep_logs(item, nodes):
    target = re.sub(r"[^\w.-]+", "_", item.nodeid)
    folder = os.path.join(KEEP_LOGS, target)
    shutil.rmtree(folder, ignore_errors=True)
    for node in nodes:
        kept = os.path.join(folder, node.name)
        os.makedirs(kept)
        for name in os.listdir(node.dir):
            path = os.path.join(node.dir, name)
            if os.path.isfile(path):
                shutil.copy(path, kept)
    return os.path.join(KEEP_LOGS_NAME, target)


class Nodes:
    """Makes the nodes of one test, stops and judges them."""

    def __init__(self, folder, shared):
        self.folder = folder
        self.shared = shared
        self.own = []

    def add(self, node, start=True):
        self.own.append(node)
        return node.start() if start else node

    def backend(self, name, listen, start=True, **kwargs):
        return self.add(Backend(self.folder, name, listen, relay=RELAY,
                                **kwargs), start)

    def proxy(self, start=True, **kwargs):
        return self.add(Proxy(self.folder, relay=RELAY, **kwargs), start)

    def director(self, mail_servers, start=True, **kwargs):
        return self.add(Director(self.folder, mail_servers, relay=RELAY,
                                 **kwargs), start)

    def stop(self):
        problems = []
        for node in reversed(self.own):
            try:
                node.stop()
            except TimeoutError as error:
                problems.append(str(error))
        return problems

    def judge(self):
        return ["%s: %s" % (node.name, line) for node in
                self.own + self.shared for line in node.bad_lines()] + [
            "%s: valgrind: %s" % (node.name, error) for node in self.own
            if node.master is None for error in node.valgrind_errors()]


@pytest.fixture(scope="session")
def short_tmp():
    """Unix sockets' paths are short, so pytest's own folders do not do."""
    folder = tempfile.mkdtemp(prefix="d", dir="/tmp")
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def relay():
    sink = MailSink(RELAY)
    yield sink
    sink.close()


@pytest.fixture(scope="session")
def shared_backends(short_tmp, relay):
    """Three backends that let everybody in"""
    started = []
    try:
        for number in 11, 12, 13:
            started.append(Backend(
                short_tmp, "backend%d" % number,
                "127.0.0.%d fd00::%d" % (number, number), relay=RELAY).start())
        yield started
    finally:
        for node in started:
            node.stop()


@pytest.fixture
def backends(shared_backends):
    """The shared backends, their logs as if this test were the first. A test
    leaves them running."""
    for node in shared_backends:
        node.log.mark()
        node.allowed = []
    return shared_backends


@pytest.fixture
def nodes(request, short_tmp, shared_backends, backends):
    folder = tempfile.mkdtemp(prefix="t", dir=short_tmp)
    own = Nodes(folder, backends)
    yield own
    problems = own.stop() + own.judge()
    if problems or request.node.stash.get(FAILED, False):
        logs = keep_logs(request.node, own.own + own.shared)
        problems.append("the logs are in " + logs)
        if len(problems) == 1:
            print(problems[0])
            problems = []
    shutil.rmtree(folder, ignore_errors=True)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
