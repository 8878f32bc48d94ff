"""TLS over the standard library's MemoryBIOs: what SSLContext.wrap_bio() puts into an ssl.SSLObject.

The standard library's SSLObject hands every call on to its _sslobj, so that class stays as it is and isinstance() holds
for asyncio, urllib3 and trio; here is the _sslobj. Unlike the standard library's, and gevent's, it lets an sni_callback
wait.
"""

from __future__ import annotations

import ssl as _stdlib_ssl
from typing import TYPE_CHECKING, Any, TypeVar

from greentls.connection import Connection
from greentls.errors import TLSError, WantRead
from greentls.openssl.binding import RECORD_SIZE
from greentls.session import Session
from greentls.ssl.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from greentls.ssl.context import SSLContext

__all__ = ["BIOConnection"]

T = TypeVar("T")

_WANT_READ = "The operation did not complete (read)"


class _Certificate(bytes):
    """DER. SSLObject and truststore ask a certificate of _ssl's for it by this method."""

    def public_bytes(self, format: int = 2) -> bytes | str:
        """format: _ssl.ENCODING_DER, or _ssl.ENCODING_PEM."""
        return bytes(self) if format == 2 else _stdlib_ssl.DER_cert_to_PEM_cert(self)


class BIOConnection(Facts):
    """Takes ciphertext from the incoming MemoryBIO and leaves it in the outgoing one. owner: the SSLObject."""

    def __init__(
        self,
        context: SSLContext,
        incoming: Any,
        outgoing: Any,
        server_side: bool,
        server_hostname: str | None,
        owner: Any,
        session: Session | None,
    ) -> None:
        self._context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        self.owner = owner
        self._incoming, self._outgoing = incoming, outgoing
        self._tls = context.connection(server_side, server_hostname, session, owner)

    @property
    def _connection(self) -> Connection:
        return self._tls

    def _replace_connection(self, connection: Connection) -> None:
        self._tls = connection

    def _run(self, operation: Callable[..., T], *arguments: Any) -> T:
        """One operation of the connection, with what has come, and what it leaves for the peer. Raises ssl.SSLError."""
        if self._incoming.pending:
            self._tls.receive_data(self._incoming.read())
        if self._incoming.eof:
            self._tls.receive_data(b"")
        try:
            return operation(*arguments)
        except WantRead:
            raise _stdlib_ssl.SSLWantReadError(_stdlib_ssl.SSL_ERROR_WANT_READ, _WANT_READ) from None
        except TLSError as error:
            raise self._as_stdlib(error) from error
        finally:
            if ciphertext := self._tls.data_to_send():
                self._outgoing.write(ciphertext)

    def get_verified_chain(self) -> list[bytes]:
        return [_Certificate(each) for each in super().get_verified_chain()]

    def get_unverified_chain(self) -> list[bytes]:
        return [_Certificate(each) for each in super().get_unverified_chain()]

    def do_handshake(self) -> None:
        """Raises SSLWantReadError until done, SSLError, or what a callback raised."""
        self._run(self._tls.do_handshake)

    def read(self, len: int = 1024, buffer: Any = None) -> bytes | int:
        """1 to len bytes, or their number in the buffer; none after close_notify. Raises SSLWantReadError, SSLError."""
        self._finish_handshake()
        if buffer is None:
            if len < 0:
                raise ValueError("size should not be negative")
            return self._run(self._tls.read, len) if len else b""
        with memoryview(buffer) as view, view.cast("B") as octets, octets[: len if len > 0 else None] as room:
            return self._run(self._tls.read_into, room) if room else 0

    def write(self, data: Any) -> int:
        """All of it. Raises SSLWantReadError before the handshake is finished, SSLError."""
        self._finish_handshake()
        with memoryview(data) as view, view.cast("B") as octets:
            return self._run(self._tls.write, octets)

    def shutdown(self) -> None:
        """close_notify, and the peer's; what it still had to say is dropped. Raises SSLWantReadError until then."""
        if not self._run(self._tls.shutdown):
            scratch = bytearray(RECORD_SIZE)
            while self._run(self._tls.read_into, scratch):
                pass
        if (rest := self._tls.take_unread()) and not self._incoming.eof:
            self._incoming.write(rest)  # what comes behind close_notify is somebody else's

    def _finish_handshake(self) -> None:
        if not self._tls.established:
            self.do_handshake()
