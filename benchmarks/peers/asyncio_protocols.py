"""The services as protocols of asyncio, which are its fastest interface."""

import asyncio


def protocols(size):
    """By name. size: bytes of a write."""
    block = bytes(size)

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

    return {"echo": Echo, "upload": Upload, "download": Download}
