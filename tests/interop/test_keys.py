"""Clients that others wrote, and servers whose key is in another process or in a token."""

from __future__ import annotations

import ssl

import pytest

from greentls import keys
from tests.interop import foreign_clients
from tests.interop.foreign_clients import PAYLOAD, Errand
from tests.keys.processes import KeyProcess

CLIENTS = ("curl", "openssl", "java", "chromium")
KINDS = ("ec", "rsa")


@pytest.fixture(scope="module")
def issued(pki):
    """{kind: (certificate, key)}"""
    return {kind: pki.issue("localhost", kind=kind) for kind in KINDS}


@pytest.fixture(scope="module")
def agent(issued, tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")
    process = KeyProcess(directory / "keys.sock", *(key for _, key in issued.values()), log=directory / "log")
    yield keys.Agent(process.path)
    process.close()


@pytest.fixture(scope="module")
def token(issued, softhsm):
    for kind, (_, key) in issued.items():
        softhsm.add(key, kind)
    return keys.PKCS11(softhsm.uri())


@pytest.mark.parametrize("source", ["agent", "token"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_verifies_and_gets_back_what_it_sends(
    request, pki, configure, serve, issued, tmp_path, client, kind, version, source
):
    context = configure(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued[kind][0], request.getfixturevalue(source))
    context.set_alpn_protocols([foreign_clients.ALPN])
    server = serve(context)
    told = getattr(foreign_clients, client)(Errand(server.port, pki.ca_file, tmp_path, PAYLOAD))
    seen = server.next_with_data()
    assert (told.version, seen.version) == (f"TLSv{version}",) * 2
    assert told.verified
    assert PAYLOAD in told.received
    assert seen.received.startswith(PAYLOAD)
