"""The contracts of objects that take a private key's place."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from greentls.keys.algorithms import PublicKey

__all__ = ["KeySource", "SigningKey"]


class SigningKey(Protocol):
    """The contract of one key that signs."""

    @property
    def public_key(self) -> PublicKey:
        """An object of cryptography's: ECDSA on P-256 or P-384, RSA, or Ed25519."""

    @property
    def algorithms(self) -> Collection[str]:
        """The algorithms that it supports, by the names of RFC 8446 4.2.3. If an RSA key supports only one of the two
        paddings, SSLContext.set_server_sigalgs() must say so: otherwise a peer may ask for the other one."""

    def sign(self, data: bytes, algorithm: str, /) -> bytes:
        """Returns the signature of data in TLS's encoding. For ECDSA that is the DER of both numbers.

        data: the whole message; digest(data, algorithm) makes its digest. algorithm: one of algorithms. It may wait.
        After SSLContext.callback_timeout it gets a TimeoutError. Whatever it raises refuses the handshake. The
        signature is checked before it is used.
        """


class KeySource(Protocol):
    """The contract of an object that has several keys, such as a key process or a token. It may also take a private
    key's place."""

    def get(self, public_key: PublicKey, /) -> SigningKey | None:
        """Returns the private key that belongs to the public one, None if there is none. May wait."""
