"""A forked child runs, whatever ran in this process before it."""

from __future__ import annotations

import gevent
import gevent.socket

from tests.support.clients import in_thread
from tests.support.forks import forked


def test_a_native_thread_has_used_gevent():
    """hazard: gevent.reinit() destroys the hub of that thread, and waits for threads that only the parent has."""
    in_thread(gevent.socket.getaddrinfo, "127.0.0.1", "https")  # which a thread of that hub's pool looks up
    assert forked(lambda: gevent.sleep(0) or 0) == 0
