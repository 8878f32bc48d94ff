"""The plain pump notes its entrant some bytecodes after it is entered: who reads meanwhile waits, as at other times."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.helpers import PATIENCE, ROOT

PROGRAM = """
import sys
from pathlib import Path

import gevent

from greentls.core.connection import Connection
from greentls.openssl import pump
from greentls.stream import TLSStream
from tests.support.helpers import Pki
from tests.support.pairs import TLS13, client, client_context, raw_pair, server_context


class Claims(dict):
    armed = False

    def setdefault(self, key, value):
        found = super().setdefault(key, value)
        if self.armed:
            self.armed = False
            gevent.sleep(0)  # as if a finalizer switched
        return found


claims = pump._running = Claims()
pki = Pki(Path(sys.argv[1]))
raw = raw_pair()
here, there = (
    TLSStream(raw[0], client(client_context(pki, TLS13))),
    TLSStream(raw[1], Connection(server_context(pki, TLS13))),
)
gevent.joinall([gevent.spawn(here.do_handshake), gevent.spawn(there.do_handshake)], raise_error=True)
there.write(b"ab")


def talk():
    print(here.read(1))
    claims.armed = True
    writer = gevent.spawn(here.write, b"c")
    gevent.sleep(0)
    print(claims.armed, here.connection.busy)  # the writer is in the middle of its entry
    print(here.read(1))
    writer.get()


gevent.spawn(talk).get()
print(there.read(1))
"""


def test_who_comes_before_an_entrant_is_noted_is_not_taken_for_it(tmp_path):
    """hazard: the one who entered before is taken for it, so it is told that its own callback is inside."""
    command, environment = [sys.executable, "-c", PROGRAM, tmp_path], {**os.environ, "GREENTLS_PURE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=PATIENCE)
    assert (done.stdout.split("\n"), done.stderr) == (["b'a'", "False True", "b'b'", "b'c'", ""], "")
