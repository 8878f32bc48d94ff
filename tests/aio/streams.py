"""A server and clients of streams, over aio."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from time import monotonic

from greentls import aio
from tests.support.helpers import PATIENCE


async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def serving(context, handler=echo, **settings):
    """The port of a server, which is closed with its connections at the end."""
    server = await aio.start_server(handler, "127.0.0.1", 0, ssl=context, **settings)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        server.abort_clients()
        await server.wait_closed()


@asynccontextmanager
async def connected(port, context, **settings):
    """(reader, writer) of a client that trusts the server."""
    settings.setdefault("server_hostname", "localhost")
    reader, writer = await aio.open_connection("127.0.0.1", port, ssl=context, **settings)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def happened(condition, what):
    """Until condition() is true. Raises TimeoutError, which says what never came."""
    end = monotonic() + PATIENCE
    while not condition():
        if monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE} s in vain for {what}")
        await asyncio.sleep(0)


async def exchange(port, context, data=b"hello", **settings):
    """What came back, and the client's SSLObject."""
    async with connected(port, context, **settings) as (reader, writer):
        writer.write(data)
        answer = await reader.readexactly(len(data))
        return answer, writer.get_extra_info("ssl_object")


class Recorder(asyncio.Protocol):
    """Notes what its transport tells it."""

    def __init__(self):
        self.told = []
        self.data = b""
        self.keep_open = False
        self.lost = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()

    def connection_made(self, transport):
        self.told.append("made")
        self.transport = transport

    def data_received(self, data):
        self.data += data
        self.arrived.set()

    def eof_received(self):
        self.told.append("eof")
        self.arrived.set()
        return self.keep_open

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")
        self.arrived.set()

    def connection_lost(self, error):
        self.told.append("lost")
        self.lost.set_result(error)

    async def has(self, length):
        while len(self.data) < length:
            self.arrived.clear()
            await self.arrived.wait()
        return self.data
