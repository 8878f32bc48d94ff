"""PlainSocket: a socket in clear, some of whose bytes have been read already. InClear: one before or after TLS."""

from __future__ import annotations

import errno
import os
from typing import Any

from gevent import socket

from greentls.core.connection import Connection
from greentls.wire import ClientHello

__all__ = ["Closed", "InClear", "PlainSocket"]


class PlainSocket(socket.socket):  # type: ignore[misc]  # gevent is untyped
    """A gevent socket that gives ``ahead`` before anything else.

    TLS may end on a connection that goes on in clear (FTP's CCC, LDAP): what the peer sent behind its close_notify may
    have come along with it. A connection may be passed through without ever being terminated here: its ClientHello has
    been read. And something may stand before TLS (the PROXY protocol), read with a part of what follows: wrap_socket()
    takes a PlainSocket's ahead as the first ciphertext.

    select() and its kin do not see these bytes, unless monkey.patch() has replaced them: read until ahead is empty
    before polling the descriptor.
    """

    ahead: bytes = b""
    client_hello: ClientHello | None = None  # of a connection that is passed through

    def pending(self) -> int:
        """Bytes that are ahead."""
        return len(self.ahead)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if not self.ahead:
            return super().recv(bufsize, flags)  # type: ignore[no-any-return]  # gevent is untyped
        data = self.ahead[:bufsize]
        if not flags & socket.MSG_PEEK:
            self.ahead = self.ahead[bufsize:]
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if not self.ahead:
            return super().recv_into(buffer, nbytes, flags)  # type: ignore[no-any-return]  # gevent is untyped
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.recv(nbytes or len(octets), flags)
            octets[: len(data)] = data
            return len(data)


class InClear(PlainSocket):
    """A socket that listens, or is going to connect, or has been unwrapped: in an SSLSocket's place of the TLSStream.

    Its waits are gevent's: to close or detach it cancels them. connection: what the TLSStream will go on with, or had.
    """

    connection: Connection

    def use(self, connection: Connection) -> None:
        self.connection = connection

    shut = socket.socket.shutdown


class Closed:
    """The same place's, once the SSLSocket is closed: nothing of what TLS has at hand is read or sent any more."""

    def __init__(self, connection: Connection, timeout: float | None) -> None:
        self.connection, self.timeout = connection, timeout

    def _bad_descriptor(self, *_: Any) -> Any:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    do_handshake = receive = read = read_into = send = write = shutdown = shut = _bad_descriptor
    recv = bind = listen = accept = _accept = connect = getpeername = getsockname = getsockopt = setsockopt = (
        _bad_descriptor
    )

    def connect_ex(self, address: object) -> int:
        return errno.EBADF

    def fileno(self) -> int:
        return -1

    def refuse(self, *_: Any) -> None:
        """There is nobody to be told."""

    refuse_in_clear = use = refuse

    def close(self) -> None:
        """It is."""

    def detach(self) -> int:
        return -1
