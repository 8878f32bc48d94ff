"""The contracts: what may stand in a private key's place."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from greentls.keys.algorithms import PublicKey

__all__ = ["KeySource", "SigningKey"]


class SigningKey(Protocol):
    """The contract: what may stand in a private key's place."""

    @property
    def public_key(self) -> PublicKey:
        """One of cryptography's: ECDSA on P-256 or P-384, RSA, or Ed25519."""

    @property
    def algorithms(self) -> Collection[str]:
        """What it can sign by, by the names of RFC 8446 4.2.3. An RSA key that cannot do both paddings needs
        SSLContext.set_server_sigalgs(), so that no peer asks for the other one."""

    def sign(self, data: bytes, algorithm: str, /) -> bytes:
        """The signature of data, as TLS has it: of ECDSA the DER of both numbers.

        data: the whole message, not its digest, which digest(data, algorithm) makes. algorithm: one of algorithms.
        May wait: SSLContext.callback_timeout ends it with a TimeoutError. What it raises refuses the handshake. The
        signature is checked before it is used.
        """


class KeySource(Protocol):
    """The contract: what knows several keys, as a key process or a token does. It may stand in a key's place, too."""

    def get(self, public_key: PublicKey, /) -> SigningKey | None:
        """The private key that belongs to the public one; None if it is not there. May wait."""
