"""What one peer that is not known yet makes us allocate, counted by malloc(): OpenSSL's memory, and cffi's."""

from __future__ import annotations

import gc

from greentls.core.config import VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.openssl.pump import RECEIVE_SIZE
from greentls.wire.registry import ContentType
from tests.support.helpers import allocated
from tests.support.pairs import TLS12, TLS13, attempt, both_versions, client, client_context, server_context
from tests.support.sealer import hostile

PEERS = 20
MOST = 400_000  # bytes; OpenSSL takes a hello of 128 KiB and a chain of 100 KiB, and a buffer doubles as it grows


def records(message):
    fragments = [message[start : start + 16384] for start in range(0, len(message), 16384)]
    return b"".join(b"\x16\x03\x03" + len(each).to_bytes(2, "big") + each for each in fragments)


def cost_of_each(make):
    """Bytes for each Connection that make() makes."""
    make()  # what is made once
    gc.collect()
    before = allocated()
    kept = [make() for _ in range(PEERS)]
    cost = (allocated() - before) / len(kept)
    assert cost > 1000  # or it is not measured
    return cost


def feed(connection, stream, step):
    """As a stream does it: so much at once, and each time a look at it."""
    for start in range(0, len(stream), RECEIVE_SIZE):
        connection.receive_data(stream[start : start + RECEIVE_SIZE])
        assert attempt(step) is None
    assert not connection.dead
    return connection


@both_versions
def test_a_hello_that_does_not_end(pki, version):
    context = server_context(pki, version)
    endless = records(b"\1\1\xff\0" + b"\3\3" + bytes(0x1FF00 - 3))  # its last byte does not come

    def make():
        connection = Connection(context)
        return feed(connection, endless, connection.do_handshake)

    assert cost_of_each(make) < MOST


def test_a_client_certificate_that_does_not_end(pki):
    context = server_context(pki, TLS12, trust=TrustAnchors(files=(pki.ca_file,)), verify_mode=VERIFY_PEER)
    asking = client_context(pki, TLS12)
    endless = records(b"\x0b\1\x89\0" + bytes(0x18900 - 1))

    def make():
        server, peer = Connection(context), client(asking)
        attempt(peer.do_handshake)
        server.receive_data(peer.data_to_send())
        attempt(server.do_handshake)
        server.data_to_send()
        return feed(server, endless, server.do_handshake)

    assert cost_of_each(make) < MOST


def test_a_ticket_that_does_not_end(pki):
    endless = b"\4\1\0\0" + bytes(0x10000 - 1)

    def make():
        victim, _, sealer = hostile(pki, TLS13, False)
        fragments = [endless[start : start + 16384] for start in range(0, len(endless), 16384)]
        return feed(victim, b"".join(sealer.record(ContentType.handshake, each) for each in fragments), victim.read)

    assert cost_of_each(make) < MOST


@both_versions
def test_a_peer_that_has_said_nothing(pki, version):
    context = server_context(pki, version)
    assert cost_of_each(lambda: Connection(context)) < 40_000
