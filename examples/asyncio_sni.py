"""An asyncio server that looks up a name's certificate in a database, in the middle of the handshake.

The callback is a coroutine function. While it waits, OpenSSL's handshake waits with it, and the event loop continues.

    pip install aiosqlite
    python examples/asyncio_sni.py names.sqlite
"""

import asyncio
import ssl
import sys

import aiosqlite

import greentls
from greentls import aio

QUESTION = "select certificate, key from names where name = ?"


async def greet(reader, writer):
    name = writer.get_extra_info("ssl_object").server_name
    writer.write(b"hello from " + name.encode() + b"\n")
    writer.close()


async def main(path, bind="127.0.0.1:4433"):
    host, _, port = bind.rpartition(":")
    async with aiosqlite.connect(path) as database:

        async def choose(sock, name, context):
            async with database.execute(QUESTION, (name,)) as rows:
                row = await rows.fetchone()
            if row is None:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            chosen = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            chosen.load_cert_chain(*row)
            sock.context = chosen
            return None

        context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = choose
        async with await aio.start_server(greet, host, int(port), ssl=context) as server:
            print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
            await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
