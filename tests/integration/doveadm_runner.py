# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Runs "doveadm director" against a fake director."""

import os
import subprocess

import pytest

from fake_admin import FakeAdmin

SEVERAL = "several.director.test"


class Doveadm:
    """Runs doveadm with a node's configuration against a fake director."""

    def __init__(self, node):
        self.node = node
        self.fakes = []

    def fake(self, replies=None, tcp=False, default=False, **kwargs):
        path = self.node.path("director-admin") if default else \
            "%s/fake%d" % (self.node.dir, len(self.fakes))
        self.fakes.append(FakeAdmin(None if tcp else path, replies, **kwargs))
        return self.fakes[-1]

    def __call__(self, *args, options=(), **kwargs):
        return self.node.doveadm(*options, "director", *args, check=False,
                                 **kwargs)

    def popen(self, *args, **kwargs):
        return subprocess.Popen(
            self.node.doveadm_command("director", *args),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)

    def close(self):
        for fake in self.fakes:
            fake.close()


@pytest.fixture
def doveadm(nodes):
    """Its director isn't running."""
    node = nodes.director("127.0.0.11", start=False)
    os.makedirs(node.path(""))
    runner = Doveadm(node)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def several():
    """A name with two addresses"""
    with open("/etc/hosts", "a+") as f:
        f.seek(0)
        before = f.read()
        f.write("\n10.0.0.71 %s\n10.0.0.72 %s\n" % (SEVERAL, SEVERAL))
    yield SEVERAL
    with open("/etc/hosts", "w") as f:
        f.write(before)
