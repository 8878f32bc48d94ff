"""The protocol of a key process: a client sends requests over a Unix socket, and waits for each answer.

A message is a number (four bytes), a length (four bytes, both in network order), and a body of that length. An answer
has its request's number, so that a late or repeated answer is not taken for another request's. The first byte of a
request says what it asks for:

    LIST                                                    the public keys in DER (SubjectPublicKeyInfo), each after
                                                            its length (two bytes)
    SIGN, the SHA-256 of a public key, the length (one      the signature
    byte) and name of the algorithm, the message

An answer begins with DONE, or with REFUSED and then has the reason as text. No request asks for a private key.
"""

from __future__ import annotations

import struct
from typing import Protocol

__all__ = ["DONE", "FINGERPRINT", "LIST", "MAX_ANSWER", "MAX_REQUEST", "REFUSED", "SIGN", "receive", "send"]

LIST, SIGN = b"L", b"S"
DONE, REFUSED = b"+", b"-"
FINGERPRINT = 32  # bytes

# A TLS 1.2 client signs the whole handshake so far. That contains the server's certificates, and OpenSSL accepts
# 100 KiB of them.
MAX_REQUEST = 256 << 10
MAX_ANSWER = 256 << 10  # room for 400 public keys of RSA-4096

_HEADER = struct.Struct(">II")


class Socket(Protocol):
    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> object: ...


def send(sock: Socket, number: int, body: bytes) -> None:
    sock.sendall(_HEADER.pack(number, len(body)) + body)


def receive(sock: Socket, limit: int) -> tuple[int, bytes] | None:
    """Receives a message: its number, and its body of 1 to limit bytes. None if the peer has closed the connection
    before it. Raises OSError."""
    header = _exactly(sock, _HEADER.size)
    if not header:
        return None
    number, length = _HEADER.unpack(header)
    if not 0 < length <= limit:
        raise ConnectionError(f"{length} bytes were announced; at most {limit} are accepted")
    body = _exactly(sock, length)
    if not body:
        raise ConnectionError("closed between a length and its body")
    return number, body


def _exactly(sock: Socket, size: int) -> bytes:
    """Receives exactly size bytes; none at the end of the stream. Raises ConnectionError if the stream ends in the
    middle."""
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
