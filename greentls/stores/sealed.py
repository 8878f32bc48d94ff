"""SealedStore: seals what leaves the process. A session's bytes are its master secret.

A sealed session is

    1 octet   1, the format
    8 octets  key id: tells which secret sealed it
    12 octets nonce, random
    n octets  AES-256-GCM ciphertext, and its tag of 16 octets

Every session id has its own AES key, HMAC-SHA256(the secret's root key, session id). So the limit of 2^32 messages for
one key with random nonces (NIST SP 800-38D 8.3) does not limit the fleet. The associated data are the context's name
and the session id, so a blob that is moved to another id, or to another context, does not open.

A shared value is sealed in the same way, with its name in place of the id and another root key. So a session does not
open as a value, nor a value as a session.
"""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from greentls.errors import ConfigurationError, SealError
from greentls.log_limit import LogLimit
from greentls.secret_file import repeats
from greentls.stores.contract import BatchStore, Change, SessionStore, SharedValues, Token

__all__ = ["SealedStore", "secret_problem"]

log = logging.getLogger("greentls.stores")

MIN_SECRET = 32  # bytes: the security of AES-256

Kind = Literal["session", "value"]

_FORMAT = b"\x01"
_KEY_ID, _NONCE, _TAG = 8, 12, 16
_BEGIN, _SEALED = 1 + _KEY_ID, 1 + _KEY_ID + _NONCE  # where the nonce, and where the ciphertext begins


def secret_problem(secret: bytes) -> str:
    """Returns what is wrong with a secret; empty if nothing is."""
    if len(secret) < MIN_SECRET:
        return f"{len(secret)} bytes"
    return f"{len(secret)} bytes that are nearly all the same" if repeats(secret) else ""


class SealedStore:
    """Seals the sessions and shared values of another store.

    secrets: 32 bytes or more each. The first one seals; all of them open. To rotate them, add the new one as the second
    everywhere, then make it the first everywhere, then remove the old one. context: what is sealed in one context does
    not open in another. Methods wait and raise as those of the other store; get() raises SealError for what does not
    open.
    """

    def __init__(self, store: SessionStore, secrets: Sequence[bytes], context: str = "") -> None:
        self.store = store
        self.name = store.name
        self.shared = isinstance(store, SharedValues) and store.shared
        self.private = True
        self._batches = store if isinstance(store, BatchStore) else None
        #: BatchStore.write_many(); None: the store has none.
        self.write_many = self._write_many if self._batches is not None else None
        self._bound = context.encode() + b"\0"
        self._unopened = LogLimit()
        self.rotate(secrets)

    def rotate(self, secrets: Sequence[bytes]) -> None:
        """Uses these secrets from now on. Raises ConfigurationError."""
        if not secrets:
            raise ConfigurationError("sealed store", "no secret", "give one of 32 random bytes or more")
        # By what a blob begins with, the format and the key id: the roots of sessions and values.
        opening: dict[bytes, dict[Kind, hmac.HMAC]] = {}
        for secret in secrets:
            if problem := secret_problem(secret):
                raise ConfigurationError(
                    "sealed store", f"a secret of {problem}", f"give {MIN_SECRET} random bytes or more"
                )
            derived = HKDF(SHA256(), _KEY_ID + 32, None, b"greentls sealed session 1").derive(secret)
            values = HKDF(SHA256(), 32, None, b"greentls sealed value 1").derive(secret)
            roots: dict[Kind, hmac.HMAC] = {"session": _begun(derived[_KEY_ID:]), "value": _begun(values)}
            opening.setdefault(_FORMAT + derived[:_KEY_ID], roots)
        self._roots, self._first = opening, next(iter(opening.items()))

    def get(self, session_id: bytes) -> bytes | None:
        blob = self.store.get(session_id)
        if blob is None:
            return None
        session = self._open("session", session_id, blob)
        if session is None:
            raise SealError(self.name, "session")
        return session

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        self.store.put(session_id, self._seal("session", session_id, session), lifetime)

    def remove(self, session_id: bytes) -> None:
        self.store.remove(session_id)

    def _write_many(self, changes: Sequence[Change]) -> Iterator[tuple[int, Exception | None]]:
        assert self._batches is not None
        return self._batches.write_many(
            [
                (session_id, None if session is None else self._seal("session", session_id, session), lifetime)
                for session_id, session, lifetime in changes
            ]
        )

    def gets(self, name: str) -> tuple[bytes | None, Token]:
        blob, token = self._values.gets(name)
        value = None if blob is None else self._open("value", name.encode(), blob)
        if blob is not None and value is None and self._unopened.allows():
            log.warning("%s", SealError(self.name, "value"))
        return value, token

    def cas(self, name: str, value: bytes, token: Token, lifetime: float) -> bool:
        return self._values.cas(name, self._seal("value", name.encode(), value), token, lifetime)

    def add(self, name: str, value: bytes, lifetime: float) -> bool:
        return self._values.add(name, self._seal("value", name.encode(), value), lifetime)

    def close(self) -> None:
        self.store.close()

    @property
    def _values(self) -> SharedValues:
        if not isinstance(self.store, SharedValues):
            raise ConfigurationError(f"store {self.name}", "has no shared values", "give it gets(), cas() and add()")
        return self.store

    def _seal(self, kind: Kind, name: bytes, content: bytes) -> bytes:
        begin, roots = self._first
        nonce = os.urandom(_NONCE)
        return begin + nonce + _cipher(roots[kind], name).encrypt(nonce, content, self._bound + name)

    def _open(self, kind: Kind, name: bytes, blob: bytes) -> bytes | None:
        roots = self._roots.get(blob[:_BEGIN])
        if roots is not None and len(blob) >= _SEALED + _TAG:
            try:
                return _cipher(roots[kind], name).decrypt(blob[_BEGIN:_SEALED], blob[_SEALED:], self._bound + name)
            except InvalidTag:
                pass
        return None


def _begun(root: bytes) -> hmac.HMAC:
    """To copy it takes a third of the time of hmac.digest(), which looks for SHA-256 each time."""
    return hmac.new(root, digestmod="sha256")


def _cipher(root: hmac.HMAC, name: bytes) -> AESGCM:
    key = root.copy()
    key.update(name)
    return AESGCM(key.digest())
