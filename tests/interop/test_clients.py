"""greentls serves clients that others wrote."""

from __future__ import annotations

import contextlib
import ssl

import pytest

import greentls
from greentls.core import callbacks
from tests.interop import foreign_clients
from tests.interop.foreign_clients import ALPN, PAYLOAD, Errand, Refused, chromium, curl, node


def clients(*names: str):
    return pytest.mark.parametrize("client", [getattr(foreign_clients, name) for name in names], ids=names)


every_client = clients("curl", "openssl", "gnutls", "nss", "node", "java", "chromium")


@pytest.fixture
def context(pki, configure):
    context = configure(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    context.set_alpn_protocols([ALPN])
    return context


@pytest.fixture
def errand(pki, tmp_path):
    """errand(server, ...): to it, with 100 KiB."""

    def errand(server, ca_file=pki.ca_file, **options):
        return Errand(server.port, ca_file, tmp_path, PAYLOAD, **options)

    return errand


@every_client
def test_verifies_and_gets_back_what_it_sends(serve, context, errand, client, version):
    server = serve(context)
    told, seen = client(errand(server)), server.next_with_data()
    assert (told.version, seen.version) == (f"TLSv{version}",) * 2
    assert told.verified
    assert PAYLOAD in told.received
    assert seen.received.startswith(PAYLOAD)
    assert seen.closed is (client is not chromium)  # which drops its connections when it ends


@clients("curl", "openssl", "gnutls", "node", "java", "chromium")
def test_agrees_on_a_protocol(serve, context, errand, client):
    server = serve(context)
    told, seen = client(errand(server)), server.next_with_data()
    assert told.alpn == seen.alpn == ALPN


@pytest.fixture(params=["unknown-ca", "wrong-name"])
def flaw(request, strange_pki):
    return {"unknown-ca": {"ca_file": strange_pki.ca_file}, "wrong-name": {"name": "elsewhere.test"}}[request.param]


@clients("openssl", "gnutls", "nss", "java", "chromium")
def test_refuses_with_an_alert(serve, context, errand, client, flaw):
    server = serve(context)
    with pytest.raises(Refused):
        client(errand(server, **flaw))
    with pytest.raises(ssl.SSLError, match="_ALERT_"):
        server.next_finished()  # chromium may have opened one more, for nothing


def test_curl_refuses_an_unknown_ca_with_an_alert(serve, context, errand, strange_pki):
    server = serve(context)
    with pytest.raises(Refused, match="SSL certificate problem"):
        curl(errand(server, ca_file=strange_pki.ca_file))
    with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
        server.next()


def test_curl_compares_the_name_after_the_handshake(serve, context, errand):
    server = serve(context)
    with pytest.raises(Refused, match="no alternative certificate subject name matches"):
        curl(errand(server, name="elsewhere.test"))
    seen = server.next()
    assert (seen.received, seen.closed) == (b"", True)


def test_node_looks_at_the_certificate_after_the_handshake(serve, context, errand, flaw):
    server = serve(context)
    with pytest.raises(Refused, match=r"ERR_TLS_CERT_ALTNAME_INVALID|SELF_SIGNED_CERT_IN_CHAIN"):
        node(errand(server, **flaw))
    with contextlib.suppress(
        ssl.SSLEOFError, ConnectionError
    ):  # its Finished may be still on its way when it destroys the socket
        seen = server.next()
        assert (seen.received, seen.closed) == (b"", False)


@clients("curl", "openssl", "gnutls", "nss", "node", "java")
def test_gives_its_certificate_when_asked(serve, context, errand, pki, client):
    context.verify_mode = ssl.CERT_REQUIRED
    server = serve(context)
    told, seen = client(errand(server, certificate=pki.client)), server.next()
    assert PAYLOAD in told.received
    assert seen.client["subject"] == ((("commonName", "a client"),),)


@pytest.fixture(params=[None, "memory://"], ids=["tickets", "store"])
def store(request, context):
    if request.param:
        context.session_store = greentls.open_store(request.param)
    return request.param


@clients("curl", "openssl", "gnutls", "nss", "node", "java")
def test_resumes(serve, context, errand, client, store, version):
    server = serve(context)
    told = client(errand(server, twice=True))
    resumed = (client, store, version) != (curl, None, "1.2")  # curl takes no tickets under TLS 1.2
    assert [server.next().reused, server.next().reused] == [False, resumed]
    assert PAYLOAD in told.received
    assert told.resumed in (resumed, None)


def test_chromium_resumes(serve, context, errand, store):
    server = serve(context)
    assert chromium(errand(server, twice=True)).resumed
    while not server.next_finished().reused:  # it opens one or two connections before it has a session
        pass


@every_client
@pytest.mark.parametrize("version", ["1.3"])
def test_says_the_same_hello_again_to_a_hello_retry_request(serve, context, errand, client, monkeypatch):
    """hazard: whatever it must not change after a HelloRetryRequest, by the book and by its GREASE, would refuse it."""
    again = []
    check = callbacks._check_second_hello
    monkeypatch.setattr(callbacks, "_check_second_hello", lambda operation: again.append(check(operation)))
    context.set_ecdh_curve("secp384r1")  # which all of them know, and none has a share of at once
    server = serve(context)
    told = client(errand(server, twice=True))
    assert PAYLOAD in told.received
    while not server.next_finished().reused:
        pass
    assert again == [None] * len(again)
    assert len(again) >= 2, "there was no HelloRetryRequest"
