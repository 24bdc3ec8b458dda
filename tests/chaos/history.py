# Copyright (c) 2026 dovecot-director authors, see the included COPYING file
"""What happened to one user, from the oracle, the nemesis and the directors'
logs, in the order of time"""

import datetime
import hashlib
import re
import time

TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) ")
# What concerns everybody
GENERAL = re.compile(r"Panic|Fatal|Error|Warning|reload|Ring is synced|"
                     r"onnect|process \d+")
BEFORE_SECS = 40
MAX_LINES = 400


def user_hash(user):
    return int.from_bytes(hashlib.md5(user.encode()).digest()[:4], "big") or 1


def log_events(member, user):
    """[(monotonic time, text)]"""
    offset = time.time() - time.monotonic()
    wanted = re.compile(r"\b%s\b|\b%d\b" % (re.escape(user), user_hash(user)))
    for line in member.log.lines(True):
        match = TIME.match(line)
        if not match:
            continue
        text = line[match.end():]
        if not wanted.search(text) and not (
                text.startswith(("director", "master")) and
                GENERAL.search(text)):
            continue
        # (what -login processes say of everybody is too much)
        when = datetime.datetime.strptime(
            match.group(1), "%Y-%m-%d %H:%M:%S.%f").replace(
                tzinfo=datetime.timezone.utc)
        yield when.timestamp() - offset, text


def history(user, at, oracle, nemesis, members):
    """Until a moment after at"""
    events = [(when, "oracle", text) for session in oracle.sessions(user)
              for when, text in session.events()]
    events += [(deed.when, "nemesis", "%s %s %s" % (
        deed.name, deed.where, deed.detail)) for deed in nemesis.deeds
        if deed.name not in ("move",) or
        re.search(r"\b%s\b" % user, deed.detail)]
    for member in members:
        events += [(when, member.name, text)
                   for when, text in log_events(member, user)]
    lines = ["%+9.3f %-10s %s" % (when - at, who, text)
             for when, who, text in sorted(events)
             if at - BEFORE_SECS <= when <= at + 5]
    return "\n".join(["history of %s (hash %d), in seconds:" % (
        user, user_hash(user))] + lines[-MAX_LINES:])
