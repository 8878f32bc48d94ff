"""getpeercert()'s dict, against CPython's own decoder."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from greentls.ssl.peercert import peer_certificate

# CPython's own test certificates, where the interpreter has them, and ours.
CPYTHONS = sorted((Path(ssl.__file__).parent / "test" / "certdata").glob("*.pem"))


def decoded(path):
    return ssl._ssl._test_decode_cert(str(path))


def written(tmp_path, builder, key):
    path = tmp_path / "certificate.pem"
    certificate = builder.sign(key, hashes.SHA256())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path, certificate.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def key():
    return ec.generate_private_key(ec.SECP256R1())


def builder(key, subject, day=5, serial=0x0ABC):
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA")]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(datetime.datetime(2024, 2, day, 3, 4, 5))
        .not_valid_after(datetime.datetime(2051, 12, 31, 23, 59, 59))
    )


SUBJECT = x509.Name(
    [
        x509.RelativeDistinguishedName(
            [x509.NameAttribute(NameOID.COMMON_NAME, "üñí"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Org")]
        ),
        x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org")]),
        x509.RelativeDistinguishedName([x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4.5.6"), "unknown")]),
        x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.SERIAL_NUMBER, "77")]),
    ]
)


@pytest.mark.parametrize("serial", [1, 0x0ABC, 0xF00D, 2**158 + 1])
@pytest.mark.parametrize("day", [5, 25])
def test_names_times_and_numbers(tmp_path, key, day, serial):
    path, der = written(tmp_path, builder(key, SUBJECT, day, serial), key)
    assert peer_certificate(der) == decoded(path)


def test_every_kind_of_name_and_place(tmp_path, key):
    names = [
        x509.DNSName("example.org"),
        x509.DNSName("*.example.org"),
        x509.RFC822Name("a@example.org"),
        x509.UniformResourceIdentifier("https://example.org/x"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1:0")),
        x509.DirectoryName(SUBJECT),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4.5")),
    ]
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(f"http://{index}.example.org/"))
        for index, method in enumerate(
            [AuthorityInformationAccessOID.OCSP, AuthorityInformationAccessOID.CA_ISSUERS] * 2,
        )
    ]
    points = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(f"http://crl/{index}")], None, None, None)
        for index in range(2)
    ]
    certificate = (
        builder(key, SUBJECT)
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.AuthorityInformationAccess(access), False)
        .add_extension(x509.CRLDistributionPoints(points), False)
    )
    path, der = written(tmp_path, certificate, key)
    assert peer_certificate(der) == decoded(path)


def test_pythons_own_certificates(pki):
    compared = 0
    for path in [Path(pki.cert_file), Path(pki.ca_file), *CPYTHONS]:
        try:
            expected = decoded(path)
            der = ssl.PEM_cert_to_DER_cert(_first_certificate(path))
            mine = peer_certificate(der)
        except (
            ValueError,
            ssl.SSLError,
            CryptographyDeprecationWarning,
        ):  # keys, CRLs, and what cryptography refuses to read
            continue
        if "othername" in repr(expected):  # CPython's text for these is not kept stable
            continue
        assert mine == expected, path
        compared += 1
    assert compared >= 2


def _first_certificate(path):
    text = path.read_text("latin-1")
    start, end = text.find("-----BEGIN CERTIFICATE-----"), text.find("-----END CERTIFICATE-----")
    if start < 0:
        raise ValueError("no certificate")
    return text[start : end + len("-----END CERTIFICATE-----")] + "\n"
