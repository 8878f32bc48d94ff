"""Ticket keys that a fleet shares in real memcacheds."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from greentls.stores import open_store
from greentls.tickets import ANNOUNCE, TicketKeys
from tests.support.forks import in_processes
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.tickets.machines import ROTATION, Clock, refresh


class TestMemcached:
    """The real thing."""

    @pytest.fixture
    def secret_file(self, tmp_path):
        path = tmp_path / "fleet.key"
        path.write_bytes(os.urandom(32))
        return path

    @pytest.fixture
    def machine(self, clock):
        """machine(url): the keys of one more of them."""
        stores = []

        def start(url):
            stores.append(open_store(url))
            return TicketKeys.shared(stores[-1], clock=clock)

        yield start
        for store in stores:
            store.close()

    def test_of_many_processes_one_makes_the_key(self, memcached, secret_file):
        url = memcached.url(secret_file=secret_file)
        together = multiprocessing.get_context("fork").Barrier(6)  # their clocks do not differ by hours

        def work(number):
            clock = Clock()
            keys = TicketKeys.shared(open_store(url), clock=clock)
            names = []
            for _ in range(3):
                keys.ready(PATIENCE)
                keys.refresh()
                together.wait(PATIENCE)
                clock.now += ROTATION + ANNOUNCE
                names.append(keys.keys[0].name)
            return b"".join(names)

        found = in_processes(6, work)
        assert len(found[0]) == 48
        assert len(set(found)) == 1

    @pytest.mark.parametrize("count", [2, 20])
    def test_a_node_that_is_lost_moves_the_keys_to_the_other(
        self, memcacheds, secret_file, machine, count, take_nodes_back
    ):
        """The run of the hooks page, with its 20 workers."""
        nodes = memcacheds(2)
        url = f"memcached://{nodes[0].address},{nodes[1].address}?secret_file={secret_file}"
        workers = [machine(url) for _ in range(count)]
        refresh(*workers)
        before = workers[0].keys
        (home,) = [each for each in nodes if int(each.stats()["curr_items"])]
        (spare,) = [each for each in nodes if each is not home]
        home.kill()
        for each in workers:
            with pytest.raises(ConnectionError):
                each.refresh()
            assert each.keys == before
        refresh(*workers)
        assert int(spare.stats()["curr_items"]) == 1
        assert {each.keys for each in workers} == {before}
        late = machine(url)
        late.look()  # it does not know yet that the node is dead
        (own,) = late.keys
        workers.append(late)
        refresh(*reversed(workers), *workers)
        assert len({each.keys for each in workers}) == 1
        agreed = late.keys
        assert set(agreed) == {own, *before}
        home.restart()
        take_nodes_back()
        wait_for(lambda: [each.look() for each in workers] and int(home.stats()["curr_items"]), "the keys to be put")
        refresh(*workers)
        assert {each.keys for each in workers} == {agreed}

    def test_they_are_sealed_there(self, memcached, secret_file, machine):
        keys = machine(memcached.url(secret_file=secret_file))
        keys.refresh()
        raw = open_store(memcached.url(insecure=1))
        value, _ = raw.gets("ticket-keys")
        raw.close()
        assert len(value) > 96
        for secret in (keys.keys[0].aes, keys.keys[0].hmac, keys.keys[0].name):
            assert secret not in value
        before = keys.keys
        other_file = secret_file.with_name("other.key")
        other_file.write_bytes(os.urandom(32))
        stranger = machine(memcached.url(secret_file=other_file))
        refresh(stranger, keys)
        assert not set(stranger.keys) & set(keys.keys)
        assert keys.keys == before, "of two secrets in one place neither harms the other for long"
