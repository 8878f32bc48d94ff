"""Certificate chains with their private keys: read, and checked before OpenSSL sees them."""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.utils import CryptographyDeprecationWarning

from greentls.errors import ConfigurationError
from greentls.keys.signer import Signer, is_key_source, is_signing_key
from greentls.openssl import contexts
from greentls.openssl.provider import PrivateKey

__all__ = ["CertificateChain", "demands_staple", "is_path", "load_crls", "parse_certificates", "read_certificate"]

Password = str | bytes | bytearray | Callable[[], str | bytes | bytearray] | None
Source = str | bytes | os.PathLike[str]  # a path, or PEM, or DER
Key = Any  # private keys of cryptography's classes, which have no common base, and SigningKey
Certificates = Source | x509.Certificate | Iterable[x509.Certificate]


@dataclass(frozen=True)
class CertificateChain:
    """A certificate, its private key, and the intermediate certificates that are sent after it (RFC 8446 4.4.2)."""

    certificate: x509.Certificate
    key: Key = field(compare=False)  # fits the certificate
    intermediates: tuple[x509.Certificate, ...] = ()

    @classmethod
    def load(cls, certfile: Certificates, keyfile: Source | Key = None, password: Password = None) -> CertificateChain:
        """Loads a chain from files, from text or bytes in PEM or DER, or from cryptography's objects.

        certfile: the certificates, the server's own first. keyfile: the key, None if it is beside the certificates; it
        may be a greentls.keys.SigningKey, or a KeySource that has one. password: the password of an encrypted key, or a
        function that returns it. Raises ConfigurationError, which names the file and what is wrong with it, OSError for
        a file that cannot be read, and what a KeySource raises.
        """
        data, name = None, "certificate"
        if isinstance(certfile, x509.Certificate):
            certificates: Sequence[x509.Certificate] = [certfile]
        elif isinstance(certfile, str | bytes | os.PathLike):
            data, name = _contents(certfile), _name("certificate", certfile)
            certificates = _read_certificates(data, name)
        else:
            certificates = list(certfile)
        key: Key = keyfile
        key_name = "key"
        if keyfile is None and data is not None:
            key, key_name = _read_key(data, password, _name("key", certfile)), _name("key", certfile)
        elif isinstance(keyfile, str | bytes | os.PathLike):
            key_name = _name("key", keyfile)
            key = _read_key(_contents(keyfile), password, key_name)
        if not certificates or key is None:
            raise ConfigurationError(key_name if certificates else name, "there is none", "give a pair")
        try:
            public_key = certificates[0].public_key()
            theirs = key.public_key() if callable(getattr(key, "public_key", None)) else None
        except (UnsupportedAlgorithm, ValueError):
            raise _unreadable(name) from None
        if is_key_source(key):
            key = key.get(public_key)
            if key is None:
                raise ConfigurationError(f"the key of {name}", "the source of keys does not have it", "give it one")
        if is_signing_key(key):
            theirs = key.public_key
        if theirs is None:
            raise ConfigurationError(key_name, f"not a private key but a {type(key).__name__}", "give cryptography's")
        fits = public_key == theirs
        if not fits:
            raise ConfigurationError(key_name, f"the key does not fit {name}", "give the pair")
        chain = cls(certificates[0], key, tuple(certificates[1:]))
        chain.check(name)
        return chain

    def check(self, name: str, **ciphers: str) -> None:
        """Raises ConfigurationError unless OpenSSL can use this pair. name: the subject of the error. ciphers: settings
        of ciphers, whose security level applies."""
        contexts.check_certificate(self.der, self.private_key, **ciphers, name=name)

    @cached_property
    def der(self) -> bytes:
        """DER of the certificate."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @cached_property
    def signer(self) -> Signer | None:
        """The Signer of a SigningKey; None for a key in this process."""
        return Signer(self.key) if is_signing_key(self.key) else None

    @property
    def private_key(self) -> bytes | PrivateKey:
        """The key for use_certificate(): PKCS #8 in clear, or the PrivateKey that represents a SigningKey."""
        if self.signer is not None:
            return self.signer.private_key
        form = serialization.PrivateFormat.PKCS8
        der: bytes = self.key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
        return der

    @cached_property
    def kind(self) -> type:
        """The kind of its key. A server may have a certificate of each kind, as not all clients support all kinds."""
        return type(self.certificate.public_key())

    @cached_property
    def must_staple(self) -> bool:
        """Whether the certificate demands an OCSP response. Clients refuse it without one."""
        return demands_staple(self.certificate)

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names and IP addresses of the certificate, sorted; its common name if there are none."""
        try:
            san = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            common = self.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            return tuple(sorted(str(each.value) for each in common))
        names = {str(each) for kind in (x509.DNSName, x509.IPAddress) for each in san.get_values_for_type(kind)}
        return tuple(sorted(names))


def demands_staple(certificate: x509.Certificate) -> bool:
    """Whether a certificate has the TLS feature status_request (RFC 7633)."""
    try:
        features = certificate.extensions.get_extension_for_class(x509.TLSFeature).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return x509.TLSFeatureType.status_request in features


def is_path(thing: object) -> bool:
    """Whether something names a file, rather than being PEM or DER itself."""
    if isinstance(thing, str):
        return "-----BEGIN" not in thing
    if isinstance(thing, bytes):
        # DER begins with a SEQUENCE of more than 127 bytes, and no path does
        return b"-----BEGIN" not in thing and not (thing[:1] == b"0" and thing[1:2] >= b"\x80")
    return isinstance(thing, os.PathLike)


def read_certificate(der: bytes) -> x509.Certificate:
    """The certificate in DER. Raises ValueError."""
    _take_in_silence()
    return x509.load_der_x509_certificate(der)


_silent: object = None  # the filter


def _take_in_silence() -> None:
    """Hides the warnings of cryptography in greentls.

    cryptography warns of what it may refuse one day, such as serial numbers that are not positive; the standard library
    accepts such certificates silently. catch_warnings() is not safe with threads, and makes Python forget which
    warnings it has shown. So there is one filter, which stays.
    """
    global _silent
    if not warnings.filters or warnings.filters[0] is not _silent:
        warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning, module=r"greentls\.")
        _silent = warnings.filters[0]


def parse_certificates(data: str | bytes) -> list[x509.Certificate]:
    """All certificates in PEM, or in DER one after the other. Raises ValueError."""
    content = data.encode("ascii") if isinstance(data, str) else bytes(data)
    if b"-----BEGIN" in content:
        _take_in_silence()
        return x509.load_pem_x509_certificates(content)
    certificates = []
    while content:
        length = _der_length(content)
        certificates.append(read_certificate(content[:length]))
        content = content[length:]
    return certificates


CRLs: TypeAlias = "Source | x509.CertificateRevocationList | Iterable[CRLs] | None"


def load_crls(source: CRLs) -> tuple[x509.CertificateRevocationList, ...]:
    """Loads certificate revocation lists: from a path, PEM, DER, cryptography's objects, or several of these.

    Raises ConfigurationError for something else, and OSError for a file that cannot be read.
    """
    if source is None:
        return ()
    if isinstance(source, x509.CertificateRevocationList):
        return (source,)
    if not isinstance(source, str | bytes | os.PathLike):
        return tuple(crl for each in source for crl in load_crls(each))
    data = _contents(source)
    try:
        if b"-----BEGIN" not in data:
            return (x509.load_der_x509_crl(data),)
        blocks = re.findall(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", data, re.DOTALL)
        if blocks:
            return tuple(x509.load_pem_x509_crl(block) for block in blocks)
    except ValueError:
        pass
    raise ConfigurationError(_name("CRL", source), "no certificate revocation list in it", "give PEM or DER")


def _der_length(data: bytes) -> int:
    """The length of the DER element that data begins with (X.690 8.1.3)."""
    if len(data) < 2 or data[1] < 0x80:
        return 2 + data[1] if len(data) > 1 else len(data)
    octets = data[1] & 0x7F
    return 2 + octets + int.from_bytes(data[2 : 2 + octets], "big")


def _name(kind: str, source: object) -> str:
    return f"{kind} file {os.fsdecode(cast(Source, source))}" if is_path(source) else kind


def _contents(source: Source) -> bytes:
    if is_path(source):
        with open(source, "rb") as file:
            return file.read()
    if isinstance(source, str):
        return source.encode()
    assert isinstance(source, bytes)  # everything else names a file
    return source


def _read_certificates(data: bytes, name: str) -> list[x509.Certificate]:
    try:
        if certificates := parse_certificates(data):
            return certificates
    except ValueError:
        pass
    raise ConfigurationError(name, "not a PEM certificate", "give a PEM file")


def _unreadable(name: str) -> ConfigurationError:
    problem = "the key is damaged, or of a kind that cryptography does not know"  # which it does not always distinguish
    error = ConfigurationError(name, problem, "a newer cryptography may know it")
    error.reason = "PEM lib"  # OpenSSL's word for a key that it cannot read
    return error


def _read_key(data: bytes, password: Password, name: str) -> object:
    loader = serialization.load_pem_private_key if b"-----BEGIN" in data else serialization.load_der_private_key
    # This skips the check that the factors of an RSA key are primes, which takes 10 to 40 ms. OpenSSL does not check it
    # either when it loads a key, and load() checks that the key fits the certificate.
    load: Callable[..., object] = functools.partial(loader, unsafe_skip_rsa_key_validation=True)
    try:
        return load(data, None)
    except TypeError:  # the key is encrypted
        pass
    except UnsupportedAlgorithm:
        raise _unreadable(name) from None
    except ValueError:
        if b"PRIVATE KEY-----" in data:
            raise _unreadable(name) from None
        raise ConfigurationError(name, "no PEM private key in it", "give the key's PEM file") from None
    given = password() if callable(password) else password
    if given is None:
        raise ConfigurationError(name, "the key is encrypted", "give its password")
    try:
        return load(data, given.encode() if isinstance(given, str) else bytes(given))
    except UnsupportedAlgorithm:
        raise _unreadable(name) from None
    except (TypeError, ValueError):  # TypeError: an empty password counts as none
        raise ConfigurationError(name, "the password does not open the key") from None
