"""The contracts of SessionStore and SharedValues, held by every store; and what each kind has besides."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
import time

import gevent
import pytest
from gevent import GreenletExit
from gevent.event import Event
from pymemcache.exceptions import MemcacheServerError

from greentls.errors import ConfigurationError, SealError
from greentls.stores import BatchStore, SessionStore, SharedValues, open_store
from greentls.stores import memcached as memcached_module
from greentls.stores.memcached import RELATIVE_LIMIT, MemcachedStore
from greentls.stores.memory import ENTRY_OVERHEAD, MemoryStore
from greentls.stores.sealed import SealedStore
from tests.support.helpers import PATIENCE, free_port

ID, OTHER = bytes(range(32)), bytes(range(1, 33))
MANY = [number.to_bytes(32, "big") for number in range(40)]
SESSION = b"a master secret, and what belongs to it\r\nEND\r\n\0"
SECRET, SECOND = bytes(range(32)), bytes(range(1, 41))
URLS = {
    "memory": "memory://",
    "memcached": "memcached://{0}?insecure=1",
    "sealed": "memcached://{0}?secret_file={secret}",
    "two nodes": "memcached://{0},{1}?secret_file={secret}&context=two.nodes",
}


def read_all(memcached):
    """Every value that memcached has, whatever the key."""
    with socket.create_connection((memcached.host, memcached.port), 5) as sock, sock.makefile("rwb") as file:
        file.write(b"lru_crawler metadump all\r\n")
        file.flush()
        keys = []
        while (line := file.readline()) != b"END\r\n":
            keys.append(line.split()[0].removeprefix(b"key=").replace(b"%3A", b":"))
        values = {}
        for key in keys:
            file.write(b"get " + key + b"\r\n")
            file.flush()
            header = file.readline().split()
            values[key] = file.read(int(header[3]) + 2)[:-2]
            assert file.readline() == b"END\r\n"
        return values


@contextlib.contextmanager
def talking(talk):
    """The address of a server in a thread that talks to one client after the other."""

    def serve():
        with contextlib.suppress(OSError):  # it listens no more
            while True:
                with listener.accept()[0] as sock:
                    talk(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "fleet.key"
    path.write_bytes(SECRET)
    return path


ALL = [pytest.param(each, marks=[pytest.mark.programs] if "memcached" in URLS[each] else []) for each in URLS]


@pytest.fixture(params=ALL)
def store(request, secret_file):
    nodes = []
    if "memcached" in URLS[request.param]:
        nodes = [each.address for each in request.getfixturevalue("memcacheds")(2)]
    store = open_store(URLS[request.param].format(*nodes, secret=secret_file))
    yield store
    store.close()


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

    def test_a_session_is_gone_after_its_lifetime(self, store):
        store.put(ID, SESSION, 0.5)
        with gevent.Timeout(30):
            while store.get(ID) is not None:
                gevent.sleep(0.05)

    def test_a_lifetime_beyond_thirty_days(self, store):
        store.put(ID, SESSION, RELATIVE_LIMIT + 86400)
        assert store.get(ID) == SESSION

    def test_many_greenlets_get_their_own(self, store):
        def one(number):
            session_id = number.to_bytes(32, "big")
            store.put(session_id, session_id * 8, 60)
            return store.get(session_id) == session_id * 8

        jobs = [gevent.spawn(one, number) for number in range(200)]
        gevent.joinall(jobs, timeout=30)
        assert [job.value for job in jobs] == [True] * 200

    def test_a_greenlet_killed_anywhere_does_not_harm_the_next(self, store):
        """hazard: a connection goes back to the pool with somebody else's answer on its way."""
        ids = [number.to_bytes(32, "big") for number in range(20)]
        for session_id in ids:
            store.put(session_id, session_id * 20, 60)
        for turn in range(40):
            jobs = [gevent.spawn(store.get, session_id) for session_id in ids]
            for _ in range(turn % 5):
                gevent.sleep(0)
            for job in jobs[turn % 3 :: 3]:
                job.kill(block=False)
            gevent.joinall(jobs, timeout=30)
            for session_id, job in zip(ids, jobs, strict=True):
                assert job.value == session_id * 20 or isinstance(job.value, GreenletExit)

    def test_works_after_close(self, store):
        store.put(ID, SESSION, 60)
        store.close()
        store.put(ID, SESSION, 60)
        assert store.get(ID) == SESSION
        store.close()
        store.close()

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
        thread.join(30)
        assert answers == [SESSION]
        assert store.get(ID) == SESSION


def in_processes(count, work):
    """What work(number) answered in each of so many processes: bytes."""
    pipes = []
    for number in range(count):
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                gevent.reinit()
                os.write(writing, work(number))
            finally:
                os._exit(0)
        os.close(writing)
        pipes.append(reading)
    answers = []
    for reading in pipes:
        with open(reading, "rb") as file:
            answers.append(file.read())
        os.wait()
    return answers


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

    def test_a_value_is_gone_after_its_lifetime_and_its_token_with_it(self, store):
        assert store.add("v", b"1", 0.5)
        _, token = store.gets("v")
        with gevent.Timeout(PATIENCE):
            while store.gets("v")[0] is not None:
                gevent.sleep(0.05)
        assert store.cas("v", b"2", token, 60) is False
        assert store.add("v", b"3", RELATIVE_LIMIT + 86400)
        assert store.gets("v")[0] == b"3"

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

        wins = b"".join(in_processes(processes, work))
        assert sorted(wins) == list(range(20))
        if store.shared:
            assert store.gets("count")[0] == b"%d" % (processes * 5 * 3)


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
            job = gevent.spawn(lambda: list(store.write_many([(each, each * 20, 60) for each in MANY])))
            for _ in range(turn % 7):
                gevent.sleep(0)
            job.kill()
            assert isinstance(job.value, (GreenletExit, list))
            assert store.get(ID) is None
            assert dict(store.write_many([(OTHER, b"other", 60)])) == {0: None}
            assert store.get(OTHER) == b"other"


def test_a_node_that_is_down_fails_for_its_own_share_of_a_batch(memcacheds):
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


class TestMemory:
    def test_values_are_bounded_and_none_is_pushed_out(self):
        """hazard: who fills the store lets what was added first be added again."""
        store = MemoryStore(max_entries=3)
        assert [store.add(f"v{each}", b"", 60) for each in range(3)] == [True] * 3
        with pytest.raises(MemoryError, match="3 shared values"):
            store.add("v3", b"", 60)
        assert store.add("v0", b"", 60) is False
        assert store.cas("v0", b"changed", store.gets("v0")[1], 0.01)
        with gevent.Timeout(PATIENCE):
            while store.gets("v0")[0] is not None:
                gevent.sleep(0.01)
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


class TestMemcached:
    def test_keys_and_lifetimes_are_what_the_documentation_says(self, memcached):
        store = MemcachedStore([(memcached.host, memcached.port)], "shop")
        store.put(ID, SESSION, 100.2)
        store.put(OTHER, SESSION, RELATIVE_LIMIT * 3)
        values = read_all(memcached)
        assert set(values) == {f"greentls:1:shop:s:{each.hex()}".encode() for each in (ID, OTHER)}
        store.close()

    def test_a_values_key_is_what_the_documentation_says(self, memcached):
        store = MemcachedStore([(memcached.host, memcached.port)], "x" * 64)
        longest = "n" * 160
        assert store.add(longest, b"", 60)
        assert set(read_all(memcached)) == {f"greentls:1:{'x' * 64}:v:{longest}".encode()}
        store.close()

    def test_add_does_not_move_to_another_node_and_cas_does(self, memcacheds):
        """hazard: a node fails, another one is asked, and what was added once is added again."""
        nodes = memcacheds(2)
        store = MemcachedStore([(each.host, each.port) for each in nodes])
        names = [f"v{each}" for each in range(40)]
        assert all(store.add(each, b"", 60) for each in names)
        kept = int(nodes[0].stats()["curr_items"])
        assert 0 < kept < 40
        nodes[1].kill()
        answers = []
        for each in names * 2:
            try:
                answers.append(store.add(each, b"", 60))
            except OSError as error:
                assert str(nodes[1].port) in str(error)
        assert answers == [False] * kept * 2
        for each in names:
            value, token = store.gets(each)
            assert (value is None) == store.cas(each, b"moved", token, 60) or value == b""
        nodes[1].restart()
        with gevent.Timeout(PATIENCE):
            while len(answers) < 2 * kept + 1 or True not in answers:
                try:
                    answers.append(next(filter(None, [store.add(each, b"", 60) for each in names]), False))
                except OSError:
                    gevent.sleep(0.1)
        store.close()

    def test_sealed_sessions_are_not_readable_there(self, memcached, secret_file):
        store = open_store(memcached.url(secret_file=secret_file))
        store.put(ID, SESSION, 60)
        (value,) = read_all(memcached).values()
        assert len(value) > len(SESSION)
        assert SESSION[:8] not in value
        store.close()

    def test_two_contexts_do_not_meet(self, memcached, secret_file):
        one, other = (open_store(memcached.url(secret_file=secret_file, context=name)) for name in ("one", "other"))
        one.put(ID, SESSION, 60)
        assert other.get(ID) is None
        one.close()
        other.close()

    def test_one_that_was_restarted_is_found_again_by_the_next_call(self, memcached):
        """hazard: every idle connection of the pool is dead, and each would cost an error."""
        store = MemcachedStore([(memcached.host, memcached.port)])
        gevent.joinall([gevent.spawn(store.get, ID) for _ in range(20)], timeout=30, raise_error=True)
        memcached.kill()
        memcached.restart()
        assert store.get(ID) is None
        store.put(ID, SESSION, 60)
        assert store.get(ID) == SESSION
        store.close()

    def test_one_that_is_down_is_an_error_and_comes_back(self, memcached):
        store = MemcachedStore([(memcached.host, memcached.port)])
        memcached.kill()
        with pytest.raises(ConnectionError, match=str(memcached.port)):
            store.get(ID)
        memcached.restart()
        with gevent.Timeout(30):
            while True:
                try:
                    assert store.get(ID) is None
                    break
                except Exception as error:
                    assert "down" in str(error)
                    gevent.sleep(0.1)
        store.close()

    def test_of_two_nodes_the_dead_one_is_skipped_and_taken_back(self, memcacheds, secret_file):
        first, second = memcacheds(2)
        store = open_store(f"memcached://{first.address},{second.address}?secret_file={secret_file}")
        ids = [number.to_bytes(32, "big") for number in range(40)]
        for session_id in ids:
            store.put(session_id, SESSION, 60)
        kept = int(first.stats()["curr_items"])
        assert 0 < kept < 40
        second.kill()
        failures = 0

        def lookup(session_id):
            nonlocal failures
            try:
                return store.get(session_id)
            except OSError:
                failures += 1

        jobs = [gevent.spawn(lookup, session_id) for session_id in ids]
        gevent.joinall(jobs, timeout=30, raise_error=True)
        assert sum(job.value == SESSION for job in jobs) == kept
        assert failures <= 40 - kept
        for session_id in ids:  # all of them on the node that is left
            store.put(session_id, SESSION, 60)
        assert [store.get(session_id) for session_id in ids] == [SESSION] * 40
        second.restart()
        with gevent.Timeout(30):
            while int(second.stats()["cmd_get"]) < 1:
                lookup(ids[0]), [lookup(each) for each in ids]
                gevent.sleep(0.1)
        store.close()

    def test_one_that_never_answers_is_a_timeout(self, silent_server):
        store = MemcachedStore([(silent_server.host, silent_server.port)], timeout=0.05)
        with pytest.raises(TimeoutError):
            store.get(ID)
        store.close()

    def test_one_that_never_accepts_is_a_timeout(self):
        """hazard: an address that drops packets is waited for as long as TCP tries, two minutes."""
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
            for _ in range(4):  # the queue of those who wait to be accepted is full, and Linux drops the next SYN
                one = waiting.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            store = MemcachedStore([listener.getsockname()], connect_timeout=0.05)
            with gevent.Timeout(PATIENCE), pytest.raises(ConnectionError, match="timed out"):
                store.get(ID)
            store.close()

    def test_the_timeout_is_each_answers_own(self):
        """hazard: a connection's waits add up, and a good one times out."""
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve():
                with listener.accept()[0] as sock:
                    while sock.recv(4096):
                        released.wait(0.05)
                        sock.sendall(b"END\r\n")

            released = threading.Event()
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            store = MemcachedStore([listener.getsockname()], timeout=0.5)
            assert [store.get(ID) for _ in range(15)] == [None] * 15
            store.close()
            thread.join(PATIENCE)

    def test_an_answer_that_came_in_time_counts_however_late_it_is_read(self, memcached):
        """hazard: a process that is busy for longer than the timeout takes a good node for dead."""
        store = MemcachedStore([(memcached.host, memcached.port)], timeout=0.2)
        store.put(ID, SESSION, 60)
        job = gevent.spawn(store.get, ID)
        gevent.sleep(0)  # it has asked, and waits
        time.sleep(0.4)
        assert job.get(timeout=PATIENCE) == SESSION
        store.close()

    def test_more_greenlets_than_the_pool_wait_for_their_turn(self, memcached):
        store = MemcachedStore([(memcached.host, memcached.port)], pool=3)
        jobs = [gevent.spawn(store.get, ID) for _ in range(100)]
        gevent.joinall(jobs, timeout=30, raise_error=True)
        assert int(memcached.stats()["total_connections"]) < 3 + 20  # some are the fixture's own
        store.close()

    def test_greenlets_of_a_patched_program_share_connections(self, memcached):
        """hazard: gevent makes of threading.local what each greenlet has its own of: a pool for each connection."""
        program = """
            from gevent import monkey; monkey.patch_all()
            import sys, gevent
            from greentls.stores.memcached import MemcachedStore
            from greentls.sessions.server import SessionCache
            store = MemcachedStore([("127.0.0.1", int(sys.argv[1]))])
            for _ in range(40):
                gevent.spawn(store.get, bytes(32)).get()
            cache = SessionCache(store)
            assert gevent.spawn(cache._writers.get).get() is gevent.spawn(cache._writers.get).get()
        """
        before = int(memcached.stats()["total_connections"])
        subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(memcached.port)], check=True)
        assert int(memcached.stats()["total_connections"]) - before < 5

    @pytest.mark.parametrize(
        "answer",
        [
            b"\xff\xfe garbage\r\n",
            b"VALUE another-key 0 5\r\nhello\r\nEND\r\n",
            b"VALUE x y z\r\n",
            b"SERVER_ERROR out of memory storing object\r\n",
            b"END",
            b"",
        ],
    )
    def test_an_answer_that_is_none_is_an_error_and_not_a_session(self, answer):
        with talking(lambda sock: sock.recv(4096) and sock.sendall(answer)) as address:
            store = MemcachedStore([address], timeout=5)
            with pytest.raises(Exception) as caught:
                store.get(ID)
            assert isinstance(caught.value, Exception)
            store.close()

    @pytest.mark.parametrize(
        ("begins", "goes_on"),
        [
            (b"VALUE {key} 0 349175808\r\n", b"x" * 65536),
            (b"VALUE {key} 0 349175808 1\r\n", b"x" * 65536),
            (b"", b"x" * 65536),
            (b"", b"VALUE {key} 0 1000\r\n" + b"x" * 1000 + b"\r\n"),
            (b"", b"VALUE {key} 0 1000 1\r\n" + b"x" * 1000 + b"\r\n"),
            (b"", b"VALUE {key} 0 -2000000000\r\n"),
            (b"SERVER_ERROR ", b"x" * 65536),
            (b"VALUE " + b"x" * 65536 + b" 0 3\r\n", b"abc\r\nEND\r\n"),
            (b"VALUE {key} 0 " + b"9" * 5000 + b"\r\n", b"x\r\n"),
            (b"", b"STORED\r\n" * 5000),
        ],
        ids=[
            "value",
            "value of gets",
            "line",
            "values",
            "values of gets",
            "negative",
            "error",
            "key",
            "digits",
            "answers",
        ],
    )
    def test_an_answer_without_end_is_left(self, begins, goes_on, monkeypatch):
        """hazard: the length that is announced is believed, and one lookup reads 333 MiB."""

        def talk(sock):
            with contextlib.suppress(OSError):
                key = sock.recv(65536).split()[1]
                sock.sendall(begins.replace(b"{key}", key))
                while goes_on:
                    sock.sendall(goes_on.replace(b"{key}", key))
                sock.recv(1)

        received, recv = [], memcached_module._Wire.recv

        def counted(wire, size):
            data = recv(wire, size)
            received.append(len(data))
            return data

        monkeypatch.setattr(memcached_module._Wire, "recv", counted)
        monkeypatch.setattr(memcached_module, "DEAD_SECONDS", 0)
        with talking(talk) as address:
            store = MemcachedStore([address], timeout=PATIENCE)
            for call in (
                lambda: store.get(ID),
                lambda: store.gets("v"),
                lambda: store.add("v", b"", 60),
                lambda: store.cas("v", b"", b"1", 60),
                lambda: store.put(ID, SESSION, 60),
                lambda: store.remove(ID),
                lambda: next(iter(store.write_many([(each, SESSION, 60) for each in MANY])))[1],
            ):
                received.clear()
                try:
                    error = call()
                except Exception as raised:
                    error = raised
                    assert len(str(error)) <= 600, "what is logged of it is short"
                else:
                    assert isinstance(error, Exception | bool | None)
                assert sum(received) <= memcached_module.MAX_ANSWER
                assert not any(node._idle for node in store._cluster()._nodes) or error in (True, None)
            store.close()

    def test_a_node_that_answers_without_end_is_left_out_for_a_while(self):
        asked = []

        def talk(sock):
            with contextlib.suppress(OSError):
                asked.append(sock.recv(65536))
                while True:
                    sock.sendall(b"x" * 65536)

        with talking(talk) as address:
            store = MemcachedStore([address], timeout=PATIENCE)
            with pytest.raises(OSError, match="more than it can have been told to keep"):
                store.get(ID)
            with pytest.raises(ConnectionError, match="all nodes are down"):
                store.get(ID)
            assert len(asked) == 1
            store.close()

    def test_the_longest_value_that_a_node_keeps_is_read(self, memcached):
        store = MemcachedStore([(memcached.host, memcached.port)], timeout=PATIENCE)
        value = bytes(memcached_module.MAX_VALUE - 1000)  # as memcached counts the item's key and header too
        store.put(ID, value, 60)
        assert store.get(ID) == value
        with pytest.raises(MemcacheServerError, match="object too large"):
            store.put(OTHER, bytes(memcached_module.MAX_VALUE), 60)
        assert store.get(ID) == value
        store.close()

    def test_a_fork_does_not_share_connections(self, memcached):
        """hazard: two processes read each other's answers from one socket."""
        store = MemcachedStore([(memcached.host, memcached.port)])
        store.put(ID, SESSION, 60)
        before = int(memcached.stats()["total_connections"])
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                gevent.reinit()
                status = 0 if store.get(ID) == SESSION else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert store.get(ID) == SESSION
        assert int(memcached.stats()["total_connections"]) == before + 2  # the child's, and that of stats itself
        store.close()


class Gated:
    """A memcached in threads, one for each connection, that answers a request once it may. A fork has none of it."""

    def __init__(self):
        self.heard, self.asked, self.may_answer = [], threading.Semaphore(0), threading.Event()
        self.ended = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                heard = bytearray()
                self.heard.append(heard)
                threading.Thread(target=self._talk, args=(sock, heard), daemon=True).start()

    def _talk(self, sock, heard):
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                heard += data
                lines = data.count(b"\n")
                self.asked.release()
                assert self.may_answer.wait(PATIENCE)
                if data.startswith(b"get "):
                    sock.sendall(b"".join(b"VALUE %b 0 3\r\nyes\r\nEND\r\n" % key for key in data.split()[1::2]))
                else:
                    sock.sendall(b"DELETED\r\n" * lines)
        self.ended.release()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def answered(function, *arguments):
    """What it returns or raises."""
    try:
        return function(*arguments)
    except Exception as error:
        return error


def forked(work):
    """The exit status of a child that has done it. Nothing else runs in this process meanwhile."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            gevent.reinit()
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class TestFork:
    """A child has a copy of each greenlet that waits for a node, and of its socket; the answer is the parent's."""

    @pytest.fixture
    def node(self):
        made = Gated()
        yield made
        made.may_answer.set()
        made.close()

    @pytest.fixture
    def store(self, node):
        made = MemcachedStore([node.address], timeout=PATIENCE, pool=2)
        yield made
        made.close()

    def test_answers_on_their_way_are_the_parents(self, node, store):
        """hazard: the child's copy reads the answer, and the parent waits in vain or reads another's."""
        jobs = [gevent.spawn(answered, store.get, session_id) for session_id in MANY[:5]]
        for _ in range(2):  # three wait for a place
            gevent.get_hub().threadpool.apply(node.asked.acquire)

        def child():
            gevent.joinall(jobs, timeout=PATIENCE)
            failed = [isinstance(job.value, OSError) for job in jobs]
            return 0 if failed == [True, True, False, False, False] else 2

        node.may_answer.set()
        assert forked(child) == 0
        assert [job.get(timeout=PATIENCE) for job in jobs] == [b"yes"] * 5
        assert b"".join(node.heard[:2]).count(b"get ") == 5
        assert b"".join(node.heard).count(b"get ") == 8, "who had not asked yet has asked on connections of the child"

    def test_connections_that_lie_idle_are_closed_in_the_child(self, node, store):
        """hazard: a worker keeps its parent's connections open for as long as it lives."""
        node.may_answer.set()
        assert store.get(ID) == b"yes"

        def child():
            store.close()
            return 0 if store.get(ID) == b"yes" else 2

        assert forked(child) == 0
        assert store.get(ID) == b"yes"
        assert len(node.heard) == 2
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)  # a worker that does nothing with the store
            os._exit(0)
        os.close(reading)
        assert node.ended.acquire(timeout=PATIENCE)  # the first child's own
        store.close()
        assert node.ended.acquire(timeout=PATIENCE), "the parent has closed it, and it is closed"
        os.close(writing)
        os.waitpid(pid, 0)

    def test_what_is_being_sent_is_sent_by_the_parent(self, node, store):
        """hazard: both send the rest of a batch that the socket had no room for."""
        ids = [number.to_bytes(32, "big") * 3 for number in range(100_000)]
        job = gevent.spawn(lambda: list(store.write_many([(session_id, None, 0) for session_id in ids])))
        gevent.get_hub().threadpool.apply(node.asked.acquire)

        def child():
            job.join(PATIENCE)
            return 0 if job.ready() else 2

        node.may_answer.set()
        assert forked(child) == 0
        assert len(job.get(timeout=PATIENCE)) == len(ids)
        (heard,) = node.heard
        keys = [line.rpartition(b":")[2] for line in heard.splitlines()]
        assert keys == [session_id.hex().encode() for session_id in ids]

    def test_a_connection_that_is_being_made_is_the_parents(self, node, store, monkeypatch):
        inside, go_on = Event(), Event()

        class Slow(gevent.socket.socket):
            def connect(self, address):
                super().connect(address)
                inside.set()
                go_on.wait()

        monkeypatch.setattr(gevent.socket, "socket", Slow)
        job = gevent.spawn(answered, store.get, ID)
        assert inside.wait(PATIENCE)

        def child():
            go_on.set()
            job.join(PATIENCE)
            return 0 if isinstance(job.value, OSError) else 2

        node.may_answer.set()
        assert forked(child) == 0
        go_on.set()
        assert job.get(timeout=PATIENCE) == b"yes"
        assert b"".join(node.heard).count(b"get ") == 1


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


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("", "unknown kind"),
            ("redis", "unknown kind"),
            ("sqlite:///x", "known are memory://, memcached://"),
            ("memory:", "unknown kind"),
            ("memory://host", "memory:// has no host"),
            ("memory://?entries=0", "entries=0"),
            ("memory://?entries=1.5", "entries=1.5"),
            ("memory://?bytes=nan", "bytes=nan"),
            ("memory://?size=3", "unknown option size; known are entries, bytes"),
            ("memory://?entries", "is not a query"),
            ("memory://?entries=1&entries=2", "given 2 times"),
            ("memcached://", "is not HOST:PORT"),
            ("memcached://h:0?insecure=1", "'h:0'"),
            ("memcached://h:99999?insecure=1", "'h:99999'"),
            ("memcached://h:x?insecure=1", "'h:x'"),
            ("memcached://h,,i?insecure=1", "'' is not"),
            ("memcached://::1?insecure=1", "[::1]:11211"),
            ("memcached://[::1?insecure=1", "'[::1'"),
            ("memcached://h/path?insecure=1", "'h/path'"),
            ("memcached://h", "in clear; add secret_file"),
            ("memcached://h?insecure=0", "in clear"),
            ("memcached://h?insecure=yes", "insecure=yes"),
            ("memcached://h?insecure=1&secret_file={secret}", "both"),
            ("memcached://h?secret_file=/nowhere/key", "/nowhere/key"),
            ("memcached://h?secret_file={short}", "has 5 bytes"),
            ("memcached://h?insecure=1&timeout=-1", "timeout=-1"),
            ("memcached://h?insecure=1&timeout=inf", "timeout=inf"),
            ("memcached://h?insecure=1&pool=0", "pool=0"),
            ("memcached://h?insecure=1&context=a%20b", "context 'a b'"),
            ("memcached://h?insecure=1&retries=1", "unknown option retries"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, url, said, secret_file, tmp_path):
        short = tmp_path / "short"
        short.write_bytes(b"short")
        with pytest.raises(ConfigurationError) as caught:
            open_store(url.format(secret=secret_file, short=short))
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_options_arrive(self, secret_file, tmp_path):
        memory = open_store("memory://?entries=7&bytes=9000")
        assert (memory.max_entries, memory.max_bytes) == (7, 9000)
        second = tmp_path / "second.key"
        second.write_bytes(SECOND)
        port = free_port()
        sealed = open_store(f"memcached://h1,[::1]:{port}/?secret_file={secret_file}&secret_file={second}&pool=2")
        assert isinstance(sealed, SealedStore)
        assert sealed.store._nodes == (("h1", 11211), ("::1", port))
