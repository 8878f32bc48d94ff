"""What a server does before OpenSSL has seen a byte: it reads the ClientHello, if anybody asks for it.

Those are client_hello_callback, the strategy "prefetch", and whoever calls read_client_hello(). OpenSSL gets the same
bytes afterwards.
"""

from __future__ import annotations

import ssl as _stdlib_ssl
from collections.abc import Iterator
from contextlib import contextmanager

from greentls.errors import ConcurrentUseError, TLSError, UnexpectedEOF, WireError
from greentls.ssl.facts import Facts
from greentls.ssl.plain_socket import PlainSocket
from greentls.strategy import STRATEGIES
from greentls.wire import ClientHello, RecordReader

__all__ = ["Greeting"]


class Greeting(Facts):
    """Over a transport, which receives and refuses. Where that cannot wait, each step goes on where it was."""

    _client_hello: ClientHello | None = None
    _hello_reader: RecordReader | None = None  # has what has come of it

    def _receive(self) -> bytes:
        """Ciphertext as it comes, b"" at its end; the connection has it too."""
        raise NotImplementedError  # a transport knows

    def _refuse(self, alert: int, reason: str) -> None:
        """Connection.refuse(), and the alert on its way."""
        raise NotImplementedError  # a transport knows

    def _refuse_hello(self, error: WireError) -> None:
        self._refuse(error.alert, str(error))

    @property
    def client_hello(self) -> ClientHello | None:
        """What read_client_hello() has read; None if nobody asked for it."""
        return self._client_hello

    @property
    def ja3(self) -> str | None:
        """The client's fingerprint as 32 hex digits, if its hello was read. Raises WireError, as ja4 does."""
        from greentls.wire import ja3

        return ja3(self._client_hello) if self._client_hello else None

    @property
    def ja4(self) -> str | None:
        """As in t13d1516h2_8daaf6152771_e5627efa2ab1, if its hello was read."""
        from greentls.wire import ja4

        return ja4(self._client_hello) if self._client_hello else None

    def read_client_hello(self) -> ClientHello:
        """The client's first message, before the handshake has begun; OpenSSL gets the same bytes after it.

        Raises ssl.SSLError for what is none, after an alert (or plain_http_answer) to the client; as do_handshake().
        """
        if self._client_hello is not None:
            return self._client_hello
        if not self.server_side or self._connection.started:
            raise ValueError("read_client_hello() is a server's, and goes before the handshake")
        if self._greeting:
            raise ConcurrentUseError("another greenlet reads this connection's ClientHello")
        self._greeting = True
        try:
            self._client_hello = self._next_client_hello()
        except WireError as error:
            self._refuse_hello(error)
            raise self._as_stdlib(error) from error
        except TLSError as error:
            raise self._as_stdlib(error) from error
        finally:
            self._greeting = False
        self._hello_reader = None
        return self._client_hello

    def _next_client_hello(self) -> ClientHello:
        reader = self._hello_reader = self._hello_reader or RecordReader()
        while True:
            data = self._receive()
            if not data:
                raise UnexpectedEOF("read_client_hello")
            for message in reader.feed(data):
                return ClientHello.parse(message)

    # -- the handshake -------------------------------------------------------------------------------------------------

    def _begin(self) -> PlainSocket | None:
        """What a server does in its handshake before it enters OpenSSL for the first time. What a callback has passed
        through, or None."""
        if self._connection.operation.dead:
            return None  # which OpenSSL's turn will tell
        if self._greeting:
            raise ConcurrentUseError("a callback is being asked about this connection's ClientHello")
        self._context.check_server()
        if self._context.client_hello_callback is not None:
            hello = self.read_client_hello()
            with self._refusing("client_hello_callback"):
                answer = self._context._ask_client_hello_callback(self._connection, hello)
                if isinstance(answer, PlainSocket):
                    return self._passed_through(answer)
                if isinstance(answer, int):
                    self._refuse(answer, f"client_hello_callback refused with alert {answer}")
                    return None
                if answer is not None:
                    self.context = answer
        if (foretell := STRATEGIES[self._context.strategy].client_hello) is not None:
            hello = self.read_client_hello()
            with self._refusing("before the handshake"):
                foretell(self._connection, hello)
        return None

    def _passed_through(self, plain: PlainSocket) -> PlainSocket:
        return plain

    @contextmanager
    def _refusing(self, where: str) -> Iterator[None]:
        """Whatever is raised ends the handshake with an alert."""
        self._greeting = True  # nobody else begins meanwhile
        try:
            yield
        except BaseException as error:
            self._refuse(_stdlib_ssl.ALERT_DESCRIPTION_INTERNAL_ERROR, f"{where}: {error!r}")
            raise
        finally:
            self._greeting = False
