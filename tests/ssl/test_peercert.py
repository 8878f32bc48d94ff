"""getpeercert()'s dict, against CPython's own decoder."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from greentls.ssl.peercert import peer_certificate

# CPython's own test certificates, where the interpreter has them, and ours.
CPYTHONS = sorted((Path(ssl.__file__).parent / "test" / "certdata").glob("*.pem"))


def decoded(path):
    try:
        return ssl._ssl._test_decode_cert(str(path))
    except (ValueError, ssl.SSLError):
        # It leaves errors in the queue, which others would take for theirs.
        with contextlib.suppress(ssl.SSLError):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers("none of them")
        raise


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


def tlv(tag, contents):
    length = len(contents)
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([length]) if length < 128 else bytes([0x80 | len(octets)]) + octets) + contents


OTHER_NAMES = {
    "UPN": "1.3.6.1.4.1.311.20.2.3",
    "XmppAddr": "1.3.6.1.5.5.7.8.5",
    "SRVName": "1.3.6.1.5.5.7.8.7",
    "NAIRealm": "1.3.6.1.5.5.7.8.8",
    "SmtpUTF8Mailbox": "1.3.6.1.5.5.7.8.9",
    "one that OpenSSL knows": "2.5.4.3",
    "one that it does not": "1.2.3.4.5.6.7",
}
UTF8, IA5, PRINTABLE, BMP, OCTETS = 0x0C, 0x16, 0x13, 0x1E, 0x04
TEXTS = {
    "plain": b"user@example.org",
    "empty": b"",
    "UTF-8": "üser@exämple.org".encode(),
    "four bytes": "\U0001f600".encode(),
    "a colon": b"DNS:example.org:7",
    "NUL": b"user\0@example.org",
    "NUL first": b"\0user",
    "a line more": b"user\nDNS:example.org",
    "two lines more": b"\n\nuser\r\n",
    "a return": b"user\rDNS:example.org",
    "percent": b"%s%n%d",
    "not UTF-8": b"us\xffer",
    "overlong": b"\xc0\xae",
    "a surrogate": b"\xed\xa0\x80",
    "cut short": "ü".encode()[:1],
    "127": b"a" * 127,
    "128": b"a" * 128,
    "256": b"a" * 256,
    **{f"{length} bytes": b"a" * length for length in range(2015, 2050)},
    **{f"{length} two-byte letters": "ü".encode() * length for length in range(1008, 1024)},
    "70000": b"a" * 70_000,
}


@pytest.mark.parametrize("form", OTHER_NAMES.values(), ids=OTHER_NAMES.keys())
def test_other_names(tmp_path, key, form):
    compared = refused = 0
    for tag in (UTF8, IA5, PRINTABLE, BMP, OCTETS):
        for what, text in TEXTS.items() if tag in (UTF8, IA5) else [*TEXTS.items()][:3]:
            other = x509.OtherName(x509.ObjectIdentifier(form), tlv(tag, text))
            names = x509.SubjectAlternativeName([x509.DNSName("first"), other, x509.DNSName("last")])
            path, der = written(tmp_path, builder(key, SUBJECT).add_extension(names, False), key)
            try:
                expected = decoded(path)
            except (ValueError, ssl.SSLError):
                with pytest.raises(ValueError):
                    peer_certificate(der)
                refused += 1
                continue
            assert peer_certificate(der) == expected, (tag, what)
            compared += 1
    assert compared > 50
    labels = {oid: label for label, oid in OTHER_NAMES.items() if " " not in label}
    assert refused >= 4 or form not in labels


def test_values_of_other_names_that_are_not_der(tmp_path, key):
    """BER, and nonsense, in a signed certificate: nothing is made up."""
    for value in (
        b"\x2c\x06\x0c\x04user",  # constructed
        b"\x2c\x04user",
        b"\x0c\x80user\0\0",  # indefinite length
        b"\x0c\x81\x04user",  # a longer length than need be
        b"\x0c\x04user\x0c\x01x",  # two of them
        b"\x0c\x05user",  # too long a length
        b"\x0c\x03user",  # too short a one
        b"\x1f\x81\x0c\x04user",  # a long tag
        b"\x0c",
        b"\x05\0",
    ):
        other = x509.OtherName(x509.ObjectIdentifier(OTHER_NAMES["UPN"]), value)
        try:
            path, der = written(
                tmp_path, builder(key, SUBJECT).add_extension(x509.SubjectAlternativeName([other]), False), key
            )
        except ValueError:  # it cannot be made
            continue
        try:
            mine = peer_certificate(der)["subjectAltName"]
        except ValueError:
            continue
        assert mine in ((("othername", "<unsupported>"),), decoded(path).get("subjectAltName")), value


def test_pythons_own_certificates(pki):
    compared = 0
    for path in [Path(pki.cert_file), Path(pki.ca_file), *CPYTHONS]:
        try:
            expected = decoded(path)
            der = ssl.PEM_cert_to_DER_cert(_first_certificate(path))
            mine = peer_certificate(der)
        except (ValueError, ssl.SSLError):  # keys, CRLs, and what cryptography refuses to read
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
