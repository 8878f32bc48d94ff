"""Servers: create_server() and start_server(), with asyncio's signatures."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl as _stdlib_ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from greentls.aio.connecting import own_socket
from greentls.aio.transport import Closed, Timeouts, TLSTransport, checked

if TYPE_CHECKING:
    from greentls.ssl.context import SSLContext

__all__ = ["Server", "create_server", "start_server"]

log = logging.getLogger("greentls.handshake")

PAUSE = 1.0  # seconds without accept() after it has failed for want of descriptors or memory; asyncio's


class Server(asyncio.AbstractServer):
    """A listening server, made by create_server(). It has asyncio.Server's methods. ``async with`` closes it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: list[socket.socket],
        bound: asyncio.AbstractServer | None,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        context: SSLContext,
        backlog: int,
        timeouts: Timeouts,
    ) -> None:
        self._loop, self._listening, self._factory = loop, sockets, protocol_factory
        self._bound = bound  # the loop's own server, whose sockets these are copies of; or None
        self._context, self._backlog, self._timeouts = context, backlog, timeouts
        self._serving = False
        self._closed = False
        self._transports: set[TLSTransport] = set()
        self._gone = asyncio.Event()
        self._forever: asyncio.Future[None] | None = None

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; none once the server is closed."""
        return tuple(self._listening)

    def is_serving(self) -> bool:
        return self._serving

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    async def start_serving(self) -> None:
        self._start()

    def _start(self) -> None:
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        if not self._serving:
            self._serving = True
            for sock in self._listening:
                sock.listen(self._backlog)
                self._loop.add_reader(sock.fileno(), self._accept, sock)

    async def serve_forever(self) -> None:
        """Serves until the task is cancelled, then closes the server."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self._start()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Stops listening. Existing connections continue."""
        if self._closed:
            return
        self._closed = True
        for sock in self._listening:
            if self._serving:
                self._loop.remove_reader(sock.fileno())
            sock.close()
        self._listening = []
        if self._bound is not None:
            self._bound.close()  # removes the file of a Unix socket, from Python 3.13 on
        self._serving = False
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()
        if not self._transports:
            self._gone.set()

    async def wait_closed(self) -> None:
        """Waits until the server and all its connections are closed."""
        await self._gone.wait()

    def close_clients(self) -> None:
        for transport in list(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        for transport in list(self._transports):
            transport.abort()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    def _accept(self, listener: socket.socket) -> None:
        family, kind, proto = int(listener.family), int(listener.type), listener.proto
        for _ in range(self._backlog):
            try:
                descriptor, _address = listener._accept()  # type: ignore[attr-defined]  # accept() asks for enums each time
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._loop.call_exception_handler(
                    {"message": "socket.accept() failed; the server pauses", "exception": error, "socket": listener}
                )
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(PAUSE, self._go_on, listener)
                return
            sock = socket.socket(family, kind, proto, fileno=descriptor)
            sock.setblocking(False)
            self._serve(sock)

    def _go_on(self, listener: socket.socket) -> None:
        if self._serving:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _serve(self, sock: socket.socket) -> None:
        try:
            transport = TLSTransport(
                sock, self._context, self._factory(), server_side=True, timeouts=self._timeouts, ended=self._ended
            )
        except BaseException as error:
            sock.close()
            self._loop.call_exception_handler({"message": "no connection could be made", "exception": error})
            return
        self._transports.add(transport)
        transport.begin(self._begun)

    def _begun(self, transport: TLSTransport, error: BaseException | None) -> None:
        if error is None:
            transport.start()
            return
        if isinstance(error, Closed):
            return
        if isinstance(error, _stdlib_ssl.SSLError) or (isinstance(error, OSError) and not transport.dead):
            log.warning("%s: no handshake: %s", transport.get_extra_info("peername") or "a client", error)
        else:
            self._loop.call_exception_handler(
                {"message": "a callback refused a connection", "exception": error, "transport": transport}
            )

    def _ended(self, transport: TLSTransport) -> None:
        self._transports.discard(transport)
        if self._closed and not self._transports:
            self._gone.set()


async def create_server(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    ssl: SSLContext,
    sock: socket.socket | None = None,
    backlog: int = 100,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    bind: Callable[..., Awaitable[asyncio.Server]] | None = None,
    **binding: Any,  # Any: the loop's own arguments
) -> Server:
    """Like loop.create_server(), but callbacks may wait.

    ssl: a greentls.SSLContext. sock: a bound socket, instead of host and port. The timeouts are in seconds; the default
    for the handshake is the context's handshake_timeout. bind: a function that binds from the other arguments; the
    default is the loop's own create_server(), with host and port. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    timeouts = checked(ssl_handshake_timeout, ssl_shutdown_timeout)
    if sock is not None:
        if host is not None or port is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        if sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A Stream Socket was expected, got {sock!r}")
        sock.setblocking(False)
        sockets, bound = [sock], None
    else:
        if bind is None:
            bound = await loop.create_server(asyncio.Protocol, host, port, start_serving=False, **binding)
        else:
            bound = await bind(asyncio.Protocol, host, start_serving=False, **binding)
        try:
            sockets = [own_socket(each) for each in bound.sockets]
        except BaseException:
            bound.close()
            raise
    server = Server(loop, sockets, bound, protocol_factory, ssl, backlog, timeouts)
    if start_serving:
        server._start()
    return server


async def start_server(
    client_connected_cb: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    limit: int = 65536,
    ssl: SSLContext,
    **serving: Any,  # Any: the loop's own arguments
) -> Server:
    """Like asyncio.start_server(), over create_server()."""
    loop = asyncio.get_running_loop()

    def factory() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return await create_server(factory, host, port, ssl=ssl, **serving)
