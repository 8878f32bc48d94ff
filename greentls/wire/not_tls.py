"""Recognises a stream that is not TLS by its first bytes, so that a server can answer it or report it."""

from __future__ import annotations

from enum import Enum

__all__ = ["NotTLS", "recognise"]


class NotTLS(Enum):
    """A kind of stream. The value is a text for people."""

    HTTP_REQUEST = "an HTTP request"
    SSLV2_HELLO = "an SSLv2 ClientHello"
    SSH_BANNER = "an SSH banner"
    PROXY_V1 = "a PROXY header, version 1"
    PROXY_V2 = "a PROXY header, version 2"
    UNKNOWN = "not TLS, and unknown"


# RFC 9110 9.3, RFC 5789, and HTTP/2's preface (RFC 9113 3.4), which is designed to look like a request.
_HTTP_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI")

_OPENINGS = [
    *((f"{method} ".encode(), NotTLS.HTTP_REQUEST) for method in _HTTP_METHODS),
    (b"SSH-", NotTLS.SSH_BANNER),  # RFC 4253 4.2
    (b"PROXY ", NotTLS.PROXY_V1),
    (b"\r\n\r\n\0\r\nQUIT\n", NotTLS.PROXY_V2),
]

# RFC 5246 E.2, byte by byte: a length with the high bit set, type 1, a version of SSL 2, SSL 3 or TLS.
_SSLV2_HELLO = (range(0x80, 0x100), range(0x100), (1,), (0, 3), range(0x100))


def recognise(data: bytes | bytearray) -> NotTLS | None:
    """Returns the kind of stream that begins with data: UNKNOWN for anything else, None if more bytes are needed."""
    undecided = False
    for opening, kind in _OPENINGS:
        if data.startswith(opening):
            return kind
        undecided |= opening.startswith(data)
    if all(byte in allowed for byte, allowed in zip(data, _SSLV2_HELLO, strict=False)):
        return NotTLS.SSLV2_HELLO if len(data) >= len(_SSLV2_HELLO) else None
    return None if undecided else NotTLS.UNKNOWN
