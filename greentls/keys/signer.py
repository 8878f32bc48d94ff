"""Signer: a SigningKey in use. What it answers is checked, and how many wait for it at once is bounded.

The check protects the key, not the peer, which checks for itself. Whoever sees a faulty RSA signature that was made by
the Chinese remainder theorem can compute the key (Boneh, DeMillo, Lipton 1997; found on the net by Weimer, 2015), and
modules do fail. It takes 0.02 ms with RSA-2048, 0.05 ms with P-256.
"""

from __future__ import annotations

from functools import cached_property

from cryptography.hazmat.primitives import serialization

from greentls.errors import ConfigurationError, SigningError
from greentls.keys.algorithms import ALGORITHMS, algorithms_of, check
from greentls.keys.contract import SigningKey
from greentls.openssl.provider import PrivateKey

__all__ = ["MAX_WAITING", "Signer", "is_key_source", "is_signing_key"]

# Signatures of one key that may be waited for at once. Each holds a handshake, some 50 KiB. A service that answers in
# 20 ms would have to be asked 50,000 times a second to have so many; one that does not answer has as many clients hang.
MAX_WAITING = 1000


def is_signing_key(thing: object) -> bool:
    return hasattr(thing, "algorithms") and callable(getattr(thing, "sign", None))


def is_key_source(thing: object) -> bool:
    return not isinstance(thing, dict) and callable(getattr(thing, "get", None))


class Signer:
    """Raises ConfigurationError for a key that TLS has no algorithms for."""

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        known = algorithms_of(key.public_key)
        self._names = {
            (ALGORITHMS[name].digest_name, ALGORITHMS[name].padding): name for name in key.algorithms if name in known
        }
        self._waiting: set[object] = set()
        if not self._names:
            raise ConfigurationError("signing key", "it has no algorithm of its kind", f"known are {', '.join(known)}")

    @cached_property
    def private_key(self) -> PrivateKey:
        """For OpenSSL. Raises UnsupportedOpenSSL."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        der = self.key.public_key.public_bytes(serialization.Encoding.DER, form)
        return PrivateKey(der, {digest for digest, _ in self._names}, self)

    def algorithm(self, digest: str, padding: str) -> str:
        """The name of what OpenSSL asks for. Raises SigningError if the key cannot do it."""
        try:
            return self._names[digest, padding]
        except KeyError:
            wanted = f"{digest} {padding}".strip()
            raise SigningError(
                wanted, "the key does not sign so; set_server_sigalgs() tells peers what it does"
            ) from None

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """Waits for the key. Raises what it raises; SigningError if too many wait already, or the answer is wrong."""
        if len(self._waiting) >= getattr(self.key, "max_waiting", MAX_WAITING):
            raise SigningError(algorithm, f"{len(self._waiting)} signatures are waited for already")
        place = object()
        self._waiting.add(place)
        try:
            signature = self.key.sign(data, algorithm)
        finally:
            self._waiting.discard(place)
        if not isinstance(signature, bytes):
            raise SigningError(algorithm, f"the answer is a {type(signature).__name__}, not bytes")
        check(self.key.public_key, signature, data, algorithm)
        return signature
