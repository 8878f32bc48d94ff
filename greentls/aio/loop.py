"""Event loops that use greentls if ``ssl=context`` is a greentls.SSLContext.

They are for libraries that make their connections themselves and only accept a context: uvicorn, hypercorn, aiohttp,
redis-py, and asyncio.start_server() and open_connection(). With another context, or none, the loop does what it always
does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from greentls.aio import connecting, serving
from greentls.ssl.context import SSLContext

__all__ = ["EventLoop", "new_event_loop", "new_uvloop"]

Given = Any  # arguments and results that are passed to and from the loop's own methods

if TYPE_CHECKING:
    _Loop = asyncio.AbstractEventLoop
else:
    _Loop = object


class _OurTLS(_Loop):
    """Comes before a loop's own class in the order of bases."""

    async def create_connection(
        self, protocol_factory: Given, *args: Given, ssl: Given = None, **kwargs: Given
    ) -> Given:
        if isinstance(ssl, SSLContext):
            return await connecting.create_connection(protocol_factory, *args, ssl=ssl, **kwargs)
        return await super().create_connection(protocol_factory, *args, ssl=ssl, **kwargs)

    async def create_unix_connection(
        self, protocol_factory: Given, *args: Given, ssl: Given = None, **kwargs: Given
    ) -> Given:
        if isinstance(ssl, SSLContext):
            connect = super().create_unix_connection
            return await connecting.create_connection(protocol_factory, *args, ssl=ssl, connect=connect, **kwargs)
        return await super().create_unix_connection(protocol_factory, *args, ssl=ssl, **kwargs)

    async def connect_accepted_socket(
        self, protocol_factory: Given, sock: Given, *, ssl: Given = None, **kwargs: Given
    ) -> Given:
        if isinstance(ssl, SSLContext):
            return await connecting.connect_accepted_socket(protocol_factory, sock, ssl=ssl, **kwargs)
        return await super().connect_accepted_socket(protocol_factory, sock, ssl=ssl, **kwargs)

    async def create_server(self, protocol_factory: Given, *args: Given, ssl: Given = None, **kwargs: Given) -> Given:
        if isinstance(ssl, SSLContext):
            return await serving.create_server(protocol_factory, *args, ssl=ssl, **kwargs)
        return await super().create_server(protocol_factory, *args, ssl=ssl, **kwargs)

    async def create_unix_server(
        self, protocol_factory: Given, *args: Given, ssl: Given = None, **kwargs: Given
    ) -> Given:
        if isinstance(ssl, SSLContext):
            bind = super().create_unix_server
            return await serving.create_server(protocol_factory, *args, ssl=ssl, bind=bind, **kwargs)
        return await super().create_unix_server(protocol_factory, *args, ssl=ssl, **kwargs)

    async def start_tls(self, transport: Given, protocol: Given, sslcontext: Given, **kwargs: Given) -> Given:
        if isinstance(sslcontext, SSLContext):
            return await connecting.start_tls(transport, protocol, sslcontext, **kwargs)
        return await super().start_tls(transport, protocol, sslcontext, **kwargs)


class EventLoop(_OurTLS, asyncio.SelectorEventLoop):
    """asyncio's own loop. ``asyncio.Runner(loop_factory=greentls.aio.EventLoop)``."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An EventLoop. ``uvicorn --loop greentls.aio:new_event_loop``."""
    return EventLoop()


def new_uvloop() -> asyncio.AbstractEventLoop:
    """An EventLoop over uvloop, which must be installed."""
    import uvloop

    class UVLoop(_OurTLS, uvloop.Loop):  # type: ignore[misc]  # untyped
        pass

    return UVLoop()
