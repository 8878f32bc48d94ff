"""Connections over sockets and transports that exist, or that are made here, with asyncio's signatures.

asyncio resolves, connects and reports as it always does. The transport that it has made for the plain connection then
stands by, and a TLSTransport moves the bytes over the same socket, by a descriptor of its own. A transport without a
socket of its own, as TLS in TLS is, passes the bytes on through a pair of sockets.
"""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from greentls.aio.transport import TLSTransport, checked

if TYPE_CHECKING:
    from greentls.core.session import Session
    from greentls.ssl.context import SSLContext

__all__ = ["connect_accepted_socket", "create_connection", "open_connection", "own_socket", "start_tls"]

Plain = Any  # a transport in clear; what is called is in no base class of asyncio's


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
    connect: Callable[..., Any] | None = None,  # Any: whatever the loop's own method returns
    **connecting: Any,  # Any: the loop's own arguments
) -> tuple[TLSTransport, asyncio.BaseProtocol]:
    """loop.create_connection() whose callbacks may wait; returns (transport, protocol) after the handshake.

    ssl: a greentls.SSLContext. server_hostname: the host, unless another name is given. session: a Session to resume;
    None: one of the context's client_sessions, if it has some. The timeouts are in seconds; the context's
    handshake_timeout is the default. connect: what connects in clear, with the arguments that are left; None: the
    loop's own create_connection(), with host and port.

    Raises OSError, ssl.SSLError, TimeoutError, or what a callback raised. A cancellation reaches the callback that is
    being waited for.
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
    transport = await _over(
        plain,
        protocol,
        ssl,
        server_hostname=server_hostname or None,
        session=session,
        timeouts=timeouts,
    )
    return transport, protocol


async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = 65536,
    ssl: SSLContext,
    **connecting: Any,  # Any: create_connection()'s
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """asyncio.open_connection() over create_connection(): returns (reader, writer)."""
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
    """loop.connect_accepted_socket(): the server's side over a socket that somebody else has accepted."""
    timeouts = checked(ssl_handshake_timeout, ssl_shutdown_timeout)
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    sock.setblocking(False)
    protocol = protocol_factory()
    transport = TLSTransport(
        sock,
        ssl,
        protocol,
        server_side=True,
        timeouts=timeouts,
    )
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
    """loop.start_tls(): goes on in TLS over a connection that exists; returns the new transport.

    As in asyncio the protocol's connection_made() is not called again. Raises as create_connection(), and TypeError for
    a transport that is none of a stream's.
    """
    timeouts = checked(ssl_handshake_timeout, ssl_shutdown_timeout)
    uvloops = type(transport).__module__ == "uvloop.loop" and hasattr(transport, "write_eof")  # which has no such mark
    if not (uvloops or getattr(transport, "_start_tls_compatible", False)):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    return await _over(
        transport,
        protocol,
        sslcontext,
        server_side=server_side,
        server_hostname=server_hostname,
        session=session,
        timeouts=timeouts,
        announced=True,
    )


async def _over(
    plain: Plain,
    protocol: asyncio.BaseProtocol,
    context: SSLContext,
    **settings: Any,  # Any: TLSTransport's
) -> TLSTransport:
    """TLS over a transport in clear, after the handshake."""
    loop = asyncio.get_running_loop()
    try:
        if plain.get_extra_info("ssl_object") is None and plain.get_extra_info("socket") is not None:
            plain.resume_reading()  # Python 3.10 begins to read though connection_made() has paused it
            plain.pause_reading()
            plain.set_protocol(_StandBy())
            sock, under = own_socket(plain.get_extra_info("socket")), plain
        else:
            (sock, other), under = socket.socketpair(), None  # _Relay closes what is under it
            sock.setblocking(False)
            await loop.create_connection(lambda: _Relay(plain), sock=other)
        try:
            transport = TLSTransport(sock, context, protocol, under=under, **settings)
        except BaseException:
            sock.close()
            raise
    except BaseException:
        plain.abort()
        raise
    await transport.handshake()
    return transport


class _StandBy(asyncio.Protocol):
    """Of a transport whose socket a TLSTransport uses."""

    def connection_made(self, transport: Plain) -> None:
        transport.pause_reading()


class _Relay(asyncio.Protocol):
    """Passes ciphertext on, between a pair of sockets and a transport that has no socket of its own."""

    def __init__(self, to: Plain, twin: _Relay | None = None) -> None:
        self._to, self._twin, self._ended = to, twin, False

    def connection_made(self, transport: Plain) -> None:
        self._twin = _Relay(transport, self)
        self._to.set_protocol(self._twin)

    def data_received(self, data: bytes) -> None:
        self._to.write(data)

    def eof_received(self) -> bool:
        """One side's end goes on as such; after the second one nothing is left."""
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
    """Another descriptor of the socket that a loop's transport or server has."""
    own = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    own.setblocking(False)
    return own
