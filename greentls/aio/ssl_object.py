"""SSLObject: the facts about a TLS connection under asyncio. Callbacks get it as their sock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from greentls.core.connection import Connection
from greentls.errors import TLSError, WireError
from greentls.hub import Deadline
from greentls.openssl.pump import DONE
from greentls.ssl.client_hello import ReadsClientHello
from greentls.ssl.compiled import make_connection
from greentls.ssl.context import PassedThrough
from greentls.wire import NotTLS

if TYPE_CHECKING:
    from greentls.core.session import Session
    from greentls.ssl.context import SSLContext

__all__ = ["SSLObject"]

_TOO_LONG = "SSL handshake is taking longer than {} seconds: aborting the connection"  # asyncio's words


class Transport(Protocol):
    """The methods of a TLSTransport that the handshake uses."""

    def get_extra_info(self, name: str, default: object = None) -> Any: ...  # Any: of each name another type

    def use(self, connection: Connection) -> None: ...

    def wait(self, said: int) -> None: ...

    def flush(self) -> None: ...

    def refuse_in_clear(self, answer: bytes) -> None: ...


class SSLObject(ReadsClientHello):
    """The object that ``transport.get_extra_info("ssl_object")`` returns. It has the facts of ssl.SSLObject and of
    greentls.SSLSocket.

    It cannot read or write, as the transport does that. Its methods do not wait.
    """

    _transport: Transport  # during the handshake
    _timeout: float | None  # seconds for the handshake

    def __init__(
        self, context: SSLContext, server_side: bool, server_hostname: str | None, session: Session | None
    ) -> None:
        self._context = context
        self.server_side = server_side
        self.server_hostname = None if server_hostname is None else context._encode_hostname(server_hostname)
        self._connection = make_connection(context, server_side, self.server_hostname, session, self)

    def _replace_connection(self, connection: Connection) -> None:
        super()._replace_connection(connection)
        self._transport.use(connection)

    def _peer_address(self) -> object:
        return self._transport.get_extra_info("peername") or None

    # -- the handshake, in a worker ------------------------------------------------------------------------------------

    def handshake(self, transport: Transport, timeout: float | None) -> None:
        """Does the handshake, waiting for the peer. Raises ssl.SSLError, OSError, TimeoutError, or what a callback
        raised."""
        self._transport = transport
        try:
            transport.use(self._connection)
            self._timeout = timeout
            self._observed()
        finally:
            transport.flush()
            del self._transport  # it refers to this object

    def _handshake(self) -> None:
        try:
            deadline = Deadline(self._timeout, _TOO_LONG)
            with deadline:
                if self.server_side:
                    self._begin()
                    self._steps()
                else:
                    with self._resuming():
                        self._steps()
        except TLSError as error:
            answer = self._context.plain_http_answer
            if self.server_side and answer is not None and "http request" in (error.reason, *error.details):
                self._refuse_in_clear(answer, str(error))
            raise self._as_stdlib(error) from error
        except TimeoutError as error:
            if deadline.passed:
                raise ConnectionAbortedError(*error.args) from error.__cause__  # as asyncio's
            raise

    def _steps(self) -> None:
        while (said := self._connection.step_handshake()) != DONE:
            self._transport.wait(said)

    def _receive(self) -> bytes:
        while isinstance(said := self._connection.receive(), int):
            self._transport.wait(said)
        return said

    def _refuse(self, alert: int, reason: str) -> None:
        self._connection.refuse(alert, reason)
        self._transport.flush()

    def _refuse_hello(self, error: WireError) -> None:
        answer = self._context.plain_http_answer
        if answer is not None and error.got == NotTLS.HTTP_REQUEST.value:
            self._refuse_in_clear(answer, str(error))
        else:
            super()._refuse_hello(error)

    def _refuse_in_clear(self, answer: bytes, reason: str) -> None:
        self._connection.refuse(0, reason)
        self._connection.data_to_send()
        self._transport.refuse_in_clear(answer)

    def _passed_through(self, plain: PassedThrough) -> NoReturn:
        raise TypeError("client_hello_callback answered with a PlainSocket: under asyncio it cannot be passed on")

    # -- other methods of ssl.SSLObject --------------------------------------------------------------------------------

    def do_handshake(self) -> None:
        """Does nothing, because a program gets its transport after the handshake. Raises ValueError before that."""
        if not self._connection.established:
            raise ValueError("the transport does the handshake, which is not finished")

    def read(self, *_: object) -> NoReturn:
        raise ValueError("the transport reads, and passes the data to its protocol")

    def write(self, *_: object) -> NoReturn:
        raise ValueError("write to the transport")

    def unwrap(self) -> NoReturn:
        raise ValueError("close the transport")

    def __repr__(self) -> str:
        side = "server" if self.server_side else "client"
        return f"<greentls.aio.SSLObject {side} {self.version() or 'no handshake yet'}>"
