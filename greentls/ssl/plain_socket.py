"""PlainSocket: a socket without TLS that has bytes which were read before. InClear: a socket before or after TLS."""

from __future__ import annotations

import errno
import operator
import os
from typing import NoReturn

from gevent import socket

from greentls.core.connection import Connection
from greentls.ssl.context import PassedThrough
from greentls.wire import ClientHello

__all__ = ["Closed", "InClear", "PlainSocket"]


class PlainSocket(PassedThrough, socket.socket):  # type: ignore[misc]  # gevent is untyped
    """A gevent socket whose ``recv()`` returns the bytes in ``ahead`` first. There are such bytes in three cases:

    - TLS has ended, and the connection continues in plaintext (FTP's CCC, LDAP). Bytes that the peer has sent after its
      close_notify may have come together with it.
    - A connection is passed through, and its TLS does not end here. Its ClientHello has been read.
    - Something comes before TLS (the PROXY protocol), and was read together with a part of the TLS that follows.
      wrap_socket() takes the bytes in ahead as the first ciphertext.

    select() and similar functions do not see these bytes, unless monkey.patch() has replaced them. So read until ahead
    is empty before you poll the descriptor.
    """

    ahead: bytes = b""
    client_hello: ClientHello | None = None  # the client's, if the connection is passed through

    def pending(self) -> int:
        """The number of bytes in ahead."""
        return len(self.ahead)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if not self.ahead:
            return super().recv(bufsize, flags)  # type: ignore[no-any-return]  # gevent is untyped
        data = self.ahead[:bufsize]
        if not flags & socket.MSG_PEEK:
            self.ahead = self.ahead[bufsize:]
        return data

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        if not self.ahead:
            return super().recv_into(buffer, nbytes, flags)  # type: ignore[no-any-return]  # gevent is untyped
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.recv(nbytes or len(octets), flags)
            octets[: len(data)] = data
            return len(data)


class InClear(PlainSocket):
    """The _stream of an SSLSocket that listens, is not yet connected, or has been unwrapped.

    Its waits are gevent's, so closing or detaching it cancels them. connection: the Connection of the TLSStream that
    comes after it, or came before it.
    """

    connection: Connection

    def use(self, connection: Connection) -> None:
        self.connection = connection

    # A TLSStream's names for these methods
    read, read_into, write, shut = (
        PlainSocket.recv,
        PlainSocket.recv_into,
        socket.socket.sendall,
        socket.socket.shutdown,
    )


class Closed:
    """The _stream of a closed SSLSocket. Nothing is read or sent any more, not even data that TLS has decrypted.

    before: the socket that had the descriptor, or a Closed. It still knows its family, type and proto.
    """

    __slots__ = ("_before", "connection", "timeout")

    def __init__(self, connection: Connection, timeout: float | None, before: object) -> None:
        self.connection, self.timeout, self._before = connection, timeout, before

    family, type, proto = (property(operator.attrgetter(f"_before.{each}")) for each in ("family", "type", "proto"))

    def _bad_descriptor(self, *_: object) -> NoReturn:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    do_handshake = receive = read = read_into = send = write = shutdown = shut = _bad_descriptor
    recv = bind = listen = accept = _accept = connect = getpeername = getsockname = getsockopt = setsockopt = (
        _bad_descriptor
    )

    def connect_ex(self, address: object) -> int:
        return errno.EBADF

    def fileno(self) -> int:
        return -1

    def refuse(self, *_: object) -> None:
        """Does nothing: the peer is gone."""

    refuse_in_clear = use = refuse

    def close(self) -> None:
        """Does nothing: the socket is closed already."""

    def detach(self) -> int:
        return -1
