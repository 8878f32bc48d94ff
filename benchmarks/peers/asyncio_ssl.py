"""asyncio's own TLS, or uvloop's with --uvloop."""

import asyncio
import ssl

from asyncio_protocols import protocols
from common import BACKLOG, announce, arguments, end_with_stdin

given = arguments(("--uvloop", {"action": "store_true"}))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(given.certificate, given.key)


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # clients close without a word
    ports = {}
    for name, protocol in protocols(given.block).items():
        server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
        ports[name] = server.sockets[0].getsockname()[1]
    announce(ports)
    end_with_stdin()
    await asyncio.Event().wait()


if given.uvloop:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
