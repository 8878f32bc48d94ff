"""Signature algorithms, by the names that RFC 8446 4.2.3 gives them."""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from greentls.errors import ConfigurationError, SigningError

__all__ = ["ALGORITHMS", "Algorithm", "PublicKey", "algorithms_of", "check", "digest"]

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Algorithm(NamedTuple):
    hash: hashes.HashAlgorithm | None  # None: the message itself is signed
    padding: str = ""  # "pss": PSS with a salt as long as the digest; "": PKCS #1 v1.5, or a key that is not RSA

    @property
    def digest_name(self) -> str:
        """OpenSSL's name of the hash, empty if there is none."""
        return self.hash.name.upper() if self.hash else ""

    @property
    def rsa_padding(self) -> paddings.PKCS1v15 | paddings.PSS:
        assert self.hash is not None
        if self.padding == "pss":
            return paddings.PSS(paddings.MGF1(self.hash), self.hash.digest_size)
        return paddings.PKCS1v15()


ALGORITHMS = {
    "ecdsa_secp256r1_sha256": Algorithm(hashes.SHA256()),
    "ecdsa_secp384r1_sha384": Algorithm(hashes.SHA384()),
    "ed25519": Algorithm(None),
    "rsa_pkcs1_sha256": Algorithm(hashes.SHA256()),
    "rsa_pkcs1_sha384": Algorithm(hashes.SHA384()),
    "rsa_pkcs1_sha512": Algorithm(hashes.SHA512()),
    "rsa_pss_rsae_sha256": Algorithm(hashes.SHA256(), "pss"),
    "rsa_pss_rsae_sha384": Algorithm(hashes.SHA384(), "pss"),
    "rsa_pss_rsae_sha512": Algorithm(hashes.SHA512(), "pss"),
}


def algorithms_of(public_key: PublicKeyTypes) -> tuple[str, ...]:
    """The names of all algorithms that a key can sign with. Raises ConfigurationError for an unsupported kind of key.

    TLS 1.2 would allow a P-256 key to sign with SHA-384. Here each curve has one digest, as in TLS 1.3 and in most
    services.
    """
    if isinstance(public_key, rsa.RSAPublicKey):
        return tuple(name for name in ALGORITHMS if name.startswith("rsa"))
    name = "ed25519" if isinstance(public_key, ed25519.Ed25519PublicKey) else ""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        name = {"secp256r1": "ecdsa_secp256r1_sha256", "secp384r1": "ecdsa_secp384r1_sha384"}.get(
            public_key.curve.name, ""
        )
    if not name:
        problem = f"this {type(public_key).__name__} is not supported"
        raise ConfigurationError("signing key", problem, "use P-256, P-384, RSA or Ed25519")
    return (name,)


def digest(data: bytes, algorithm: str) -> bytes:
    """Returns the digest of a message, for a service that signs digests. Raises ValueError for ed25519, which signs the
    message itself."""
    kind = ALGORITHMS[algorithm].hash
    if kind is None:
        raise ValueError(f"{algorithm} signs the message itself")
    made = hashes.Hash(kind)
    made.update(data)
    return made.finalize()


def check(public_key: PublicKey, signature: bytes, data: bytes, algorithm: str) -> None:
    """Raises SigningError unless the signature is valid."""
    facts = ALGORITHMS[algorithm]
    try:
        if isinstance(public_key, ed25519.Ed25519PublicKey):
            public_key.verify(signature, data)
        elif isinstance(public_key, rsa.RSAPublicKey):
            assert facts.hash is not None
            public_key.verify(signature, data, facts.rsa_padding, facts.hash)
        else:
            assert facts.hash is not None
            public_key.verify(signature, data, ec.ECDSA(facts.hash))
    except InvalidSignature:
        raise SigningError(algorithm, "the public key does not confirm the signature") from None
