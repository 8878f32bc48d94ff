"""Makes the dict of ssl.SSLSocket.getpeercert() from a certificate, key by key as CPython's _ssl.c does."""

from __future__ import annotations

import functools
import ipaddress
import ssl as _stdlib_ssl
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from greentls.certificates import read_certificate

__all__ = ["PeerCertificate", "peer_certificate"]

PeerCertificate = dict[str, Any]  # Any: the standard library's values are strings, numbers and nested tuples


def peer_certificate(der: bytes) -> PeerCertificate:
    """Returns the certificate's dict. Raises ValueError if it cannot be read."""
    certificate = read_certificate(der)
    serial = f"{abs(certificate.serial_number):X}"
    result: PeerCertificate = {
        "subject": _name(certificate.subject),
        "issuer": _name(certificate.issuer),
        "version": certificate.version.value + 1,
        "serialNumber": "-" * (certificate.serial_number < 0) + serial.zfill(len(serial) + len(serial) % 2),
        "notBefore": _time(certificate.not_valid_before_utc),
        "notAfter": _time(certificate.not_valid_after_utc),
    }
    extensions = certificate.extensions
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            result["subjectAltName"] = tuple(_general_name(each) for each in value)
        elif isinstance(value, x509.AuthorityInformationAccess):
            for key, method in _ACCESS.items():
                places = tuple(_uris(each.access_location for each in value if each.access_method == method))
                if places:
                    result[key] = places
        elif isinstance(value, x509.CRLDistributionPoints):
            places = tuple(_uris(name for point in value for name in point.full_name or ()))
            if places:
                result["crlDistributionPoints"] = places
    return result


_ACCESS = {"OCSP": AuthorityInformationAccessOID.OCSP, "caIssuers": AuthorityInformationAccessOID.CA_ISSUERS}


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _time(moment: datetime) -> str:
    """Formats a time like ASN1_TIME_print(3), in English for every locale."""
    return f"{_MONTHS[moment.month - 1]} {moment.day:2} {moment:%H:%M:%S} {moment.year} GMT"


def _name(name: x509.Name) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(tuple((_long_name(each.oid.dotted_string), _text(each.value)) for each in rdn) for rdn in name.rdns)


@functools.lru_cache(1024)  # bounded: peers choose them
def _long_name(oid: str) -> str:
    """Returns OpenSSL's name of an object, or the digits if it has none."""
    try:
        return _stdlib_ssl._ASN1Object(oid).longname
    except ValueError:
        return oid


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


_TEXTS: dict[type, str] = {x509.DNSName: "DNS", x509.RFC822Name: "email", x509.UniformResourceIdentifier: "URI"}


def _general_name(name: x509.GeneralName) -> tuple[str, object]:
    if isinstance(name, x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier):
        return _TEXTS[type(name)], name.value
    if isinstance(name, x509.IPAddress):
        return "IP Address", _address(name.value)
    if isinstance(name, x509.DirectoryName):
        return "DirName", _name(name.value)
    if isinstance(name, x509.RegisteredID):
        return "Registered ID", name.value.dotted_string
    if isinstance(name, x509.OtherName):
        return "othername", _other_name(name.type_id.dotted_string, name.value)
    raise ValueError(f"unknown kind of general name: {name!r}")


_UTF8_STRING, _IA5_STRING = 0x0C, 0x16  # X.680 8.4
# Forms of otherName that OpenSSL 3 and later print, in GENERAL_NAME_print(3).
_OTHER_NAMES = {
    "1.3.6.1.4.1.311.20.2.3": "UPN",
    "1.3.6.1.5.5.7.8.5": "XmppAddr",
    "1.3.6.1.5.5.7.8.7": "SRVName",
    "1.3.6.1.5.5.7.8.8": "NAIRealm",
    "1.3.6.1.5.5.7.8.9": "SmtpUTF8Mailbox",
}
_PRINTED = 2046 - len("othername:")  # bytes: CPython reads one line of what OpenSSL prints, into a buffer of this size


def _other_name(form: str, value: bytes) -> str:
    """An otherName as CPython shows it. value: DER. Raises ValueError for a text that is not UTF-8."""
    label = _OTHER_NAMES.get(form)
    if label is None or value[:1] != bytes([_IA5_STRING if label == "SRVName" else _UTF8_STRING]):
        return "<unsupported>"
    text = label.encode() + b":" + _contents(value).partition(b"\0")[0]
    line, newline, _ = text.partition(b"\n")
    return (line + newline)[:_PRINTED].decode()


def _contents(der: bytes) -> bytes:
    """The contents of a DER element whose tag is one byte (X.690 8.1)."""
    return der[2 + (der[1] & 0x7F if der[1] > 0x7F else 0) :]


def _address(address: object) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return ":".join(f"{int(group, 16):X}" for group in address.exploded.split(":"))
    return str(address)


def _uris(names: Iterable[x509.GeneralName]) -> Iterable[str]:
    return (name.value for name in names if isinstance(name, x509.UniformResourceIdentifier))
