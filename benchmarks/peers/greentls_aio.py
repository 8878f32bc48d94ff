"""greentls.aio, by its public API: protocols, as in asyncio_ssl.py. With uvloop: --uvloop.

--milliseconds: at the port "session N", a TLS 1.2 or 1.3 client's session is found by a coroutine that takes N ms.
--blocking: by a function that blocks the thread for as long, as one does without greentls.
"""

import asyncio
import ssl
import time

from asyncio_protocols import protocols
from common import BACKLOG, announce, arguments, end_with_stdin

import greentls
from greentls import aio
from greentls.hub import here
from greentls.stores.memory import MemoryStore

given = arguments(
    ("--uvloop", {"action": "store_true"}),
    ("--milliseconds", {"default": ""}),
    ("--blocking", {"action": "store_true"}),
)


class SlowStore(MemoryStore):
    def __init__(self, seconds):
        super().__init__()
        self._seconds = seconds

    def get(self, session_id):
        if given.blocking:
            time.sleep(self._seconds)
        else:
            here().result(asyncio.sleep(self._seconds))
        return super().get(session_id)


def make_context(store=None):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.certificate, given.key)
    context.session_store = store
    context.callback_timeout = context.handshake_timeout = 120.0
    return context


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # clients close without a word
    services = [(name, protocol, make_context()) for name, protocol in protocols(given.block).items()]
    for number in filter(None, given.milliseconds.split(",")):
        services.append((f"session {number}", services[0][1], make_context(SlowStore(float(number) / 1e3))))
    ports = {}
    for name, protocol, context in services:
        server = await aio.create_server(protocol, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
        ports[name] = server.sockets[0].getsockname()[1]
    announce(ports)
    end_with_stdin()
    await asyncio.Event().wait()


loop = aio.new_uvloop() if given.uvloop else aio.new_event_loop()
loop.run_until_complete(main())
