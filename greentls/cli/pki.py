"""Makes a CA and certificates from it, for a server that was given none.

They are kept in a directory and used again at the next start, so that users have to trust the CA only once:

    ca.pem, ca.key    the CA
    <name>.pem        a server's certificate and key in one file, so that they are replaced together

Files appear whole: they are written beside, then renamed. One process at a time makes them (flock on the directory).
Only their owner can read keys, and keys that others can read are refused. Other people's files are refused and never
overwritten.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from greentls.certificates import CertificateChain
from greentls.errors import ConfigurationError
from greentls.secret_file import read_secret_file

__all__ = ["CA_FILE", "certificate"]

CA_FILE = "ca.pem"

# Browsers refuse server certificates of more than 398 days (Apple, Mozilla, Google since 2020).
CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=365)
TO_SPARE = timedelta(days=30)  # so that a certificate outlives the server that starts with it
CLOCK_SKEW = timedelta(hours=1)

_CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "greentls demo CA")])


def certificate(directory: str | os.PathLike[str], names: Sequence[str]) -> str:
    """Returns the path of a PEM file with a certificate for these DNS names and IP addresses and its key.

    Makes it if necessary. Raises OSError, and ConfigurationError if the directory has other people's files of these
    names.
    """
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        ca = _kept(place / CA_FILE, place / "ca.key")
        if ca is None or not _lasts(ca, SERVER_LIFE + TO_SPARE):
            ca = _make_ca(place)
        path = place / f"{names[0].replace(':', '-').replace('*', '_')}.pem"
        server = _kept(path, path)
        if server is None or not _lasts(server, TO_SPARE) or not _fits(server, ca, names):
            _make_server(path, ca, names)
        return str(path)
    finally:
        os.close(descriptor)


# -- what is there -----------------------------------------------------------------------------------------------------


def _kept(path: Path, key_path: Path) -> CertificateChain | None:
    """Returns what an earlier start has made, or None."""
    if not path.exists():
        return None
    remedy = "remove it, or give another directory by --ca-dir"
    try:
        chain = CertificateChain.load(path, key_path)
    except ConfigurationError as error:
        raise ConfigurationError(error.subject, error.problem, remedy) from None
    if chain.certificate.issuer != _CA_NAME:
        raise ConfigurationError(f"certificate file {path}", "not made by greentls", remedy)
    read_secret_file(key_path, f"key file {key_path}")
    return chain


def _lasts(chain: CertificateChain, time: timedelta) -> bool:
    now = datetime.now(timezone.utc)
    return chain.certificate.not_valid_before_utc <= now and now + time < chain.certificate.not_valid_after_utc


def _fits(chain: CertificateChain, ca: CertificateChain, names: Sequence[str]) -> bool:
    try:
        chain.certificate.verify_directly_issued_by(ca.certificate)
    except Exception:  # InvalidSignature, or ValueError: from an earlier CA
        return False
    return {str(_general_name(name).value) for name in names} <= set(chain.names)


# -- what is made ------------------------------------------------------------------------------------------------------


def _make_ca(place: Path) -> CertificateChain:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _builder(_CA_NAME, key, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(place / "ca.key", _pem_of_key(key), 0o600)
    _write(place / CA_FILE, made.public_bytes(serialization.Encoding.PEM), 0o644)
    return CertificateChain(made, key)


def _make_server(path: Path, ca: CertificateChain, names: Sequence[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])  # ub-common-name, RFC 5280
    made = (
        _builder(subject, key, SERVER_LIFE)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    _write(path, made.public_bytes(serialization.Encoding.PEM) + _pem_of_key(key), 0o600)


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_CA_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # left by a killed process of the same number
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.replace(beside, path)
