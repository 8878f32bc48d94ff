"""A fleet, its clients, an attacker who copies what they send, and memcached nodes that do all that they may and more.

Everything is in one hub, and what happens is drawn from one seed. The nodes keep their promise in one thing: what add()
has stored is there until the node is restarted. Else a node delays, hangs, cuts its answers short, closes, pours bytes,
answers with garbage, with another key's value, with an old one or a damaged one, and forgets all; and between a worker
and a node there may be no way. The clocks of the workers differ, and one at a time may be years wrong.

What must hold meanwhile:

- no handshake of a client fails,
- no first flight is accepted twice, unless the node that knew it was restarted in between,
- a key does not seal for longer than a rotation, beyond the time for which its worker could not look at the store,
- nothing that a store hands out is anything else than what was put there under this name, and nothing leaves a worker
  that is not sealed,
- and when all is well again the fleet agrees, and resumes.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import ssl
from collections import Counter, defaultdict

import gevent
import gevent.socket
from gevent.server import StreamServer

from greentls.core.connection import Connection
from greentls.errors import WantRead
from greentls.stores.memcached import MemcachedStore
from greentls.stores.sealed import SealedStore
from greentls.tickets import AHEAD, ANNOUNCE, LIFETIME, MAX_KEYS, SKEW, TicketKeys
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import TLS_VERSIONS, contexts, outcome

NODES, WORKERS, VISITS = 2, 4, 6
TIMEOUT = 0.03  # seconds for a node's answer
YEARS = 10 * 365 * 86_400
ROTATION = LIFETIME / 4
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
FAULTS = ["delay", "garbage", "cut", "hang", "close", "unheard", "flood", "lie"]
SECRET = os.urandom(32)


class Node:
    """A memcached, and the ways to it: a port for each worker."""

    def __init__(self, chaos):
        self.chaos, self.data, self.old = chaos, {}, defaultdict(list)
        self.cas = self.restarts = 0
        self.connections = set()  # (worker, greenlet)
        self.cut_off = set()  # workers
        self.ways = []
        for worker in range(WORKERS):
            way = StreamServer(("127.0.0.1", 0), lambda sock, _, worker=worker: self.talk(sock, worker))
            way.start()
            self.ways.append(way)

    def talk(self, sock, worker):
        connection = worker, gevent.getcurrent()
        self.connections.add(connection)
        try:
            with sock, contextlib.suppress(OSError):
                buffer = bytearray()
                while worker not in self.cut_off:
                    while (end := buffer.find(b"\r\n")) < 0:
                        buffer += self.received(sock)
                    words = bytes(buffer[:end]).split()
                    del buffer[: end + 2]
                    value = b""
                    if words[0] in (b"set", b"add", b"cas"):
                        size = int(words[4])
                        while len(buffer) < size + 2:
                            buffer += self.received(sock)
                        value = bytes(buffer[:size])
                        del buffer[: size + 2]
                    if not self.answer(sock, worker, words, value):
                        break
        finally:
            self.connections.discard(connection)

    def received(self, sock):
        data = sock.recv(65536)
        if not data:
            raise ConnectionError
        return data

    def answer(self, sock, worker, words, value):
        """False: closes the connection."""
        fault = self.chaos.fault(worker)
        if fault == "unheard":
            return False
        answer = self.do(words[0], words[1], value, words[5:], fault == "lie")
        if fault == "delay":
            gevent.sleep(self.chaos.random.uniform(0, 2 * TIMEOUT))
        elif fault == "garbage":
            pieces = [
                answer[:5],
                os.urandom(9),
                b"\r\n",
                b"VALUE ",
                words[1],
                b" 0 7\r\n",
                b"END\r\n",
                b"ERROR\r\n",
                b" -1",
            ]
            answer = b"".join(self.chaos.random.choices(pieces, k=5))
        elif fault == "cut":
            answer = answer[: self.chaos.random.randrange(len(answer))]
        elif fault == "hang":
            sock.recv(1)
        elif fault == "flood":
            sock.sendall(b"VALUE " + words[1] + b" 0 1000000000\r\n")
            while True:
                sock.sendall(bytes(65536))
        if fault != "close":
            sock.sendall(answer)
        return fault not in ("cut", "close", "hang")

    def do(self, command, key, value, token, lie):
        found = self.data.get(key)
        if command in (b"get", b"gets"):
            if lie:
                found = self.lie(key, found)
            if found is None:
                return b"END\r\n"
            more = b" %d" % found[1] if command == b"gets" else b""
            return b"VALUE %b 0 %d%b\r\n%b\r\nEND\r\n" % (key, len(found[0]), more, found[0])
        if command == b"delete":
            return b"DELETED\r\n" if self.data.pop(key, None) else b"NOT_FOUND\r\n"
        if command == b"add" and found:
            return b"NOT_STORED\r\n"
        if command == b"cas" and (found is None or found[1] != int(token[0])):
            return b"EXISTS\r\n" if found else b"NOT_FOUND\r\n"
        if not value.startswith(self.chaos.seal):
            self.chaos.broken.append(f"{command} {key}: {value[:20]!r} is not sealed")
        self.cas += 1
        self.data[key] = value, self.cas
        self.old[key].append(value)
        return b"STORED\r\n"

    def lie(self, key, found):
        kind = self.chaos.random.choice(["another's", "old", "damaged", "none"])
        if kind == "another's" and self.data:
            return self.data[self.chaos.random.choice(list(self.data))]
        if kind == "old" and self.old[key]:
            return self.chaos.random.choice(self.old[key]), self.cas
        if kind == "damaged" and found:
            value = bytearray(found[0])
            value[self.chaos.random.randrange(len(value))] ^= 1 << self.chaos.random.randrange(8)
            return bytes(value), found[1]
        return None

    def hang_up(self, workers):
        for worker, greenlet in list(self.connections):
            if worker in workers:
                greenlet.kill(block=False)

    def restart(self):
        self.data.clear()
        self.restarts += 1
        self.hang_up(range(WORKERS))

    def close(self):
        for way in self.ways:
            way.stop(timeout=0)


class Watched:
    """A store, and what it may hand out: what some worker has put there."""

    name, shared, private = "watched", True, True

    def __init__(self, store, chaos):
        self.store, self.chaos = store, chaos

    def get(self, session_id):
        return self.seen(session_id, self.store.get(session_id))

    def put(self, session_id, session, lifetime):
        self.chaos.put[session_id].add(session)
        self.store.put(session_id, session, lifetime)

    def remove(self, session_id):
        self.store.remove(session_id)

    def write_many(self, changes):
        for session_id, session, _ in changes:
            self.chaos.put[session_id].add(session)
        return self.store.write_many(changes)

    def gets(self, name):
        value, token = self.store.gets(name)
        return self.seen(name, value), token

    def cas(self, name, value, token, lifetime):
        self.chaos.put[name].add(value)
        return self.store.cas(name, value, token, lifetime)

    def add(self, name, value, lifetime):
        self.chaos.put[name].add(value)
        return self.store.add(name, value, lifetime)

    def seen(self, name, value):
        if value is not None and value not in self.chaos.put[name]:
            self.chaos.broken.append(f"{name!r}: {value[:20]!r} was put there by nobody")
        return value

    def close(self):
        self.store.close()


class Worker:
    """One machine: a clock, a store, a server's context."""

    def __init__(self, chaos, number, server):
        self.chaos, self.number, self.context = chaos, number, server
        self.skew = chaos.random.uniform(-SKEW / 2, SKEW / 2)
        self.mad = 0.0
        memcached = MemcachedStore(
            [("127.0.0.1", node.ways[number].server_port) for node in chaos.nodes],
            connect_timeout=TIMEOUT,
            timeout=TIMEOUT,
            pool=4,
        )
        for index, node in enumerate(memcached._cluster()._nodes):
            node.name = b"node %d" % index  # of the same key all have the same home
        self.store = Watched(SealedStore(memcached, [SECRET], "chaos"), chaos)
        self.keys = None
        server.callback_timeout = 3 * TIMEOUT
        server.max_early_data, server.replay_guard = 1000, self.store
        if chaos.tickets:
            self.keys = server.ticket_keys = TicketKeys.shared(self.store, clock=lambda: self.clock)
        else:
            server.session_store = self.store
        self.agreed = [chaos.now]  # when it agreed with the others

    @property
    def clock(self):
        return self.chaos.now + self.skew + self.mad

    def look(self):
        """At the store, as each worker does in the background."""
        agreed = outcome(self.keys.refresh) is None
        if agreed and not self.mad:
            self.agreed.append(self.chaos.now)
        if agreed and self.keys._held[0].begins > self.clock + AHEAD:
            self.chaos.broken.append(f"worker {self.number}: keeps a key from the future")
        return agreed

    def check(self):
        """What its ticket keys must be."""
        held = self.keys._held
        sealing = self.keys.keys[0]
        since = self.chaos.now if self.mad else self.chaos.seals_since.setdefault(sealing, self.chaos.now)
        age = self.chaos.now - since
        # What it was told by then is in use. After a look that failed the keys that it holds are used on.
        told = [each for each in self.agreed if each <= self.chaos.now - ANNOUNCE - 2 * SKEW]
        allowed = ROTATION + ANNOUNCE + 2 * SKEW + self.chaos.now - max(told, default=-math.inf)
        if self.mad:
            self.agreed.clear()
        elif age > allowed:
            self.chaos.broken.append(f"worker {self.number}: seals with a key of {age:.0f} s; {allowed:.0f} allowed")
        begins = next(each.begins for each in self.keys._held if each.key is sealing)
        if begins > self.clock + AHEAD or len(held) > MAX_KEYS:
            self.chaos.broken.append(
                f"worker {self.number}: {len(held)} keys, sealing from {begins - self.clock:.0f} s on"
            )


class Chaos:
    """tickets: sessions are in tickets, and the store has their keys; else it has the sessions."""

    def __init__(self, pki, seed, tickets):
        self.seed, self.random, self.tickets = seed, random.Random(seed), tickets
        self.now = 1_800_000_000.0
        self.faults = defaultdict(float)  # worker: probability
        self.broken, self.put = [], defaultdict(set)
        self.seals_since = {}  # a key: when a worker whose clock is right sealed with it first
        self.counts = Counter()
        self.seal = SealedStore(Watched(None, self), [SECRET], "chaos")._seal("value", b"", b"")[:9]
        self.nodes = [Node(self) for _ in range(NODES)]
        self.clients = {version: contexts(pki, version)[0] for version in TLS_VERSIONS}
        self.sessions = defaultdict(list)  # by version
        self.workers = []
        for number in range(WORKERS):
            server = contexts(pki)[1]
            server.minimum_version, server.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
            self.workers.append(Worker(self, number, server))

    def fault(self, worker):
        return self.random.choice(FAULTS) if self.random.random() < self.faults[worker] else None

    # -- what happens --------------------------------------------------------------------------------------------------

    def change(self):
        """The weather, until the next round."""
        self.now += self.random.choice([1, 20, 60, 300, 1500])
        for worker in range(WORKERS):
            self.faults[worker] = self.random.choice([0, 0, 0.1, 0.5, 1])
        for node in self.nodes:
            node.cut_off = {worker for worker in range(WORKERS) if self.random.random() < 0.2}
            node.hang_up(node.cut_off)
            if self.random.random() < 0.05:
                node.restart()
        if self.random.random() < 0.2:
            for worker in self.workers:
                worker.mad = 0.0
            self.random.choice(self.workers).mad = self.random.choice([0, -YEARS, -86_400, 3600, YEARS])

    def heal(self):
        self.faults.clear()
        for node in self.nodes:
            node.cut_off = set()
            node.hang_up(range(WORKERS))
        for worker in self.workers:
            worker.skew = worker.mad = 0.0

    def round(self):
        self.change()
        jobs = [gevent.spawn(self.visit) for _ in range(VISITS)]
        if self.tickets:
            jobs += [gevent.spawn(worker.look) for worker in self.workers]
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
        if not all(job.ready() for job in jobs):
            self.broken.append("a handshake hangs")
        if self.tickets:
            for worker in self.workers:
                worker.check()

    def visit(self, worker=None):
        """A client comes, with a session perhaps and early data; and an attacker sends copies to others, or to the same
        worker. Returns whether it was a resumption."""
        version = self.random.choice(list(TLS_VERSIONS)) if worker is None else "1.3"
        session = self.random.choice(self.sessions[version] or [None])
        worker = worker or self.random.choice(self.workers)
        connection = Connection(self.clients[version].compile(False), server_hostname="localhost", session=session)
        if session is not None and session.max_early_data:
            connection.early_data = REQUEST
        with contextlib.suppress(WantRead):
            connection.do_handshake()
        flight = connection.data_to_send()
        restarts = sum(node.restarts for node in self.nodes)
        accepted, jobs = [], []
        if connection.early_data:
            jobs = [gevent.spawn(self.copy, self.random.choice(self.workers), flight, accepted) for _ in range(3)]
        server = gevent.spawn(outcome, self.serve, worker, pair := socketpair(), accepted)
        client = gevent.spawn(outcome, self.go_on, connection, pair[0], flight)
        gevent.joinall([server, client, *jobs], timeout=PATIENCE, raise_error=True)
        for end in (server.value, client.value):
            if isinstance(end, Exception) or end is None:
                self.broken.append(f"a handshake failed: {server.value!r}, {client.value!r}")
        for sock in pair:
            sock.close()
        restarts = sum(node.restarts for node in self.nodes) - restarts
        if len(accepted) > 1 + restarts:
            self.broken.append(f"early data was accepted {len(accepted)} times")
        resumed = connection.session_reused
        self.counts["resumed" if resumed else "full"] += 1
        self.counts["early data"] += len(accepted)
        self.counts["copies"] += len(jobs)
        self.sessions[version] = [*self.sessions[version][-20:], connection.session]
        return resumed

    def serve(self, worker, pair, accepted):
        with worker.context.wrap_socket(pair[1], server_side=True) as sock:
            if sock.early_data:
                accepted.append(worker)
                assert sock.recv(1000) == REQUEST
                sock.do_handshake()
            sock.sendall(b"hello")
            assert sock.recv(1000) == b"hello"
        return True

    def go_on(self, connection, sock, flight):
        """The client's part, from its first flight on."""
        sock.sendall(flight)
        while True:
            try:
                connection.do_handshake()
                break
            except WantRead:
                sock.sendall(connection.data_to_send())
                connection.receive_data(sock.recv(65536))
        sock.sendall(connection.data_to_send())
        while True:
            try:
                assert connection.read() == b"hello"
                break
            except WantRead:
                connection.receive_data(sock.recv(65536))
        connection.write(b"hello")
        sock.sendall(connection.data_to_send())
        return True

    def copy(self, worker, flight, accepted):
        here, there = socketpair()
        here.sendall(flight)
        here.shutdown(gevent.socket.SHUT_WR)
        with here, contextlib.suppress(OSError), worker.context.wrap_socket(there, server_side=True) as sock:
            if sock.early_data:
                accepted.append(worker)
        assert there.fileno() < 0

    # -- and its end ---------------------------------------------------------------------------------------------------

    def recover(self):
        """When all is well again, and nobody is in a hurry, the fleet agrees, and resumes."""
        self.heal()
        for worker in self.workers:
            assert worker.context.drain_sessions(PATIENCE)  # what is still under way may find its node dead
            worker.context.callback_timeout = PATIENCE
            for node in worker.store.store.store._cluster()._nodes:
                node.close()
                node._timeout = node._connect_timeout = PATIENCE
                node._down_until = 0.0
        if self.tickets:
            for worker in self.workers * 2:
                assert worker.look()
            assert len({frozenset(worker.keys.keys) for worker in self.workers}) == 1
        self.sessions.clear()
        assert not self.visit(self.workers[0])
        for worker in self.workers:
            assert all(each.context.drain_sessions(PATIENCE) for each in self.workers)
            assert self.visit(worker)

    def close(self):
        for worker in self.workers:
            worker.context.drain_sessions(PATIENCE)
            worker.store.close()
        for node in self.nodes:
            node.close()


def socketpair():
    pair = gevent.socket.socketpair()
    for sock in pair:
        sock.settimeout(PATIENCE)
    return pair


def run(pki, seed, tickets, rounds):
    """Returns what was counted. Raises AssertionError with the seed."""
    chaos = Chaos(pki, seed, tickets)
    try:
        for number in range(rounds):
            chaos.round()
            assert not chaos.broken, f"seed {seed}, tickets={tickets}, round {number}: " + "; ".join(chaos.broken)
        chaos.recover()
        assert not chaos.broken, f"seed {seed}, tickets={tickets}, at the end: " + "; ".join(chaos.broken)
    finally:
        chaos.close()
    return chaos.counts
