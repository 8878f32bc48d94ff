"""What OpenSSL keeps of a handshake that is over."""

from __future__ import annotations

import gc

from greentls.core.connection import Connection
from greentls.openssl import connections, symbols
from greentls.openssl.library import ffi, lib
from tests.support import openssl
from tests.support.helpers import allocated
from tests.support.openssl import hide
from tests.support.pairs import both_versions, client, client_context, handshake, move, server_context

PEER_TMP_KEY, TMP_KEY = 109, 133  # ssl.h
# OpenSSL has it since 3.5.
POST_QUANTUM = "X25519MLKEM768" if openssl.lib.OpenSSL_version_num() >= 0x30500000 else "X448"


def key_shares(connection):
    """Lengths of the encoded public keys, the peer's and ours, that OpenSSL still has of the key exchange."""
    encode = ffi.cast("int (*)(EVP_PKEY *, unsigned char **)", symbols.address("i2d_PUBKEY"))
    lengths = []
    for command in PEER_TMP_KEY, TMP_KEY:
        key = ffi.new("EVP_PKEY **")
        if lib.SSL_ctrl(connection._ssl, command, 0, key) == 1:
            lengths.append(encode(key[0], ffi.NULL))
            lib.EVP_PKEY_free(key[0])
    lib.ERR_clear_error()
    return [length for length in lengths if length > 0]


@both_versions
def test_the_keys_of_the_exchange_are_destroyed(pki, version):
    """hazard: the private one would decrypt what was sent, as long as the connection is there."""
    ends = client(client_context(pki, version, groups="X25519:prime256v1")), Connection(server_context(pki, version))
    handshake(*ends)
    for end in ends:
        assert key_shares(end) == []
    ends[0].write(b"data")
    move(*ends)
    assert ends[1].read() == b"data" and ends[1].group


def test_where_openssl_hides_the_function_they_stay(pki, monkeypatch):
    hide(monkeypatch, "EVP_PKEY_set_type")
    monkeypatch.setattr(connections, "_can_forget_keys", connections._can_forget_keys.__wrapped__)
    ends = client(client_context(pki, groups="X25519")), Connection(server_context(pki))
    handshake(*ends)
    for end in ends:
        assert key_shares(end)


def memory(pki, group, count=50):
    """Bytes that OpenSSL keeps for an idle connection of a server."""
    server, clients = server_context(pki), client_context(pki, groups=group)

    def connection():
        there = Connection(server)
        handshake(client(clients), there)
        there.release()
        return there

    connection()
    gc.collect()
    before = allocated()
    kept = [connection() for _ in range(count)]
    gc.collect()
    return (allocated() - before) // len(kept)


def test_a_post_quantum_group_takes_no_more_memory_than_another(pki):
    """hazard: 7 KiB of each idle connection."""
    assert memory(pki, POST_QUANTUM) < memory(pki, "X25519") + 1024
