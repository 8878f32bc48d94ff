"""What a responder may send, and how long it may take."""

from __future__ import annotations

import re

import gevent
import pytest
from gevent.event import Event

from greentls.errors import ResponderUnavailable
from greentls.ocsp.fetch import fetch
from greentls.ocsp.response import MAX_RESPONSE, build_request
from tests.ocsp.staplers import ask, chain_of
from tests.support.helpers import PATIENCE
from tests.support.ocsp_authority import ago


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "HTTP status 302 Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>please log in</html>", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n\x30", "malformed"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_RESPONSE + 10_000), f"it has {MAX_RESPONSE + 1} bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Header: 1\r\n" * 1000 + b"\r\n", "got more than 100 headers"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "header line"),
        (b"HTTP/9.9 what is this\r\n\r\n", "HTTP/9.9 what is this"),
        (bytes.fromhex("30030a0103"), r"it answers try later \(3\)"),
    ],
)
def test_answers_that_are_none(authority, responder, staplers, answer, said):
    responder.answer = lambda request: answer
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain_of(authority.issue())) is None
    assert re.search(said, stapler.facts()[0].error), stapler.facts()[0].error
    assert len(responder.requests) == 1


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        # made when the test runs, which may be long after they are collected
        (lambda: {"begins": ago(days=2), "ends": ago(days=1)}, "expired: its nextUpdate was"),
        (lambda: {"ends": ago(seconds=30)}, "expired"),  # OpenSSL's clients would allow for it, others not
        (lambda: {"begins": ago(days=-1)}, "not good yet"),
        (lambda: {"status": "unknown"}, "does not know the certificate"),
    ],
    ids=["expired", "just expired", "not yet", "unknown"],
)
def test_responses_that_do_not_count(authority, responder, staplers, facts, said):
    responder.answer = lambda request: authority.respond(authority.issued[0], **facts())
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain_of(authority.issue())) is None
    assert said in stapler.facts()[0].error


def test_a_response_about_another_certificate_does_not_count(authority, responder, staplers):
    chain, other = (chain_of(authority.issue()) for _ in range(2))
    responder.answer = lambda request: authority.respond(other.certificate)
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain) is None
    assert "not about certificate" in stapler.facts()[0].error


def test_a_slow_responder_has_a_limit(authority, responder):
    go_on = Event()
    responder.answer = lambda request: go_on.wait(PATIENCE) and b""
    with pytest.raises(ResponderUnavailable, match=r"no answer in 0\.05 s"):
        fetch(responder.url, build(authority), 0.05)
    go_on.set()


def build(authority):
    return build_request(authority.issue().certificate, authority.ca.certificate)


def test_one_that_trickles_has_a_limit_too(authority, responder):
    """Each byte comes in time; the whole does not."""
    sockets = []

    def trickle(sock, address):
        sockets.append(sock)
        try:
            while True:
                sock.sendall(b"H")
                gevent.sleep(0.01)
        except OSError:
            sock.close()

    responder.set_handle(trickle)
    with pytest.raises(ResponderUnavailable, match=r"no answer in 0\.1 s"):
        fetch(responder.url, build(authority), 0.1)


def test_the_callers_own_timeout_is_not_the_responders(authority, responder):
    go_on = Event()
    responder.answer = lambda request: go_on.wait(PATIENCE) and b""
    mine = gevent.Timeout(0.02)
    with pytest.raises(gevent.Timeout) as raised, mine:
        fetch(responder.url, build(authority), PATIENCE)
    assert raised.value is mine
    go_on.set()


@pytest.mark.parametrize(
    "url", ["https://localhost/", "ftp://localhost/", "http:///nowhere", "http://[::1", "nonsense"]
)
def test_only_http(url):
    with pytest.raises(ResponderUnavailable, match=r"not an http:// URL|Invalid IPv6 URL"):
        fetch(url, b"", 1)


def test_the_request_is_a_post_with_its_type(authority, responder):
    fetch(responder.url + "/path?a=b", build(authority), PATIENCE)
    head = responder.heads[0].decode()
    assert head.startswith("POST /ocsp/path?a=b HTTP/1.1\r\n")
    assert "Content-Type: application/ocsp-request" in head
    assert f"Host: 127.0.0.1:{responder.server_port}" in head
