"""MemoryStore is bounded."""

from __future__ import annotations

import pytest

from greentls.stores.memory import ENTRY_OVERHEAD, MemoryStore
from tests.stores.samples import ID
from tests.support.hubs import wait_for


class TestMemory:
    def test_values_are_bounded_and_none_is_pushed_out(self):
        """hazard: who fills the store lets what was added first be added again."""
        store = MemoryStore(max_entries=3)
        assert [store.add(f"v{each}", b"", 60) for each in range(3)] == [True] * 3
        with pytest.raises(MemoryError, match="3 shared values"):
            store.add("v3", b"", 60)
        assert store.add("v0", b"", 60) is False
        assert store.cas("v0", b"changed", store.gets("v0")[1], 0.01)
        wait_for(lambda: store.gets("v0")[0] is None, "the value to expire")
        assert store.add("v3", b"", 60) is True
        assert len(store._values) == 3

    def test_the_least_recently_used_goes_first(self):
        store = MemoryStore(max_entries=3)
        for name in (b"a", b"b", b"c"):
            store.put(name, b"session", 60)
        assert store.get(b"a")
        store.put(b"d", b"session", 60)
        assert [name for name in (b"a", b"b", b"c", b"d") if store.get(name)] == [b"a", b"c", b"d"]
        assert len(store) == 3

    def test_bytes_are_bounded(self):
        store = MemoryStore(max_bytes=10 * (ENTRY_OVERHEAD + 100))
        for number in range(50):
            store.put(bytes([number]), bytes(100), 60)
        assert len(store) == 10
        store.put(b"all", bytes(10 * (ENTRY_OVERHEAD + 100)), 60)
        assert len(store) == 0, "one that is too large is not kept, and pushed out the others"

    def test_what_is_removed_gives_its_bytes_back(self):
        store = MemoryStore(max_bytes=ENTRY_OVERHEAD + 100)
        for _ in range(20):
            store.put(ID, bytes(100), 60)
            store.remove(ID)
        store.put(ID, bytes(100), 60)
        assert store.get(ID) == bytes(100)
