from __future__ import annotations

import ssl

import pytest

import greentls
import greentls.ssl
from tests.ssl.hooks.verifier import Verifier
from tests.support.ssl_pairs import contexts


@pytest.fixture
def verifier():
    return Verifier()


@pytest.fixture(params=["tickets", "store"])
def kept(request):
    return request.param


@pytest.fixture
def mutual(pki, verifier):
    """mutual(version, side): (client's, server's context), each verifies the other, and side's asks the verifier."""

    def make(version, side, store=False):
        client, server = contexts(pki, version)
        client.load_cert_chain(*pki.client)
        server.load_verify_locations(pki.ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
        if store:
            server.session_store = greentls.open_store("memory://")
        {"client": client, "server": server}[side].verify_callback = verifier
        return client, server

    return make
