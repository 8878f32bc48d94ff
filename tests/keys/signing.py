"""Signing keys for tests: an ordinary private key, behind a function."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from greentls import keys
from greentls.keys.algorithms import ALGORITHMS

# What each kind of key signs a handshake between two of ours by.
KINDS = {
    "ec": "ecdsa_secp256r1_sha256",
    "p384": "ecdsa_secp384r1_sha384",
    "rsa": "rsa_pss_rsae_sha256",
    "ed25519": "ed25519",
}


def private_key(path):
    with open(path, "rb") as file:
        return serialization.load_pem_private_key(file.read(), None)


def signature(key, data, algorithm):
    facts = ALGORITHMS[algorithm]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, facts.rsa_padding, facts.hash)
    return key.sign(data, ec.ECDSA(facts.hash))


def byte_strings(key):
    """What of a private key must be in no other process: its secret numbers, as files and as OpenSSL's BIGNUMs have
    them."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return [key.private_bytes_raw()]
    numbers = key.private_numbers()
    names = ["private_value"] if isinstance(key, ec.EllipticCurvePrivateKey) else ["p", "q", "d", "dmp1", "dmq1"]
    values = [getattr(numbers, name) for name in names]
    octets = [value.to_bytes((value.bit_length() + 7) // 8, "big") for value in values]
    return [part for each in octets for part in (each, each[::-1])]


class Remote:
    """A signing key for the private key of a file. asked: the algorithms, one for each signature.

    behave: called with the signature, before it is given; what it returns is the answer.
    """

    def __init__(self, key_file, behave=lambda signature: signature, **options):
        self.key, self.behave = private_key(key_file), behave
        self.asked = []
        self.signing = keys.Callback(self.key.public_key(), self.sign, **options)

    def sign(self, data, algorithm):
        self.asked.append(algorithm)
        return self.behave(signature(self.key, data, algorithm))
