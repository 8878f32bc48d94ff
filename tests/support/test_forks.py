"""A forked child runs, whatever ran in this process before it."""

from __future__ import annotations

import gevent
import gevent.socket
import pytest
from gevent.threadpool import ThreadPool

from tests.support.clients import in_thread
from tests.support.forks import forked, say_where


def test_a_native_thread_has_used_gevent():
    """hazard: gevent.reinit() destroys the hub of that thread, and waits for threads that only the parent has."""
    in_thread(gevent.socket.getaddrinfo, "127.0.0.1", "https")  # which a thread of that hub's pool looks up
    assert forked(lambda: gevent.sleep(0) or 0) == 0


def test_a_native_thread_was_left_with_a_hub(monkeypatch):
    """hazard: gevent.reinit() cannot destroy a hub that is destroyed already."""
    pool = ThreadPool(1)
    monkeypatch.setattr(gevent.get_hub(), "_threadpool", pool)
    pool.apply(gevent.get_hub)
    in_thread(gevent.sleep, 0)
    assert forked(lambda: gevent.sleep(0) or 0) == 0
    pool.kill()


def wait_in_vain():
    gevent.get_hub().wait(gevent.get_hub().loop.async_())


@pytest.mark.stderr
def test_one_that_hangs_says_where(capfd):
    job = gevent.spawn(wait_in_vain)
    gevent.sleep(0)
    say_where()
    job.kill()
    assert "in wait_in_vain" in capfd.readouterr().err
