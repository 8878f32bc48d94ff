"""redis-py, which makes its own context, against a redis-server with TLS."""

from __future__ import annotations

import pytest

from tests.programs.program import facts
from tests.support.helpers import free_port


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
        first = listener.get_message(timeout=30)
        client.publish("channel", "news")
        second = listener.get_message(timeout=30)
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
