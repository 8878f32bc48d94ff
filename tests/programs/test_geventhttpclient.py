"""geventhttpclient, which takes gevent.ssl's names from gevent: a context factory is its way in."""

from __future__ import annotations

import json

import pytest

from tests.programs.program import facts


@pytest.fixture(scope="module")
def port(start, pki):
    return start.peer("https", pki.cert_file, pki.key_file).port


def with_a_factory(context, ca, port):
    from geventhttpclient import HTTPClient

    import greentls.ssl

    client = HTTPClient(
        "localhost",
        port,
        ssl=True,
        ssl_options={"ca_certs": ca},
        ssl_context_factory=greentls.ssl.create_default_context,
        concurrency=1,
    )
    with open(__file__, "rb") as file:  # goes out by sendfile()
        first = client.post("/first", body=file).read()
    second = client.get("/second")
    found = facts(second._sock)
    second = second.read()
    client.close()
    return {**found, "answers": [first.decode(), second.decode()]}


@pytest.mark.parametrize("how", ["patched", "context"])
def test_geventhttpclient(how, program, port, is_ours):
    found = program(how, with_a_factory, port)
    is_ours(found)
    first, second = map(json.loads, found["answers"])
    with open(__file__) as file:
        assert (first["sent"], second["path"]) == (file.read(), "/second")
    assert first["connection"] == second["connection"]
