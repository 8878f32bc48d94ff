"""asyncio's own loop takes a context, by wrap_bio(): nothing waits there, and what would wait is refused."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import uvloop

import greentls
import greentls.ssl
from greentls.errors import WrongThreadError
from greentls.hub.asyncio import hub_of
from tests.aio.conftest import LOOPS
from tests.aio.streams import echo
from tests.support.helpers import PATIENCE


@pytest.fixture(autouse=True)
def uvloops_own_loop(monkeypatch):
    monkeypatch.setitem(LOOPS, "uvloop", uvloop.new_event_loop)


async def handshakes(server_context, pki, version, count=1, between=None):
    """Whether each was resumed. between: awaited after each."""
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
            if between is not None:
                await between()
    finally:
        server.close()
        await server.wait_closed()
    return resumed


def test_sessions_in_memory_resume(run, server_context, pki, version):
    server_context.session_store = greentls.open_store("memory://")
    assert run(handshakes(server_context, pki, version, 2)) == [False, True]


@pytest.fixture
def shared(server_context, memcached, tmp_path):
    """The server's sessions are in memcached. Until all of them are there, and to close the store: coroutines."""
    secret = tmp_path / "fleet.key"
    secret.write_bytes(bytes(range(32)))
    server_context.session_store = store = greentls.open_store(memcached.url(secret_file=secret, timeout=PATIENCE))
    server_context.callback_timeout = PATIENCE

    async def drained():
        assert await hub_of(asyncio.get_running_loop()).run(server_context.drain_sessions, PATIENCE)

    async def closed():
        await hub_of(asyncio.get_running_loop()).run(store.close)

    return drained, closed


def test_a_store_that_waits_is_not_asked(run, server_context, pki, version, shared, memcached, caplog):
    """hazard: the lookup blocks the loop, or opens connections for answers that nobody waits for."""
    drained, closed = shared

    async def main():
        assert await handshakes(server_context, pki, version, 3, drained) == [False] * 3
        await closed()

    run(main())
    assert server_context.counters == {"full": 3, "lookup error": 2}
    assert memcached.stats()["cmd_get"] == "0"
    assert int(memcached.stats()["cmd_set"]) >= 3
    assert caplog.text.count("use greentls.aio's connections") == 1  # what helps


def test_sessions_on_their_way_to_a_store_resume(run, server_context, pki, version, shared, memcached):
    """This process still has them."""
    drained, closed = shared

    async def main():
        memcached.pause()
        assert await handshakes(server_context, pki, version, 2) == [False, True]
        memcached.resume()
        await drained()
        await closed()

    run(main())


def test_a_callback_that_waits_refuses(run, server_context, pki, version):
    async def callback(sock, name, context):
        raise AssertionError("nobody runs this")

    server_context.sni_callback = callback
    with pytest.raises((ssl.SSLError, OSError)):
        run(handshakes(server_context, pki, version))
    assert [type(each["exception"]) for each in run.reported] == [WrongThreadError]
    run.reported.clear()
