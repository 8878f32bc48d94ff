"""HTTPS clients against the standard library's server: requests and urllib3, http.client and urllib.request."""

from __future__ import annotations

import http.client
import urllib.request

import pytest

from tests.programs.program import facts


@pytest.fixture(scope="module")
def port(start, pki):
    return start.peer("https", pki.cert_file, pki.key_file).port


def twice(session, port):
    """Two requests of a requests.Session, the second streamed so that its socket can be seen."""
    first = session.post(f"https://localhost:{port}/first", data="x" * 100_000)
    with session.get(f"https://localhost:{port}/second", stream=True) as second:
        found = facts(second.raw.connection.sock)
        return {**found, "answers": [first.json(), second.json()]}


def requests_alone(context, ca, port):
    import requests

    with requests.Session() as session:
        session.verify = ca
        return twice(session, port)


def requests_given_a_context(context, ca, port):
    import requests.adapters

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *arguments, **options):
            super().init_poolmanager(*arguments, ssl_context=context, **options)

    with requests.Session() as session:
        session.mount("https://", Adapter())
        session.verify = ca
        return twice(session, port)


@pytest.mark.parametrize(
    ("how", "function"),
    [("patched", requests_alone), ("context", requests_given_a_context)],
    ids=["patched", "context"],
)
def test_requests_keeps_its_connection(how, function, program, port, is_ours):
    found = program(how, function, port)
    is_ours(found)
    first, second = found["answers"]
    assert (first["path"], len(first["sent"]), second["path"]) == ("/first", 100_000, "/second")
    assert first["connection"] == second["connection"]


def through_a_proxy(port, **options):
    """TLS to the proxy, and in it TLS to the server: both are the same server here."""
    import urllib3

    with urllib3.ProxyManager(f"https://localhost:{port}", retries=False, **options) as manager:
        response = manager.request(
            "POST", f"https://localhost:{port}/inside", body="y" * 100_000, preload_content=False
        )
        transport = response.connection.sock  # urllib3's, over wrap_bio()
        found = {**facts(transport.socket), "inner": type(transport.sslobj._sslobj).__module__}
        return {**found, "answer": response.json()}


def urllib3_alone(context, ca, port):
    return through_a_proxy(port, ca_certs=ca)


def urllib3_given_contexts(context, ca, port):
    return through_a_proxy(port, ssl_context=context, proxy_ssl_context=context)


@pytest.mark.parametrize(
    ("how", "function"), [("patched", urllib3_alone), ("context", urllib3_given_contexts)], ids=["patched", "context"]
)
def test_urllib3_speaks_tls_in_tls(how, function, program, port, is_ours):
    found = program(how, function, port)
    is_ours(found)
    assert found["inner"] == "greentls.ssl.memorybio"
    assert (found["answer"]["path"], len(found["answer"]["sent"])) == ("/inside", 100_000)


def with_http_client(context, ca, port):
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    connection.request("POST", "/posted", body="z" * 100_000)
    sock = connection.sock  # the answer that ends the connection takes it away
    answer = connection.getresponse().read().decode()
    found, session = facts(sock), sock.session
    connection.close()
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    connection.sock = context.wrap_socket(
        connection._create_connection(("localhost", port)), server_hostname="localhost", session=session
    )
    connection.request("GET", "/resumed")
    connection.getresponse().read()
    return {**found, "answer": answer, "resumed": connection.sock.session_reused}


@pytest.mark.parametrize("how", ["patched", "context"])
def test_http_client(how, program, port, is_ours):
    found = program(how, with_http_client, port)
    is_ours(found)
    assert '"/posted"' in found["answer"]
    assert found["resumed"]


def with_urllib(context, ca, port):
    with urllib.request.urlopen(f"https://localhost:{port}/opened", context=context) as response:
        return {**facts(response.fp.raw._sock), "answer": response.read().decode()}


@pytest.mark.parametrize("how", ["patched", "context"])
def test_urllib_request(how, program, port, is_ours):
    found = program(how, with_urllib, port)
    is_ours(found)
    assert '"/opened"' in found["answer"]
