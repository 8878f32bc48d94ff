"""asyncio, or uvloop with --uvloop: with protocols, which are the fastest interface of both."""

import asyncio
import ssl

from common import BACKLOG, announce, arguments, end_with_stdin

given = arguments(("--uvloop", {"action": "store_true"}))
block = bytes(given.block)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(given.certificate, given.key)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Upload(asyncio.Protocol):
    pass


class Download(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.paused = False
        asyncio.get_running_loop().call_soon(self.resume_writing)

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        while not self.paused and not self.transport.is_closing():
            self.transport.write(block)


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # clients close without a word
    ports = {}
    for protocol in (Echo, Upload, Download):
        server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
        ports[protocol.__name__.lower()] = server.sockets[0].getsockname()[1]
    announce(ports)
    end_with_stdin()
    await asyncio.Event().wait()


if given.uvloop:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
