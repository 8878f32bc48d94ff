"""BatchStore: many puts and removals for one wait, and what of them fails."""

from __future__ import annotations

import socket

import pytest
from gevent import GreenletExit

from greentls.hub import here
from greentls.stores import BatchStore, open_store
from greentls.stores.memcached import MemcachedStore
from greentls.stores.memory import MemoryStore
from greentls.stores.sealed import SealedStore
from tests.stores.samples import ID, MANY, OTHER, SECRET, SESSION, URLS, talking
from tests.support.hubs import Job, under_each_hub


@under_each_hub
class TestBatches:
    """BatchStore: many puts and removals for one wait."""

    @pytest.fixture(params=["memcached", "sealed", "two nodes"])
    def store(self, request, memcacheds, secret_file):
        nodes = [each.address for each in memcacheds(2)]
        store = open_store(URLS[request.param].format(*nodes, secret=secret_file))
        yield store
        store.close()

    def test_who_has_it_says_so(self, store):
        assert isinstance(store, BatchStore)
        for other in (MemoryStore(), SealedStore(MemoryStore(), [SECRET])):
            assert not isinstance(other, BatchStore)

    def test_each_change_is_done_and_told_once(self, store):
        changes = [(each, each * (1 + at), 60 + at) for at, each in enumerate(MANY)]
        assert sorted(store.write_many(changes)) == [(at, None) for at in range(40)]
        assert [store.get(each) for each in MANY] == [each * (1 + at) for at, each in enumerate(MANY)]
        assert list(store.write_many([])) == []

    def test_the_changes_of_a_session_keep_their_order(self, store):
        changes = [(ID, b"first", 60), (OTHER, b"other", 60), (ID, None, 0), (OTHER, None, 0), (OTHER, b"last", 60)]
        changes += [(MANY[3], b"over", 0), (MANY[4], None, 0)]
        assert sorted(store.write_many(changes)) == [(at, None) for at in range(7)]
        assert [store.get(each) for each in (ID, OTHER, MANY[3])] == [None, b"last", None]

    def test_what_one_fails_with_is_not_charged_to_the_others(self, store):
        """hazard: memcached refuses one session, and all that were put with it are taken for lost."""
        changes = [(each, each, 60) for each in MANY]
        changes[7] = (MANY[7], bytes(2 << 20), 60)
        outcomes = dict(store.write_many(changes))
        assert "too large" in str(outcomes.pop(7))
        assert set(outcomes.values()) == {None}
        assert [each for each in MANY if store.get(each) != each] == [MANY[7]]

    def test_a_greenlet_killed_anywhere_does_not_harm_the_next(self, store):
        """hazard: a connection goes back to the pool with answers on their way."""
        for turn in range(40):
            job = Job(lambda: list(store.write_many([(each, each * 20, 60) for each in MANY])))
            for _ in range(turn % 7):
                here().sleep(0)
            job.kill()
            assert isinstance(job.join().value, (GreenletExit, list, type(None)))
            assert store.get(ID) is None
            assert dict(store.write_many([(OTHER, b"other", 60)])) == {0: None}
            assert store.get(OTHER) == b"other"


def test_a_node_that_is_down_fails_for_its_own_share_of_a_batch(memcacheds, take_nodes_back):
    nodes = memcacheds(2)
    store = MemcachedStore([(each.host, each.port) for each in nodes])
    list(store.write_many([(each, each, 60) for each in MANY]))
    kept = int(nodes[0].stats()["curr_items"])
    assert 0 < kept < 40
    nodes[1].kill()
    outcomes = dict(store.write_many([(each, b"again", 60) for each in MANY]))
    assert list(outcomes.values()).count(None) == kept
    assert all(str(nodes[1].port) in str(error) for error in outcomes.values() if error)
    assert set(dict(store.write_many([(each, b"again", 60) for each in MANY])).values()) == {None}, (
        "the other one has it"
    )
    nodes[0].kill()
    list(store.write_many([(ID, SESSION, 60)]))
    (error,) = dict(store.write_many([(ID, SESSION, 60)])).values()
    assert "all nodes are down" in str(error)
    store.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"STORED\r\nSTORED\r\nSTORED\r\n",
        b"STORED\r\nSTO",
        b"CLIENT_ERROR bad data chunk\r\nERROR\r\n",
        b"STORED\r\n?\r\n",
        b"",
    ],
)
def test_answers_that_do_not_fit_a_batch_end_the_connection(answer):
    """hazard: an answer that is left over is taken for the next one's."""
    accepted = []

    def talk(sock):
        accepted.append(sock.recv(4096))
        sock.sendall(answer if len(accepted) == 1 else b"STORED\r\n")
        sock.shutdown(socket.SHUT_WR)
        sock.recv(4096)

    with talking(talk) as address:
        store = MemcachedStore([address], timeout=5)
        outcomes = dict(store.write_many([(ID, b"1", 60), (OTHER, b"2", 60)]))
        assert set(outcomes) == {0, 1}
        assert all(outcomes.values())
        if answer.endswith(b"\r\n"):  # it hung up else, which is an outage
            store.put(ID, b"3", 60)
            assert len(accepted) == 2
        store.close()
