"""Records (RFC 8446 5.1), and RecordReader, which turns a byte stream into whole handshake messages.

A handshake message may be split over records, and a record may hold several. What the RFC forbids is refused: a record
of another type inside a message, an empty alert record, a fragment that is too long. The RFC also forbids an empty
handshake record, but it is skipped, as OpenSSL does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from greentls.errors import WireError
from greentls.wire.handshake import HEADER_SIZE, body_size, check_size
from greentls.wire.not_tls import NotTLS, recognise
from greentls.wire.registry import AlertDescription, ContentType, HandshakeType, name

RECORD_HEADER_SIZE = 5

MAX_PLAINTEXT = 2**14  # bytes of a fragment, RFC 8446 5.1
MAX_CIPHERTEXT = MAX_PLAINTEXT + 2048  # RFC 5246 6.2.3; TLS 1.3 allows only 256 more than the plaintext

# A hello of 2 KiB in records of one byte is accepted, as by OpenSSL, which has no limit. A record costs a peer six
# bytes and us microseconds. This bounds the time that an unauthenticated peer can claim.
MAX_HELLO_RECORDS = 4096


class RecordHeader(NamedTuple):
    """The first five bytes of a TLSPlaintext or TLSCiphertext (RFC 8446 5.1, 5.2)."""

    type: int
    legacy_record_version: int
    length: int

    @classmethod
    def parse(cls, data: bytes | bytearray, encrypted: bool) -> RecordHeader:
        """Parses RECORD_HEADER_SIZE bytes. Raises WireError.

        encrypted: whether handshake messages and alerts are encrypted.
        """
        content_type, major, length = data[0], data[1], data[3] << 8 | data[4]
        if content_type not in _CONTENT_TYPES:
            got = name(ContentType, content_type)
            raise WireError("type", got, "a ContentType expected", AlertDescription.unexpected_message)
        if major != 3:
            raise WireError("legacy_record_version", f"major {major}", "3 expected", AlertDescription.protocol_version)
        limit = MAX_CIPHERTEXT if encrypted or content_type == ContentType.application_data else MAX_PLAINTEXT
        if length > limit:
            raise WireError("length", f"{length} bytes", f"at most {limit} expected", AlertDescription.record_overflow)
        if length == 0 and content_type == ContentType.alert:  # OpenSSL skips an empty handshake record
            expected = "at least 1 byte expected"
            raise WireError("fragment", "an empty alert record", expected, AlertDescription.unexpected_message)
        return cls(content_type, major << 8 | data[2], length)


_CONTENT_TYPES = frozenset(map(int, ContentType))


def open_stream(data: bytes | bytearray) -> RecordHeader | NotTLS | None:
    """Returns the first record's header, or what the stream is instead; None if more bytes are needed.

    Raises WireError.
    """
    if len(data) < RECORD_HEADER_SIZE:
        return None
    if data[0] in _CONTENT_TYPES and data[1] == 3:
        return RecordHeader.parse(data, encrypted=False)
    return recognise(data)


def check_order(header: RecordHeader, in_message: bool) -> None:
    """Raises WireError for a record of another type inside a handshake message (RFC 8446 5.1)."""
    if in_message and header.type != ContentType.handshake:
        got = f"a record of {name(ContentType, header.type)} inside a handshake message"
        raise WireError("type", got, "handshake expected", AlertDescription.unexpected_message)


def begins_hello(message_header: bytes | bytearray, length: int) -> bool:
    """Whether a handshake record of length bytes after a ChangeCipherSpec holds a plaintext hello.

    Before TLS 1.3 everything after a ChangeCipherSpec is encrypted. In TLS 1.3 it means nothing (RFC 8446 D.4) and may
    come between a HelloRetryRequest and the hello that answers it. One direction alone does not show the version. But
    a hello ends exactly with its record, or continues after a full one. One encrypted record in billions looks the
    same.
    """
    size = HEADER_SIZE + body_size(message_header)
    whole = size == length or (size > length == MAX_PLAINTEXT)
    return whole and message_header[0] in (HandshakeType.client_hello, HandshakeType.server_hello)


def _is_whole_hello(data: bytearray) -> bool:
    """Whether these bytes are exactly one ClientHello in one record.

    Nearly every client sends it so, and this way costs half as much as the general one.
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
    """Reads records and returns the handshake messages in them.

    Alerts and application data are refused before the first message, so that an unauthenticated peer cannot make a
    caller buffer more than a hello. After it they are skipped. So are handshake messages after a ChangeCipherSpec,
    because they are encrypted; see begins_hello().
    """

    def __init__(self) -> None:
        self._bytes = bytearray()  # less than a record
        self._message = bytearray()  # less than a message
        self._records = 0
        self._first = True  # no whole message has been read
        self._encrypted = False
        self._failure: WireError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Takes data and yields each message that it completes, as bytes with the header.

        The data is taken at once. Messages that are not iterated over now come with the next call. Raises WireError
        after the messages before the fault, and in every later call.
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
        """Returns the next fragment of plaintext handshake messages, or None if more bytes are needed."""
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
