# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""Backends that tell the oracle of their sessions: real ones, and light ones
that are slow now and then"""

import os
import subprocess
import sys

from node import Backend

HERE = os.path.dirname(os.path.abspath(__file__))
ADDRESS = "127.0.0.%d"
CONFIG = """
mail_plugin_dir = %s
mail_max_userip_connections = 1000
protocol imap {
  mail_plugins {
    chaos_oracle = yes
  }
}
service imap-login {
  restart_request_count = unlimited
  process_min_avail = 1
}
"""
INCLUDE = "/usr/include/dovecot"


def build_plugin(folder, address, oracle):
    """In a folder that only this backend has: it knows its own address. (The
    one that its clients connected to is the director's.)"""
    os.makedirs(folder)
    subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-Wall", "-shared", "-fPIC",
         "-DHAVE_CONFIG_H", "-I" + INCLUDE, '-DORACLE_SOCKET="%s"' % oracle,
         '-DORACLE_BACKEND="%s"' % address, "-o",
         folder + "/lib95_chaos_oracle_plugin.so", HERE + "/oracle-plugin.c"],
        check=True)


def real_backend(folder, number, oracle):
    plugin_dir = "%s/plugin%d" % (folder, number)
    build_plugin(plugin_dir, ADDRESS % number, oracle)
    return Backend(folder, "backend%d" % number, ADDRESS % number,
                   config=CONFIG % plugin_dir)


class LightBackend:
    def __init__(self, number, oracle, **slow):
        self.name = "backend%d" % number
        self.ip = ADDRESS % number
        self.command = [sys.executable, HERE + "/light-backend.py", self.ip,
                        oracle] + ["%s=%g" % item for item in slow.items()]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
