"""The header of a handshake message (RFC 8446 section 4): one byte of type, three of length.

Every parse() takes a whole message with its header, and every to_bytes() returns one.
"""

from __future__ import annotations

from struct import pack

from greentls.errors import WireError
from greentls.wire.reader import Reader
from greentls.wire.registry import AlertDescription, HandshakeType, name

HEADER_SIZE = 4

# A hello with post-quantum key shares has 1.5 to 2 KiB; with several of them or a large ticket, about 17 KiB. OpenSSL
# takes 128 KiB, Go 64 KiB. A smaller limit would lose clients. This one bounds the memory that an unauthenticated peer
# can claim.
MAX_HELLO_BYTES = 64 * 1024

# The longest other messages are certificate chains: OpenSSL takes 100 KiB by default, Go 256 KiB. The header allows
# 16 MiB.
MAX_HANDSHAKE_MESSAGE = 256 * 1024


def body_size(header: bytes | bytearray) -> int:
    """Returns the number of bytes after a message's header."""
    return int.from_bytes(header[1:HEADER_SIZE], "big")


def check_size(size: int, first: bool) -> None:
    """Raises WireError if a body of size bytes is too long. first: whether this is a stream's first message."""
    limit = MAX_HELLO_BYTES if first else MAX_HANDSHAKE_MESSAGE
    if size > limit:
        raise WireError("length", f"{size} bytes", f"at most {limit} expected", AlertDescription.illegal_parameter)


def open_message(message: bytes, handshake_type: HandshakeType, structure: str) -> Reader:
    """Returns a Reader of the body, which RFC 8446 calls structure.

    Raises WireError unless message is exactly one whole message of handshake_type.
    """
    size = HEADER_SIZE + body_size(message)
    if len(message) != size:
        raise WireError(structure, f"{len(message)} bytes", f"{size} expected", AlertDescription.decode_error)
    if message[0] != handshake_type:
        got, expected = name(HandshakeType, message[0]), f"{handshake_type.name} expected"
        raise WireError("msg_type", got, expected, AlertDescription.unexpected_message)
    return Reader(message, structure, HEADER_SIZE, len(message))


def message_bytes(handshake_type: HandshakeType, body: bytes) -> bytes:
    """Builds the whole message: the inverse of open_message()."""
    return bytes((handshake_type,)) + opaque(3, body)


def opaque(length_size: int, content: bytes) -> bytes:
    """Builds a vector: the length, then the content. Raises OverflowError if length_size bytes are too few."""
    return len(content).to_bytes(length_size, "big") + content


def uint16s(length_size: int, numbers: tuple[int, ...]) -> bytes:
    """Builds a vector of two-byte numbers."""
    return opaque(length_size, pack(f">{len(numbers)}H", *numbers))
