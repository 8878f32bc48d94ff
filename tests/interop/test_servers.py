"""greentls is the client of servers that others wrote."""

from __future__ import annotations

import socket
import ssl

import gevent
import pytest
from gevent.socket import create_connection

import greentls
from tests.interop import foreign_servers
from tests.interop.foreign_clients import ALPN, PAYLOAD
from tests.interop.foreign_servers import Setup, nss
from tests.support.helpers import PATIENCE

NAMES = ["openssl", "gnutls", "nss", "node", "java"]

every_server = pytest.mark.parametrize("server", [getattr(foreign_servers, name) for name in NAMES], ids=NAMES)


@pytest.fixture
def setup(pki, version, tmp_path):
    return Setup(version, pki.ca_file, (pki.cert_file, pki.key_file), tmp_path, PAYLOAD)


@pytest.fixture
def context(configure):
    context = configure(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([ALPN])
    return context


def connect(serving, context, **options):
    raw = create_connection(("127.0.0.1", serving.port), timeout=PATIENCE)
    return context.wrap_socket(raw, **{"server_hostname": "localhost", "suppress_ragged_eofs": False, **options})


def converse(sock, serving):
    """Sends the request while it reads the answer; returns that."""
    sending = gevent.spawn(sock.sendall, serving.request)
    answer = bytearray()
    while len(answer) < len(serving.answer) and (data := sock.recv(65536)):
        answer += data
    sending.get(timeout=PATIENCE)
    return answer


@every_server
def test_verifies_and_gets_the_answer_to_what_it_sends(setup, context, server, version):
    serving = server(setup)
    with connect(serving, context) as sock:
        assert converse(sock, serving) == serving.answer
        assert sock.version() == f"TLSv{version}"
        assert sock.getpeercert()["subject"] == ((("commonName", "localhost"),),)
        if server is not nss:  # which closes first
            sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""  # its close_notify: without, SSLEOFError
    assert serving.says("version")
    assert serving.says("closed")


@every_server
def test_agrees_on_a_protocol(setup, context, server):
    serving = server(setup)
    with connect(serving, context) as sock:
        assert sock.selected_alpn_protocol() == ALPN
        converse(sock, serving)
    assert serving.says("alpn")


@every_server
def test_refuses_an_unknown_ca(setup, context, server, strange_pki):
    serving = server(setup)
    stranger = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.load_verify_locations(strange_pki.ca_file)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed"):
        connect(serving, stranger)
    assert serving.says("refusal")


@every_server
def test_refuses_a_wrong_name(setup, context, server):
    serving = server(setup)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect(serving, context, server_hostname="elsewhere.test")
    assert serving.says("refusal")


@every_server
def test_gives_its_certificate_when_asked(setup, context, server, pki):
    context.load_cert_chain(*pki.client)
    setup.client_auth = True
    serving = server(setup)
    with connect(serving, context) as sock:
        assert converse(sock, serving) == serving.answer
    assert serving.says("client")


@every_server
def test_resumes(setup, context, server):
    serving = server(setup)
    with connect(serving, context) as first:
        converse(first, serving)
        session = first.session
    with connect(serving, context, session=session) as second:
        assert converse(second, serving) == serving.answer
    assert (first.session_reused, second.session_reused) == (False, True)
    assert serving.says("resumed")


@every_server
def test_resumes_by_itself(setup, configure, server):
    """With a new context for each connection; the second and the third tell whether renewed tickets are kept."""
    serving = server(setup)
    sessions = greentls.ClientSessions()
    reused = []
    for _ in range(3):
        context = configure(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols([ALPN])
        context.client_sessions = sessions
        with connect(serving, context) as sock:
            assert converse(sock, serving) == serving.answer
            reused.append(sock.session_reused)
    assert reused == [False, True, True]
