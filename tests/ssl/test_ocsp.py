"""OCSP and CRLs in handshakes: a server that staples, to foreign clients too; a client that wants to know."""

from __future__ import annotations

import datetime
import logging
import re
import ssl
import subprocess
import time
from types import SimpleNamespace

import gevent
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from gevent.event import Event

import greentls
import greentls.events
from greentls.errors import CertificateError, ConfigurationError, ResponderUnavailable, StapleRequired
from greentls.ocsp import Stapler
from greentls.ocsp.client_check import vouched_until
from greentls.stores.memory import MemoryStore
from tests.support.clients import in_thread
from tests.support.helpers import PATIENCE, free_port, wait_until
from tests.support.ocsp_authority import Authority, FakeResponder, OpenSSLResponder, ago
from tests.support.ssl_pairs import both_versions, carry, connected, contexts, failure, handshake, handshakes, sides


@pytest.fixture
def responder():
    made = FakeResponder()
    yield made
    made.stop(timeout=1)


@pytest.fixture
def authority(responder, tmp_path):
    made = Authority(tmp_path, responder.url)
    responder.answer = lambda request: made.respond(
        next(each for each in made.issued if each.serial_number == request.serial_number)
    )
    return made


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.INFO, "greentls.ocsp")
    return caplog


def pair(authority, version="1.3", issued=None, **settings):
    """(client's context, server's, the certificate). settings: the client's."""
    issued = issued or authority.issue()
    files = SimpleNamespace(ca_file=authority.ca_file, cert_file=issued.cert_file, key_file=issued.key_file)
    client, server = contexts(files, version)
    for name, value in settings.items():
        setattr(client, name, value)
    return client, server, issued.certificate


# -- a server ----------------------------------------------------------------------------------------------------------


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


# -- a client: the staple ----------------------------------------------------------------------------------------------


def other_ca(tmp_path):
    (tmp_path / "other").mkdir()
    return Authority(tmp_path / "other")


BAD = {
    "none": (lambda a, c, t: None, 73, "the server has sent no OCSP response"),
    "revoked": (lambda a, c, t: a.respond(c, "revoked"), 23, "certificate revoked at 20"),
    "unknown": (lambda a, c, t: a.respond(c, "unknown"), 75, "CN=greentls OCSP test CA does not know the certificate"),
    "expired": (lambda a, c, t: a.respond(c, begins=ago(days=2), ends=ago(days=1)), 74, "expired: its nextUpdate was"),
    "early": (lambda a, c, t: a.respond(c, begins=ago(days=-1)), 74, "not good yet"),
    "other signer": (lambda a, c, t: a.respond(c, signer=other_ca(t).ca), 74, "the signature does not fit"),
    "try later": (lambda a, c, t: bytes.fromhex("30030a0103"), 74, "it answers try later (3)"),
}


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
    command = [
        *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", issued.cert_file, "-key", issued.key_file),
        *("-cert_chain", authority.ca_file, "-status_file", tmp_path / "staple", "-quiet"),
    ]
    process = subprocess.Popen(
        [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
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


# -- a client: the responder -------------------------------------------------------------------------------------------


@both_versions
def test_check_asks_the_responder_where_there_is_no_staple(authority, responder, version):
    client, server, certificate = pair(authority, version, ocsp="check")
    with connected(client, server):
        pass
    assert [each.serial_number for each in responder.requests] == [certificate.serial_number]
    authority.revoke(certificate)
    refused, alerted = failure(client, server)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert refused.verify_code == 23
    assert "(keyCompromise), says CN=greentls OCSP test CA" in str(refused)
    assert "BAD_CERTIFICATE_STATUS_RESPONSE" in str(alerted).upper().replace(" ", "_")


@both_versions
@pytest.mark.parametrize("stapled", [True, False], ids=["stapled", "fetched"])
@pytest.mark.parametrize("what", ["revoked", "unknown", "expired", "early", "other signer"])
def test_check_refuses_an_answer_that_is_not_good(authority, responder, version, what, stapled, tmp_path):
    client, server, certificate = pair(authority, version, ocsp="check")
    make, code, sentence = BAD[what]
    answer = make(authority, certificate, tmp_path)
    responder.answer = lambda request: answer
    if stapled:
        server.ocsp_callback = lambda sock: answer
    refused, _ = failure(client, server)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert refused.verify_code == code and sentence in refused.verify_message
    assert len(responder.requests) == (not stapled)


@both_versions
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 503 Overloaded\r\n\r\n", "503 Overloaded"),
        (bytes.fromhex("30030a0103"), r"it answers try later \(3\)"),
        (None, "no answer in 0.05 s"),
        ("down", "refused"),
        ("no url", "the certificate names none"),
    ],
    ids=["503", "try later", "slow", "down", "no url"],
)
def test_check_goes_on_and_says_so_where_nobody_has_an_answer(authority, responder, version, answer, said, logged):
    go_on = Event()
    if isinstance(answer, bytes):
        responder.answer = lambda request: answer
    elif answer == "down":
        responder.stop(timeout=1)
    else:
        responder.answer = lambda request: go_on.wait(PATIENCE) and b""
    issued = authority.issue(url=None) if answer == "no url" else None
    client, server, _ = pair(authority, version, issued, ocsp="check")
    client.callback_timeout = 0.05 if answer is None else 5
    for _ in range(2):
        with connected(client, server) as (here, _):
            assert here.session.vouched_until is None
    (line,) = [each.getMessage() for each in logged.records if "is not checked" in each.getMessage()]
    assert re.search(said, line)
    go_on.set()


class TestTold:
    """greentls.events: that the responder was asked, and what it said."""

    def fetches(self, told):
        return [each for each in told if each["event"] == "ocsp_fetch"]

    @pytest.mark.parametrize("status", ["good", "revoked", "unknown"])
    def test_an_answer(self, authority, responder, told, status):
        client, server, certificate = pair(authority, ocsp="check")
        responder.answer = lambda request: authority.respond(certificate, status)
        failure(client, server)
        (event,) = self.fetches(told)
        assert set(event) == {"event", *greentls.events.EVENTS["ocsp_fetch"]}
        assert (event["side"], event["status"], event["error"]) == ("client", status, None)
        assert (event["names"], event["next_refresh"]) == (None, None), "the names are the peer's"
        assert event["seconds"] >= 0

    @pytest.mark.parametrize(
        ("answer", "kind", "said"),
        [
            (b"HTTP/1.1 503 Overloaded\r\n\r\n", ResponderUnavailable, "503 Overloaded"),
            (b"garbage", CertificateError, "malformed"),
        ],
        ids=["none", "garbage"],
    )
    def test_none_that_counts(self, authority, responder, told, answer, kind, said):
        responder.answer = lambda request: answer
        client, server, _ = pair(authority, ocsp="check")
        failure(client, server)
        (event,) = self.fetches(told)
        assert (event["side"], event["status"]) == ("client", None)
        assert type(event["error"]) is kind
        assert said in str(event["error"])

    @pytest.mark.parametrize("url", [..., None], ids=["stapled", "no url"])
    def test_nothing_where_nobody_is_asked(self, authority, told, url):
        client, server, certificate = pair(authority, issued=authority.issue(url=url), ocsp="check")
        server.ocsp_callback = lambda sock: authority.respond(certificate) if url is ... else None
        with connected(client, server):
            pass
        assert self.fetches(told) == []


def test_check_asks_where_the_staple_says_try_later(authority, responder):
    """Apache's mod_ssl staples that while its responder is down."""
    client, server, _ = pair(authority, ocsp="check")
    server.ocsp_callback = lambda sock: bytes.fromhex("30030a0103")
    with connected(client, server):
        pass
    assert len(responder.requests) == 1


def test_check_refuses_a_certificate_that_demands_a_staple_and_has_none(authority, responder):
    client, server, _ = pair(authority, issued=authority.issue(must_staple=True), ocsp="check")
    refused, _ = failure(client, server)
    assert "the server has sent no OCSP response, which its certificate demands" in str(refused)
    assert responder.requests == []


@both_versions
@pytest.mark.parametrize("status", [1, 2, 3, 5, 6])
def test_a_certificate_that_demands_a_staple_is_refused_with_an_unsigned_error_for_one(
    authority, responder, version, status
):
    """hazard: OCSP errors (RFC 6960 4.2.1) are not signed; the holder of a stolen key sends one for "revoked"."""
    client, server, certificate = pair(authority, version, authority.issue(must_staple=True), ocsp="check")
    authority.revoke(certificate)
    server.ocsp_callback = lambda sock: bytes((0x30, 3, 0x0A, 1, status))
    responder.stop(timeout=1)
    refused, alerted = failure(client, server)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert refused.verify_code == 74
    assert f"({status})" in refused.verify_message
    assert "BAD_CERTIFICATE_STATUS_RESPONSE" in str(alerted).upper().replace(" ", "_")


@pytest.mark.parametrize("must_staple", [True, False])
@pytest.mark.parametrize("mode", ["require", "check"])
@pytest.mark.parametrize("what", [*BAD, "garbage", "internal error", "own anchor", "good"])
def test_who_must_have_a_staple_has_a_good_one_or_is_refused(authority, responder, what, mode, must_staple, tmp_path):
    """Whatever else can happen: no other way out of vouched_until() than a good staple."""
    certificate = authority.issue(must_staple=must_staple).certificate
    chain = [certificate, authority.ca.certificate]
    others = {"garbage": b"garbage", "internal error": bytes.fromhex("30030a0102")}
    staple = BAD[what][0](authority, certificate, tmp_path) if what in BAD else others.get(what)
    if what in ("good", "own anchor"):
        staple = authority.respond(certificate)
    if what == "own anchor":
        del chain[1]
    if what == "good":
        assert vouched_until(mode, chain, staple, PATIENCE) > time.time()
    elif mode == "require" or must_staple:
        with pytest.raises(CertificateError):
            vouched_until(mode, chain, staple, PATIENCE)
        assert responder.requests == []
    elif what == "own anchor":
        with pytest.raises(ResponderUnavailable):
            vouched_until(mode, chain, staple, PATIENCE)
    elif what in ("none", "try later", "internal error"):
        assert vouched_until(mode, chain, staple, PATIENCE) > time.time()
        assert len(responder.requests) == 1
    else:
        with pytest.raises(CertificateError):
            vouched_until(mode, chain, staple, PATIENCE)


def test_others_go_on_while_a_client_asks(authority, responder):
    waiting, go_on, answer = Event(), Event(), responder.answer

    def slow(request):
        waiting.set()
        go_on.wait(PATIENCE)
        return answer(request)

    responder.answer = slow
    client, server, _ = pair(authority, ocsp="check", callback_timeout=PATIENCE)
    job = gevent.spawn(handshakes, client, server)
    assert waiting.wait(PATIENCE)
    client.ocsp = None
    with connected(client, server):
        pass
    assert not job.ready()
    go_on.set()
    for end in job.get(timeout=PATIENCE):
        end.close()


@both_versions
@pytest.mark.parametrize("how", [gevent.GreenletExit, gevent.Timeout])
def test_a_client_that_is_killed_while_it_asks_is_not_connected(authority, responder, version, how):
    waiting, go_on = Event(), Event()
    responder.answer = lambda request: waiting.set() or (go_on.wait(PATIENCE) and b"")
    client, server, _ = pair(authority, version, ocsp="check", callback_timeout=PATIENCE)
    here, there = gevent.socket.socketpair()
    expected = how()
    jobs = [
        gevent.spawn(caught, client.wrap_socket, here, server_hostname="localhost"),
        gevent.spawn(caught, server.wrap_socket, there, server_side=True),
    ]
    assert waiting.wait(PATIENCE)
    jobs[0].kill(expected, block=False)
    assert jobs[0].get(timeout=PATIENCE) is expected
    assert "BAD_CERTIFICATE_STATUS_RESPONSE" in str(jobs[1].get(timeout=PATIENCE)).upper().replace(" ", "_")
    go_on.set()


def caught(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except BaseException as error:
        return error


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
            assert "who issued it is not known" in logged.text
    else:
        refused, _ = failure(client, server)
        assert "who issued it is not known" in str(refused)


# -- certificate revocation lists --------------------------------------------------------------------------------------


def crl(authority, *revoked, days=1):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.name)
        .last_update(now - datetime.timedelta(days=10))
        .next_update(now + datetime.timedelta(days=days))
    )
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256())


@both_versions
def test_a_client_refuses_whom_a_crl_names(authority, version, tmp_path, another):
    client, server, certificate = pair(authority, version)
    other = crl(authority, authority.issue().certificate)
    this = crl(authority, certificate)
    pem, der = this.public_bytes(Encoding.PEM), this.public_bytes(Encoding.DER)
    (tmp_path / "crl.pem").write_bytes(another.public_bytes(Encoding.PEM) + pem)
    (tmp_path / "crl.der").write_bytes(der)
    places = str(tmp_path / "crl.pem"), tmp_path / "crl.der"
    for source in (this, [another, this], pem, pem.decode(), der, *places, [*places]):
        client.crl = source
        refused, alerted = failure(client, server)
        assert isinstance(refused, ssl.SSLCertVerificationError)
        assert (refused.verify_code, refused.verify_message) == (23, "certificate revoked")
        assert "CERTIFICATE_REVOKED" in str(alerted).upper().replace(" ", "_")
    for source in (other, None):
        client.crl = source
        with connected(client, server):
            pass


@pytest.fixture
def another(tmp_path):
    """The list of another CA."""
    (tmp_path / "another").mkdir()
    return crl(Authority(tmp_path / "another", name="another CA"))


@both_versions
def test_a_crl_that_is_old_or_another_cas_is_no_proof(authority, version, another):
    client, server, _ = pair(authority, version)
    for source, code in ((crl(authority, days=-1), 12), (another, 3)):
        client.crl = source
        refused, _ = failure(client, server)
        assert refused.verify_code == code, refused  # it has expired; there is none


@both_versions
def test_a_server_refuses_the_client_whom_a_crl_names(authority, version):
    client, server, _ = pair(authority, version)
    mine = authority.issue()
    client.load_cert_chain(mine.cert_file, mine.key_file)
    server.load_verify_locations(authority.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    server.crl = crl(authority)
    before = server.compile(True).session_id_context
    server.crl = crl(authority, mine.certificate)
    assert server.compile(True).session_id_context != before  # what the old list let pass is not resumed
    _, refused = failure(client, server)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert refused.verify_code == 23


@both_versions
@pytest.mark.parametrize("how", ["crl", "verify_flags"])
def test_the_lists_of_a_names_context_count_whatever_the_listeners_are(authority, version, how, tmp_path):
    """SSL_set_SSL_CTX() brings another store, and leaves the flags of the connection as they were."""
    client, server, _ = pair(authority, version)
    mine = authority.issue()
    client.load_cert_chain(mine.cert_file, mine.key_file)
    _, strict, _ = pair(authority, version)
    server.sni_callback = lambda sock, name, context: setattr(sock, "context", strict)
    for context in (server, strict):
        context.load_verify_locations(authority.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    lists = tmp_path / "lists.pem"
    lists.write_bytes(crl(authority, mine.certificate).public_bytes(Encoding.PEM))
    if how == "crl":
        strict.crl = lists
    else:
        strict.load_verify_locations(lists)
        strict.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    _, refused = failure(client, server)
    assert isinstance(refused, ssl.SSLCertVerificationError), refused
    assert refused.verify_code == 23


def test_what_is_no_crl(authority, tmp_path):
    client, _, _ = pair(authority)
    (tmp_path / "garbage").write_text("garbage")
    for source in (tmp_path / "garbage", authority.ca_file, b"-----BEGIN X509 CRL-----\n", b"\x30\x80\0\0"):
        with pytest.raises(ssl.SSLError, match="no certificate revocation list in it"):
            client.crl = source
    with pytest.raises(FileNotFoundError):
        client.crl = tmp_path / "nowhere"
    assert client.crl == ()
    client.crl = crl(authority)
    assert len(client.crl) == 1
