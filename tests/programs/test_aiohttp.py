"""aiohttp's server and client over greentls.aio, each with the other and with the standard library's TLS."""

from __future__ import annotations

import asyncio
import ssl

import pytest

import greentls.ssl
from greentls import aio
from tests.support.hubs import in_loop

LOOPS = {"asyncio": aio.new_event_loop, "uvloop": aio.new_uvloop}
BODY = b"0123456789abcdef" * 40_000


def contexts(module, pki):
    server = module.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.cert_file, pki.key_file)
    return server, module.create_default_context(cafile=pki.ca_file)


async def converse(server_context, client_context):
    """(the status and text of an answer, WebSocket messages that came back, the client's ssl_object)."""
    import aiohttp
    from aiohttp import web

    async def answer(request):
        return web.json_response(
            {"scheme": request.scheme, "sent": len(await request.read()), "peer": request.remote}, status=201
        )

    async def echo(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    application = web.Application(client_max_size=2 * len(BODY))
    application.add_routes([web.post("/", answer), web.get("/echo", echo)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context)
    await site.start()
    address = f"localhost:{runner.addresses[0][1]}"
    try:
        connector = aiohttp.TCPConnector(ssl=client_context)
        async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
            async with session.post(f"https://{address}/", data=BODY) as response:
                found = response.status, await response.json()
            async with session.ws_connect(f"wss://{address}/echo") as socket:
                await socket.send_bytes(BODY)
                message = await socket.receive_bytes()
                tls = socket.get_extra_info("ssl_object")
            return found, message, tls
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("server", "client"), [("ours", "ours"), ("ours", "stdlib"), ("stdlib", "ours")])
def test_aiohttp(loop, server, client, pki):
    modules = {"ours": greentls.ssl, "stdlib": ssl}
    server_context, client_context = contexts(modules[server], pki)[0], contexts(modules[client], pki)[1]
    asked = []

    async def choose(sock, name, context):
        await asyncio.sleep(0)
        asked.append(name)

    if server == "ours":
        server_context.sni_callback = choose
    found, message, tls = in_loop(LOOPS[loop], converse(server_context, client_context))
    assert found == (201, {"scheme": "https", "sent": len(BODY), "peer": "127.0.0.1"})
    assert message == BODY
    assert isinstance(tls, aio.SSLObject) == (client == "ours")
    assert set(asked) == ({"localhost"} if server == "ours" else set())


@pytest.mark.parametrize("loop", LOOPS)
def test_aiohttp_verifies(loop, pki, strange_pki):
    import aiohttp

    server, client = contexts(greentls.ssl, pki)[0], contexts(greentls.ssl, strange_pki)[1]
    with pytest.raises(aiohttp.ClientConnectorCertificateError, match="CERTIFICATE_VERIFY_FAILED"):
        in_loop(LOOPS[loop], converse(server, client))
