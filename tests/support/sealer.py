"""Sealer: one direction of a connection's record protection, made again from its secrets.

A hostile peer sends what OpenSSL would not: thousands of KeyUpdates, empty records, halves of messages. After an honest
handshake a Sealer takes the peer's place: its records open at the other side, whatever is in them.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.openssl.library import ffi
from greentls.wire.registry import ContentType, HandshakeType
from tests.support.openssl import lib
from tests.support.pairs import client, client_context, handshake, server_context

DIGEST, HASH = 48, hashes.SHA384()  # of the suites that OpenSSL prefers: AES-256-GCM, SHA-384
KEY = 32
TICKETS = 2  # what a TLS 1.3 server of OpenSSL has sent under its application keys when the handshake is over


class Sealer:
    """peer: the Connection whose records are sealed, established. secrets: lines that its keylog hook got."""

    def __init__(self, peer: Connection, secrets: list[bytes]) -> None:
        assert peer.cipher is not None and peer.cipher[0].endswith(("AES_256_GCM_SHA384", "AES256-GCM-SHA384"))
        self.tls13 = peer.tls13
        known = {label: bytes.fromhex(secret.decode()) for label, _, secret in map(bytes.split, secrets)}
        if self.tls13:
            self._use(known[b"SERVER_TRAFFIC_SECRET_0" if peer.server_side else b"CLIENT_TRAFFIC_SECRET_0"])
            self.sequence = TICKETS if peer.server_side else 0
            return
        block = _prf(known[b"CLIENT_RANDOM"], b"key expansion" + _random(peer, "server") + _random(peer, "client"))
        key, salt = KEY * peer.server_side, 2 * KEY + 4 * peer.server_side
        self._aead, self._iv = AESGCM(block[key : key + KEY]), block[salt : salt + 4]
        self.sequence = 1  # Finished was the first

    def _use(self, secret: bytes) -> None:
        self._secret, self.sequence = secret, 0
        self._aead, self._iv = AESGCM(_expand(secret, b"key", KEY)), _expand(secret, b"iv", 12)

    def record(self, content_type: int, fragment: bytes) -> bytes:
        """A TLSCiphertext."""
        number = self.sequence.to_bytes(8, "big")
        self.sequence += 1
        if self.tls13:
            header = b"\x17\x03\x03" + (len(fragment) + 17).to_bytes(2, "big")
            nonce = bytes(a ^ b for a, b in zip(self._iv, bytes(4) + number, strict=True))
            return header + self._aead.encrypt(nonce, fragment + bytes([content_type]), header)
        header = bytes([content_type]) + b"\x03\x03"
        sealed = self._aead.encrypt(self._iv + number, fragment, number + header + len(fragment).to_bytes(2, "big"))
        return header + (8 + len(sealed)).to_bytes(2, "big") + number + sealed

    def data(self, plaintext: bytes) -> bytes:
        return self.record(ContentType.application_data, plaintext)

    def key_update(self, requested: bool = True) -> bytes:
        """A record with a KeyUpdate (RFC 8446 4.6.3); what comes after it is under the next keys."""
        record = self.record(ContentType.handshake, key_update_message(requested))
        self._use(_expand(self._secret, b"traffic upd", DIGEST))
        return record


def key_update_message(requested: bool = True) -> bytes:
    return bytes((HandshakeType.key_update, 0, 0, 1, requested))


def hostile(pki, version: int, server_side: bool, **settings) -> tuple[Connection, Connection, Sealer]:
    """(the victim, its honest peer, whose place the Sealer can take). settings: the victim's Config's."""
    secrets: list[bytes] = []
    spy = Hooks(keylog=lambda connection, line: secrets.append(line))
    if server_side:
        victim = Connection(server_context(pki, version, **settings))
        peer = client(client_context(pki, version, hooks=spy))
        handshake(peer, victim)
    else:
        peer, victim = (
            Connection(server_context(pki, version, hooks=spy)),
            client(client_context(pki, version, **settings)),
        )
        handshake(victim, peer)
    return victim, peer, Sealer(peer, secrets)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 7.1)."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(HASH, length, info).derive(secret)


def _prf(secret: bytes, seed: bytes) -> bytes:
    """The first bytes of TLS 1.2's PRF (RFC 5246 5), as many as a key block takes."""
    output, a = b"", seed
    while len(output) < 2 * KEY + 8:
        a = hmac.digest(secret, a, "sha384")
        output += hmac.digest(secret, a + seed, "sha384")
    return output


def _random(peer: Connection, side: str) -> bytes:
    buffer = ffi.new("unsigned char[32]")
    getattr(lib, f"SSL_get_{side}_random")(peer.ssl, buffer, 32)
    return bytes(ffi.buffer(buffer))
