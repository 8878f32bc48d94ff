"""Connections leave nothing for the collector, which takes 8 % of a handshake's time where it finds something."""

from __future__ import annotations

import gc

from tests.support.ssl_pairs import connected, contexts, talk

CONNECTIONS = 1000


def test_after_many_connections_the_collector_finds_nothing(pki):
    pair = contexts(pki)
    for _ in range(10):  # what the first ones leave is caches
        with connected(*pair) as ends:
            talk(*ends)
    gc.collect()
    gc.disable()
    try:
        for _ in range(CONNECTIONS):
            with connected(*pair) as ends:
                talk(*ends)
        del ends
        assert gc.collect() < CONNECTIONS / 2, "less than one object for each connection, whatever else is left"
    finally:
        gc.enable()
