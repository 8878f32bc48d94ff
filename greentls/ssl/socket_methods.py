"""What an SSLSocket has of a socket besides TLS: its descriptor, its end, its names, options and timeout.

The socket changes as it goes on. Under an SSLSocket (_stream) an InClear listens or is not yet connected, a TLSStream
speaks TLS, an InClear goes on after unwrap(), and a Closed is left at the end. They have the same methods, so that few
methods of an SSLSocket ask which of them it is.
"""

from __future__ import annotations

import errno
import socket as _stdlib_socket
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from greentls.ssl.plain_socket import Closed, InClear
from greentls.stream import TLSStream

__all__ = ["Address", "SocketMethods"]

Address = Any  # the address family's: a tuple, a path, ...

UNREAD_SIZE = 16384  # bytes taken from a connection before it is closed by force; gevent.pywsgi asks for as many


_FAMILIES = {int(family): family for family in _stdlib_socket.AddressFamily}


class SocketMethods:
    _stream: TLSStream | InClear | Closed
    _raw: Any  # the socket that has the descriptor: a _socket.socket, or _stream. Any: gevent is untyped
    _io_refs = 0
    _closed = False
    _handed_out = False  # by unwrap(): the plain socket owns the descriptor, and closes it

    def _check_connected(self) -> None:
        """Raises OSError."""
        raise NotImplementedError  # SSLSocket has it

    def __del__(self) -> None:
        raw = getattr(self, "_raw", None)
        if not (self._closed or self._handed_out) and raw is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            stream = getattr(self, "_stream", None)
            (stream.abandon if isinstance(stream, TLSStream) else raw.close)()

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def detach(self) -> int:
        """Gives away the descriptor: nobody here closes it any more."""
        self._closed = True
        stream = self._stream
        descriptor: int = stream.detach()
        self._raw = self._stream = Closed(stream.connection, stream.timeout, self._raw)
        return descriptor

    @property
    def family(self) -> int:
        number: int = self._raw.family
        return _FAMILIES.get(number, number)

    @property
    def type(self) -> int:
        return int(self._raw.type)

    @property
    def proto(self) -> int:
        return int(self._raw.proto)

    @property
    def closed(self) -> bool:
        """Whether close() was called, as on gevent's sockets. Open files may still keep the connection."""
        return self._closed

    def close(self) -> None:
        """Closes the socket, as in the standard library once all files that makefile() has made are closed, too."""
        self._closed = True
        if self._io_refs <= 0:
            self._real_close()

    def _real_close(self) -> None:
        self._closed = True
        stream = self._stream
        stream.close()
        self._raw = self._stream = Closed(stream.connection, stream.timeout, self._raw)

    def _decref_socketios(self) -> None:
        if self._io_refs > 0:
            self._io_refs -= 1
        if self._closed:
            self.close()

    # Its declared type demands that self is a socket.socket, which an SSLSocket is only at run time.
    makefile: Callable[..., Any] = _stdlib_socket.socket.makefile  # Any: a file, whose type mode decides
    get_inheritable = _stdlib_socket.socket.get_inheritable
    set_inheritable = _stdlib_socket.socket.set_inheritable

    def shutdown(self, how: int) -> None:
        """Shuts down the transport, as the standard library does. If that ends sending, close_notify goes out first."""
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

    def getpeername(self) -> Address:
        return self._raw.getpeername()

    def getsockname(self) -> Address:
        return self._raw.getsockname()

    def getsockopt(self, *arguments: int) -> int | bytes:
        found: int | bytes = self._raw.getsockopt(*arguments)
        return found

    def setsockopt(self, *arguments: object) -> None:
        self._raw.setsockopt(*arguments)

    def bind(self, address: Address) -> None:
        self._raw.bind(address)

    def listen(self, *backlog: int) -> None:
        self._raw.listen(*backlog)

    @property
    def _sslobj(self) -> SocketMethods | None:
        """Not None while there is TLS, as in the standard library: programs ask for it."""
        return self if isinstance(self._stream, TLSStream) and not self._stream.closed else None

    @property
    def _sock(self) -> Underneath:
        """For gevent.pywsgi, which ends its connections by it."""
        return Underneath(self)

    # -- what TLS does not have ----------------------------------------------------------------------------------------

    def recvfrom(self, *_: object) -> NoReturn:
        self._check_connected()
        raise ValueError(f"recvfrom not allowed on instances of {type(self)}")

    def recvfrom_into(self, *_: object) -> NoReturn:
        self._check_connected()
        raise ValueError(f"recvfrom_into not allowed on instances of {type(self)}")

    def sendto(self, *_: object) -> NoReturn:
        self._check_connected()
        raise ValueError(f"sendto not allowed on instances of {type(self)}")

    def recvmsg(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"recvmsg not allowed on instances of {type(self)}")

    def recvmsg_into(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"recvmsg_into not allowed on instances of {type(self)}")

    def sendmsg(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"sendmsg not allowed on instances of {type(self)}")

    def dup(self) -> NoReturn:
        raise NotImplementedError(f"Can't dup() {type(self).__name__} instances")


class Underneath:
    """The _sock of an SSLSocket: it can end the connection, but neither reads nor writes past TLS.

    gevent.pywsgi closes connections by it. Otherwise they would stay open for as long as somebody holds the request's
    environ, and with it the file that makefile() has made.
    """

    __slots__ = ("_owner",)

    def __init__(self, owner: SocketMethods) -> None:
        self._owner = owner

    def fileno(self) -> int:
        return self._owner.fileno()

    def recv(self, *_: object) -> NoReturn:
        """There is never anything to read here: it belongs to TLS."""
        raise BlockingIOError(errno.EAGAIN, "only TLS reads from this socket")

    def close(self) -> None:
        """Sends close_notify if that can go at once, then FIN, even if files are open."""
        owner = self._owner
        if owner._sslobj is not None:  # without TLS recv() might wait
            try:
                owner._raw.recv(UNREAD_SIZE)  # the kernel sends RST, not FIN, if there is unread data at close()
            except OSError:
                pass
        owner._real_close()
