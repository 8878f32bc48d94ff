"""The fields of an SSL_SESSION's DER (OpenSSL, ssl/ssl_asn1.c). A search for a tag's bytes would be wrong once in a
thousand times: keys, identifiers and certificates in it are random."""

from __future__ import annotations


def _read(data: bytes) -> tuple[int, bytes, bytes]:
    """The first tag, its content, and what follows."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    return data[0], data[start : start + length], data[start + length :]


def _fields(session: bytes) -> list[tuple[int, bytes]]:
    _, rest, _ = _read(session)
    fields = []
    while rest:
        tag, content, rest = _read(rest)
        fields.append((tag, content))
    return fields


def master_secret(session: bytes) -> bytes:
    """The third OCTET STRING, behind the cipher and the session's identifier."""
    return [content for tag, content in _fields(session) if tag == 0x04][2]


def ticket(session: bytes) -> bytes:
    """The OCTET STRING in [10]."""
    (field,) = (content for tag, content in _fields(session) if tag == 0xAA)
    return _read(field)[1]
