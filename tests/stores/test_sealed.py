"""SealedStore: what opens, and what does not."""

from __future__ import annotations

import pytest

from greentls.errors import ConfigurationError, SealError
from greentls.stores.memory import MemoryStore
from greentls.stores.sealed import SealedStore
from tests.stores.samples import ID, OTHER, SECOND, SECRET, SESSION


def opened(store, session_id):
    """What get() gives; None for what does not open."""
    try:
        return store.get(session_id)
    except SealError as error:
        assert error.kind == "session"
        return None


class TestSealed:
    @pytest.fixture
    def inner(self):
        return MemoryStore()

    def test_the_newest_secret_seals_and_all_of_them_open(self, inner):
        old, both, new = (SealedStore(inner, secrets) for secrets in ([SECRET], [SECOND, SECRET], [SECOND]))
        old.put(ID, SESSION, 60)
        assert both.get(ID) == SESSION
        assert opened(new, ID) is None
        both.put(OTHER, SESSION, 60)
        assert new.get(OTHER) == SESSION
        assert opened(old, OTHER) is None
        old.rotate([SECOND, SECRET])
        assert old.get(OTHER) == SESSION

    def test_a_secret_that_is_refused_changes_nothing(self, inner):
        """hazard: half of the secrets are in use, and the sessions of all others are lost."""
        store = SealedStore(inner, [SECRET])
        store.put(ID, SESSION, 60)
        with pytest.raises(ConfigurationError, match="a secret of 5 bytes"):
            store.rotate([SECOND, b"short"])
        assert store.get(ID) == SESSION
        store.put(OTHER, SESSION, 60)
        assert opened(SealedStore(inner, [SECRET]), OTHER) == SESSION

    def test_one_flipped_bit_anywhere_is_a_miss(self, inner):
        store = SealedStore(inner, [SECRET])
        store.put(ID, SESSION, 60)
        blob = inner.get(ID)
        for position in range(len(blob) * 8):
            changed = bytearray(blob)
            changed[position // 8] ^= 1 << position % 8
            inner.put(ID, bytes(changed), 60)
            assert opened(store, ID) is None, position

    def test_every_truncation_and_addition_is_a_miss(self, inner):
        store = SealedStore(inner, [SECRET])
        store.put(ID, SESSION, 60)
        blob = inner.get(ID)
        for length in range(len(blob)):
            inner.put(ID, blob[:length], 60)
            assert opened(store, ID) is None, length
        inner.put(ID, blob + b"\0", 60)
        assert opened(store, ID) is None

    def test_a_blob_under_another_id_or_in_another_context_is_a_miss(self, inner):
        store = SealedStore(inner, [SECRET], "one")
        store.put(ID, SESSION, 60)
        inner.put(OTHER, inner.get(ID), 60)
        assert opened(store, OTHER) is None
        assert opened(SealedStore(inner, [SECRET], "two"), ID) is None
        assert store.get(ID) == SESSION

    def test_the_same_session_is_sealed_differently_each_time(self, inner):
        store = SealedStore(inner, [SECRET])
        blobs = set()
        for _ in range(10):
            store.put(ID, SESSION, 60)
            blobs.add(inner.get(ID))
        assert len(blobs) == 10

    def test_what_does_not_open_is_said(self, inner):
        SealedStore(inner, [SECRET]).put(ID, SESSION, 60)
        with pytest.raises(SealError, match="store memory: a session does not open"):
            SealedStore(inner, [SECOND]).get(ID)

    def test_a_value_that_does_not_open_is_said_once(self, inner, caplog):
        SealedStore(inner, [SECRET]).add("v", b"value", 60)
        store = SealedStore(inner, [SECOND])
        for _ in range(5):
            assert store.gets("v")[0] is None
        assert len(caplog.records) == 1
        assert "a value does not open" in caplog.text

    def test_a_value_opens_under_its_name_in_its_context_and_not_as_a_session(self, inner):
        store = SealedStore(inner, [SECRET], "one")
        store.add("v", b"value", 60)
        blob, _ = inner.gets("v")
        assert b"value" not in blob
        inner.add("w", blob, 60)
        value, token = store.gets("w")
        assert value is None
        assert store.cas("w", b"repaired", token, 60), "what does not open can be replaced"
        assert store.gets("w")[0] == b"repaired"
        assert SealedStore(inner, [SECRET], "two").gets("v")[0] is None
        assert SealedStore(inner, [SECOND, SECRET], "one").gets("v")[0] == b"value"
        inner.put(b"v", blob, 60)
        assert opened(store, b"v") is None
        store.put(b"s", SESSION, 60)
        inner.add("s", inner.get(b"s"), 60)
        assert store.gets("s")[0] is None

    def test_one_flipped_bit_anywhere_is_no_value(self, inner):
        store = SealedStore(inner, [SECRET])
        store.add("v", b"value", 60)
        blob, token = inner.gets("v")
        for position in range(len(blob) * 8):
            changed = bytearray(blob)
            changed[position // 8] ^= 1 << position % 8
            assert inner.cas("v", bytes(changed), token, 60)
            value, token = store.gets("v")
            assert value is None, position

    def test_a_store_without_values_is_named_when_they_are_asked_for(self):
        class Sessions:
            name = "mine"
            get = put = remove = close = lambda self, *_: None

        store = SealedStore(Sessions(), [SECRET])
        assert not store.shared
        with pytest.raises(ConfigurationError, match="store mine: has no shared values"):
            store.gets("v")

    @pytest.mark.parametrize(
        "secrets", [[], [b"short"], [SECRET, SECRET[:31]], [b"x" * 32], [bytes(64)], [b"abcabca" * 9]]
    )
    def test_secrets_that_are_none_are_refused(self, inner, secrets):
        with pytest.raises(ConfigurationError, match="secret"):
            SealedStore(inner, secrets)
