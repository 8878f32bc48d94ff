"""asyncio at both ends, in this process, where nothing is patched: from the start, and upgraded.

Over asyncio's own loop, which takes a context only, by wrap_bio(); and over greentls.aio's loops.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

import greentls.ssl
from greentls import aio
from tests.support.helpers import PATIENCE


async def start_tls(writer, context, **options):
    """StreamWriter.start_tls(), which Python 3.10 does not have."""
    if hasattr(writer, "start_tls"):
        await writer.start_tls(context, server_hostname=options.get("server_hostname"))  # it knows which side it is
        return
    await writer.drain()
    protocol = writer.transport.get_protocol()
    writer._transport = await asyncio.get_running_loop().start_tls(writer.transport, protocol, context, **options)


async def converse(server_context, client_context, upgraded):
    """What the client saw, after 640 kB there and back."""

    ended = asyncio.Event()

    async def echo(reader, writer):
        if upgraded:
            assert await reader.readline() == b"secure\n"
            writer.write(b"go on\n")
            try:
                await start_tls(writer, server_context, server_side=True)
            except ssl.SSLError:
                return  # the client that does not trust us
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=None if upgraded else server_context)
    async with server:
        reader, writer = await asyncio.open_connection(
            "localhost", server.sockets[0].getsockname()[1], ssl=None if upgraded else client_context
        )
        if upgraded:
            writer.write(b"secure\n")
            assert await reader.readline() == b"go on\n"
            await start_tls(writer, client_context, server_hostname="localhost")
        sent = b"0123456789abcdef" * 40_000
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        tls = writer.get_extra_info("ssl_object")
        certificate = writer.get_extra_info("peercert")
        writer.close()
        await writer.wait_closed()
        await ended.wait()
        return type(getattr(tls, "_sslobj", tls)).__module__, tls.version(), tls.cipher()[0], certificate


@pytest.fixture
def server_context(pki):
    context = greentls.ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    return context


LOOPS = {
    asyncio.new_event_loop: "greentls.ssl.memorybio",
    aio.new_event_loop: "greentls.aio.ssl_object",
    aio.new_uvloop: "greentls.aio.ssl_object",
}


@pytest.fixture(params=LOOPS, ids=lambda loop: f"{loop.__module__}.{loop.__name__}")
def loop(request):
    made = request.param()
    made.tls = LOOPS[request.param]
    yield made
    made.close()


def talk(loop, *arguments):
    return loop.run_until_complete(asyncio.wait_for(converse(*arguments), PATIENCE))


@pytest.mark.parametrize("upgraded", [False, True], ids=["at once", "upgraded"])
def test_asyncio(loop, upgraded, pki, server_context):
    module, version, cipher, certificate = talk(
        loop, server_context, greentls.ssl.create_default_context(cafile=pki.ca_file), upgraded
    )
    assert (module, version, cipher) == (loop.tls, "TLSv1.3", "TLS_AES_256_GCM_SHA384")
    assert ("DNS", "localhost") in certificate["subjectAltName"]


@pytest.mark.parametrize("upgraded", [False, True], ids=["at once", "upgraded"])
def test_asyncio_verifies(loop, upgraded, strange_pki, server_context):
    with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED"):
        talk(loop, server_context, greentls.ssl.create_default_context(cafile=strange_pki.ca_file), upgraded)
