"""An HTTPS server of others, uvicorn or hypercorn, over greentls.aio.

    python -m tests.programs.asgi uvicorn|uvicorn-uvloop|hypercorn PORT CERTIFICATE KEY [--store URL] [--database FILE]

It answers each request with a JSON object: its process, the HTTP version, what was sent, the latest handshake, and how
many handshakes wait for the database. WebSockets echo. --store: the session store. --database: the SQLite file with the
certificate of each server name.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl

import aiosqlite

import greentls
import greentls.events
from greentls import aio

KEEP_ALIVE = 600  # seconds: a test says when its connection ends

latest = {}
waiting = {"now": 0, "most": 0}
databases = []


def note(event):
    if event["event"] == "handshake":
        latest.update({name: event[name] for name in ("resumption", "version", "alpn", "server_name")})
        latest["lookup"] = event["lookup"] and event["lookup"]["outcome"]


class Certificates:
    """An sni_callback that asks the database."""

    def __init__(self, path):
        self._path = path
        self._database = None

    async def __call__(self, sock, name, context):
        waiting["now"] += 1
        waiting["most"] = max(waiting.values())
        try:
            if self._database is None:
                self._database = asyncio.ensure_future(self._connect())
            database = await self._database
            async with database.execute("SELECT certificate, key FROM certificates WHERE name = ?", (name,)) as rows:
                pair = await rows.fetchone()
        finally:
            waiting["now"] -= 1
        if pair is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        chosen = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chosen.load_cert_chain(*pair)
        sock.context = chosen
        return None

    async def _connect(self):
        databases.append(await aiosqlite.connect(self._path, timeout=600))
        return databases[-1]


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.gather(*(database.close() for database in databases))
            await send({"type": f"{message['type']}.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
    else:
        sent, more = 0, True
        while more:
            message = await receive()
            sent, more = sent + len(message["body"]), message.get("more_body", False)
        found = {"pid": os.getpid(), "http": scope["http_version"], "scheme": scope["scheme"], "sent": sent}
        body = json.dumps({**found, **latest, "waiting": waiting}, indent=1).encode() + b"\n"
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def make_context(given, protocols):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.callback_timeout = None  # the test has its own patience with the database that it has locked
    context.load_cert_chain(given.certificate, given.key)
    context.set_alpn_protocols(protocols)
    if given.store:
        context.session_store = greentls.open_store(given.store)
    if given.database:
        context.sni_callback = Certificates(given.database)
    return context


def uvicorn(given, loop):
    import uvicorn

    uvicorn.run(
        application,
        host="127.0.0.1",
        port=given.port,
        loop=loop,
        timeout_keep_alive=KEEP_ALIVE,
        ssl_context_factory=lambda config, default: make_context(given, ["http/1.1"]),
    )


def hypercorn(given):
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    class OurConfig(Config):
        ssl_enabled = True

        def create_ssl_context(self):
            return make_context(given, self.alpn_protocols)

    config = OurConfig()
    config.bind = [f"127.0.0.1:{given.port}"]
    config.keep_alive_timeout = KEEP_ALIVE
    aio.new_event_loop().run_until_complete(serve(application, config))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=("uvicorn", "uvicorn-uvloop", "hypercorn"))
    parser.add_argument("port", type=int)
    parser.add_argument("certificate")
    parser.add_argument("key")
    parser.add_argument("--store")
    parser.add_argument("--database")
    given = parser.parse_args()
    greentls.events.handler = note
    if given.server == "hypercorn":
        hypercorn(given)
    else:
        uvicorn(given, "greentls.aio:new_uvloop" if "uvloop" in given.server else "greentls.aio:new_event_loop")


if __name__ == "__main__":
    main()
