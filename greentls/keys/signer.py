"""Signer: a SigningKey in use. It checks each signature, and bounds the number of outstanding ones.

The check protects the key. (The peer checks for itself.) If an RSA signature was computed by the Chinese remainder
theorem and is faulty, anybody who sees it can compute the key (Boneh, DeMillo, Lipton 1997; Weimer found such
signatures on the Internet in 2015), and hardware modules do fail. The check takes 0.02 ms with RSA-2048, and 0.05 ms
with P-256.
"""

from __future__ import annotations

from functools import cached_property

from cryptography.hazmat.primitives import serialization

from greentls.errors import ConfigurationError, SigningError
from greentls.keys.algorithms import ALGORITHMS, algorithms_of, check
from greentls.keys.contract import SigningKey
from greentls.openssl.provider import PrivateKey

__all__ = ["MAX_WAITING", "Signer", "is_key_source", "is_signing_key"]

# Signatures by one key that may be outstanding at once. Each one holds a handshake, which takes about 50 KiB. A service
# that answers in 20 ms reaches this limit at 50,000 requests a second. If a service does not answer, this many clients
# hang.
MAX_WAITING = 1000


def is_signing_key(thing: object) -> bool:
    return hasattr(thing, "algorithms") and callable(getattr(thing, "sign", None))


def is_key_source(thing: object) -> bool:
    return not isinstance(thing, dict) and callable(getattr(thing, "get", None))


class Signer:
    """Signs with one SigningKey.

    Raises ConfigurationError if the key has no algorithm that TLS has for keys of its kind.
    """

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
        """The key object for OpenSSL. Raises UnsupportedOpenSSL."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        der = self.key.public_key.public_bytes(serialization.Encoding.DER, form)
        return PrivateKey(der, {digest for digest, _ in self._names}, self)

    def algorithm(self, digest: str, padding: str) -> str:
        """The name of the algorithm that OpenSSL asks for. Raises SigningError if the key does not support it."""
        try:
            return self._names[digest, padding]
        except KeyError:
            wanted = f"{digest} {padding}".strip()
            raise SigningError(
                wanted, "the key does not support it; set_server_sigalgs() tells peers what it supports"
            ) from None

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """Returns the signature. Waits for the key. Raises what the key raises, and SigningError if too many signatures
        are outstanding or the answer is wrong."""
        if len(self._waiting) >= getattr(self.key, "max_waiting", MAX_WAITING):
            raise SigningError(algorithm, f"{len(self._waiting)} signatures are outstanding already")
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
