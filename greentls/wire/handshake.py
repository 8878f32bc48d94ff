"""The header that every handshake message has (RFC 8446 section 4): one byte of type, three of length.

Parsing takes whole messages, header included, and so does to_bytes() give them.
"""

from __future__ import annotations

from struct import pack

from greentls.errors import WireError
from greentls.wire.reader import Reader
from greentls.wire.registry import AlertDescription, HandshakeType, name

__all__ = [
    "HEADER_SIZE",
    "MAX_HANDSHAKE_MESSAGE",
    "MAX_HELLO_BYTES",
    "body_size",
    "check_size",
    "message_bytes",
    "opaque",
    "open_message",
    "uint16s",
]

HEADER_SIZE = 4

# A hello with post-quantum key shares has 1.5-2 KiB, with several of them, or with a large ticket, some 17 KiB. OpenSSL
# takes 128 KiB, Go 64 KiB. A smaller limit would lose clients; this one bounds what a peer that has shown nothing yet
# may make us keep.
MAX_HELLO_BYTES = 64 * 1024

# The longest of the others are certificate chains: OpenSSL takes 100 KiB by default, Go 256 KiB; the header could say
# 16 MiB.
MAX_HANDSHAKE_MESSAGE = 256 * 1024


def body_size(header: bytes | bytearray) -> int:
    """How many bytes come after a message's header, by the header."""
    return int.from_bytes(header[1:HEADER_SIZE], "big")


def check_size(size: int, first: bool) -> None:
    """Raises WireError if size is too much for a message's body. first: whether it is the first message of a stream."""
    limit = MAX_HELLO_BYTES if first else MAX_HANDSHAKE_MESSAGE
    if size > limit:
        raise WireError("length", f"{size} bytes", f"at most {limit} expected", AlertDescription.illegal_parameter)


def open_message(message: bytes, handshake_type: HandshakeType, structure: str) -> Reader:
    """A Reader of the body, which RFC 8446 calls structure. Raises WireError unless message is one of handshake_type,
    whole, and nothing more."""
    size = HEADER_SIZE + body_size(message)
    if len(message) != size:
        raise WireError(structure, f"{len(message)} bytes", f"{size} expected", AlertDescription.decode_error)
    if message[0] != handshake_type:
        got, expected = name(HandshakeType, message[0]), f"{handshake_type.name} expected"
        raise WireError("msg_type", got, expected, AlertDescription.unexpected_message)
    return Reader(message, structure, HEADER_SIZE, len(message))


def message_bytes(handshake_type: HandshakeType, body: bytes) -> bytes:
    """The whole message: the inverse of open_message()."""
    return bytes((handshake_type,)) + opaque(3, body)


def opaque(length_size: int, content: bytes) -> bytes:
    """A vector: content behind its length. OverflowError if length_size bytes cannot say it."""
    return len(content).to_bytes(length_size, "big") + content


def uint16s(length_size: int, numbers: tuple[int, ...]) -> bytes:
    """A vector of two-byte numbers."""
    return opaque(length_size, pack(f">{len(numbers)}H", *numbers))
