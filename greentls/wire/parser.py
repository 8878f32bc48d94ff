"""Parser: turns one direction of a TLS stream into events, like http-parser.

Feed it pieces of any size. It calls each handler as soon as the bytes allow. It buffers a handshake message only if a
handler wants the whole of it, and application data never. The work is linear in the number of bytes, however they are
cut.

The parser moves in steps. A step takes bytes up to the next event (a record's header, a message's header, a piece of a
body, its end) and calls the handlers for it. pause() stops the parser after the current step.
"""

from __future__ import annotations

from collections.abc import Callable

from greentls.errors import WireError
from greentls.wire.handshake import HEADER_SIZE, body_size, check_size
from greentls.wire.hello import ClientHello, ServerHello
from greentls.wire.messages import (
    Alert,
    Certificate,
    CertificateRequest,
    CertificateStatus,
    Finished,
    NewSessionTicket,
    ServerKeyExchange,
)
from greentls.wire.not_tls import NotTLS
from greentls.wire.record import RECORD_HEADER_SIZE, RecordHeader, begins_hello, check_order, open_stream
from greentls.wire.registry import AlertDescription, ContentType, HandshakeType, name

__all__ = ["Parser"]


class Parser:
    """Parses what one peer sends. Handlers are methods of a subclass, or keyword arguments of these names.

    on_record is called after the events of the record's content. After a ChangeCipherSpec of TLS 1.2, handshake
    messages and alerts are encrypted and go to on_encrypted in pieces. Numbers are ints; ContentType and HandshakeType
    name them.

    An exception from a handler leaves feed() as itself. After it, and after a WireError, the parser is finished, and
    feed() raises the same exception again.
    """

    on_record: Callable[[int, int, bytes], object] | None = None  # content_type, legacy_record_version, fragment
    on_handshake_begin: Callable[[int, int], object] | None = None  # msg_type, length without the header
    on_handshake_body: Callable[[bytes], object] | None = None  # a piece of the body
    on_handshake_end: Callable[[int], object] | None = None  # msg_type, after the event of the whole message
    on_client_hello: Callable[[ClientHello], object] | None = None
    on_server_hello: Callable[[ServerHello], object] | None = None  # or a HelloRetryRequest
    on_new_session_ticket: Callable[[NewSessionTicket], object] | None = None
    on_certificate: Callable[[Certificate], object] | None = None
    on_server_key_exchange: Callable[[ServerKeyExchange], object] | None = None
    on_certificate_request: Callable[[CertificateRequest], object] | None = None
    on_finished: Callable[[Finished], object] | None = None
    on_certificate_status: Callable[[CertificateStatus], object] | None = None
    on_change_cipher_spec: Callable[[], object] | None = None
    on_alert: Callable[[Alert], object] | None = None
    on_encrypted: Callable[[int, bytes], object] | None = None  # content_type, a piece of the fragment
    on_application_data: Callable[[bytes], object] | None = None  # a piece of the fragment
    on_not_tls: Callable[[NotTLS], object] | None = None  # nothing more is consumed

    def __init__(self, **handlers: Callable[..., object]) -> None:
        for event, handler in handlers.items():
            if event not in _EVENTS:
                raise TypeError(f"Parser has no event {event!r}")
            setattr(self, event, handler)
        self._paused = False
        self._stopped = False  # the stream is not TLS
        self._failure: BaseException | None = None
        # The record.
        self._header = bytearray()  # of the next record, as far as received
        self._record = _NONE
        self._left = 0  # bytes of its fragment not received yet
        self._fragment: bytearray | None = None  # the received part, if it is needed
        self._encrypted = False  # a ChangeCipherSpec has been seen
        self._hidden = False  # this record's fragment is encrypted
        # The handshake message.
        self._message_header = bytearray()  # as far as received; empty between messages
        self._body_left = 0  # bytes of its body not received yet
        self._message: bytearray | None = None  # the received part, if it is needed
        self._first = True  # no whole message has been seen

    def feed(self, data: bytes | bytearray | memoryview) -> int:
        """Parses data and returns the number of consumed bytes: all, unless a handler paused or this is not TLS.

        Raises WireError if the stream violates the RFC, and any exception from a handler.
        """
        if self._failure is not None:
            raise self._failure
        data = bytes(data)
        position = 0
        try:
            while position < len(data) and not self._paused and not self._stopped:
                position += self._step(data, position)
        except BaseException as failure:
            self._failure = failure
            raise
        return position

    def pause(self) -> None:
        """Makes feed() consume nothing until resume(). In a handler, the events of the current step still follow."""
        self._paused = True

    def resume(self) -> None:
        """Lets feed() continue with the first byte that it did not consume."""
        self._paused = False

    def eof(self) -> None:
        """Ends the stream. Raises WireError if it ends inside a record or a handshake message."""
        if self._failure is not None:
            raise self._failure
        in_record = self._header or self._left
        if not self._stopped and (in_record or self._message_header):
            structure = "TLSPlaintext" if in_record else "Handshake"
            got, expected = "the stream ends inside it", "the rest of it expected"
            raise WireError(structure, got, expected, AlertDescription.decode_error)

    # Records -------------------------------------------------------------------------------------------------------

    def _step(self, data: bytes, position: int) -> int:
        """Consumes at least one byte from position on. Returns the number of consumed bytes."""
        if not self._left:
            return self._step_header(data, position)
        available = min(self._left, len(data) - position)
        size = self._step_fragment(data, position, available)
        if self._fragment is not None:
            self._fragment += data[position : position + size]
        self._left -= size
        if not self._left:
            self._end_record()
        return size

    def _step_header(self, data: bytes, position: int) -> int:
        # A stream that is not TLS may need more bytes than a header to be recognised. These are taken one by one.
        size = max(RECORD_HEADER_SIZE - len(self._header), 1)
        piece = data[position : position + size]
        self._header += piece
        if self._record is not _NONE:
            if len(self._header) == RECORD_HEADER_SIZE:
                self._begin_record(RecordHeader.parse(self._header, self._encrypted))
        elif isinstance(opening := open_stream(self._header), NotTLS):
            if self.on_not_tls is None:
                raise WireError("TLSPlaintext", opening.value, "a record expected", AlertDescription.unexpected_message)
            self._stopped = True
            self.on_not_tls(opening)
        elif opening is not None:
            self._begin_record(opening)
        return len(piece)

    def _begin_record(self, record: RecordHeader) -> None:
        check_order(record, bool(self._message_header))
        self._header.clear()
        self._record, self._left = record, record.length
        size_in_clear = _SIZES_IN_CLEAR.get(record.type)
        self._hidden = self._encrypted and record.type in _HIDDEN and record.length != size_in_clear
        needed = self.on_record or (size_in_clear and not self._hidden)
        self._fragment = bytearray() if needed else None
        if not record.length:
            self._end_record()

    def _step_fragment(self, data: bytes, position: int, available: int) -> int:
        """Consumes at least one available byte of the fragment. Returns the number of consumed bytes."""
        if self._hidden:
            if self.on_encrypted:
                self.on_encrypted(self._record.type, data[position : position + available])
        elif self._record.type == ContentType.handshake:
            return self._step_handshake(data, position, available)
        elif self._record.type == ContentType.application_data and self.on_application_data:
            self.on_application_data(data[position : position + available])
        return available

    def _end_record(self) -> None:
        content_type, version, _ = self._record
        fragment = bytes(self._fragment or b"")
        if self._hidden:
            pass
        elif content_type == ContentType.alert:
            alert = Alert.parse(fragment)
            if self.on_alert:
                self.on_alert(alert)
        elif content_type == ContentType.change_cipher_spec:
            if fragment != b"\1":
                got = fragment[:8].hex() or "nothing"
                raise WireError("change_cipher_spec", got, "01 expected", AlertDescription.unexpected_message)
            self._encrypted = True
            if self.on_change_cipher_spec:
                self.on_change_cipher_spec()
        elif content_type == ContentType.handshake and self._encrypted and len(self._message_header) < HEADER_SIZE:
            self._hide_message()
        if self.on_record:
            self.on_record(content_type, version, fragment)

    # Handshake messages --------------------------------------------------------------------------------------------

    def _step_handshake(self, data: bytes, position: int, available: int) -> int:
        if len(self._message_header) < HEADER_SIZE:
            piece = data[position : position + min(available, HEADER_SIZE - len(self._message_header))]
            self._message_header += piece
            if len(self._message_header) == HEADER_SIZE:
                self._begin_message()
            return len(piece)
        piece = data[position : position + min(available, self._body_left)]
        self._body_left -= len(piece)
        if self._message is not None:
            self._message += piece
        if self.on_handshake_body:
            self.on_handshake_body(piece)
        if not self._body_left:
            self._end_message()
        return len(piece)

    def _begin_message(self) -> None:
        if self._encrypted and not begins_hello(self._message_header, self._record.length):
            self._hide_message()
            return
        msg_type, size = self._message_header[0], body_size(self._message_header)
        if self._event(msg_type):
            check_size(size, self._first)
            self._message = self._message_header.copy()
        self._body_left = size
        if self.on_handshake_begin:
            self.on_handshake_begin(msg_type, size)
        if not size:
            self._end_message()

    def _hide_message(self) -> None:
        """Treats the message's header as ciphertext, like the rest of the record."""
        self._hidden = True
        if self.on_encrypted and self._message_header:
            self.on_encrypted(ContentType.handshake, bytes(self._message_header))
        self._message_header.clear()

    def _end_message(self) -> None:
        msg_type, message = self._message_header[0], self._message
        self._message_header.clear()
        self._message = None
        self._first = False
        handler = self._event(msg_type)
        if handler and message:
            handler(_PARSE[msg_type](bytes(message)))
        if self.on_handshake_end:
            self.on_handshake_end(msg_type)

    def _event(self, msg_type: int) -> Callable[..., object] | None:
        """The handler that takes whole messages of this type."""
        return getattr(self, f"on_{name(HandshakeType, msg_type)}") if msg_type in _PARSE else None


_NONE = RecordHeader(-1, 0, 0)  # no record yet

_HIDDEN = (ContentType.change_cipher_spec, ContentType.alert, ContentType.heartbeat)  # handshake: see _begin_message()

_SIZES_IN_CLEAR: dict[int, int] = {ContentType.change_cipher_spec: 1, ContentType.alert: 2}  # ciphertext is longer

_PARSE: dict[int, Callable[[bytes], object]] = {
    HandshakeType.client_hello: ClientHello.parse,
    HandshakeType.server_hello: ServerHello.parse,
    HandshakeType.new_session_ticket: NewSessionTicket.parse,
    HandshakeType.certificate: Certificate.parse,
    HandshakeType.server_key_exchange: ServerKeyExchange.parse,
    HandshakeType.certificate_request: CertificateRequest.parse,
    HandshakeType.finished: Finished.parse,
    HandshakeType.certificate_status: CertificateStatus.parse,
}

_EVENTS = frozenset(event for event in vars(Parser) if event.startswith("on_"))
