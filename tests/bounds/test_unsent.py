"""What is kept for a peer that does not read."""

from __future__ import annotations

import _socket
import socket

import gevent
import pytest

from greentls.openssl.pump import MAX_UNSENT, RECEIVE_SIZE, SEND_SIZE
from greentls.stream import _SEND, FLIGHT_SIZE, TLSStream
from greentls.stream import _awaited as awaited
from tests.support.helpers import PATIENCE
from tests.support.pairs import TLS13
from tests.support.sealer import hostile


@pytest.fixture
def ends():
    pair = []
    for each in socket.socketpair():
        pair.append(_socket.socket(each.family, each.type, each.proto, fileno=each.detach()))
        pair[-1].setblocking(False)
    yield pair
    for each in pair:
        each.close()


def say(sock, data, enough):
    """As much of it as the other side takes until that has had enough."""
    with gevent.Timeout(PATIENCE):
        while data and not enough():
            try:
                data = data[sock.send(data[:65536]) :]
            except BlockingIOError:
                pass
            gevent.sleep(0)
    return data


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_answers_do_not_pile_up_behind_a_blocked_writer(pki, ends, server_side):
    """hazard: the reader goes on answering KeyUpdates, as many bytes as come, while its peer takes none."""
    victim, _, sealer = hostile(pki, TLS13, server_side)
    stream = TLSStream(ends[0], victim, PATIENCE)
    flood = b"".join(sealer.key_update() + sealer.data(b"x") for _ in range(12000))
    writer = gevent.spawn(stream.write, bytes(10_000_000))
    gevent.sleep(0)

    def read():
        while stream.read(100):
            pass

    reader = gevent.spawn(read)
    rest = say(ends[1], flood, lambda: (stream, _SEND) in awaited)
    assert not writer.ready()
    assert not reader.ready()
    assert rest, "the reader does not wait"
    assert victim.unsent <= SEND_SIZE + MAX_UNSENT + RECEIVE_SIZE
    gevent.killall([writer, reader])


def test_writers_wait_for_their_turn_before_they_encrypt(pki, ends):
    """hazard: each of a hundred writers keeps a flight for a peer that takes none."""
    victim, _, _ = hostile(pki, TLS13, True)
    stream = TLSStream(ends[0], victim, PATIENCE)
    writers = [gevent.spawn(stream.write, bytes(FLIGHT_SIZE)) for _ in range(100)]
    gevent.sleep(0)
    gevent.sleep(0)
    assert victim.unsent <= SEND_SIZE
    gevent.killall(writers)
