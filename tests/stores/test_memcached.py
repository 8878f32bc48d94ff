"""MemcachedStore: what it keeps where, nodes that are down, slow or wrong, and its connections."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import textwrap
import threading
import time

import gevent
import pytest
from pymemcache.exceptions import MemcacheServerError

from greentls.stores import memcached as memcached_module
from greentls.stores import open_store
from greentls.stores.memcached import RELATIVE_LIMIT, MemcachedStore
from tests.stores.samples import ID, MANY, OTHER, SESSION, read_all, talking
from tests.support.forks import forked
from tests.support.helpers import PATIENCE, wait_until


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

    def test_add_does_not_move_to_another_node_and_cas_does(self, memcacheds, take_nodes_back):
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
        take_nodes_back()
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
        gevent.joinall([gevent.spawn(store.get, ID) for _ in range(20)], timeout=PATIENCE, raise_error=True)
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
        with gevent.Timeout(PATIENCE):
            while True:
                try:
                    assert store.get(ID) is None
                    break
                except Exception as error:
                    assert "down" in str(error)
                    gevent.sleep(0.1)
        store.close()

    def test_of_two_nodes_the_dead_one_is_skipped_and_taken_back(self, memcacheds, secret_file, take_nodes_back):
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
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
        assert sum(job.value == SESSION for job in jobs) == kept
        assert failures <= 40 - kept
        for session_id in ids:  # all of them on the node that is left
            store.put(session_id, SESSION, 60)
        assert [store.get(session_id) for session_id in ids] == [SESSION] * 40
        second.restart()
        take_nodes_back()
        with gevent.Timeout(PATIENCE):
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
        store = MemcachedStore([(memcached.host, memcached.port)], timeout=0.2, pool=1)
        store.put(ID, SESSION, 60)
        job = gevent.spawn(store.get, ID)
        wait_until(lambda: store._cluster()._nodes[0]._places.locked() or gevent.sleep(0), "it to ask")
        gevent.sleep(0)  # it has asked, and waits
        time.sleep(0.4)
        assert job.get(timeout=PATIENCE) == SESSION
        store.close()

    def test_more_greenlets_than_the_pool_wait_for_their_turn(self, memcached):
        store = MemcachedStore([(memcached.host, memcached.port)], pool=3)
        jobs = [gevent.spawn(store.get, ID) for _ in range(100)]
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
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

    def test_a_node_that_answers_without_end_is_left_out_for_a_while(self, take_nodes_back):
        asked = []

        def talk(sock):
            with contextlib.suppress(OSError):
                asked.append(sock.recv(65536))
                while True:
                    sock.sendall(b"x" * 65536)

        with talking(talk) as address:
            store = MemcachedStore([address], timeout=PATIENCE)
            with pytest.raises(OSError, match="more than it was ever given to keep"):
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

    def test_answers_that_come_in_crumbs_are_put_together(self, memcached, monkeypatch):
        recv, store = memcached_module._Wire.recv, MemcachedStore([(memcached.host, memcached.port)], timeout=PATIENCE)
        monkeypatch.setattr(memcached_module._Wire, "recv", lambda wire, size: recv(wire, 1))
        assert store.get(ID) is None
        store.put(ID, SESSION, 60)
        assert store.get(ID) == SESSION
        store.close()

    def test_a_fork_does_not_share_connections(self, memcached):
        """hazard: two processes read each other's answers from one socket."""
        store = MemcachedStore([(memcached.host, memcached.port)])
        store.put(ID, SESSION, 60)
        before = int(memcached.stats()["total_connections"])
        assert forked(lambda: 0 if store.get(ID) == SESSION else 2) == 0
        assert store.get(ID) == SESSION
        assert int(memcached.stats()["total_connections"]) == before + 2  # the child's, and that of stats itself
        store.close()
