"""asyncio's own loop takes a context, by wrap_bio(): nothing waits there, and what would wait is refused."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import uvloop

import greentls
import greentls.ssl
from greentls.errors import WrongThreadError
from tests.aio.conftest import LOOPS
from tests.aio.streams import echo


@pytest.fixture(autouse=True)
def uvloops_own_loop(monkeypatch):
    monkeypatch.setitem(LOOPS, "uvloop", uvloop.new_event_loop)


async def handshakes(server_context, pki, version, count=1):
    """Whether each was resumed."""
    context = greentls.ssl.create_default_context(cafile=pki.ca_file)
    context.maximum_version = version
    context.client_sessions = greentls.ClientSessions()
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
    resumed = []
    try:
        for _ in range(count):
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            resumed.append(writer.get_extra_info("ssl_object").session_reused)
            writer.close()
            await writer.wait_closed()
    finally:
        server.close()
        await server.wait_closed()
    return resumed


def test_sessions_in_memory_resume(run, server_context, pki, version):
    server_context.session_store = greentls.open_store("memory://")
    assert run(handshakes(server_context, pki, version, 2)) == [False, True]


def test_a_callback_that_waits_refuses(run, server_context, pki, version):
    async def callback(sock, name, context):
        raise AssertionError("nobody runs this")

    server_context.sni_callback = callback
    with pytest.raises((ssl.SSLError, OSError)):
        run(handshakes(server_context, pki, version))
    assert [type(each["exception"]) for each in run.reported] == [WrongThreadError]
    run.reported.clear()
