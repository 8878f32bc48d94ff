"""TLS over the standard library's MemoryBIOs: the inside of an ssl.SSLObject that SSLContext.wrap_bio() makes.

The standard library's SSLObject hands every call on to its _sslobj. So that class stays as it is, and isinstance()
holds for asyncio, urllib3 and trio. Here is the _sslobj; unlike the standard library's it lets callbacks wait.
"""

from __future__ import annotations

import ssl as _stdlib_ssl
from collections.abc import Callable
from typing import NoReturn, TypeVar

from greentls.core.session import Session
from greentls.errors import ConcurrentUseError, TLSError, UnexpectedEOF, WantRead
from greentls.openssl import bios
from greentls.openssl.library import pointer
from greentls.openssl.pump import ENDED, WANT_READ
from greentls.ssl.client_hello import ReadsClientHello
from greentls.ssl.compiled import make_connection
from greentls.ssl.context import PassedThrough, SSLContext
from greentls.ssl.errors import want_read
from greentls.wire.record import MAX_HELLO_RECORDS, RECORD_HEADER_SIZE
from greentls.wire.registry import AlertDescription

__all__ = ["BIOConnection"]

Result = TypeVar("Result")


class _Certificate(bytes):
    """A certificate's DER, with the method by which SSLObject and truststore ask a certificate of _ssl's for it."""

    def public_bytes(self, format: int = 2) -> bytes | str:
        """format: _ssl.ENCODING_DER, or _ssl.ENCODING_PEM."""
        return bytes(self) if format == 2 else _stdlib_ssl.DER_cert_to_PEM_cert(self)


_RECEIVE, _SEND = "receive", "send"


class BIOConnection(ReadsClientHello):
    """Takes ciphertext from the incoming MemoryBIO and leaves it in the outgoing one.

    owner: the SSLObject that this is in.
    """

    def __init__(
        self,
        context: SSLContext,
        incoming: _stdlib_ssl.MemoryBIO,
        outgoing: _stdlib_ssl.MemoryBIO,
        server_side: bool,
        server_hostname: str | None,
        owner: _stdlib_ssl.SSLObject,
        session: Session | None,
    ) -> None:
        self._context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        self._incoming, self._outgoing = incoming, outgoing
        self._header, self._rest = b"", 0  # of the record that is being fed: what has come, bytes that are missing
        self._records = 0  # that were fed since the last step came to its end
        self._free = [_RECEIVE, _SEND]  # turns that nobody has: see greentls.stream
        self._connection = make_connection(context, server_side, server_hostname, session, owner)

    @property
    def owner(self) -> _stdlib_ssl.SSLObject | None:
        """The SSLObject, as in the standard library; it is not kept alive from here."""
        owner: _stdlib_ssl.SSLObject | None = self._connection.owner()
        return owner

    def _run(self, step: Callable[..., Result], *arguments: object) -> Result:
        """Does one step of the connection: feeds it as much ciphertext as it needs, and sends what it has for the peer.

        Raises SSLWantReadError, SSLError, or what a callback raised.
        """
        try:
            while (result := step(*arguments)) == WANT_READ:
                self._receive()
            if result == ENDED:
                raise UnexpectedEOF(self._connection.name)
            self._records = 0
            return result
        except TLSError as error:
            raise self._as_stdlib(error) from error
        finally:
            self._flush()

    def _receive(self) -> bytes:
        """Feeds the connection one record, or the part of it that has come, or the end: b"". Raises SSLWantReadError.

        Never more than one record: bytes behind a close_notify are no ciphertext, and cannot be put back into a
        MemoryBIO whose end has been written. Raises ConcurrentUseError if another greenlet was interrupted in here.
        """
        mine = True
        try:
            try:
                self._free.remove(_RECEIVE)
            except ValueError:
                mine = False
                raise ConcurrentUseError("another greenlet is receiving for this connection") from None
            return self._next_record()
        finally:
            if mine and _RECEIVE not in self._free:
                self._free.append(_RECEIVE)

    def _next_record(self) -> bytes:
        incoming = self._incoming
        if not incoming.pending and (self._connection.eof or not incoming.eof):
            raise want_read()
        header, fragment = b"", b""
        if not self._rest:
            header = incoming.read(RECORD_HEADER_SIZE - len(self._header))
            self._header += header
            if len(self._header) == RECORD_HEADER_SIZE:
                self._rest, self._header = int.from_bytes(self._header[3:], "big"), b""
                self._count_record()
        if self._rest:
            fragment = incoming.read(self._rest)
            self._rest -= len(fragment)
        data: bytes = header + fragment
        self._connection.receive_data(data)
        return data

    def _count_record(self) -> None:
        self._records += 1
        if self._records > MAX_HELLO_RECORDS:
            reason = f"more than {MAX_HELLO_RECORDS} records in which nothing comes to its end"
            self._refuse(AlertDescription.unexpected_message, reason)
            raise TLSError("read" if self._connection.established else "do_handshake", reason=reason)

    def _refuse(self, alert: int, reason: str) -> None:
        self._connection.refuse(alert, reason)
        self._flush()

    def _flush(self) -> None:
        """Sends in the order in which OpenSSL made it. If another greenlet is sending, that one looks again."""
        mine = True
        while mine and self._connection.unsent:
            try:
                try:
                    self._free.remove(_SEND)
                except ValueError:
                    mine = False
                else:
                    self._outgoing.write(self._connection.data_to_send())
            finally:
                if mine and _SEND not in self._free:
                    self._free.append(_SEND)

    def _passed_through(self, plain: PassedThrough) -> NoReturn:
        raise TypeError("client_hello_callback answered with a PlainSocket: over wrap_bio() it cannot be passed on")

    def get_verified_chain(self) -> list[bytes]:
        return [_Certificate(each) for each in super().get_verified_chain()]

    def get_unverified_chain(self) -> list[bytes]:
        return [_Certificate(each) for each in super().get_unverified_chain()]

    def pending(self) -> int:
        """Plaintext bytes. The owner of the incoming MemoryBIO knows what is in there."""
        return self._connection.pending

    def do_handshake(self) -> None:
        """Raises SSLWantReadError until done, SSLError, or what a callback raised."""
        self._observed()

    def _handshake(self) -> None:
        if self.server_side and not self._connection.started:
            self._begin()
        self._run(self._resume)

    def _resume(self) -> int:
        with self._resuming():
            return self._connection.step_handshake()

    def read(self, size: int = 1024, buffer: bytearray | memoryview | None = None) -> bytes | int:
        """Reads 1 to size bytes; into the buffer if there is one, and returns their number. b"" or 0 after the peer's
        close_notify. Raises SSLWantReadError, SSLError."""
        self._finish_handshake()
        if buffer is None:
            if size < 0:
                raise ValueError("size should not be negative")
            if not size:
                return b""
            said = self._run(self._connection.step_read, size)
            return said if isinstance(said, bytes) else b""
        with memoryview(buffer) as view, view.cast("B") as octets, octets[: size if size > 0 else None] as part:
            if not part:
                return 0
            with bios.writable(part) as room:
                return max(self._run(self._connection.step_read_into, pointer(room), len(room)), 0)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Writes all of data. Raises SSLError; SSLWantReadError before the handshake is finished, and where
        Connection.write() raises WantRead."""
        self._finish_handshake()
        with memoryview(data) as view, view.cast("B") as octets:
            return self._run(self._step_write, octets) if octets else 0

    def _step_write(self, octets: memoryview) -> int:
        try:
            return self._connection.write(octets)
        except WantRead:
            return WANT_READ

    def shutdown(self) -> None:
        """Sends close_notify, and raises SSLWantReadError until the peer's has come. Raises SSLError, also if data come
        before it."""
        shutdown = self._connection.shutdown
        self._run(lambda: shutdown() or shutdown())  # says it, and looks for the peer's

    def _finish_handshake(self) -> None:
        if not self._connection.established:
            self.do_handshake()
