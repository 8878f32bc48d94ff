"""SSL_SESSION: bytes that are none, and who owns what. tests/core/test_session.py has what it knows."""

from __future__ import annotations

import gc

import pytest

from greentls.core.connection import Connection
from greentls.openssl import sessions
from greentls.openssl.library import lib
from tests.support.pairs import client, client_context, handshake, server_context


@pytest.fixture
def blob(pki):
    one = client(client_context(pki))
    handshake(one, Connection(server_context(pki)))
    return bytes(one.session)


def test_bytes_are_the_same_again(blob):
    assert sessions.to_bytes(sessions.from_bytes(blob)) == blob


def test_every_prefix_is_refused_and_leaves_no_error(blob):
    for size in range(len(blob)):
        assert sessions.from_bytes(blob[:size]) is None
        assert not lib.ERR_peek_error()


def test_flipped_bits_are_refused_or_harmless(blob):
    """The bytes may come from a store: whatever they are, nothing is read beyond them."""
    for at in range(len(blob)):
        for bit in (1, 0x80):
            changed = bytearray(blob)
            changed[at] ^= bit
            session = sessions.from_bytes(bytes(changed))
            if session is not None:
                sessions.to_bytes(session), sessions.session_id(session), sessions.id_context(session)
                sessions.server_name(session), sessions.alpn_protocol(session), sessions.times(session)
            assert not lib.ERR_peek_error()


def test_each_reference_is_one(blob):
    first = sessions.from_bytes(blob)
    second = sessions.shared(first)
    third = sessions.shared(first)
    del first, second
    gc.collect()
    assert sessions.to_bytes(third) == blob
