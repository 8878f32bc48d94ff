"""A client that asks the responder itself, where there is no staple."""

from __future__ import annotations

import re
import ssl
import time

import gevent
import pytest
from gevent.event import Event

import greentls
import greentls.events
from greentls.errors import CertificateError, ResponderUnavailable
from greentls.ocsp.client_check import vouched_until
from tests.ssl.hooks.stapled import BAD, pair
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import both_versions, connected, failure, handshakes


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
