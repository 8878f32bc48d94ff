"""A fork while MemcachedStore is in use."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import gevent
import pytest
from gevent.event import Event

from greentls.stores.memcached import MemcachedStore
from tests.stores.samples import ID, MANY, answered
from tests.support.forks import forked
from tests.support.helpers import PATIENCE, wait_until


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
        jobs = []
        for session_id in MANY[:5]:
            jobs.append(gevent.spawn(answered, store.get, session_id))
            gevent.sleep(0)
            wait_until(lambda: store._cluster()._nodes[0]._gathering is None or gevent.sleep(0), "it to ask alone")
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
