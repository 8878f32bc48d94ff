"""What OpenSSL keeps of a handshake that is over."""

from __future__ import annotations

import gc

from greentls.core.connection import Connection
from greentls.openssl import connections, facts, symbols
from greentls.openssl.library import ffi, lib
from tests.support import openssl
from tests.support.helpers import allocated
from tests.support.openssl import hide
from tests.support.pairs import TLS13, client, client_context, handshake, move, server_context

PEER_TMP_KEY, TMP_KEY = 109, 133  # ssl.h
POST_QUANTUM = "X25519MLKEM768"
if openssl.lib.OpenSSL_version_num() < 0x30500000:  # which does not have it
    POST_QUANTUM = "X448"


def key_shares(connection):
    """Lengths of the public keys, the peer's and ours, that OpenSSL still has of the key exchange."""
    raw = ffi.cast("int (*)(EVP_PKEY *, void *, size_t *)", symbols.address("EVP_PKEY_get_raw_public_key"))
    lengths = []
    for command in PEER_TMP_KEY, TMP_KEY:
        key, room, length = ffi.new("EVP_PKEY **"), ffi.new("char[4096]"), ffi.new("size_t *", 4096)
        if lib.SSL_ctrl(connection.ssl, command, 0, key) == 1:
            if raw(key[0], room, length) == 1:
                lengths.append(length[0])
            lib.EVP_PKEY_free(key[0])
    lib.ERR_clear_error()
    return lengths


def ends_of(pki, group):
    clients, servers = client_context(pki, TLS13, groups=group), server_context(pki, groups=f"{group}:P-521")
    ends = client(clients), Connection(servers)
    handshake(*ends)
    return ends


def test_the_key_of_a_post_quantum_group_is_destroyed(pki):
    """hazard: OpenSSL keeps it, the client's private one, as long as the connection."""
    ends = ends_of(pki, POST_QUANTUM)
    for end in ends:
        assert bool(key_shares(end)) is (POST_QUANTUM == "X448")
    ends[0].write(b"data")
    move(*ends)
    assert ends[1].read() == b"data" and ends[1].group in (None, POST_QUANTUM, "x448")
    handshake(client(client_context(pki, groups=POST_QUANTUM), ends[0].session), Connection(ends[1].config))


def test_a_connection_that_rests_keeps_no_key_of_any_group(pki):
    ends = ends_of(pki, "X25519")
    for end in ends:
        assert key_shares(end)
        assert end.release()
        assert not key_shares(end)
    ends[0].write(b"data")
    move(*ends)
    assert ends[1].read() == b"data"


def test_where_openssl_hides_the_function_it_stays(pki, monkeypatch):
    hide(monkeypatch, "EVP_PKEY_set_type")
    monkeypatch.setattr(connections, "_can_forget_keys", connections._can_forget_keys.__wrapped__)
    monkeypatch.setattr(facts, "_twin", facts._twin.__wrapped__)
    for end in ends_of(pki, POST_QUANTUM):
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
