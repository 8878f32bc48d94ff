"""Connections leave nothing for the collector, which takes 8 % of a handshake's time where it finds something."""

from __future__ import annotations

import subprocess
import sys

from tests.support.helpers import PATIENCE, ROOT

# A process of its own: here the collector may find what other tests have left.
PROGRAM = """
import gc, sys
from types import SimpleNamespace
from tests.support.ssl_pairs import connected, contexts, talk

pair = contexts(SimpleNamespace(ca_file=sys.argv[1], cert_file=sys.argv[2], key_file=sys.argv[3]))


def connections(count):
    for _ in range(count):
        with connected(*pair) as ends:
            talk(*ends)


connections(10)  # what the first ones leave is caches
gc.collect()
gc.disable()
connections(300)
print(gc.collect())
"""


def test_after_many_connections_the_collector_finds_nothing(pki):
    command = [sys.executable, "-c", PROGRAM, pki.ca_file, pki.cert_file, pki.key_file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
