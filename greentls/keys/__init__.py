"""Private keys that are somewhere else: in a process of their own, in a hardware module, behind a service.

A SigningKey stands where a private key would: ``SSLContext.load_cert_chain(certfile, key)``. In the handshake it is
asked for one signature, and may wait for it. It can only sign: cipher suites whose key exchange makes the server
*decrypt* (RSA key exchange, TLS 1.2) are refused, as if the peer had not offered them.
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
