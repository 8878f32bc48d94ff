"""The contract of SessionStore, held by every store."""

from __future__ import annotations

import threading

import gevent
from gevent import GreenletExit

from greentls.hub import here
from greentls.stores import SessionStore
from greentls.stores.memcached import RELATIVE_LIMIT
from tests.stores.samples import ID, OTHER, SESSION
from tests.support.helpers import PATIENCE
from tests.support.hubs import Job, together, under_each_hub, wait_for


@under_each_hub
class TestContract:
    def test_is_a_session_store_with_a_name(self, store):
        assert isinstance(store, SessionStore)
        assert store.name in ("memory", "memcached")

    def test_get_answers_with_the_bytes_that_were_put(self, store):
        store.put(ID, SESSION, 60)
        store.put(OTHER, SESSION * 50, 60)
        assert store.get(ID) == SESSION
        assert store.get(ID) == SESSION, "a get must not remove"
        assert store.get(OTHER) == SESSION * 50

    def test_an_unknown_id_is_none(self, store):
        assert store.get(ID) is None

    def test_put_replaces(self, store):
        store.put(ID, b"first", 60)
        store.put(ID, b"second", 60)
        assert store.get(ID) == b"second"

    def test_remove_forgets_and_is_no_error_twice(self, store):
        store.put(ID, SESSION, 60)
        store.put(OTHER, b"other", 60)
        store.remove(ID)
        store.remove(ID)
        assert store.get(ID) is None
        assert store.get(OTHER) == b"other"

    def test_a_lifetime_that_is_over_keeps_nothing(self, store):
        store.put(ID, SESSION, 0)
        store.put(OTHER, SESSION, -5.5)
        assert store.get(ID) is None
        assert store.get(OTHER) is None

    def test_a_lifetime_beyond_thirty_days(self, store):
        store.put(ID, SESSION, RELATIVE_LIMIT + 86400)
        assert store.get(ID) == SESSION

    def test_many_greenlets_get_their_own(self, store):
        def one(number):
            session_id = number.to_bytes(32, "big")
            store.put(session_id, session_id * 8, 60)
            return store.get(session_id) == session_id * 8

        assert together(one, *range(200)) == [True] * 200

    def test_a_greenlet_killed_anywhere_does_not_harm_the_next(self, store):
        """hazard: a connection goes back to the pool with somebody else's answer on its way."""
        ids = [number.to_bytes(32, "big") for number in range(20)]
        for session_id in ids:
            store.put(session_id, session_id * 20, 60)
        for turn in range(40):
            jobs = [Job(store.get, session_id) for session_id in ids]
            for _ in range(turn % 5):
                here().sleep(0)
            for job in jobs[turn % 3 :: 3]:
                job.kill()
            for session_id, job in zip(ids, jobs, strict=True):
                value = job.join().value  # None: killed before its first turn
                assert value in (session_id * 20, None) or isinstance(value, GreenletExit)

    def test_works_after_close(self, store):
        store.put(ID, SESSION, 60)
        store.close()
        store.put(ID, SESSION, 60)
        assert store.get(ID) == SESSION
        store.close()
        store.close()


class TestTimeAndThreads:
    def test_a_session_is_gone_after_its_lifetime(self, store):
        store.put(ID, SESSION, 0.5)
        wait_for(lambda: store.get(ID) is None, "the session to expire")

    def test_two_threads_may_share_it(self, store):
        store.put(ID, SESSION, 60)
        answers = []

        def run():
            try:
                answers.append(store.get(ID))
            finally:
                if store.name != "memory":
                    store.close()
                gevent.get_hub().destroy(destroy_loop=True)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(PATIENCE)
        assert answers == [SESSION]
        assert store.get(ID) == SESSION
