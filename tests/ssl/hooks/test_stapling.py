"""A server that staples, to foreign clients too."""

from __future__ import annotations

import subprocess

import gevent
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from gevent.event import Event

from greentls.errors import StapleRequired
from greentls.ocsp import Stapler
from greentls.stores.memory import MemoryStore
from tests.ssl.hooks.stapled import pair
from tests.support.clients import in_thread
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import both_versions, connected, failure, handshakes


def run(*command, stdin=b""):
    return in_thread(subprocess.run, [*map(str, command)], input=stdin, capture_output=True, timeout=PATIENCE)


def by_openssl(port, authority, version, tmp_path):
    option = {"1.2": "-tls1_2", "1.3": "-tls1_3"}[version]
    done = run("openssl", "s_client", "-status", option, "-connect", f"127.0.0.1:{port}", "-CAfile", authority.ca_file)
    return done.returncode == 0 and b"Cert Status: good" in done.stdout


def by_curl(port, authority, version, tmp_path):
    options = ["--tlsv" + version, "--tls-max", version, "--cacert", authority.ca_file]
    done = run("curl", "-sS", "--cert-status", *options, f"https://localhost:{port}/")
    assert done.returncode in (0, 91), done.stderr  # CURLE_SSL_INVALIDCERTSTATUS
    return done.returncode == 0 and done.stdout == b"hello"


def by_gnutls(port, authority, version, tmp_path):
    options = ["--priority", f"NORMAL:-VERS-ALL:+VERS-TLS{version}", "--x509cafile", authority.ca_file]
    done = run("gnutls-cli", *options, "-p", port, "localhost", stdin=b"GET / HTTP/1.0\r\n\r\n")
    assert b"The certificate is trusted." in done.stdout
    return b"OCSP status request," in done.stdout


FOREIGN = pytest.mark.parametrize("client", [by_openssl, by_curl, by_gnutls], ids=["openssl", "curl", "gnutls"])


def answer_http(sock, address):
    if sock.recv(1000):
        sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.programs
@both_versions
@FOREIGN
def test_foreign_clients_see_the_staple_of_a_stapler(authority, serve, client, version, tmp_path):
    _, server, _ = pair(authority, version)
    server.ocsp_callback = stapler = Stapler(wait_for_first=True)
    _, port = serve(server, answer_http)
    assert client(port, authority, version, tmp_path)
    server.ocsp_callback = lambda sock: None
    assert not client(port, authority, version, tmp_path)
    stapler.close()


@pytest.mark.programs
@both_versions
def test_a_resumption_has_no_staple_and_asks_for_none(authority, serve, version, tmp_path):
    _, server, certificate = pair(authority, version)
    asked = []
    server.ocsp_callback = lambda sock: asked.append(sock) or authority.respond(certificate)
    server.session_store = MemoryStore()
    _, port = serve(server, answer_http)
    option = {"1.2": "-tls1_2", "1.3": "-tls1_3"}[version]
    command = ["openssl", "s_client", "-status", option, "-connect", f"127.0.0.1:{port}", "-CAfile", authority.ca_file]
    request = b"GET / HTTP/1.0\r\n\r\n"
    first = run(*command, "-ign_eof", "-sess_out", tmp_path / "session", stdin=request)
    assert server.drain_sessions(PATIENCE)
    second = run(*command, "-ign_eof", "-sess_in", tmp_path / "session", stdin=request)
    assert b"Cert Status: good" in first.stdout and b"New, TLSv" in first.stdout
    assert b"Reused, TLSv" in second.stdout and b"Cert Status" not in second.stdout
    assert len(asked) == 1


@pytest.mark.programs
@both_versions
def test_a_certificate_that_demands_a_staple_is_refused_without(authority, serve, servers, version):
    issued = authority.issue(must_staple=True)
    _, server, _ = pair(authority, version, issued)
    server.ocsp_callback = lambda sock: None
    _, port = serve(server, answer_http)
    option = {"1.2": "-tls1_2", "1.3": "-tls1_3"}[version]
    command = ["openssl", "s_client", option, "-connect", f"127.0.0.1:{port}", "-CAfile", authority.ca_file]
    done = run(*command, "-status")
    assert done.returncode == 1 and b"alert internal error" in done.stderr
    (error,) = servers[0].errors
    assert isinstance(error, StapleRequired)
    assert run(*command).returncode == 0  # who does not ask for it does without
    server.ocsp_callback = lambda sock: authority.respond(issued.certificate)
    assert b"Cert Status: good" in run(*command, "-status").stdout


def test_the_certificate_that_was_chosen_is_the_one_it_is_about(authority, tmp_path):
    """Two contexts by server name, and two kinds of key in one of them."""
    client, server, certificate = pair(authority, ocsp="require")
    _, other, another = pair(authority)
    stapler = Stapler(wait_for_first=True)
    server.ocsp_callback = other.ocsp_callback = stapler
    server.sni_callback = lambda sock, name, context: setattr(sock, "context", other)
    with connected(client, server) as (here, there):
        assert there.certificate_chain.certificate == another
        assert here.getpeercert(True) == another.public_bytes(Encoding.DER)
    server.sni_callback = None
    with connected(client, server) as (_, there):
        assert there.certificate_chain.certificate == certificate
    assert len(stapler.facts()) == 2
    stapler.close()


def late(sock):
    Event().wait(PATIENCE)


def fail(sock):
    raise LookupError("no such thing")


@both_versions
@pytest.mark.parametrize("must_staple", [False, True])
@pytest.mark.parametrize(
    ("callback", "kind"),
    [(fail, LookupError), (late, TimeoutError), (lambda sock: "text", TypeError), (lambda sock: b"", TypeError)],
    ids=["raises", "late", "text", "empty"],
)
def test_a_callback_that_fails_is_no_staple_unless_one_is_demanded(
    authority, version, callback, kind, must_staple, logged
):
    client, server, _ = pair(authority, version, authority.issue(must_staple=must_staple, url=None), ocsp="require")
    server.ocsp_callback, server.callback_timeout = callback, 0.05
    refused, raised = failure(client, server)
    if must_staple:
        assert isinstance(raised, kind)
        assert "internal error" in str(refused).lower()
        assert "ocsp_callback: no staple" not in logged.text
    else:
        assert "the server has sent no OCSP response" in str(refused)
        assert f"ocsp_callback: no staple: {kind.__name__}" in logged.text


def test_an_outage_is_one_line_in_the_log(authority, logged):
    client, server, _ = pair(authority, ocsp="require")
    server.ocsp_callback = fail
    for _ in range(5):
        failure(client, server)
    assert logged.text.count("ocsp_callback: no staple") == 1


@both_versions
def test_a_callback_may_refuse(authority, version):
    def refuse(sock):
        raise expected

    expected = StapleRequired("not today")
    client, server, _ = pair(authority, version, ocsp="check")
    server.ocsp_callback = refuse
    refused, raised = failure(client, server)
    assert raised is expected
    assert "internal error" in str(refused).lower()


@both_versions
def test_handshakes_whose_callbacks_wait_overlap(authority, version):
    client, server, certificate = pair(authority, version, ocsp="require")
    inside, all_inside = [], Event()

    def wait(sock):
        inside.append(sock)
        if len(inside) == 20:
            all_inside.set()
        assert all_inside.wait(PATIENCE)
        return authority.respond(certificate)

    server.ocsp_callback, server.callback_timeout = wait, PATIENCE
    for job in [gevent.spawn(handshakes, client, server) for _ in range(20)]:
        for end in job.get(timeout=PATIENCE):
            assert not isinstance(end, Exception)
            end.close()
    assert len(inside) == 20
