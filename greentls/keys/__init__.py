"""Private keys that are somewhere else: in a process of their own, in a hardware module, behind a service.

A SigningKey stands where a private key would: ``SSLContext.load_cert_chain(certfile, key)``. In the handshake it is
asked for one signature, and may wait for it. It can only sign: cipher suites whose key exchange makes the server
*decrypt* (RSA key exchange, TLS 1.2) are refused, as if the peer had not offered them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from greentls.keys.algorithms import PublicKey, digest
from greentls.keys.signer import MAX_WAITING, Signer, is_key_source, is_signing_key
from greentls.lazy import at_first_use

if TYPE_CHECKING:
    from greentls.keys.callback import Callback as Callback

__all__ = [
    "MAX_WAITING",
    "Callback",
    "KeySource",
    "PublicKey",
    "Signer",
    "SigningKey",
    "digest",
    "is_key_source",
    "is_signing_key",
]

_WHERE = {"Callback": "callback"}


class SigningKey(Protocol):
    """The contract: what may stand in a private key's place."""

    @property
    def public_key(self) -> PublicKey:
        """One of cryptography's: ECDSA on P-256 or P-384, RSA, or Ed25519."""

    @property
    def algorithms(self) -> Collection[str]:
        """What it can sign by, by the names of RFC 8446 4.2.3. An RSA key that cannot do both paddings needs
        SSLContext.set_server_sigalgs(), so that no peer asks for the other one."""

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """The signature of data, as TLS has it: of ECDSA the DER of both numbers.

        data: the whole message, not its digest, which digest(data, algorithm) makes. algorithm: one of algorithms.
        May wait: SSLContext.callback_timeout ends it with a TimeoutError. What it raises refuses the handshake. The
        signature is checked before it is used.
        """


class KeySource(Protocol):
    """The contract: what knows several keys, as a key process or a token does. It may stand in a key's place, too."""

    def get(self, public_key: PublicKey) -> SigningKey | None:
        """The private key that belongs to the public one; None if it is not there. May wait."""


__getattr__, __dir__ = at_first_use(__name__, _WHERE)
