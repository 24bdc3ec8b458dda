# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""The oracle, the backends that tell it what they do, and the nodes of one
test"""

import importlib.util
import os
import shutil
import sys
import tempfile

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
INTEGRATION = os.path.join(HERE, "../integration")
sys.path.insert(0, INTEGRATION)

spec = importlib.util.spec_from_file_location(
    "integration", INTEGRATION + "/conftest.py")
integration = importlib.util.module_from_spec(spec)
spec.loader.exec_module(integration)

from backends import LightBackend, real_backend  # noqa: E402
from oracle import Oracle  # noqa: E402

pytest_runtest_makereport = integration.pytest_runtest_makereport
pytest_report_teststatus = integration.pytest_report_teststatus
short_tmp = integration.short_tmp


class Site(integration.Nodes):
    """Nodes, and the oracle that sees all of their sessions"""

    def __init__(self, folder):
        super().__init__(folder, [])
        self.oracle = Oracle(folder + "/oracle")
        self.light = []
        self.busy = []

    def keep_busy(self, thread):
        """It has an end() that may be called twice."""
        self.busy.append(thread)
        return thread

    def real_backend(self, number):
        return self.add(real_backend(self.folder, number, self.oracle.path))

    def light_backend(self, number, **slow):
        """slow: what of it takes how many seconds"""
        node = LightBackend(number, self.oracle.path, **slow)
        self.light.append(node)
        return node.start()

    def stop(self):
        problems = []
        for thread in reversed(self.busy):
            try:
                thread.end()
            except AssertionError as error:
                problems.append(repr(error))
        problems += super().stop()
        for node in self.light:
            node.kill()
        self.oracle.close()
        return problems

    def judge(self):
        return super().judge() + [
            "%s was on two backends: %s, %s" % (
                first.user, first.events(), second.events())
            for first, second in self.oracle.check(lag=0)[:5]]


@pytest.fixture
def site(request, short_tmp):
    folder = tempfile.mkdtemp(prefix="t", dir=short_tmp)
    os.chmod(folder, 0o755)
    own = Site(folder)
    yield own
    problems = own.stop() + own.judge()
    if problems or request.node.stash.get(integration.FAILED, False):
        print("the logs are in " +
              integration.keep_logs(request.node, own.own))
    shutil.rmtree(folder, ignore_errors=True)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
