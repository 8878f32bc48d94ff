"""Private keys that live elsewhere: in another process, in a hardware module, or behind a service.

A SigningKey takes the place of a private key in ``SSLContext.load_cert_chain(certfile, key)``. A handshake asks it for
one signature, and may wait for the answer. A SigningKey can only sign. Cipher suites in which the server *decrypts*
(RSA key exchange, TLS 1.2) are therefore refused, as if the peer had not offered them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greentls.keys.algorithms import PublicKey, digest
from greentls.keys.contract import KeySource, SigningKey
from greentls.keys.signer import MAX_WAITING, Signer, is_key_source, is_signing_key
from greentls.lazy import at_first_use

if TYPE_CHECKING:
    from greentls.keys.agent import Agent as Agent
    from greentls.keys.callback import Callback as Callback
    from greentls.keys.pkcs11 import PKCS11 as PKCS11

__all__ = [
    "MAX_WAITING",
    "PKCS11",
    "Agent",
    "Callback",
    "KeySource",
    "PublicKey",
    "Signer",
    "SigningKey",
    "digest",
    "is_key_source",
    "is_signing_key",
]

__getattr__, __dir__ = at_first_use(__name__, {"agent": "Agent", "callback": "Callback", "pkcs11": "PKCS11"})
