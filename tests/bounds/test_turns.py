"""How long a stream keeps the hub to itself: counted in reads and in calls of its socket, never timed.

The socket is one whose peer is always faster: recv_into() always has something, and send() takes everything.
"""

from __future__ import annotations

import _socket
import socket

import gevent
import pytest
from gevent.socket import wait_read

from greentls.core.connection import Connection
from greentls.errors import WouldBlock
from greentls.openssl.pump import PER_UNIT, RECORD_SIZE, TURN
from greentls.stream import FLIGHT_SIZE, TLSStream
from tests.support.fake_sockets import FakeSocket, fakes
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.support.pairs import TLS12, TLS13, attempt, client, client_context, server_context
from tests.support.sealer import hostile


class FastPeer(_socket.socket):
    """source: what it has to say, at most piece bytes at a time. calls: of recv_into() and send()."""

    source = b""
    piece = 65536
    calls = 0

    def recv_into(self, buffer, size=0):
        self.calls += 1
        if not self.source:
            raise BlockingIOError
        data, self.source = self.source[: self.piece], self.source[self.piece :]
        buffer[: len(data)] = data
        return len(data)

    recv = FakeSocket.recv

    def send(self, data, flags=0):
        self.calls += 1
        return len(data)


@pytest.fixture
def fast_peer():
    one, other = socket.socketpair()
    sock = FastPeer(one.family, one.type, one.proto, fileno=one.detach())
    sock.setblocking(False)
    other.send(b"x")  # whoever polls finds it readable
    with fakes() as known:
        yield known(sock)
    sock.close()
    other.close()


@pytest.fixture(autouse=True)
def in_time():
    """A read that waits for a record that is there already waits for ever, and the siblings keep the hub busy."""
    with gevent.Timeout(PATIENCE):
        yield


class Sibling:
    """Another greenlet of the hub's, which never waits longer than for its turn: for that, or for a socket that can be
    read, of which libev may tell behind one more turn of the other's. longest: the greatest growth of a count between
    two of its turns."""

    def __init__(self, count, sock=None):
        self._count, self._sock = count, sock
        self._last = self.longest = 0
        self.turns = 0
        self._greenlet = gevent.spawn(self._run)
        gevent.sleep(0)

    def _run(self):
        while True:
            self._look()
            self.turns += 1
            gevent.sleep(0) if self._sock is None else wait_read(self._sock.fileno())

    def _look(self):
        now = self._count()
        self.longest, self._last = max(self.longest, now - self._last), now

    def stop(self):
        self._look()
        self._greenlet.kill()
        return self.longest


each_timeout = pytest.mark.parametrize("timeout", [None, PATIENCE], ids=["for ever", "timeout"])


@each_timeout
@pytest.mark.parametrize("waits", ["for its turn", "for a socket"])
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("size, number", [(1, 3000), (16384, 300)])
def test_a_fast_sender_leaves_others_their_turns(pki, fast_peer, timeout, version, size, number, waits):
    """hazard: a loop of reads never looks at the hub as long as the peer is faster; or only at greenlets that are ready
    already, and at no socket."""
    victim, _, sealer = hostile(pki, version, True)
    fast_peer.source = b"".join(sealer.data(bytes(size)) for _ in range(number))
    stream = TLSStream(fast_peer, victim, timeout)
    reads = 0
    sibling = Sibling(lambda: reads, fast_peer if waits == "for a socket" else None)
    for _ in range(number):
        assert len(stream.read(65536)) == size
        reads += 1
    assert sibling.stop() <= 2 * TURN


def test_what_comes_with_the_data_counts_as_well(pki, fast_peer):
    """hazard: a read of one byte works through as many KeyUpdates as are allowed before it."""
    victim, _, sealer = hostile(pki, TLS13, True)
    fast_peer.source = b"".join(
        b"".join(sealer.key_update(requested=False) for _ in range(30)) + sealer.data(b"x") for _ in range(300)
    )
    stream = TLSStream(fast_peer, victim, PATIENCE)
    reads = 0
    sibling = Sibling(lambda: reads)
    for _ in range(300):
        assert stream.read(65536) == b"x"
        reads += 1
    assert sibling.stop() <= TURN // 30 + 1


def test_records_without_data_leave_others_their_turns(pki, fast_peer):
    """hazard: as before, within one operation: a handshake's messages in crumbs."""
    hello = client(client_context(pki))
    attempt(hello.do_handshake)
    record = hello.data_to_send()
    crumbs = b"".join(b"\x16\x03\x01\x00\x01" + bytes([each]) for each in record[5:])
    fast_peer.source, fast_peer.piece = crumbs, 20
    stream = TLSStream(fast_peer, Connection(server_context(pki)), PATIENCE)
    sibling = Sibling(lambda: fast_peer.calls)
    job = gevent.spawn(stream.do_handshake)
    wait_for(lambda: not fast_peer.source, "all to be read")
    assert sibling.stop() <= TURN + 1  # which finds nothing
    job.kill()


def test_hello_requests_in_the_handshake_leave_others_their_turns(pki, fast_peer):
    """hazard: OpenSSL passes over them without an end, and counts none; the handshake's deadline has to be met."""
    fast_peer.source = b"\x16\3\3\0\4\0\0\0\0" * 100_000
    stream = TLSStream(fast_peer, client(client_context(pki)), PATIENCE)
    sibling = Sibling(lambda: fast_peer.calls)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0):
        stream.do_handshake()
    job = gevent.spawn(stream.do_handshake)
    wait_for(lambda: not fast_peer.source, "all to be read")
    assert sibling.stop() <= TURN // (fast_peer.piece // PER_UNIT) + 2  # the hello, and what finds nothing
    job.kill()


def test_a_deadline_is_met_while_records_come(pki, fast_peer):
    """hazard: it fires when the flood is over."""
    victim, _, sealer = hostile(pki, TLS13, True)
    record = sealer.data(bytes(16384))
    fast_peer.source, fast_peer.piece = record[:-1], 1  # a record that never ends
    stream = TLSStream(fast_peer, victim, PATIENCE)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0):
        stream.read(100)
    assert fast_peer.source


def test_a_stream_that_must_not_wait_does_not(pki, fast_peer):
    """Its caller owns the loop; it gets WouldBlock where others are left their turn within an operation."""
    victim, _, sealer = hostile(pki, TLS13, True)
    fast_peer.source = b"".join(sealer.data(b"x") for _ in range(1000))
    stream = TLSStream(fast_peer, victim, 0.0)
    sibling = Sibling(lambda: 0)
    turns = sibling.turns
    for _ in range(1000):
        assert stream.read(10) == b"x"
    fast_peer.source, fast_peer.piece = sealer.data(bytes(16384)), 1
    with pytest.raises(WouldBlock):
        stream.read(10)
    assert sibling.turns == turns
    assert len(fast_peer.source) > 16000
    sibling.stop()


def test_who_must_not_wait_comes_back_and_goes_on(pki, fast_peer):
    """hazard: once the budget is spent it stays spent, since nobody waits, and nothing is received any more."""
    hello = client(client_context(pki))
    attempt(hello.do_handshake)
    fast_peer.source, fast_peer.piece = hello.data_to_send(), 1
    stream = TLSStream(fast_peer, Connection(server_context(pki)), 0.0)
    for _ in range(len(fast_peer.source) // TURN + 1):
        with pytest.raises(WouldBlock):
            stream.do_handshake()
    assert not fast_peer.source


@pytest.mark.parametrize("waits", ["for its turn", "for a socket"])
@pytest.mark.parametrize("how", ["write", "send"])
def test_a_fast_receiver_leaves_others_their_turns(pki, fast_peer, how, waits):
    """hazard: a loop of writes never looks at the hub as long as the peer is faster."""
    victim, _, _ = hostile(pki, TLS13, True)
    stream = TLSStream(fast_peer, victim, PATIENCE)
    sibling = Sibling(lambda: fast_peer.calls, fast_peer if waits == "for a socket" else None)
    if how == "write":
        stream.write(bytes(100 * FLIGHT_SIZE))
    else:
        for _ in range(1000):
            stream.send(bytes(1000))
    records = FLIGHT_SIZE // RECORD_SIZE if how == "write" else 1
    assert sibling.stop() <= 2 * (TURN // records + 1)
