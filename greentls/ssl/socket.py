"""SSLSocket: ssl.SSLSocket's methods over a TLSStream, for greenlets."""

from __future__ import annotations

import _socket
import errno
import socket as _stdlib_socket
import ssl as _stdlib_ssl
import warnings
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import gevent.monkey
import gevent.ssl

from greentls.core.connection import Connection
from greentls.core.session import Session
from greentls.errors import TLSError, UnexpectedEOF, WireError, WouldBlock
from greentls.hub import Deadline
from greentls.ssl.greeting import Greeting
from greentls.ssl.plain_socket import Closed, InClear, PlainSocket
from greentls.ssl.refused import mark
from greentls.ssl.replacement import StandIn
from greentls.strategy import STRATEGIES
from greentls.stream import TLSStream
from greentls.wire import NotTLS

if TYPE_CHECKING:
    from greentls.ssl.context import SSLContext

__all__ = ["SSLSocket"]


UNREAD_SIZE = 16384  # bytes taken from a connection before it is closed by force; gevent.pywsgi asks for as many

_ORIGINAL = gevent.monkey.get_original("ssl", "SSLSocket")


class Underneath:
    """The _sock of an SSLSocket: ends the connection, and neither reads nor writes behind the back of TLS.

    gevent.pywsgi closes so what else stays open for as long as somebody has the request's environ, and with it the file
    that makefile() has made.
    """

    __slots__ = ("_owner",)

    def __init__(self, owner: SSLSocket) -> None:
        self._owner = owner

    def fileno(self) -> int:
        return self._owner.fileno()

    def recv(self, *_: Any) -> bytes:
        """What comes belongs to TLS: there is never anything to read here."""
        raise BlockingIOError(errno.EAGAIN, "only TLS reads from this socket")

    def close(self) -> None:
        """close_notify if it can go at once, then FIN, whatever files are open."""
        owner = self._owner
        if owner._sslobj is not None:  # else it may have nothing, and would be waited for
            try:
                owner._raw.recv(UNREAD_SIZE)  # what the kernel still has at close() would make it send RST, not FIN
            except OSError:
                pass
        owner._real_close()


class SSLSocket(Greeting, metaclass=StandIn):
    """A socket that speaks TLS once it is connected. Made by SSLContext.wrap_socket().

    Any number of greenlets of one thread may use it; one that reads and one that writes do not wait for each other.
    Errors are the standard library's (ssl.SSLError and its kin, OSError, TimeoutError), except that whatever a callback
    raised comes out of do_handshake(), recv() or send() as itself.
    """

    _stands_in_for = (_ORIGINAL, gevent.ssl.SSLSocket)
    #: Sockets that speak TLS, and what they leave, for select() and its kin: while monkey.patch() is in force.
    by_descriptor: ClassVar[weakref.WeakValueDictionary[int, SSLSocket | PlainSocket] | None] = None

    do_handshake_on_connect: bool
    suppress_ragged_eofs: bool
    family: int
    type: int
    proto: int
    _stream: TLSStream | InClear | Closed
    _raw: Any  # what knows the descriptor: a _socket.socket, or the same as _stream
    _connected = False
    _takes_early_data = True
    _io_refs = 0
    _closed = False
    _handed_out = False  # by unwrap(): the descriptor is the plain socket's, and so is what becomes of it
    _ahead = b""  # ciphertext that came with the socket, and is not in client_hello yet

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError(
            f"{type(self).__name__} does not have a public constructor. "
            "Instances are returned by SSLContext.wrap_socket()."
        )

    @classmethod
    def _create(
        cls,
        sock: Any,
        server_side: bool,
        do_handshake_on_connect: bool,
        suppress_ragged_eofs: bool,
        server_hostname: str | bytes | None,
        context: SSLContext,
        session: Session | None,
    ) -> SSLSocket | PlainSocket:
        family, kind, proto = sock.family, sock.type, sock.proto
        if kind != _stdlib_socket.SOCK_STREAM:
            raise NotImplementedError("only stream sockets are supported")
        if server_side and server_hostname:
            raise ValueError("server_hostname can only be specified in client mode")
        if server_side and session is not None:
            raise ValueError("session can only be specified in client mode")
        if context.check_hostname and not server_hostname:
            raise ValueError("check_hostname requires server_hostname")
        self = cls.__new__(cls)
        self._context = context
        self.server_side = server_side
        self.do_handshake_on_connect = do_handshake_on_connect
        self.suppress_ragged_eofs = suppress_ragged_eofs
        self.family, self.type, self.proto = family, kind, proto
        timeout = sock.gettimeout()
        self._raw = raw = _socket.socket(family, kind, proto, fileno=sock.detach())
        try:
            raw.setblocking(False)
            self.server_hostname = None if server_hostname is None else context._encode_hostname(server_hostname)
            connected = self._is_connected()
            # A listener's context need not fit its side: it is for accept(). The Connection only has the facts, then.
            side = server_side if connected or context.has_side(server_side) else not server_side
            connection = context.connection(side, self.server_hostname, session, self, self._takes_early_data)
            if not connected:
                self._raw = self._stream = InClear(family, kind, proto, fileno=raw.detach())
                self._stream.use(connection)
                self._stream.settimeout(timeout)
                return self
            stream = self._speak_tls(raw, connection, timeout)
            if isinstance(sock, PlainSocket) and sock.ahead:
                self._ahead = sock.ahead
                stream.feed(sock.ahead)
            if do_handshake_on_connect:
                if timeout == 0.0:
                    raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
                return self._observed(self._handshake) or self
        except BaseException:
            self._closed = True
            getattr(self, "_stream", raw).close()
            raise
        return self

    def _speak_tls(self, raw: _socket.socket, connection: Connection, timeout: float | None) -> TLSStream:
        self._raw = raw
        context = self._context
        self._stream = stream = TLSStream(raw, connection, timeout, STRATEGIES[context.strategy], context.read_ahead)
        self._connected = True
        if self.by_descriptor is not None:
            self.by_descriptor[raw.fileno()] = self
        return stream

    def _is_connected(self) -> bool:
        """Raises ssl.SSLError for one that the peer has closed, if there is still something to read from it: it has
        never been through TLS (CVE-2023-40217)."""
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

    def __del__(self) -> None:
        raw = getattr(self, "_raw", None)
        if not (self._closed or self._handed_out) and raw is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            raw.close()

    @property  # type: ignore[misc]  # mypy has no property in its place
    def __class__(self) -> Any:
        """What ssl.SSLSocket is at the moment, so that isinstance(sock, ssl.SSLSocket) holds, patched by gevent or not;
        and where it is this class, what it was before, so that isinstance(sock, socket.socket) holds too.

        type(sock) is what it is: the standard library's class is bound to its own _ssl objects, gevent's to those.
        """
        now = _stdlib_ssl.SSLSocket
        if not issubclass(now, Greeting):
            return now
        return gevent.ssl.SSLSocket if issubclass(gevent.ssl.SSLSocket, _stdlib_socket.socket) else _ORIGINAL

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
        """Raises ssl.SSLError, OSError, TimeoutError, or whatever a callback raised, as itself.

        block: also where the timeout is 0.
        """
        self._check_connected()
        timeout = self._stream.timeout
        if block and timeout == 0.0:
            self._stream.timeout = None
        try:
            passed = self._observed(self._handshake)
        finally:
            self._stream.timeout = timeout
        if passed is not None:
            raise RuntimeError(
                "client_hello_callback passed the connection through: leave the handshake to wrap_socket()"
            )

    def _handshake(self) -> PlainSocket | None:
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
            # The transport's, or out of time; while what a hook has raised leaves a connection that is dead.
            if self.server_side and not (self._connection.operation.dead or isinstance(error, _stdlib_ssl.SSLError)):
                mark(error, self._peer_address())
            raise
        return None

    def _as_stdlib(self, error: TLSError | WireError) -> _stdlib_ssl.SSLError:
        said = super()._as_stdlib(error)
        if self.server_side and not self._connection.established and not isinstance(error, WouldBlock):
            mark(said, self._peer_address())
        return said

    def _peer_address(self) -> Any:
        try:
            return self._raw.getpeername() or None  # a socketpair's has no name
        except OSError:  # gone already
            return None

    def _check_connected(self) -> None:
        """Raises OSError. TLS may begin, since a socket may be connected although connect() raised BlockingIOError."""
        if not self._connected:
            try:
                self._raw.getpeername()
            except OSError as error:
                if self.server_side:  # an accepted one, of a client that was gone at once
                    mark(error, None)
                raise
            self._leave_clear()

    def _leave_clear(self) -> None:
        """TLS takes over a socket that has been connected."""
        clear = self._stream
        timeout, connection = clear.timeout, clear.connection
        raw = _socket.socket(self.family, self.type, self.proto, fileno=clear.detach())
        raw.setblocking(False)
        self._speak_tls(raw, connection, timeout)

    def _finish_handshake(self) -> None:
        """Reading and writing begin with it where nobody has asked for it before."""
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
        """The connection as it is, with the ciphertext that was read in its ahead: for somebody else to terminate.

        Before the handshake only, typically as the answer of a client_hello_callback. This socket is closed by it.
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
        """1 to buflen bytes, b"" at the end."""
        if flags:
            raise self._no_flags("recv")
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

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """recv() into a buffer; nbytes at most. Returns the length, 0 at the end."""
        if flags:
            raise self._no_flags("recv_into")
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

    def write(self, data: Any) -> int:
        if self._sslobj is None:
            raise ValueError("Write on closed or unwrapped SSL socket.")
        return self.send(data)

    def send(self, data: Any, flags: int = 0) -> int:
        """Sends some of it, 128 KiB at most; returns how many bytes. After an error none of it was taken."""
        if flags:
            raise self._no_flags("send")
        try:
            if not self._stream.connection.established:
                self._finish_handshake()
            return self._stream.send(data)
        except TLSError as error:
            raise self._as_stdlib(error) from error

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Sends all of it; after an error nobody knows how much."""
        if flags:
            raise self._no_flags("sendall")
        try:
            if not self._stream.connection.established:
                self._finish_handshake()
            self._stream.write(data)
        except TLSError as error:
            raise self._as_stdlib(error) from error

    _check_sendfile_params = _stdlib_socket.socket._check_sendfile_params  # type: ignore[attr-defined]  # not in typeshed
    sendfile = _stdlib_socket.socket._sendfile_use_send  # type: ignore[attr-defined]  # not in typeshed

    def recvfrom(self, *_: Any) -> Any:
        self._check_connected()
        raise ValueError(f"recvfrom not allowed on instances of {type(self)}")

    def recvfrom_into(self, *_: Any) -> Any:
        self._check_connected()
        raise ValueError(f"recvfrom_into not allowed on instances of {type(self)}")

    def sendto(self, *_: Any) -> Any:
        self._check_connected()
        raise ValueError(f"sendto not allowed on instances of {type(self)}")

    def recvmsg(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"recvmsg not allowed on instances of {type(self)}")

    def recvmsg_into(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"recvmsg_into not allowed on instances of {type(self)}")

    def sendmsg(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"sendmsg not allowed on instances of {type(self)}")

    def dup(self) -> Any:
        raise NotImplementedError(f"Can't dup() {type(self).__name__} instances")

    def verify_client_post_handshake(self) -> None:
        if self._sslobj is None:
            raise ValueError(f"No SSL wrapper around {self}")
        super().verify_client_post_handshake()

    def unwrap(self) -> PlainSocket:
        """Ends TLS by close_notify both ways; returns the plain socket, which cooperates like this one.

        This one goes on as the same socket, in clear, and so do files that makefile() has made of it: to close either
        closes it.
        """
        if self._sslobj is None:
            raise ValueError(f"No SSL wrapper around {self}")
        try:
            self._stream.shutdown()
        except TLSError as error:
            raise self._as_stdlib(error) from error
        self._raw = self._stream = plain = self._plain_socket()
        self._closed, self._handed_out = False, True
        for method in ("recv", "recv_into", "send", "sendall"):
            self.__dict__[method] = getattr(plain, method)
        return plain

    # -- before TLS ----------------------------------------------------------------------------------------------------

    def bind(self, address: Any) -> None:
        self._raw.bind(address)

    def listen(self, *backlog: int) -> None:
        self._raw.listen(*backlog)

    def accept(self) -> tuple[Any, Any]:
        """(an SSLSocket of the same settings, the peer's address), after the handshake if do_handshake_on_connect."""
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

    def connect(self, address: Any) -> None:
        self._connect(address, "connect")

    def connect_ex(self, address: Any) -> int:
        return self._connect(address, "connect_ex") or 0

    def _connect(self, address: Any, method: str) -> int | None:
        if self.server_side:
            raise ValueError("can't connect in server-side mode")
        if self._connected:
            raise ValueError("attempt to connect already-connected SSLSocket!")
        if not self._context.has_side(False):
            self._context.connection(False, self.server_hostname, None, self)  # raises ssl.SSLError
        failure: int | None = getattr(self._raw, method)(address)
        if not failure:
            self._leave_clear()
            if self.do_handshake_on_connect:
                self.do_handshake()
        return failure

    # -- the socket ----------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def detach(self) -> int:
        """The descriptor, which nobody here closes any more."""
        self._closed = True
        stream = self._stream
        descriptor: int = stream.detach()
        self._raw = self._stream = Closed(stream.connection, stream.timeout)
        return descriptor

    @property
    def closed(self) -> bool:
        """As gevent's sockets have it: close() was called, though files may keep the connection."""
        return self._closed

    def close(self) -> None:
        """Once the files that makefile() has made are closed, too, as the standard library's."""
        self._closed = True
        if self._io_refs <= 0:
            self._real_close()

    def _real_close(self) -> None:
        self._closed = True
        stream = self._stream
        stream.close()
        self._raw = self._stream = Closed(stream.connection, stream.timeout)

    def _decref_socketios(self) -> None:
        if self._io_refs > 0:
            self._io_refs -= 1
        if self._closed:
            self.close()

    makefile = _stdlib_socket.socket.makefile
    get_inheritable = _stdlib_socket.socket.get_inheritable
    set_inheritable = _stdlib_socket.socket.set_inheritable

    def shutdown(self, how: int) -> None:
        """As the standard library's: ends the transport; close_notify goes out first if that still may send."""
        self._stream.shut(how)

    def gettimeout(self) -> float | None:
        return self._stream.timeout

    def settimeout(self, value: float | None) -> None:
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._stream.timeout = value

    @property
    def timeout(self) -> float | None:
        return self._stream.timeout

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        return self._stream.timeout != 0.0

    def getpeername(self) -> Any:
        return self._raw.getpeername()

    def getsockname(self) -> Any:
        return self._raw.getsockname()

    def getsockopt(self, *arguments: Any) -> Any:
        return self._raw.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        self._raw.setsockopt(*arguments)

    @staticmethod
    def _no_flags(method: str) -> ValueError:
        return ValueError(f"non-zero flags not allowed in calls to {method}() on {SSLSocket}")

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def _connection(self) -> Connection:
        return self._stream.connection

    def _replace_connection(self, connection: Connection) -> None:
        self._stream.use(connection)

    def version(self) -> str | None:
        return None if self.fileno() == -1 else super().version()

    @property
    def _sslobj(self) -> SSLSocket | None:
        """For those who ask the standard library's socket in this way whether there is TLS."""
        return self if isinstance(self._stream, TLSStream) and not self._stream.closed else None

    @property
    def _sock(self) -> Underneath:
        """For gevent.pywsgi, which ends its connections by this."""
        return Underneath(self)

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        self._check_connected()
        return super().getpeercert(binary_form)
