"""memcached at its worst, with clocks that differ: a short run. CHAOS_SECONDS=600 makes it longer, with other seeds."""

from __future__ import annotations

import logging
import os
import time

import pytest

from greentls.stores import memcached
from tests.ssl.chaos import run

ROUNDS = 40


@pytest.mark.parametrize("tickets", [False, True], ids=["sessions", "tickets"])
def test_whatever_the_store_does(pki, monkeypatch, tickets, caplog):
    monkeypatch.setattr(memcached, "DEAD_SECONDS", 0.05)
    caplog.set_level(logging.CRITICAL)
    counts = run(pki, 1, tickets, ROUNDS)
    print(counts)
    assert all(counts[what] for what in ("resumed", "full", "early data", "copies")), counts
    seed, end = time.time_ns(), time.monotonic() + float(os.environ.get("CHAOS_SECONDS", "0"))
    while time.monotonic() < end:
        seed += 1
        run(pki, seed, tickets, ROUNDS)
