"""Records (RFC 8446 5.1), and RecordReader: a byte stream in, whole handshake messages out.

A handshake message may be split over records, and a record may hold several. What the RFC forbids is refused: a record
of another type inside of a message, an alert record that holds nothing, a fragment that is too long. A handshake record
that holds nothing is forbidden too, and passed over, as OpenSSL does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from greentls.errors import WireError
from greentls.wire.handshake import HEADER_SIZE, body_size, check_size
from greentls.wire.not_tls import NotTLS, recognise
from greentls.wire.registry import AlertDescription, ContentType, HandshakeType, name

__all__ = [
    "MAX_CIPHERTEXT",
    "MAX_HELLO_RECORDS",
    "MAX_PLAINTEXT",
    "RECORD_HEADER_SIZE",
    "RecordHeader",
    "RecordReader",
    "begins_hello",
    "check_order",
    "open_stream",
]

RECORD_HEADER_SIZE = 5

MAX_PLAINTEXT = 2**14  # bytes of a fragment, RFC 8446 5.1
MAX_CIPHERTEXT = MAX_PLAINTEXT + 2048  # RFC 5246 6.2.3; TLS 1.3 allows but 256 more than the plaintext

# A hello of 2 KiB in records of one byte passes, as with OpenSSL, which does not count. A record costs a peer six bytes
# and us microseconds: this bounds what a peer that has shown nothing yet can make us spend.
MAX_HELLO_RECORDS = 4096


class RecordHeader(NamedTuple):
    """The first five bytes of a TLSPlaintext or TLSCiphertext (RFC 8446 5.1, 5.2)."""

    type: int
    legacy_record_version: int
    length: int

    @classmethod
    def parse(cls, data: bytes | bytearray, encrypted: bool) -> RecordHeader:
        """data: RECORD_HEADER_SIZE bytes. encrypted: whether handshake messages and alerts are. Raises WireError."""
        content_type, major, length = data[0], data[1], data[3] << 8 | data[4]
        if content_type not in _CONTENT_TYPES:
            got = name(ContentType, content_type)
            raise WireError("type", got, "a ContentType expected", AlertDescription.unexpected_message)
        if major != 3:
            raise WireError("legacy_record_version", f"major {major}", "3 expected", AlertDescription.protocol_version)
        limit = MAX_CIPHERTEXT if encrypted or content_type == ContentType.application_data else MAX_PLAINTEXT
        if length > limit:
            raise WireError("length", f"{length} bytes", f"at most {limit} expected", AlertDescription.record_overflow)
        if length == 0 and content_type == ContentType.alert:  # an empty handshake record OpenSSL passes over
            expected = "at least 1 byte expected"
            raise WireError("fragment", "an empty alert record", expected, AlertDescription.unexpected_message)
        return cls(content_type, major << 8 | data[2], length)


_CONTENT_TYPES = frozenset(map(int, ContentType))


def open_stream(data: bytes | bytearray) -> RecordHeader | NotTLS | None:
    """What the first bytes of a stream are: None if more of them are needed to say. Raises WireError."""
    if len(data) < RECORD_HEADER_SIZE:
        return None
    if data[0] in _CONTENT_TYPES and data[1] == 3:
        return RecordHeader.parse(data, encrypted=False)
    return recognise(data)


def check_order(header: RecordHeader, in_message: bool) -> None:
    """Raises WireError if a record of another type comes inside of a handshake message (RFC 8446 5.1)."""
    if in_message and header.type != ContentType.handshake:
        got = f"a record of {name(ContentType, header.type)} inside of a handshake message"
        raise WireError("type", got, "handshake expected", AlertDescription.unexpected_message)


def begins_hello(message_header: bytes | bytearray, length: int) -> bool:
    """Whether a handshake record of length bytes, after a ChangeCipherSpec, holds a hello all the same.

    Before TLS 1.3 whatever follows is encrypted. In TLS 1.3 the ChangeCipherSpec means nothing (RFC 8446 D.4) and may
    stand between a HelloRetryRequest and the hello that follows it, in clear. One direction alone does not show which
    it is; but a hello fills its record to the byte, or goes on after a full one, and ciphertext that looks so is one
    record in billions.
    """
    size = HEADER_SIZE + body_size(message_header)
    whole = size == length or (size > length == MAX_PLAINTEXT)
    return whole and message_header[0] in (HandshakeType.client_hello, HandshakeType.server_hello)


def _is_whole_hello(data: bytearray) -> bool:
    """Whether a stream that begins with these bytes is one ClientHello in one record, and no more so far.

    Nearly every client's is, and to take it as it is costs half of what the general way does.
    """
    size = len(data) - RECORD_HEADER_SIZE
    return (
        HEADER_SIZE <= size <= MAX_PLAINTEXT
        and data[0] == ContentType.handshake
        and data[1] == 3
        and data[3] << 8 | data[4] == size
        and data[5] == HandshakeType.client_hello
        and data[6] << 16 | data[7] << 8 | data[8] == size - HEADER_SIZE
    )


class RecordReader:
    """Takes records and gives the handshake messages in them; alerts and application data behind the first message are
    skipped. Before it they are refused: a peer that has said nothing yet makes nobody keep more than a hello.

    After a ChangeCipherSpec handshake messages are encrypted, and skipped too; see begins_hello().
    """

    def __init__(self) -> None:
        self._bytes = bytearray()  # no whole record yet
        self._message = bytearray()  # no whole message yet
        self._records = 0
        self._first = True  # no whole message has been read
        self._encrypted = False
        self._failure: WireError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """The messages that data makes whole, each bytes, header included.

        The data are taken at once; messages that are not iterated over now come with the next call. Raises WireError,
        after the messages before the fault, and from then on always.
        """
        self._bytes += data
        return self._messages()

    def _messages(self) -> Iterator[bytes]:
        if self._failure:
            self._bytes.clear()
            raise self._failure
        if not self._records and _is_whole_hello(self._bytes):
            whole = bytes(self._bytes[RECORD_HEADER_SIZE:])
            self._bytes.clear()
            self._records, self._first = 1, False
            yield whole
        try:
            while (fragment := self._next_fragment()) is not None:
                self._message += fragment
                while (message := self._next_message()) is not None:
                    self._first = False
                    yield message
        except WireError as failure:
            self._failure = failure
            raise

    def _next_fragment(self) -> bytes | None:
        """The next fragment that belongs to handshake messages in clear; None for "more, please"."""
        while len(self._bytes) >= RECORD_HEADER_SIZE:
            if self._records:
                header = RecordHeader.parse(self._bytes, self._encrypted)
            else:
                opening = open_stream(self._bytes)
                if opening is None:
                    return None
                if isinstance(opening, NotTLS):
                    expected = "a TLS record expected"
                    raise WireError("TLSPlaintext", opening.value, expected, AlertDescription.unexpected_message)
                header = opening
            check_order(header, bool(self._message))
            if self._first and header.type != ContentType.handshake:
                got = f"a record of {name(ContentType, header.type)} before the first message"
                raise WireError("type", got, "handshake expected", AlertDescription.unexpected_message)
            end = RECORD_HEADER_SIZE + header.length
            if len(self._bytes) < end:
                return None
            fragment = bytes(self._bytes[RECORD_HEADER_SIZE:end])
            del self._bytes[:end]
            self._records += 1
            if self._first and self._records > MAX_HELLO_RECORDS:
                expected = f"the first message in at most {MAX_HELLO_RECORDS} records expected"
                raise WireError("TLSPlaintext", f"{self._records} records", expected, AlertDescription.decode_error)
            if header.type == ContentType.handshake:
                if not self._encrypted or self._message or begins_hello(fragment[:HEADER_SIZE], len(fragment)):
                    return fragment
            elif header.type == ContentType.change_cipher_spec:
                self._encrypted = True
        return None

    def _next_message(self) -> bytes | None:
        if len(self._message) < HEADER_SIZE:
            return None
        size = body_size(self._message)
        check_size(size, self._first)
        end = HEADER_SIZE + size
        if len(self._message) < end:
            return None
        message = bytes(self._message[:end])
        del self._message[:end]
        return message
