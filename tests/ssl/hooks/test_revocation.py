"""A client that wants to know whether the server's certificate was revoked: the staple, resumption, the settings."""

from __future__ import annotations

import ssl
import subprocess

import gevent
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import greentls
import greentls.events
from greentls.errors import CertificateError, ConfigurationError
from greentls.ocsp import Stapler
from greentls.ocsp.client_check import vouched_until
from tests.ssl.hooks.stapled import BAD, pair
from tests.support.helpers import PATIENCE, free_port, tethered, wait_until
from tests.support.ocsp_authority import Authority, OpenSSLResponder, ago
from tests.support.ssl_pairs import both_versions, carry, connected, failure, handshake, sides


@both_versions
@pytest.mark.parametrize("what", BAD)
def test_require_refuses_what_is_no_good_staple(authority, version, what, tmp_path):
    client, server, certificate = pair(authority, version, ocsp="require")
    make, code, sentence = BAD[what]
    staple = make(authority, certificate, tmp_path)
    server.ocsp_callback = lambda sock: staple
    refused, alerted = failure(client, server)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert refused.verify_code == code
    assert sentence in refused.verify_message
    assert str(refused).startswith("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: ")
    assert sentence in str(refused)
    assert isinstance(refused.__cause__, CertificateError)
    assert "BAD_CERTIFICATE_STATUS_RESPONSE" in str(alerted).upper().replace(" ", "_")


@pytest.mark.parametrize("mode", ["require", "check"])
@pytest.mark.parametrize("stapled", [True, False])
@pytest.mark.parametrize(("what", "said"), [("garbage", "malformed"), ("another", "it is not about certificate")])
def test_what_openssl_4_would_not_send(authority, responder, mode, stapled, what, said):
    """Its server leaves out what is malformed, or about another certificate; others do not."""
    chain = [authority.issue().certificate, authority.ca.certificate]
    answer = b"garbage" if what == "garbage" else authority.respond(authority.issue().certificate)
    responder.answer = lambda request: answer
    with pytest.raises(CertificateError) as raised:
        vouched_until(mode, chain, answer if stapled else None, PATIENCE)
    needed = mode == "require" and not stapled
    assert raised.value.verify_code == (73 if needed else 74)
    assert needed or said in raised.value.verify_message


@both_versions
@pytest.mark.parametrize("mode", ["require", "check"])
@pytest.mark.parametrize("by", ["issuer", "delegate"])
def test_a_good_staple(authority, responder, version, mode, by):
    client, server, certificate = pair(authority, version, ocsp=mode)
    delegate = authority.delegate()
    signed = {"signer": delegate, "include": [delegate]} if by == "delegate" else {}
    server.ocsp_callback = lambda sock: authority.respond(certificate, **signed)
    with connected(client, server):
        pass
    assert responder.requests == []


@pytest.mark.programs
@both_versions
def test_of_a_stapler_before_openssls_responder(version, tmp_path):
    responder = OpenSSLResponder()
    authority = Authority(tmp_path, responder.url)
    client, server, certificate = pair(authority, version, ocsp="require")
    server.ocsp_callback = stapler = Stapler(wait_for_first=True)
    try:
        responder.start(authority)
        with connected(client, server):
            pass
        authority.revoke(certificate)
        responder.stop()
        responder.start(authority)
        with connected(client, server):  # the last good one is good until it has run out
            pass
        stapler.close()
        refused, _ = failure(client, server)
        assert "the server has sent no OCSP response" in str(refused)
    finally:
        responder.stop()
        stapler.close()


@pytest.mark.programs
@both_versions
def test_a_foreign_server_that_staples(authority, version, tmp_path):
    client, _, certificate = pair(authority, version, issued := authority.issue(), ocsp="require")
    (tmp_path / "staple").write_bytes(authority.respond(certificate))
    port = free_port()
    command = tethered(
        *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", issued.cert_file, "-key", issued.key_file),
        *("-cert_chain", authority.ca_file, "-status_file", tmp_path / "staple", "-quiet"),
    )
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for staple, good in ((None, True), ("revoked", False)):
            if staple:
                (tmp_path / "staple").write_bytes(authority.respond(certificate, staple))
            raw = wait_until(lambda: connect(port), "s_server")
            if good:
                client.wrap_socket(raw, server_hostname="localhost").close()
            else:
                with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked at"):
                    client.wrap_socket(raw, server_hostname="localhost")
    finally:
        process.kill()
        process.communicate()


def connect(port):
    try:
        return gevent.socket.create_connection(("127.0.0.1", port), PATIENCE)
    except OSError:
        return None


@both_versions
def test_over_memory_bios(authority, version):
    client, server, certificate = pair(authority, version, ocsp="require")
    server.ocsp_callback = stapler = Stapler(wait_for_first=True)
    handshake(*sides(client, server))
    stapler.close()
    server.ocsp_callback = lambda sock: authority.respond(certificate, "revoked")
    here, there = sides(client, server)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked at"):
        handshake(here, there)
    carry(here, there)
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.certificate.status.response"):
        there.tls.do_handshake()


# -- a client: resumption ----------------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("mode", ["require", "check"])
def test_a_session_is_resumed_while_its_response_is_good(authority, responder, version, mode):
    asked, ends = [], [ago(seconds=-3600)]

    def staple(sock):
        asked.append(sock)
        return authority.respond(certificate, ends=ends[0])

    client, server, certificate = pair(authority, version, ocsp=mode)
    server.ocsp_callback = staple
    with connected(client, server) as (here, _):
        session = here.session
    for _ in range(2):
        assert session.vouched_until == ends[0].timestamp()
        with connected(client, server, session=session) as (here, _):
            assert here.session_reused
            session = here.session  # of the same line
    assert len(asked) == 1
    ends[0] = ago(seconds=1)  # which the tolerance for clocks lets pass, once
    with connected(client, server) as (here, _):
        session = here.session
    with connected(client, server, session=session) as (here, _):
        assert not here.session_reused
    assert (len(asked), responder.requests) == (3, [])


@both_versions
def test_sessions_that_are_kept_for_a_client_end_with_the_response(authority, serve, version):
    client, server, certificate = pair(authority, version, ocsp="require")
    client.client_sessions = greentls.ClientSessions()
    ends = [ago(seconds=-3600)]
    server.ocsp_callback = lambda sock: authority.respond(certificate, ends=ends[0])
    address = serve(server)

    def resumed():
        with client.wrap_socket(gevent.socket.create_connection(address), server_hostname="localhost") as sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"  # behind the tickets
            return sock.session_reused

    assert [resumed() for _ in range(3)] == [False, True, True]
    client.client_sessions = greentls.ClientSessions()
    ends[0] = ago(seconds=1)  # let pass by the tolerance for clocks
    assert [resumed() for _ in range(3)] == [False, False, False]


@both_versions
def test_a_session_from_before_the_check_is_not_resumed(authority, version):
    client, server, certificate = pair(authority, version)
    server.ocsp_callback = lambda sock: authority.respond(certificate)
    with connected(client, server) as (here, _):
        session = here.session
    client.ocsp = "require"
    with connected(client, server, session=session) as (here, _):
        assert not here.session_reused


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_that_are_none(authority):
    client, server, _ = pair(authority)
    with pytest.raises(ConfigurationError, match="known are None, require, check"):
        client.ocsp = "perhaps"
    with pytest.raises(ssl.SSLError, match="Cannot add ocsp to a PROTOCOL_TLS_SERVER context"):
        server.ocsp = "require"
    client.ocsp = "require"
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    refused, _ = failure(client, server)
    assert "crl and ocsp look at a verified chain; set verify_mode" in str(refused)
    client.ocsp = None
    with connected(client, server):
        pass


def test_equal_settings_compile_nothing_anew(authority):
    client, server, _ = pair(authority, ocsp="check")
    server.ocsp_callback = callback = Stapler()
    before = client.compile(False), server.compile(True)
    client.ocsp, server.ocsp_callback = "check", callback
    assert (client.compile(False), server.compile(True)) == before
    client.ocsp = "require"
    assert client.compile(False) is not before[0]


@pytest.mark.parametrize(("mode", "good"), [("require", False), ("check", True)])
def test_a_certificate_that_is_its_own_anchor(authority, mode, good, logged):
    """With VERIFY_X509_PARTIAL_CHAIN a chain may end before there is an issuer to ask."""
    issued = authority.issue()
    certificate = issued.certificate
    server = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, issued.key)
    client = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=certificate.public_bytes(Encoding.PEM).decode())
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.ocsp = mode
    server.ocsp_callback = lambda sock: authority.respond(certificate)
    if good:
        with connected(client, server):
            assert "its issuer is not known" in logged.text
    else:
        refused, _ = failure(client, server)
        assert "its issuer is not known" in str(refused)
