"""What a key process and its clients say to each other: a request and an answer, in turn, over a Unix socket.

Each is a number of four bytes, a length of four bytes, both in network order, and as many bytes. The answer has its
request's number, so that one that came too late or twice is not taken for another's. A request's first byte says what
is wanted:

    LIST                                                    the public keys, in DER (SubjectPublicKeyInfo), each behind
                                                            a length of two bytes
    SIGN, the SHA-256 of a public key, a length of one      the signature
    byte, the algorithm's name, the message

An answer's first byte is DONE, or REFUSED and the reason as text. There is no request for a private key.
"""

from __future__ import annotations

import struct
from typing import Protocol

__all__ = ["DONE", "FINGERPRINT", "LIST", "MAX_ANSWER", "MAX_REQUEST", "REFUSED", "SIGN", "receive", "send"]

LIST, SIGN = b"L", b"S"
DONE, REFUSED = b"+", b"-"
FINGERPRINT = 32  # bytes

# A TLS 1.2 client signs the handshake so far, with the server's certificates, of which OpenSSL takes 100 KiB.
MAX_REQUEST = 256 << 10
MAX_ANSWER = 256 << 10  # 500 public keys of RSA-4096

_HEADER = struct.Struct(">II")


class Socket(Protocol):
    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> object: ...


def send(sock: Socket, number: int, body: bytes) -> None:
    sock.sendall(_HEADER.pack(number, len(body)) + body)


def receive(sock: Socket, limit: int) -> tuple[int, bytes] | None:
    """A number, and a body of one byte to limit bytes; None if the peer has closed in front of it. Raises OSError."""
    header = _exactly(sock, _HEADER.size)
    if not header:
        return None
    number, length = _HEADER.unpack(header)
    if not 0 < length <= limit:
        raise ConnectionError(f"{length} bytes were announced; {limit} are the most")
    body = _exactly(sock, length)
    if not body:
        raise ConnectionError("closed between a length and what it announced")
    return number, body


def _exactly(sock: Socket, size: int) -> bytes:
    """So many bytes; none at the end of the stream. Raises ConnectionError if that comes in the middle."""
    parts: list[bytes] = []
    missing = size
    while missing:
        part = sock.recv(min(missing, 65536))
        if not part:
            if parts:
                raise ConnectionError(f"closed {missing} bytes too early")
            return b""
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
