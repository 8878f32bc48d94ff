"""The contract of SharedValues, held by every store."""

from __future__ import annotations

import random
import threading

import gevent
import pytest

from greentls.errors import ConfigurationError
from greentls.stores import SharedValues
from greentls.stores.memcached import RELATIVE_LIMIT, MemcachedStore
from tests.stores.samples import ID, SESSION
from tests.support.forks import in_processes
from tests.support.helpers import PATIENCE
from tests.support.hubs import under_each_hub, wait_for


@under_each_hub
class TestSharedValues:
    def test_is_one_and_says_where_values_go(self, store):
        assert isinstance(store, SharedValues)
        assert store.shared == (store.name == "memcached")
        assert store.private == (not isinstance(store, MemcachedStore))

    def test_nothing_is_there_and_cas_puts_it(self, store):
        value, token = store.gets("ticket-keys")
        assert value is None
        assert store.cas("ticket-keys", b"one\r\n\0", token, 60) is True
        assert store.gets("ticket-keys")[0] == b"one\r\n\0"
        assert store.gets("another:_.1")[0] is None

    def test_of_two_that_change_the_same_value_the_later_one_is_told(self, store):
        for expected in (None, b"first 0", b"first 1"):
            value, token = store.gets("v")
            _, late = store.gets("v")
            assert value == expected
            turn = 0 if value is None else int(value[-1:]) + 1
            assert store.cas("v", b"first %d" % turn, token, 60) is True
            assert store.cas("v", b"second", late, 60) is False
            assert store.cas("v", b"second", token, 60) is False
        assert store.gets("v")[0] == b"first 2"

    def test_add_is_true_once(self, store):
        assert [store.add("v", bytes([each]), 60) for each in range(3)] == [True, False, False]
        value, token = store.gets("v")
        assert value == b"\0"
        assert store.cas("v", b"changed", token, 60)
        assert store.add("v", b"", 60) is False
        assert store.gets("v")[0] == b"changed"

    def test_an_empty_value_is_a_value(self, store):
        assert store.add("v", b"", 60)
        assert store.gets("v")[0] == b""
        assert not store.add("v", b"", 60)

    @pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 161, "\u00e4", "a/b"])
    def test_a_name_that_is_none_is_refused(self, store, name):
        for call in (store.gets, lambda name: store.cas(name, b"", None, 60), lambda name: store.add(name, b"", 60)):
            with pytest.raises(ConfigurationError, match="1 to 160 of"):
                call(name)

    @pytest.mark.parametrize("lifetime", [0, -1, float("nan")])
    def test_a_lifetime_that_is_over_is_refused(self, store, lifetime):
        """hazard: add() says yes, and has kept nothing that the next one would meet."""
        for call in (lambda: store.add("v", b"", lifetime), lambda: store.cas("v", b"", None, lifetime)):
            with pytest.raises(ConfigurationError, match="more than 0 seconds"):
                call()
        assert store.gets("v")[0] is None

    def test_sessions_and_values_do_not_meet(self, store):
        name = ID.hex()
        store.put(ID, SESSION, 60)
        assert store.add(name, b"value", 60)
        store.remove(ID)
        assert store.gets(name)[0] == b"value"


class TestTimeThreadsAndProcesses:
    def test_a_value_is_gone_after_its_lifetime_and_its_token_with_it(self, store):
        assert store.add("v", b"1", 0.5)
        _, token = store.gets("v")
        wait_for(lambda: store.gets("v")[0] is None, "the value to expire")
        assert store.cas("v", b"2", token, 60) is False
        assert store.add("v", b"3", RELATIVE_LIMIT + 86400)
        assert store.gets("v")[0] == b"3"

    def test_of_many_greenlets_and_threads_one_adds(self, store):
        wins = []

        def add_all(_):
            for number in random.sample(range(20), 20):
                if store.add(f"v{number}", b"", 60):
                    wins.append(number)

        def run():
            try:
                gevent.joinall([gevent.spawn(add_all, each) for each in range(10)], timeout=PATIENCE, raise_error=True)
            finally:
                if store.name != "memory":
                    store.close()
                gevent.get_hub().destroy(destroy_loop=True)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(wins) == list(range(20))

    def test_of_many_processes_one_adds_and_every_change_counts(self, store):
        processes = 4 if store.shared else 1

        def work(_):
            wins = bytearray()

            def add_and_count():
                for number in random.sample(range(20), 20):
                    if store.add(f"v{number}", b"", 60):
                        wins.append(number)
                for _ in range(3):
                    while True:
                        value, token = store.gets("count")
                        if store.cas("count", b"%d" % (int(value or 0) + 1), token, 60):
                            break
                        gevent.sleep(0)

            gevent.joinall([gevent.spawn(add_and_count) for _ in range(5)], timeout=PATIENCE, raise_error=True)
            assert processes > 1 or store.gets("count")[0] == b"15"
            return bytes(wins)

        wins = b"".join(in_processes(processes, work)) if store.shared else work(0)  # memory is one process's
        assert sorted(wins) == list(range(20))
        if store.shared:
            assert store.gets("count")[0] == b"%d" % (processes * 5 * 3)
