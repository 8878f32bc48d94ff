"""Reads the ClientHello at a server before OpenSSL has seen a byte, if it is needed that early.

It is needed by a client_hello_callback, the strategy "prefetch", and callers of read_client_hello(). OpenSSL gets the
same bytes afterwards.
"""

from __future__ import annotations

import ssl as _stdlib_ssl
from collections.abc import Iterator
from contextlib import contextmanager

from greentls.errors import ConcurrentUseError, ConfigurationError, TLSError, UnexpectedEOF, WireError
from greentls.hub import as_function
from greentls.openssl import client_hello
from greentls.ssl.common import Common
from greentls.ssl.context import ClientHelloCallback, PassedThrough, SSLContext
from greentls.ssl.errors import configuration_error
from greentls.ssl.hooks.callbacks import alert
from greentls.ssl.hooks.deadline import HookDeadline
from greentls.strategy import STRATEGIES
from greentls.wire import ClientHello, RecordReader

__all__ = ["ReadsClientHello"]


class ReadsClientHello(Common):
    """A connection over a transport. If the transport cannot wait, each step goes on where the last one stopped."""

    _client_hello: ClientHello | None = None
    _hello_reader: RecordReader | None = None  # holds the part of it that has come

    def _receive(self) -> bytes:
        """Ciphertext as it comes, b"" at its end; the connection has it too."""
        raise NotImplementedError  # each subclass has its transport

    def _refuse(self, alert: int, reason: str) -> None:
        """Connection.refuse(), and sends the alert."""
        raise NotImplementedError  # each subclass has its transport

    def _refuse_hello(self, error: WireError) -> None:
        self._refuse(error.alert, str(error))

    @property
    def client_hello(self) -> ClientHello | None:
        """The ClientHello, if it was read before OpenSSL: for a callback, a strategy or by read_client_hello()."""
        return self._client_hello

    @property
    def ja3(self) -> str | None:
        """The client's fingerprint as 32 hex digits, if client_hello was read. Raises WireError, as ja4 does."""
        from greentls.wire import ja3

        return ja3(self._client_hello) if self._client_hello else None

    @property
    def ja4(self) -> str | None:
        """The client's fingerprint, like t13d1516h2_8daaf6152771_e5627efa2ab1, if client_hello was read."""
        from greentls.wire import ja4

        return ja4(self._client_hello) if self._client_hello else None

    def read_client_hello(self) -> ClientHello:
        """Reads the client's first message before the handshake begins; OpenSSL gets the same bytes after it.

        Waits for the client. If the bytes are no ClientHello, the client gets an alert (or plain_http_answer), and this
        raises ssl.SSLError. Raises also as do_handshake() does.
        """
        if self._client_hello is not None:
            return self._client_hello
        if not self.server_side or self._connection.started:
            raise ValueError("read_client_hello() is a server's, and goes before the handshake")
        if self._before_handshake:
            raise ConcurrentUseError("another greenlet reads this connection's ClientHello")
        self._before_handshake = True
        try:
            reader = self._hello_reader = self._hello_reader or RecordReader()
            while self._client_hello is None:
                if not (data := self._receive()):
                    raise UnexpectedEOF("read_client_hello")
                if (message := next(reader.feed(data), None)) is not None:
                    self._client_hello = ClientHello.parse(message)
        except WireError as error:
            self._refuse_hello(error)
            raise self._as_stdlib(error) from error
        except TLSError as error:
            raise self._as_stdlib(error) from error
        finally:
            self._before_handshake = False
        self._hello_reader = None
        return self._client_hello

    # -- the handshake -------------------------------------------------------------------------------------------------

    def _begin(self) -> PassedThrough | None:
        """A server's steps before OpenSSL is entered for the first time. Returns the answer of a callback that passes
        the connection through, else None."""
        if self._connection.dead:
            return None  # entering OpenSSL raises what is wrong
        if self._before_handshake:
            raise ConcurrentUseError("a callback is being asked about this connection's ClientHello")
        context = self._context
        if not context._chains:
            _check_server(context)
        if (callback := context.client_hello_callback) is not None:
            hello = self.read_client_hello()
            with self._refusing("client_hello_callback"):
                answer = self._ask(callback, hello)
                if isinstance(answer, PassedThrough):
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

    def _ask(self, callback: ClientHelloCallback, hello: ClientHello) -> SSLContext | PassedThrough | int | None:
        """The answer of the client_hello_callback, which may wait.

        Raises whatever it raises; TimeoutError if it is late, TypeError for an answer of another type.
        UnsupportedOpenSSL if a second hello could not be compared with this one.
        """
        client_hello.need()
        with HookDeadline(self._connection, "client_hello_callback", self._context.callback_timeout):
            answer = as_function(callback)(self._connection.owner(), hello)
        if answer is None or issubclass(type(answer), SSLContext | PassedThrough):
            return answer
        return alert(answer, "client_hello_callback")

    def _passed_through(self, plain: PassedThrough) -> PassedThrough:
        return plain

    @contextmanager
    def _refusing(self, where: str) -> Iterator[None]:
        """Whatever the block raises ends the handshake with an alert."""
        self._before_handshake = True  # nobody else begins meanwhile
        try:
            yield
        except BaseException as error:
            self._refuse(_stdlib_ssl.ALERT_DESCRIPTION_INTERNAL_ERROR, f"{where}: {error!r}")
            raise
        finally:
            self._before_handshake = False


def _check_server(context: SSLContext) -> None:
    """Raises ssl.SSLError if a server has no certificate, no callback that may bring one, nor ciphers that need none:
    OpenSSL would only say "no shared cipher"."""
    if context._ciphers != _stdlib_ssl._DEFAULT_CIPHERS:
        return
    callbacks = context.sni_callback, context.client_hello_callback, context._psk_server, context.certificates
    if all(each is None for each in callbacks):
        error = ConfigurationError("SSLContext", "a server needs a certificate", "call load_cert_chain()")
        raise configuration_error(error, "NO_CERTIFICATE_ASSIGNED") from error
