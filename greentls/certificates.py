"""Certificate chains with their private keys, read and checked before OpenSSL sees them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from greentls.errors import ConfigurationError

__all__ = ["CertificateChain"]

Password = str | bytes | bytearray | Callable[[], str | bytes | bytearray] | None


@dataclass(frozen=True)
class CertificateChain:
    """A certificate, its private key, and the intermediate certificates that are sent behind it (RFC 8446 4.4.2)."""

    certificate: x509.Certificate
    key: Any  # one of cryptography's private keys
    intermediates: tuple[x509.Certificate, ...] = ()

    @classmethod
    def load(
        cls, certfile: str | os.PathLike[str], keyfile: str | os.PathLike[str] | None = None, password: Password = None
    ) -> CertificateChain:
        """Reads PEM files, the leaf certificate first; without keyfile the key is in certfile.

        password: of an encrypted key, or a function that is called for it. Raises ConfigurationError that names the
        file and what is wrong with it; OSError if it cannot be read.
        """
        with open(certfile, "rb") as file:
            pem = file.read()
        key_pem, key_path = pem, certfile
        if keyfile is not None:
            with open(keyfile, "rb") as file:
                key_pem, key_path = file.read(), keyfile
        return cls.from_pem(
            pem, key_pem, password, f"certificate file {os.fspath(certfile)}", f"key file {os.fspath(key_path)}"
        )

    @classmethod
    def from_pem(
        cls,
        certificates: bytes,
        key: bytes,
        password: Password = None,
        certificates_name: str = "certificate",
        key_name: str = "key",
    ) -> CertificateChain:
        """The same from PEM bytes. The names are what errors call them."""
        try:
            leaf, *intermediates = x509.load_pem_x509_certificates(certificates)
        except ValueError:
            raise ConfigurationError(certificates_name, "not a PEM certificate", "give a PEM file") from None
        try:
            private = serialization.load_pem_private_key(key, None)
        except TypeError:  # cryptography's way to say that it is encrypted
            private = cls._decrypted(key, password, key_name)
        except ValueError:
            raise ConfigurationError(key_name, "no PEM private key in it", "give the key's PEM file") from None
        if private.public_key() != leaf.public_key():
            raise ConfigurationError(key_name, f"the key does not fit {certificates_name}", "give the pair")
        return cls(leaf, private, tuple(intermediates))

    @staticmethod
    def _decrypted(key: bytes, password: Password, key_name: str) -> Any:
        given = password() if callable(password) else password
        if given is None:
            raise ConfigurationError(key_name, "the key is encrypted", "give its password")
        secret = given.encode() if isinstance(given, str) else bytes(given)
        try:
            return serialization.load_pem_private_key(key, secret)
        except ValueError:
            raise ConfigurationError(key_name, "the password does not open the key") from None

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names and IP addresses that it is valid for; the common name if there are none. Sorted."""
        try:
            san = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            common = self.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            return tuple(sorted(str(each.value) for each in common))
        names = {str(each) for kind in (x509.DNSName, x509.IPAddress) for each in san.get_values_for_type(kind)}
        return tuple(sorted(names))
