"""SealedStore: what leaves the process is sealed. The value of a session *is* the master secret.

A sealed session is

    1 octet   1, the format
    8 octets  key id: which secret sealed it
    12 octets nonce, random
    n octets  AES-256-GCM ciphertext, and its tag of 16 octets

Every session id has an AES key of its own, HMAC-SHA256(the secret's root key, session id), so the 2^32 messages that a
key may seal under random nonces (NIST SP 800-38D 8.3) do not limit the fleet. The associated data are the context's
name and the session id: a blob that is put under another id, or in another context, does not open.
"""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from greentls.errors import ConfigurationError

if TYPE_CHECKING:
    from greentls.stores import SessionStore

__all__ = ["SealedStore"]

log = logging.getLogger("greentls.stores")

MIN_SECRET = 32  # bytes: what AES-256 has of security
LOG_INTERVAL = 10.0  # seconds between two lines about blobs that do not open

_FORMAT = b"\x01"
_KEY_ID, _NONCE, _TAG = 8, 12, 16


class SealedStore:
    """store, with every session sealed on its way in.

    secrets: 32 bytes or more each, the newest first: it seals, all of them open. To rotate, put a new one behind the
    old one everywhere, then in front everywhere, then take the old one away. context: sessions do not open in another.
    """

    def __init__(self, store: SessionStore, secrets: Sequence[bytes], context: str = "") -> None:
        self.store = store
        self.name = store.name
        self._context = context.encode()
        self._silent_until = 0.0
        self.rotate(secrets)

    def rotate(self, secrets: Sequence[bytes]) -> None:
        """Other secrets, from now on. Raises ConfigurationError."""
        if not secrets:
            raise ConfigurationError("sealed store", "no secret", "give one of 32 random bytes or more")
        self._roots: dict[bytes, bytes] = {}  # key id -> root key, the sealing one first
        for secret in secrets:
            if len(secret) < MIN_SECRET:
                raise ConfigurationError(
                    "sealed store", f"a secret of {len(secret)} bytes", f"give {MIN_SECRET} random bytes or more"
                )
            derived = HKDF(SHA256(), _KEY_ID + 32, None, b"greentls sealed session 1").derive(secret)
            self._roots.setdefault(derived[:_KEY_ID], derived[_KEY_ID:])

    def get(self, session_id: bytes) -> bytes | None:
        blob = self.store.get(session_id)
        if blob is None:
            return None
        session = self._open(session_id, blob)
        if session is None and (now := time.monotonic()) >= self._silent_until:
            self._silent_until = now + LOG_INTERVAL
            log.warning("session store %s: a session does not open: another fleet's, damaged, or forged", self.name)
        return session

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        self.store.put(session_id, self._seal(session_id, session), lifetime)

    def remove(self, session_id: bytes) -> None:
        self.store.remove(session_id)

    def close(self) -> None:
        self.store.close()

    def _seal(self, session_id: bytes, session: bytes) -> bytes:
        key_id, root = next(iter(self._roots.items()))
        nonce = os.urandom(_NONCE)
        return (
            _FORMAT + key_id + nonce + self._cipher(root, session_id).encrypt(nonce, session, self._bound(session_id))
        )

    def _open(self, session_id: bytes, blob: bytes) -> bytes | None:
        start = 1 + _KEY_ID
        root = self._roots.get(blob[1:start])
        if root is None or blob[:1] != _FORMAT or len(blob) < start + _NONCE + _TAG:
            return None
        nonce, sealed = blob[start : start + _NONCE], blob[start + _NONCE :]
        try:
            return self._cipher(root, session_id).decrypt(nonce, sealed, self._bound(session_id))
        except InvalidTag:
            return None

    @staticmethod
    def _cipher(root: bytes, session_id: bytes) -> AESGCM:
        return AESGCM(hmac.digest(root, session_id, "sha256"))

    def _bound(self, session_id: bytes) -> bytes:
        return self._context + b"\0" + session_id
