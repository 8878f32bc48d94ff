"""How a connection ends: by close_notify, and by nothing that only looks like it. Two Connections in memory."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest

import greentls
from greentls.core.connection import Connection
from greentls.errors import ConnectionDead, TLSError, UnexpectedEOF, WantRead
from greentls.wire.registry import ContentType
from tests.support.pairs import TLS13, attempt, both_versions, client, client_context, handshake, move, server_context
from tests.support.sealer import hostile, key_update_message


def connected(pki, version=0):
    pair = client(client_context(pki, version)), Connection(server_context(pki, version))
    handshake(*pair)
    return pair


def alert_of(connection):
    """What it sends when it is given a record that no key opens: a fatal alert."""
    connection.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TLSError, match=r"bad record mac|cipher operation failed"):
        connection.read()
    return connection.data_to_send()


@both_versions
@pytest.mark.parametrize("ours_first", [False, True], ids=["theirs first", "ours first"])
@pytest.mark.parametrize("receiver", ["client", "server"])
class TestAFatalAlertIsNoCloseNotify:
    """hazard: SSL_shutdown() returns 1 for it, and the flag of a received close_notify is set: a truncation that looks
    like an orderly end."""

    @pytest.mark.parametrize("operation", ["shutdown", "read"])
    def test_every_operation_says_so(self, pki, version, receiver, ours_first, operation):
        here, there = connected(pki, version)
        if receiver == "server":
            here, there = there, here
        alert = alert_of(there)
        if ours_first:
            assert not here.shutdown()
        here.receive_data(alert)
        with pytest.raises(TLSError, match="alert bad record mac"):
            here.shutdown() or here.shutdown() if operation == "shutdown" else here.read()
        assert not here.closed_by_peer
        with pytest.raises(ConnectionDead):
            here.shutdown()
        assert not here.closed_by_peer


@both_versions
class TestAFatalAlertOverMemoryBIOs:
    def test_unwrap_says_so(self, pki, version):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki.ca_file)
        context.minimum_version = context.maximum_version = ssl.TLSVersion(version)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        sslobj = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        server = Connection(server_context(pki, version))
        while not (server.established and sslobj.version()):
            with suppress(ssl.SSLWantReadError):
                sslobj.do_handshake()
            if flight := outgoing.read():
                server.receive_data(flight)
            attempt(server.do_handshake)
            incoming.write(server.data_to_send())
        incoming.write(alert_of(server))
        with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
            sslobj.unwrap()


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
class TestHalfAMessageInTheWay:
    """hazard: OpenSSL is "in init" between the halves of a post-handshake message: SSL_shutdown() fails, SSL_write()
    wants to read."""

    def half(self, pki, server_side):
        victim, peer, sealer = hostile(pki, TLS13, server_side)
        message = key_update_message(requested=False)
        victim.receive_data(sealer.record(ContentType.handshake, message[:4]))
        assert attempt(victim.read) is None
        return victim, peer, sealer.record(ContentType.handshake, message[4:])

    def test_shutdown_waits_for_the_rest(self, pki, server_side):
        victim, peer, rest = self.half(pki, server_side)
        assert not victim.shutdown()
        assert not victim.shutdown()
        assert not victim.unsent
        victim.receive_data(rest)
        assert not victim.shutdown()
        move(victim, peer)
        assert peer.read() == b""

    def test_write_waits_for_the_rest(self, pki, server_side):
        victim, peer, rest = self.half(pki, server_side)
        with pytest.raises(WantRead):
            victim.write(b"some data")
        victim.receive_data(rest)
        assert victim.write(b"some data") == 9
        move(victim, peer)
        assert peer.read() == b"some data"

    def test_read_goes_on(self, pki, server_side):
        victim, _, rest = self.half(pki, server_side)
        assert not victim.shutdown()
        victim.receive_data(rest)
        assert attempt(victim.read) is None

    def test_its_end_there_is_one_without_close_notify(self, pki, server_side):
        victim, _, _ = self.half(pki, server_side)
        victim.receive_data(b"")
        with pytest.raises(UnexpectedEOF):
            victim.shutdown()
