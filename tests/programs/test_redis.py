"""redis-py, which makes its own context, against a redis-server with TLS; and its asyncio client over greentls.aio."""

from __future__ import annotations

import asyncio

import pytest

import greentls.ssl
from greentls import aio
from tests.programs.program import facts
from tests.support.helpers import PATIENCE, free_port
from tests.support.hubs import in_loop


@pytest.fixture(scope="module")
def port(start, pki, tmp_path_factory):
    port = free_port()
    settings = {
        "port": 0,
        "tls-port": port,
        "bind": "127.0.0.1",
        "tls-cert-file": pki.cert_file,
        "tls-key-file": pki.key_file,
        "tls-ca-cert-file": pki.ca_file,
        "tls-auth-clients": "no",
        "save": "",
        "dir": tmp_path_factory.mktemp("redis"),
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    start("redis-server", *options).wait_for_port(port)
    return port


def with_redis(context, ca, port):
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    once = Retry(NoBackoff(), 0)
    client = redis.Redis("localhost", port, ssl=True, ssl_ca_certs=ca, ssl_check_hostname=True, retry=once)
    value = "v" * 200_000
    client.set("key", value)
    with client.pipeline() as pipeline:
        for _ in range(20):
            pipeline.get("key")
        answers = pipeline.execute()
    connection = client.connection_pool.get_connection()
    assert not connection.can_read()  # a recv() without waiting, that nothing answers: SSLWantReadError, read by number
    found = facts(connection._sock)
    client.connection_pool.release(connection)
    with client.pubsub() as listener:
        listener.subscribe("channel")
        first = listener.get_message(timeout=PATIENCE)
        client.publish("channel", "news")
        second = listener.get_message(timeout=PATIENCE)
    client.close()
    return {
        **found,
        "same": answers == [value.encode()] * 20,
        "messages": [first["type"], second["data"].decode()],
    }


def test_redis(program, port, is_ours):
    found = program("patched", with_redis, port)
    is_ours(found)
    assert found["same"]
    assert found["messages"] == ["subscribe", "news"]


async def converse(port, context):
    from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection

    class Connection(SSLConnection):
        def __init__(self, *, context, **settings):
            super().__init__(**settings)
            self.ssl_context.context = context

    pool = BlockingConnectionPool(connection_class=Connection, context=context, host="localhost", port=port)
    async with Redis(connection_pool=pool) as client:
        value = b"v" * 200_000
        await client.set("key", value)
        answers = await asyncio.gather(*(client.get("key") for _ in range(20)))
        async with client.pubsub() as listener:
            await listener.subscribe("channel")
            tls = listener.connection._writer.get_extra_info("ssl_object")
            first = await listener.get_message(timeout=PATIENCE)
            await client.publish("channel", "news")
            second = await listener.get_message(timeout=PATIENCE)
        await pool.aclose()
    assert answers == [value] * 20
    assert [first["type"], second["data"]] == ["subscribe", b"news"]
    return tls


@pytest.mark.parametrize("loop", [aio.new_event_loop, aio.new_uvloop])
def test_redis_under_asyncio(loop, port, pki):
    context = greentls.ssl.create_default_context(cafile=pki.ca_file)
    asked = []

    async def verify(sock, chain, resumed):
        await asyncio.sleep(0)
        asked.append(resumed)

    context.verify_callback = verify
    tls = in_loop(loop, converse(port, context))
    assert (type(tls), tls.version()) == (aio.SSLObject, "TLSv1.3")
    assert False in asked


@pytest.mark.parametrize("loop", [aio.new_event_loop, aio.new_uvloop])
def test_redis_under_asyncio_verifies(loop, port, strange_pki):
    import redis

    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        in_loop(loop, converse(port, greentls.ssl.create_default_context(cafile=strange_pki.ca_file)))
