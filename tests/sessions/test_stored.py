"""StoredSessions by itself: what a lookup comes to, and in which order changes reach the store."""

from __future__ import annotations

import time

import pytest

from greentls.core.connection import Connection
from greentls.errors import SealError
from greentls.hub import here
from greentls.sessions.stored import StoredSessions
from greentls.stores.memory import MemoryStore
from tests.support.helpers import PATIENCE
from tests.support.pairs import client, client_context, handshake, server_context


class Store:
    """Any store: not the one that answers on the spot. Notes what it is told."""

    name, private, shared = "noted", True, False

    def __init__(self):
        self.told, self.failure = [], None

    def get(self, session_id):
        raise NotImplementedError

    def put(self, session_id, session, lifetime):
        self.told.append(("put", session_id))
        if self.failure:
            raise self.failure

    def remove(self, session_id):
        self.told.append(("remove", session_id))

    def close(self):
        self.told.append("close")


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def session(pki):
    one = client(client_context(pki))
    handshake(one, Connection(server_context(pki)))
    return one.session


def raises(error):
    def question():
        raise error

    return question


def test_what_a_lookup_comes_to(store, session):
    kept = StoredSessions(store, timeout=0.02)
    soon = time.time() + 60
    cases = {
        "hit": lambda: (soon, session),
        "miss": lambda: None,
        "expired": lambda: (time.time() - 1, session),
        "error": raises(OSError("down")),
        "unsealable": raises(SealError("noted", "session")),
        "timeout": lambda: here().sleep(PATIENCE),
    }
    for outcome, question in cases.items():
        found, lookup = kept.look_up(0.02, question)
        assert (lookup.store, lookup.outcome) == ("noted", outcome)
        assert found == ((soon, session) if outcome == "hit" else None)
        assert 0 <= lookup.seconds < PATIENCE


def test_a_lookup_is_given_its_arguments(store):
    asked = []
    StoredSessions(store).look_up(None, lambda *arguments: asked.append(arguments), 1, "two")
    assert asked == [(1, "two")]


def test_what_does_not_come_of_the_store_is_raised(store):
    with pytest.raises(KeyboardInterrupt):
        StoredSessions(store).look_up(1, raises(KeyboardInterrupt()))


def test_changes_of_a_key_reach_the_store_in_their_order(store, session):
    kept = StoredSessions(store)
    value = time.time() + 60, bytes(session)
    for change in (value, (0, None)) * 2:
        kept.write(b"key", *change)
    assert store.told == [], "nobody waits for the store"
    assert kept.drain(PATIENCE)
    assert store.told == [(what, b"key") for what in ("put", "remove") * 2]


def test_a_put_that_fails_does_not_stop_the_next(store, session):
    kept = StoredSessions(store)
    store.failure = OSError("down")
    for key in (b"one", b"two"):
        kept.write(key, time.time() + 60, bytes(session))
    assert kept.drain(PATIENCE)
    assert sorted(store.told) == [("put", b"one"), ("put", b"two")]


def test_a_memory_store_is_told_on_the_spot(session):
    store = MemoryStore()
    kept = StoredSessions(store)
    kept.write(b"key", time.time() + 60, bytes(session))
    assert store.get(b"key")
    kept.write(b"key", 0, None)
    assert store.get(b"key") is None
