"""Connections over new or existing sockets and transports, with asyncio's signatures.

asyncio resolves names, connects, and reports errors as usual. After that its plain transport stays idle, and a
TLSTransport uses the same socket through its own descriptor. If a transport has no socket of its own (TLS in TLS), the
bytes go through a pair of sockets.
"""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from greentls.aio.transport import TLSTransport, checked

if TYPE_CHECKING:
    from greentls.core.session import Session
    from greentls.ssl.context import SSLContext

__all__ = ["connect_accepted_socket", "create_connection", "open_connection", "own_socket", "start_tls"]

Plain = Any  # a plain transport; no base class of asyncio's has all methods that are called here
Connect = Callable[..., Awaitable[tuple[Plain, asyncio.BaseProtocol]]]


async def create_connection(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | None = None,
    port: int | str | None = None,
    *,
    ssl: SSLContext,
    server_hostname: str | None = None,
    session: Session | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    connect: Connect | None = None,
    **connecting: Any,  # Any: the loop's own arguments
) -> tuple[TLSTransport, asyncio.BaseProtocol]:
    """Like loop.create_connection(), but callbacks may wait. Returns (transport, protocol) after the handshake.

    ssl: a greentls.SSLContext. server_hostname: the default is host. session: a Session to resume; the default is one
    of the context's client_sessions, if there is any. The timeouts are in seconds; the default for the handshake is the
    context's handshake_timeout. connect: a function that makes the plain connection from the other arguments; the
    default is the loop's own create_connection(), with host and port.

    Raises OSError, ssl.SSLError, TimeoutError, or what a callback raised. A cancellation is raised in the callback that
    the handshake waits for.
    """
    loop = asyncio.get_running_loop()
    timeouts = checked(ssl_handshake_timeout, ssl_shutdown_timeout)
    if server_hostname is None:
        if not host and ssl.check_hostname:
            raise ValueError("You must set server_hostname when using ssl without a host")
        server_hostname = host
    if connect is None:
        connect = partial(loop.create_connection, port=port)
    plain, _ = await connect(_StandBy, host, **connecting)
    protocol = protocol_factory()
    make = partial(
        TLSTransport,
        context=ssl,
        protocol=protocol,
        server_hostname=server_hostname or None,
        session=session,
        timeouts=timeouts,
    )
    return await _over(plain, make), protocol


async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = 65536,
    ssl: SSLContext,
    **connecting: Any,  # Any: create_connection()'s
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Like asyncio.open_connection(), over create_connection(). Returns (reader, writer)."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await create_connection(lambda: protocol, host, port, ssl=ssl, **connecting)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def connect_accepted_socket(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    sock: socket.socket,
    *,
    ssl: SSLContext,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> tuple[TLSTransport, asyncio.BaseProtocol]:
    """Like loop.connect_accepted_socket(): the server's side, over a socket that the program has accepted itself."""
    timeouts = checked(ssl_handshake_timeout, ssl_shutdown_timeout)
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    sock.setblocking(False)
    protocol = protocol_factory()
    transport = TLSTransport(sock, ssl, protocol, server_side=True, timeouts=timeouts)
    await transport.handshake()
    return transport, protocol


async def start_tls(
    transport: Plain,
    protocol: asyncio.BaseProtocol,
    sslcontext: SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    session: Session | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> TLSTransport:
    """Like loop.start_tls(): continues an existing connection in TLS. Returns the new transport.

    As in asyncio, the protocol's connection_made() is not called again. Raises as create_connection() does, and
    TypeError for a transport that does not support it.
    """
    timeouts = checked(ssl_handshake_timeout, ssl_shutdown_timeout)
    uvloops = type(transport).__module__ == "uvloop.loop" and hasattr(transport, "write_eof")  # it has no mark
    if not (uvloops or getattr(transport, "_start_tls_compatible", False)):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    make = partial(
        TLSTransport,
        context=sslcontext,
        protocol=protocol,
        server_side=server_side,
        server_hostname=server_hostname,
        session=session,
        timeouts=timeouts,
        announced=True,
    )
    return await _over(transport, make)


async def _over(plain: Plain, make: Callable[..., TLSTransport]) -> TLSTransport:
    """Does the handshake over a plain transport. make(sock, under=...): makes the TLSTransport."""
    loop = asyncio.get_running_loop()
    try:
        if plain.get_extra_info("ssl_object") is None and plain.get_extra_info("socket") is not None:
            plain.resume_reading()  # Python 3.10 begins to read though connection_made() has paused it
            plain.pause_reading()
            plain.set_protocol(_StandBy())
            sock, under = own_socket(plain.get_extra_info("socket")), plain
        else:
            (sock, other), under = socket.socketpair(), None  # the _Relay closes the plain transport
            sock.setblocking(False)
            await loop.create_connection(lambda: _Relay(plain), sock=other)
        try:
            transport = make(sock, under=under)
        except BaseException:
            sock.close()
            raise
    except BaseException:
        plain.abort()
        raise
    await transport.handshake()
    return transport


class _StandBy(asyncio.Protocol):
    """The protocol of a plain transport whose socket a TLSTransport uses."""

    def connection_made(self, transport: Plain) -> None:
        transport.pause_reading()


class _Relay(asyncio.Protocol):
    """Passes ciphertext between a pair of sockets and a transport that has no socket of its own."""

    def __init__(self, to: Plain, twin: _Relay | None = None) -> None:
        self._to, self._twin, self._ended = to, twin, False

    def connection_made(self, transport: Plain) -> None:
        self._twin = _Relay(transport, self)
        self._to.set_protocol(self._twin)

    def data_received(self, data: bytes) -> None:
        self._to.write(data)

    def eof_received(self) -> bool:
        """Passes on the end of one side. The end of both sides closes the connection."""
        self._ended = True
        if (self._twin is not None and self._twin._ended) or not self._to.can_write_eof():
            self._to.close()
            return False
        self._to.write_eof()
        return True

    def pause_writing(self) -> None:
        self._to.pause_reading()

    def resume_writing(self) -> None:
        self._to.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._to.close()


def own_socket(sock: socket.socket | TransportSocket) -> socket.socket:
    """Returns another descriptor of a socket that belongs to a transport or server of the loop."""
    own = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    own.setblocking(False)
    return own
