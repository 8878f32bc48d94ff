"""SSLSocket: ssl.SSLSocket's methods over a TLSStream, for greenlets."""

from __future__ import annotations

import _socket
import errno
import socket as _stdlib_socket
import ssl as _stdlib_ssl
import weakref
from typing import Any, ClassVar

import gevent.socket
import gevent.ssl

from greentls.core.connection import Connection
from greentls.core.session import Session
from greentls.errors import TLSError, UnexpectedEOF, WireError, WouldBlock
from greentls.hub import Deadline
from greentls.ssl.adopted import Watcher, adopt
from greentls.ssl.client_hello import ReadsClientHello
from greentls.ssl.compiled import has_side, make_connection
from greentls.ssl.context import PassedThrough, SSLContext
from greentls.ssl.peercert import PeerCertificate
from greentls.ssl.plain_socket import InClear, PlainSocket
from greentls.ssl.refused_handshakes import mark
from greentls.ssl.replacement import STDLIB_SOCKET, Replacement
from greentls.ssl.socket_methods import Address, SocketMethods
from greentls.strategy import STRATEGIES
from greentls.stream import TLSStream
from greentls.wire import NotTLS

__all__ = ["SSLSocket"]

_GeventSocket: type[object] = gevent.socket.socket
_STREAM = int(_stdlib_socket.SOCK_STREAM)
Buffer = Any  # what memoryview() takes; collections.abc.Buffer is of Python 3.12


class SSLSocket(SocketMethods, ReadsClientHello, metaclass=Replacement):
    """A socket that speaks TLS once it is connected. Made by SSLContext.wrap_socket().

    Many greenlets of one thread may use it; one that reads and one that writes do not wait for each other.
    Errors are the standard library's (ssl.SSLError and its subclasses, OSError, TimeoutError), except that whatever a
    callback raises comes out of do_handshake(), recv() or send() as itself.
    """

    _replaces = (STDLIB_SOCKET, gevent.ssl.SSLSocket)
    #: Sockets that speak TLS, or have spoken it, for select() and its kin. None unless monkey.patch() is in force.
    by_descriptor: ClassVar[weakref.WeakValueDictionary[int, SSLSocket | PlainSocket] | None] = None

    do_handshake_on_connect: bool
    suppress_ragged_eofs: bool
    server_hostname: str | None = None
    _connected = False
    _takes_early_data = True
    _ahead = b""  # ciphertext that came with the socket, and read_client_hello() has not seen

    def __init__(self, *_: object, **__: object) -> None:
        raise TypeError(
            f"{type(self).__name__} does not have a public constructor. "
            "Instances are returned by SSLContext.wrap_socket()."
        )

    @classmethod
    def _create(
        cls,
        sock: _stdlib_socket.socket,
        server_side: bool,
        do_handshake_on_connect: bool,
        suppress_ragged_eofs: bool,
        server_hostname: str | bytes | None,
        context: SSLContext,
        session: Session | None,
    ) -> SSLSocket | PassedThrough:
        inner: Any = sock  # Any: gevent is untyped
        accepted = type(sock) is _GeventSocket
        if accepted:
            timeout, inner = inner.timeout, inner._sock  # whose attributes are fields of C
        else:
            timeout = sock.gettimeout()
        if inner.type != _STREAM:
            raise NotImplementedError("only stream sockets are supported")
        if server_side:
            if server_hostname:
                raise ValueError("server_hostname can only be specified in client mode")
            if session is not None:
                raise ValueError("session can only be specified in client mode")
        if not server_hostname and context.check_hostname:
            raise ValueError("check_hostname requires server_hostname")
        self = cls.__new__(cls)
        self._context = context
        self.server_side = server_side
        self.do_handshake_on_connect = do_handshake_on_connect
        self.suppress_ragged_eofs = suppress_ragged_eofs
        self._closed = self._handshake_told = False
        self._raw, readable, writable = adopt(sock)
        try:
            connected = self._is_connected()
            known = context._server if server_side and connected and server_hostname is None else None
            if known is not None and known[0] == context._changes:
                connection = known[1](known[2], weakref.ref(self))
            else:
                name = None
                if server_hostname is not None:
                    name = self.server_hostname = context._encode_hostname(server_hostname)
                # The context of a socket that listens need not fit its side. Its Connection is there for facts only.
                side = server_side if connected or has_side(context, server_side) else not server_side
                connection = make_connection(context, side, name, session, self, self._takes_early_data)
            raw = self._raw
            if not connected:
                self._close(readable, writable)
                self._raw = self._stream = InClear(raw.family, raw.type, raw.proto, fileno=raw.detach())
                self._stream.use(connection)
                self._connection = connection
                self._stream.settimeout(timeout)
                return self
            stream = self._speak_tls(raw, connection, timeout, readable, writable)
            if not accepted and isinstance(sock, PlainSocket) and sock.ahead:
                self._ahead = sock.ahead
                stream.feed(sock.ahead)
            if do_handshake_on_connect:
                if timeout == 0.0:
                    raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
                return self._observed() or self
        except BaseException:
            self._closed = True
            if not hasattr(self, "_stream"):
                self._close(readable, writable)
            getattr(self, "_stream", self._raw).close()
            raise
        return self

    @staticmethod
    def _close(*watchers: Watcher) -> None:
        for watcher in watchers:
            if watcher is not None:
                watcher.close()

    def _speak_tls(
        self,
        raw: _socket.socket,
        connection: Connection,
        timeout: float | None,
        readable: Watcher = None,
        writable: Watcher = None,
    ) -> TLSStream:
        self._raw = raw
        context = self._context
        self._stream = stream = TLSStream(
            raw, connection, timeout, STRATEGIES[context.strategy], context.read_ahead, readable, writable
        )
        self._connection, self._connected = connection, True
        if self.by_descriptor is not None:
            self.by_descriptor[raw.fileno()] = self
        return stream

    def _is_connected(self) -> bool:
        """Whether it is connected. Raises ssl.SSLError if the peer has closed it and there still is something to read:
        such data have never been through TLS (CVE-2023-40217)."""
        try:
            self._raw.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        else:
            return True
        try:
            data = self._raw.recv(1)
        except OSError:
            data = b""
        if data:
            reason = "Closed before TLS handshake with data in recv buffer."
            refused = _stdlib_ssl.SSLError(errno.ENOTCONN, reason)
            refused.reason, refused.library = reason, None  # type: ignore[assignment]  # typeshed: str
            if self.server_side:
                mark(refused, None)
            raise refused
        return False

    @property  # type: ignore[misc]  # mypy has no property in its place
    def __class__(self) -> Any:  # Any: a socket has an attribute of the name "type", which would be meant
        """The class that ssl.SSLSocket is at the moment, so that isinstance(sock, ssl.SSLSocket) holds, patched by
        gevent or not. If that is this class, the one that it replaced, so that isinstance(sock, socket.socket) holds.

        type(sock) remains this class: the standard library's and gevent's are bound to objects of _ssl.
        """
        now = _stdlib_ssl.SSLSocket
        if not issubclass(now, ReadsClientHello):
            return now
        return gevent.ssl.SSLSocket if issubclass(gevent.ssl.SSLSocket, _stdlib_socket.socket) else STDLIB_SOCKET

    def __enter__(self) -> SSLSocket:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._closed:
            self.close()

    def __repr__(self) -> str:
        side = "server" if self.server_side else "client"
        return f"<greentls.SSLSocket {side} fd={self.fileno()} {self.version() or 'no handshake yet'}>"

    # -- TLS -----------------------------------------------------------------------------------------------------------

    def do_handshake(self, block: bool = False) -> None:
        """Does the handshake, or waits for its end if another greenlet is doing it.

        block: waits even if the timeout is 0. Raises ssl.SSLError, OSError, TimeoutError, or whatever a callback
        raised, as itself.
        """
        self._check_connected()
        timeout = self._stream.timeout
        if block and timeout == 0.0:
            self._stream.timeout = None
        try:
            passed = self._observed()
        finally:
            self._stream.timeout = timeout
        if passed is not None:
            raise RuntimeError(
                "client_hello_callback passed the connection through: leave the handshake to wrap_socket()"
            )

    def _handshake(self) -> PassedThrough | None:
        stream = self._stream
        try:
            with Deadline(self._context.handshake_timeout, "The handshake operation timed out"):
                if not self.server_side:
                    with self._resuming():
                        stream.do_handshake()
                    return None
                if not stream.connection.started:
                    passed = self._begin()
                    if passed is not None:
                        return passed
                stream.do_handshake()
        except TLSError as error:
            answer = self._context.plain_http_answer
            if self.server_side and answer is not None and "http request" in (error.reason, *error.details):
                stream.refuse_in_clear(answer, str(error))
            raise self._as_stdlib(error) from error
        except OSError as error:
            # The transport failed, or it took too long. An error that a hook raised leaves a dead connection.
            if self.server_side and not (self._connection.dead or isinstance(error, _stdlib_ssl.SSLError)):
                mark(error, self._peer_address())
            raise
        return None

    def _as_stdlib(self, error: TLSError | WireError) -> _stdlib_ssl.SSLError:
        said = super()._as_stdlib(error)
        if self.server_side and not self._connection.established and not isinstance(error, WouldBlock):
            mark(said, self._peer_address())
        return said

    def _peer_address(self) -> object:
        try:
            return self._raw.getpeername() or None  # "": the end of a socketpair
        except OSError:  # the peer is gone
            return None

    def _check_connected(self) -> None:
        """Begins TLS if the socket is connected by now: connect() may have raised BlockingIOError. Raises OSError."""
        if not self._connected:
            try:
                self._raw.getpeername()
            except OSError as error:
                if self.server_side:  # it was accepted, and its client is gone already
                    mark(error, None)
                raise
            self._leave_clear()

    def _leave_clear(self) -> None:
        """Begins TLS on a socket that has been connected."""
        clear = self._stream
        timeout, connection = clear.timeout, clear.connection
        raw = _socket.socket(self.family, self.type, self.proto, fileno=clear.detach())
        raw.setblocking(False)
        self._speak_tls(raw, connection, timeout)

    def _finish_handshake(self) -> None:
        """Reading and writing begin with the handshake if nobody has called do_handshake() before."""
        self._check_connected()
        self.do_handshake()

    # -- the ClientHello, before OpenSSL -------------------------------------------------------------------------------

    def _receive(self) -> bytes:
        data, self._ahead = self._ahead, b""
        return data or self._stream.receive()

    def _refuse(self, alert: int, reason: str) -> None:
        if self.fileno() != -1:
            self._stream.refuse(alert, reason)

    def _refuse_hello(self, error: WireError) -> None:
        answer = self._context.plain_http_answer
        if answer is not None and error.got == NotTLS.HTTP_REQUEST.value:
            self._stream.refuse_in_clear(answer, str(error))
        else:
            super()._refuse_hello(error)

    def pass_through(self) -> PlainSocket:
        """A PlainSocket of the connection, with the ciphertext that was read in its ahead: TLS ends somewhere else.

        It goes before the handshake only, typically as the answer of a client_hello_callback, and closes this socket.
        """
        if self._connection.started:
            raise ValueError("pass_through() goes before the handshake")
        plain = self._plain_socket()
        plain.client_hello = self._client_hello
        return plain

    def _plain_socket(self) -> InClear:
        timeout = self.gettimeout()
        plain = InClear(self.family, self.type, self.proto, fileno=self.detach())
        plain.use(self._connection)
        plain.ahead = plain.connection.take_unread()
        plain.settimeout(timeout)
        if self.by_descriptor is not None:
            self.by_descriptor[plain.fileno()] = plain
        return plain

    # -- data ----------------------------------------------------------------------------------------------------------

    def read(self, len: int = 1024, buffer: bytearray | memoryview | None = None) -> bytes | int:
        if self._sslobj is None:
            raise ValueError("Read on closed or unwrapped SSL socket.")
        return self.recv(len) if buffer is None else self.recv_into(buffer, len)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receives 1 to buflen bytes; b"" at the end."""
        if flags:
            return self._unwrapped("recv").recv(buflen, flags)
        if not buflen:
            return b""
        if buflen < 0:
            raise ValueError("negative buffersize in recv")
        try:
            if not self._stream.connection.established:
                self._finish_handshake()
            return self._stream.read(buflen)
        except UnexpectedEOF as error:
            if self.suppress_ragged_eofs and self.handshake_finished:
                return b""
            raise self._as_stdlib(error) from error
        except TLSError as error:
            raise self._as_stdlib(error) from error

    def recv_into(self, buffer: Buffer, nbytes: int | None = None, flags: int = 0) -> int:
        """Receives into a buffer, nbytes at most. Returns how many bytes; 0 at the end."""
        if flags:
            return self._unwrapped("recv_into").recv_into(buffer, nbytes or 0, flags)
        limit = nbytes if nbytes and nbytes > 0 else None
        with memoryview(buffer) as view, view.cast("B") as octets, octets[:limit] as room:
            if not room:
                return 0
            try:
                if not self._stream.connection.established:
                    self._finish_handshake()
                return self._stream.read_into(room)
            except UnexpectedEOF as error:
                if self.suppress_ragged_eofs and self.handshake_finished:
                    return 0
                raise self._as_stdlib(error) from error
            except TLSError as error:
                raise self._as_stdlib(error) from error

    def write(self, data: Buffer) -> int:
        if self._sslobj is None:
            raise ValueError("Write on closed or unwrapped SSL socket.")
        return self.send(data)

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Sends the beginning of data, 128 KiB at most; returns how many bytes. After an error nothing was sent."""
        if flags:
            return int(self._unwrapped("send").send(data, flags))
        try:
            if not self._stream.connection.established:
                self._finish_handshake()
            return self._stream.send(data)
        except TLSError as error:
            raise self._as_stdlib(error) from error

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """Sends all of data. After an error nobody knows how much was sent."""
        if flags:
            self._unwrapped("sendall").sendall(data, flags)
            return
        try:
            if not self._stream.connection.established:
                self._finish_handshake()
            self._stream.write(data)
        except TLSError as error:
            raise self._as_stdlib(error) from error

    _check_sendfile_params = _stdlib_socket.socket._check_sendfile_params  # type: ignore[attr-defined]  # not in typeshed
    sendfile = _stdlib_socket.socket._sendfile_use_send  # type: ignore[attr-defined]  # not in typeshed

    def verify_client_post_handshake(self) -> None:
        if self._sslobj is None:
            raise ValueError(f"No SSL wrapper around {self}")
        super().verify_client_post_handshake()

    def unwrap(self) -> PlainSocket:
        """Ends TLS by close_notify in both directions; returns the plain socket, which waits as this one does.

        This one goes on in plaintext, and so do files that makefile() has made of it. Closing any of them closes the
        connection.
        """
        if self._sslobj is None:
            raise ValueError(f"No SSL wrapper around {self}")
        try:
            self._stream.shutdown()
        except TLSError as error:
            raise self._as_stdlib(error) from error
        self._raw = self._stream = plain = self._plain_socket()
        self._closed, self._handed_out = False, True
        return plain

    def _unwrapped(self, method: str) -> InClear:
        """The plain socket that unwrap() has left. Raises ValueError if there is none: TLS has no flags."""
        if self._handed_out and isinstance(self._stream, InClear):
            return self._stream
        raise ValueError(f"non-zero flags not allowed in calls to {method}() on {SSLSocket}")

    # -- before TLS ----------------------------------------------------------------------------------------------------

    def accept(self) -> tuple[Any, Address]:  # Any: what wrap_socket() returns
        """Accepts a connection: (an SSLSocket of the same settings, the peer's address). Does its handshake if
        do_handshake_on_connect is true."""
        if self._connected:
            self._raw._accept()  # raises OSError
        connected, address = self._raw.accept()
        wrapped = self._context.wrap_socket(
            connected,
            server_side=True,
            do_handshake_on_connect=self.do_handshake_on_connect,
            suppress_ragged_eofs=self.suppress_ragged_eofs,
        )
        return wrapped, address

    def connect(self, address: Address) -> None:
        self._connect(address, "connect")

    def connect_ex(self, address: Address) -> int:
        return self._connect(address, "connect_ex") or 0

    def _connect(self, address: Address, method: str) -> int | None:
        if self.server_side:
            raise ValueError("can't connect in server-side mode")
        if self._connected:
            raise ValueError("attempt to connect already-connected SSLSocket!")
        if not has_side(self._context, False):
            make_connection(self._context, False, self.server_hostname, None, self)  # raises ssl.SSLError
        failure: int | None = getattr(self._raw, method)(address)
        if not failure:
            self._leave_clear()
            if self.do_handshake_on_connect:
                self.do_handshake()
        return failure

    # -- facts ---------------------------------------------------------------------------------------------------------

    def _replace_connection(self, connection: Connection) -> None:
        super()._replace_connection(connection)
        self._stream.use(connection)

    def version(self) -> str | None:
        return None if self.fileno() == -1 else super().version()

    def getpeercert(self, binary_form: bool = False) -> PeerCertificate | bytes | None:
        self._check_connected()
        return super().getpeercert(binary_form)
