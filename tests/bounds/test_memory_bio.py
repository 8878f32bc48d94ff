"""wrap_bio(): its caller owns the loop and both MemoryBIOs; what one call does with what has come is bounded here."""

from __future__ import annotations

import ssl
from contextlib import suppress
from itertools import islice

import pytest

import greentls
from greentls.core.callbacks import MAX_MESSAGES_WITHOUT_DATA
from greentls.core.hooks import Hooks
from greentls.wire.record import MAX_HELLO_RECORDS
from tests.support.pairs import TLS13, attempt, client, client_context
from tests.support.sealer import Sealer

HELLO = b"\1\0\xff\xff\3\3" + bytes(0xFFFF)
CRUMBS = b"".join(b"\x16\3\1\0\1" + HELLO[n : n + 1] for n in range(30000))


@pytest.fixture
def server(pki):
    """(an SSLObject, its incoming and outgoing MemoryBIO)"""
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context.wrap_bio(incoming, outgoing, server_side=True), incoming, outgoing


def test_a_handshake_in_crumbs_is_not_worked_through(server):
    """hazard: each record takes microseconds in Python, and the caller has fed a quarter of a MiB of them at once."""
    sslobj, incoming, outgoing = server
    incoming.write(CRUMBS)
    with pytest.raises(ssl.SSLError, match="records"):
        sslobj.do_handshake()
    assert incoming.pending >= len(CRUMBS) - 6 * (MAX_HELLO_RECORDS + 1)
    assert outgoing.read()[0] == 21
    with pytest.raises(ssl.SSLError, match="records"):
        sslobj.do_handshake()


def test_a_flood_of_key_updates_is_not_worked_through(pki, server):
    sslobj, incoming, outgoing = server
    secrets = []
    spy = Hooks(keylog=lambda connection, line: secrets.append(line))
    peer = client(client_context(pki, TLS13, hooks=spy))
    while not (peer.established and sslobj.version()):
        attempt(peer.do_handshake)
        incoming.write(peer.data_to_send())
        with suppress(ssl.SSLWantReadError):
            sslobj.do_handshake()
        if flight := outgoing.read():
            peer.receive_data(flight)
    sealer = Sealer(peer, secrets)
    for _ in range(10):
        incoming.write(b"".join(sealer.key_update() for _ in range(30)) + sealer.data(b"data"))
        assert sslobj.read() == b"data"
    flood = [sealer.key_update() for _ in range(500)]
    incoming.write(b"".join(flood))
    with pytest.raises(ssl.SSLError, match="too many post-handshake messages"):
        sslobj.read()
    assert incoming.pending >= sum(map(len, islice(flood, MAX_MESSAGES_WITHOUT_DATA + 1, None)))
