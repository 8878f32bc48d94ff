"""Stapler: what it fetches, keeps, shares and refuses, against openssl's responder and one that does anything."""

from __future__ import annotations

import gc
import logging
import os
import re
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from cryptography.x509 import ocsp
from gevent.event import Event

import greentls
from greentls import events
from greentls.certificates import CertificateChain
from greentls.errors import ConfigurationError, ResponderUnavailable, StapleRequired
from greentls.log_limit import Trouble
from greentls.ocsp import Stapler, check_response
from greentls.ocsp import stapler as module
from greentls.ocsp.fetch import fetch
from greentls.ocsp.files import ResponseFiles
from greentls.ocsp.response import MAX_RESPONSE, build_request
from greentls.stores.memory import MemoryStore
from tests.support.helpers import PATIENCE, wait_until
from tests.support.ocsp_authority import Authority, FakeResponder, OpenSSLResponder, ago


@pytest.fixture(autouse=True)
def logged(caplog):
    """What the logger greentls.ocsp was told."""
    caplog.set_level(logging.INFO, "greentls.ocsp")
    return caplog


@pytest.fixture
def responder():
    made = FakeResponder()
    yield made
    made.stop(timeout=1)


@pytest.fixture
def authority(responder, tmp_path):
    """Answers the truth to whatever it is asked."""
    made = Authority(tmp_path, responder.url)
    responder.answer = lambda request: made.respond(
        next(each for each in made.issued if each.serial_number == request.serial_number)
    )
    return made


@pytest.fixture
def staplers():
    """staplers(**settings) makes a Stapler that ends with the test."""
    made = []

    def make(**settings):
        made.append(Stapler(**settings))
        return made[-1]

    yield make
    for each in made:
        each.close()
    gevent.sleep(0)


def chain_of(issued):
    return CertificateChain.load(issued.cert_file, issued.key_file)


def ask(stapler, chain):
    """As a handshake with this certificate would."""
    return stapler(SimpleNamespace(certificate_chain=chain))


def tried(stapler, count=1):
    """The facts, once every certificate has been asked for."""
    until(lambda: sum(each.next_refresh is not None for each in stapler.facts()) == count)
    return stapler.facts()


def until(condition):
    wait_until(lambda: condition() or gevent.sleep(0.01), condition)  # which lets the other greenlets run


def verdict(der, chain):
    return check_response(der, chain.certificate, chain.intermediates[0], time.time()).status


class Clock:
    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


# -- openssl's responder -----------------------------------------------------------------------------------------------


@pytest.fixture
def openssl(tmp_path):
    made = OpenSSLResponder()
    made.authority = Authority(tmp_path, made.url)
    yield made
    made.stop()


@pytest.mark.programs
def test_openssls_responder_says_good_and_revoked(openssl, staplers, logged):
    good, revoked = (chain_of(openssl.authority.issue()) for _ in range(2))
    openssl.authority.revoke(revoked.certificate)
    openssl.start(openssl.authority)
    stapler = staplers(wait_for_first=True)
    assert verdict(ask(stapler, good), good) == "good"
    assert ask(stapler, revoked) is None
    assert [each.status for each in stapler.facts()] == ["good", "revoked"]
    (loud,) = [each for each in logged.records if each.levelno == logging.CRITICAL]
    assert "localhost: REVOKED since 2" in loud.getMessage()


@pytest.mark.programs
def test_openssls_responder_with_a_delegate(openssl, staplers):
    chain = chain_of(openssl.authority.issue())
    openssl.start(openssl.authority, openssl.authority.delegate())
    assert verdict(ask(staplers(wait_for_first=True), chain), chain) == "good"


@pytest.mark.programs
def test_openssls_responder_that_does_not_know_the_certificate(openssl, staplers):
    chain = chain_of(openssl.authority.issue())
    openssl.authority.issued.clear()
    openssl.authority.issue()
    openssl.start(openssl.authority)
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain) is None
    assert stapler.facts()[0].error.endswith("does not know the certificate")


@pytest.mark.programs
def test_openssls_responder_is_down_then_up_then_down(openssl, staplers, monkeypatch):
    monkeypatch.setattr(module, "FIRST_RETRY", 0.02)
    chain = chain_of(openssl.authority.issue())
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain) is None
    assert "refused" in stapler.facts()[0].error
    openssl.start(openssl.authority)
    until(lambda: ask(stapler, chain))
    assert stapler.facts()[0].error == ""
    openssl.stop()
    assert verdict(ask(stapler, chain), chain) == "good"


@pytest.mark.programs
def test_openssls_responder_with_another_cas_key(openssl, staplers, tmp_path):
    chain = chain_of(openssl.authority.issue())
    (tmp_path / "other").mkdir()
    openssl.start(openssl.authority, Authority(tmp_path / "other").ca)
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain) is None
    assert "wrong signer: the issuer has not issued the certificate" in stapler.facts()[0].error


# -- handshakes do not wait --------------------------------------------------------------------------------------------


def test_a_handshake_takes_what_is_there(authority, responder, staplers):
    go_on, answer = Event(), responder.answer
    responder.answer = lambda request: go_on.wait(PATIENCE) and answer(request)
    chain, stapler = chain_of(authority.issue()), staplers()
    assert ask(stapler, chain) is None  # at once, though the responder is slow
    go_on.set()
    tried(stapler)
    assert verdict(ask(stapler, chain), chain) == "good"
    assert len(responder.requests) == 1


def test_it_is_fetched_before_the_first_handshake_for_who_asks_for_it(authority, staplers):
    chain, stapler = chain_of(authority.issue()), staplers()
    stapler.add(chain)
    tried(stapler)
    assert verdict(ask(stapler, chain), chain) == "good"


@pytest.mark.parametrize("settings", [{"wait_for_first": True}, {"policy": "must"}, {"must_staple": True}])
def test_many_first_handshakes_wait_for_one_fetch(authority, responder, staplers, settings):
    chain = chain_of(authority.issue(must_staple=settings.pop("must_staple", False)))
    stapler = staplers(**settings)
    jobs = [gevent.spawn(ask, stapler, chain) for _ in range(50)]
    staples = {job.get(timeout=PATIENCE) for job in jobs}
    assert len(staples) == len(responder.requests) == 1
    assert verdict(staples.pop(), chain) == "good"


def test_a_handshake_that_gives_up_does_not_end_the_fetch(authority, responder, staplers):
    go_on, answer = Event(), responder.answer
    responder.answer = lambda request: go_on.wait(PATIENCE) and answer(request)
    chain, stapler = chain_of(authority.issue()), staplers(wait_for_first=True)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        ask(stapler, chain)
    go_on.set()
    assert verdict(ask(stapler, chain), chain) == "good"
    assert len(responder.requests) == 1


# -- refreshing --------------------------------------------------------------------------------------------------------


def test_it_is_refreshed_in_the_background(authority, responder, staplers, monkeypatch):
    """Responses that live for two seconds: the next is asked for long before a handshake would miss it."""
    monkeypatch.setattr(module, "SHORTEST_PAUSE", 0.05)
    responder.answer = lambda request: authority.respond(
        authority.issued[0], begins=ago(seconds=0), ends=ago(seconds=-2)
    )
    chain, stapler = chain_of(authority.issue()), staplers(wait_for_first=True)
    first = ask(stapler, chain)
    until(lambda: ask(stapler, chain) not in (None, first))
    assert len(responder.requests) >= 2


def test_at_half_its_life_and_each_somewhat_later(authority, staplers):
    begins, ends = ago(hours=2), ago(hours=-98)
    stapler = staplers(fetch=lambda url, request, timeout: current(authority, request, begins, ends))
    chains = [chain_of(authority.issue()) for _ in range(8)]
    for chain in chains:
        stapler.add(chain)
    facts = tried(stapler, 8)
    when = [(each.next_refresh - begins.timestamp()) / 3600 for each in facts]
    assert all(49.9 < hours < 60.1 for hours in when)
    assert len({round(hours, 3) for hours in when}) > 4
    assert all(abs(each.age - 7200) < PATIENCE and each.good_until == ends.timestamp() for each in facts)


def current(authority, request, begins, ends):
    serial = ocsp.load_der_ocsp_request(request).serial_number
    return authority.respond(
        next(each for each in authority.issued if each.serial_number == serial), begins=begins, ends=ends
    )


def test_a_responder_that_makes_new_ones_late_is_not_pestered(authority, responder, staplers):
    responder.answer = lambda request: authority.respond(authority.issued[0], begins=ago(hours=90), ends=ago(hours=-10))
    chain, stapler = chain_of(authority.issue()), staplers(wait_for_first=True)
    assert ask(stapler, chain)
    assert 1.9 < (tried(stapler)[0].next_refresh - time.time()) / 3600 < 3.1


def test_failures_are_retried_more_and_more_rarely(authority, staplers):
    def fail(url, request, timeout):
        raise ResponderUnavailable("down")

    stapler = staplers(fetch=fail)
    staple = stapler._staple(chain_of(authority.issue()))
    pauses = [stapler._refresh(staple) for _ in range(12)]
    assert 45 <= pauses[0] <= 75 and 90 <= pauses[1] <= 150
    assert all(2700 <= pause <= 4500 for pause in pauses[6:])


# -- an outage, and its end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["lenient", "strict", "must"])
@pytest.mark.parametrize("must_staple", [False, True])
def test_the_last_good_one_is_kept_until_it_has_run_out(authority, responder, staplers, policy, must_staple):
    clock = Clock()
    chain = chain_of(authority.issue(must_staple=must_staple))
    stapler = staplers(policy=policy, wait_for_first=True, clock=clock)
    good = ask(stapler, chain)
    responder.answer = lambda request: b"HTTP/1.1 503 Overloaded\r\n\r\n"
    staple = stapler._staple(chain)
    clock.ahead = 2400  # past half of its hour
    stapler._refresh(staple)
    assert "503 Overloaded" in stapler.facts()[0].error
    assert ask(stapler, chain) == good
    clock.ahead = 3601
    if policy == "lenient" and not must_staple:
        assert ask(stapler, chain) is None
    else:
        with pytest.raises(StapleRequired, match=r"localhost: the last one has run out; .*503 Overloaded"):
            ask(stapler, chain)


@pytest.mark.parametrize(
    ("policy", "must_staple", "refuses"),
    [("lenient", False, False), ("strict", False, False), ("must", False, True), ("lenient", True, True)],
)
def test_none_has_ever_come(authority, responder, staplers, policy, must_staple, refuses):
    responder.answer = lambda request: b"HTTP/1.1 404 Not Found\r\n\r\n"
    chain = chain_of(authority.issue(must_staple=must_staple))
    stapler = staplers(policy=policy, wait_for_first=True)
    if refuses:
        with pytest.raises(StapleRequired, match=r"localhost: .*404 Not Found"):
            ask(stapler, chain)
    else:
        assert ask(stapler, chain) is None


@pytest.mark.parametrize(
    ("policy", "must_staple", "refuses"),
    [("lenient", False, False), ("strict", False, True), ("must", False, True), ("lenient", True, True)],
)
def test_revoked_is_news_and_nothing_is_stapled_from_then_on(
    authority, responder, staplers, policy, must_staple, refuses, logged
):
    chain = chain_of(authority.issue(must_staple=must_staple))
    clock = Clock()
    stapler = staplers(policy=policy, wait_for_first=True, clock=clock)
    good = ask(stapler, chain)
    assert verdict(good, chain) == "good"
    authority.revoke(chain.certificate)
    responder.answer = lambda request: authority.respond(chain.certificate, begins=ago(seconds=0))
    clock.ahead = 2400
    staple = stapler._staple(chain)
    stapler._refresh(staple)
    assert [each.levelno for each in logged.records if "REVOKED" in each.getMessage()] == [logging.CRITICAL]
    stapler._adopt(staple, good)  # as a store may bring it back, while its time is not over
    if refuses:
        with pytest.raises(StapleRequired, match=r"localhost: REVOKED since .* \(keyCompromise\), says CN=greentls"):
            ask(stapler, chain)
    else:
        assert ask(stapler, chain) is None


# -- what responders may send ------------------------------------------------------------------------------------------


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


# -- events ------------------------------------------------------------------------------------------------------------


def test_a_fetch_is_told_with_its_time_and_the_next(authority, staplers, told):
    chain, stapler = chain_of(authority.issue()), staplers(wait_for_first=True)
    assert ask(stapler, chain)
    (facts,) = tried(stapler)
    (event,) = told
    assert set(event) == {"event", *events.EVENTS["ocsp_fetch"]}
    assert (event["event"], event["side"], event["names"]) == ("ocsp_fetch", "server", ("localhost",))
    assert (event["status"], event["error"]) == ("good", None)
    assert event["next_refresh"] == facts.next_refresh
    assert event["seconds"] >= 0
    assert ask(stapler, chain)
    stapler._refresh(stapler._staple(chain))
    assert len(told) == 1, "nothing was fetched"


def test_its_seconds_are_those_of_the_fetch_alone(authority, staplers, told, monkeypatch):
    ticks = iter((10.0, 12.5))
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    ask(stapler := staplers(store=MemoryStore(), wait_for_first=True), chain_of(authority.issue()))
    tried(stapler)
    (event,) = told
    assert event["seconds"] == 2.5


def test_a_fetch_that_fails_is_told_with_its_error(authority, staplers, told):
    def fail(url, request, timeout):
        raise expected

    expected = ResponderUnavailable("down")
    stapler = staplers(fetch=fail)
    staple = stapler._staple(chain_of(authority.issue()))
    for count in (1, 2):
        stapler._refresh(staple)
        assert len(told) == count
        assert told[-1]["error"] is expected
        assert told[-1]["status"] is None
        assert told[-1]["next_refresh"] == staple.next_refresh


@pytest.mark.parametrize(("status", "said"), [("revoked", None), ("unknown", "does not know the certificate")])
def test_a_response_that_is_not_good_is_told(authority, responder, staplers, told, status, said):
    responder.answer = lambda request: authority.respond(authority.issued[0], status)
    stapler = staplers(wait_for_first=True)
    assert ask(stapler, chain_of(authority.issue())) is None
    tried(stapler)
    (event,) = told
    if said is None:
        assert (event["status"], event["error"]) == (status, None)
    else:
        assert event["status"] is None
        assert said in str(event["error"])


def test_a_responder_that_has_the_same_one_still_was_asked_all_the_same(authority, responder, staplers, told):
    begins = ago(hours=90)
    responder.answer = lambda request: authority.respond(authority.issued[0], begins=begins, ends=ago(hours=-10))
    chain, stapler = chain_of(authority.issue()), staplers(wait_for_first=True)
    assert ask(stapler, chain)
    tried(stapler)
    stapler._refresh(stapler._staple(chain))
    assert [(each["status"], each["error"]) for each in told] == [("good", None)] * 2
    assert len(responder.requests) == 2


def test_what_another_worker_has_fetched_is_not_told_again(authority, responder, staplers, told):
    check_shared([MemoryStore()] * 3, staplers, authority, responder)
    assert len(told) == 1


def test_where_nobody_can_be_asked_nothing_is_told(authority, staplers, told):
    assert ask(staplers(wait_for_first=True), chain_of(authority.issue(url=None))) is None
    assert told == []


def test_a_handler_that_raises_costs_no_staple(authority, staplers, monkeypatch, logged):
    monkeypatch.setattr(events, "handler", lambda event: 1 / 0)
    monkeypatch.setattr(events, "_trouble", Trouble())
    chain, stapler = chain_of(authority.issue()), staplers(wait_for_first=True)
    assert verdict(ask(stapler, chain), chain) == "good"
    tried(stapler)
    assert [each.getMessage() for each in logged.records] == ["greentls.events.handler raises, of ocsp_fetch"]
    assert not stapler._staple(chain).keeper.dead


def test_a_failure_that_was_told_does_not_keep_the_stapler_alive(authority, monkeypatch):
    """Not even until the garbage collector comes by."""

    def fail(url, request, timeout):
        raise ResponderUnavailable("down")

    monkeypatch.setattr(events, "handler", lambda event: None)
    stapler = Stapler(fetch=fail)
    stapler._refresh(stapler._staple(chain_of(authority.issue())))
    reference = weakref.ref(stapler)
    gc.disable()
    try:
        stapler.close()
        del stapler
        assert reference() is None
    finally:
        gc.enable()


# -- sharing and keeping -----------------------------------------------------------------------------------------------


def test_workers_share_what_one_has_fetched(authority, responder, staplers):
    check_shared([MemoryStore()] * 5, staplers, authority, responder)


def check_shared(stores, staplers, authority, responder):
    chain, staples = chain_of(authority.issue()), set()
    for store in stores:
        stapler = staplers(store=store, wait_for_first=True)
        staples.add(ask(stapler, chain))
        tried(stapler)  # and put
    assert len(staples) == len(responder.requests) == 1


def test_over_memcached(authority, responder, staplers, memcached):
    stores = [greentls.open_store(memcached.url(insecure=1)) for _ in range(2)]
    check_shared(stores, staplers, authority, responder)
    for store in stores:
        store.close()


class Nasty(MemoryStore):
    """A store that answers with something else."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def get(self, session_id):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def put(self, session_id, session, lifetime):
        self.get(session_id)


def test_what_comes_from_the_store_is_checked(authority, responder, staplers, tmp_path):
    chain, other = (chain_of(authority.issue()) for _ in range(2))
    (tmp_path / "other").mkdir()
    for answer in (
        b"garbage",
        bytes(MAX_RESPONSE + 1),
        authority.respond(other.certificate),
        authority.respond(chain.certificate, signer=Authority(tmp_path / "other").ca),
        authority.respond(chain.certificate, begins=ago(days=2), ends=ago(days=1)),
        ConnectionError("down"),
        "not even bytes",
    ):
        responder.requests.clear()
        stapler = staplers(store=Nasty(answer), wait_for_first=True)
        assert verdict(ask(stapler, chain), chain) == "good"
        assert len(responder.requests) == 1


def test_a_store_that_hangs_is_left(authority, responder, staplers, monkeypatch, logged):
    class Hanging(MemoryStore):
        def get(self, session_id):
            Event().wait(PATIENCE)

    monkeypatch.setattr(module, "STORE_TIMEOUT", 0.02)
    chain = chain_of(authority.issue())
    assert verdict(ask(staplers(store=Hanging(), wait_for_first=True), chain), chain) == "good"
    assert "memory: get: no answer in 0.02 s" in logged.text


@pytest.mark.parametrize("where", ["store", "directory"])
def test_revoked_is_shared_as_well(authority, responder, staplers, where, tmp_path):
    """Whoever has an older "good" learns it at the next look."""
    store = MemoryStore() if where == "store" else ResponseFiles(tmp_path / "responses")
    settings = {"store": store} if where == "store" else {"directory": store.directory}
    chain = chain_of(authority.issue())
    first, second = (staplers(**settings, wait_for_first=True) for _ in range(2))
    for stapler in (first, second):
        assert ask(stapler, chain) and tried(stapler)
    authority.revoke(chain.certificate)
    newer = authority.respond(chain.certificate, begins=ago(seconds=0))
    store.put(first._staple(chain).key, newer, 3600)
    second._refresh(second._staple(chain))
    assert ask(second, chain) is None
    assert len(responder.requests) == 1


def test_a_server_that_is_started_anew_staples_at_once(authority, responder, staplers, tmp_path):
    chain, place = chain_of(authority.issue()), tmp_path / "responses"
    staple = ask(staplers(directory=place, wait_for_first=True), chain)
    assert [each.suffix for each in place.iterdir()] == [".ocsp"]
    responder.stop(timeout=1)
    again = staplers(directory=place)
    assert ask(again, chain) == staple
    (file,) = place.iterdir()
    file.write_bytes(staple[:100])
    assert ask(staplers(directory=place), chain) is None


def test_a_directory_that_cannot_be_written_costs_nothing(authority, staplers, tmp_path, logged):
    chain = chain_of(authority.issue())
    (tmp_path / "file").touch()
    stapler = staplers(directory=tmp_path / "file" / "responses", wait_for_first=True)
    assert verdict(ask(stapler, chain), chain) == "good"
    assert "put" in logged.text


# -- which certificates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["lenient", "strict", "must"])
@pytest.mark.parametrize("facts", [{"days": 7}, {"url": None}, {"url": "https://ocsp.test/"}])
def test_exempt_certificates(authority, responder, staplers, policy, facts):
    chain, stapler = chain_of(authority.issue(**facts)), staplers(policy=policy, wait_for_first=True)
    assert ask(stapler, chain) is None
    assert responder.requests == []


def test_a_short_lived_certificate_that_demands_a_staple_gets_one(authority, staplers):
    chain = chain_of(authority.issue(days=7, must_staple=True))
    assert verdict(ask(staplers(), chain), chain) == "good"


def test_a_certificate_that_demands_a_staple_and_names_no_responder(authority, staplers):
    with pytest.raises(StapleRequired, match="localhost: the certificate names no HTTP responder"):
        ask(staplers(), chain_of(authority.issue(url=None, must_staple=True)))


def test_an_issuer_that_is_not_in_the_chain(authority, staplers, logged):
    issued = authority.issue()
    alone = CertificateChain(issued.certificate, issued.key)
    assert ask(staplers(wait_for_first=True), alone) is None
    assert "its issuer is neither in the chain" in logged.text
    with pytest.raises(StapleRequired, match="its issuer is neither in the chain"):
        ask(staplers(policy="must"), alone)
    assert ask(staplers(wait_for_first=True, issuers=[authority.ca.certificate]), alone)


def test_no_certificate_no_staple(staplers):
    assert ask(staplers(policy="must"), None) is None


def test_a_policy_that_is_none():
    with pytest.raises(ConfigurationError, match="known are lenient, strict, must"):
        Stapler(policy="hopeful")


# -- greenlets ---------------------------------------------------------------------------------------------------------


def keepers():
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and each._run is module._look_after]


def test_close_and_the_collector_end_the_greenlets(authority):
    chain = chain_of(authority.issue())
    closed = Stapler(wait_for_first=True)
    assert ask(closed, chain)
    closed.close()
    until(lambda: not keepers())
    dropped = Stapler(wait_for_first=True)
    assert ask(dropped, chain)
    reference, keeper = weakref.ref(dropped), dropped._staple(chain).keeper
    del dropped
    until(lambda: gc.collect() >= 0 and reference() is None)
    keeper.kill()  # it sleeps; when it wakes it finds nobody


def test_a_greenlet_that_somebody_has_killed_is_replaced(authority, responder, staplers):
    go_on, answer = Event(), responder.answer
    responder.answer = lambda request: go_on.wait(PATIENCE) and answer(request)
    chain, stapler = chain_of(authority.issue()), staplers(wait_for_first=True)
    stapler.add(chain)
    until(lambda: responder.requests)
    stapler._staple(chain).keeper.kill()
    go_on.set()
    assert verdict(ask(stapler, chain), chain) == "good"


def test_certificates_that_were_replaced_are_forgotten(authority, staplers, monkeypatch):
    monkeypatch.setattr(module, "SHORTEST_PAUSE", 0.01)
    clock = Clock()
    stapler = staplers(clock=clock, wait_for_first=True)
    old, new, kept = (chain_of(authority.issue()) for _ in range(3))
    stapler.add(kept)
    for chain in (old, new):
        assert ask(stapler, chain)
    clock.ahead = module.FORGOTTEN_AFTER + 1
    ask(stapler, new)
    for chain in (old, new, kept):
        staple = stapler._staples.get()[chain.der]
        assert stapler._wants(staple) is (chain is not old)  # as its greenlet will find when it wakes
        if chain is old:
            staple.keeper.kill()
    assert len(stapler.facts()) == 2


FORK = """
import os, sys, gevent, gevent.os
from types import SimpleNamespace
from greentls.certificates import CertificateChain
from greentls.ocsp import Stapler
stapler = Stapler(wait_for_first=True)
sock = SimpleNamespace(certificate_chain=CertificateChain.load(*sys.argv[1:]))
assert stapler(sock)
pid = gevent.os.fork()
assert stapler(sock)
assert len(stapler.facts()) == 1
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.programs
def test_a_forked_worker_begins_anew(openssl):
    issued = openssl.authority.issue()
    openssl.start(openssl.authority)
    done = subprocess.run(
        [sys.executable, "-c", FORK, issued.cert_file, issued.key_file],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
    )
    assert (done.returncode, done.stderr) == (0, "")
