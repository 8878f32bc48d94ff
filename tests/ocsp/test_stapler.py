from __future__ import annotations

import gc
import logging
import time
import weakref

import gevent
import pytest
from cryptography.x509 import ocsp
from gevent.event import Event

from greentls.certificates import CertificateChain
from greentls.errors import ConfigurationError, ResponderUnavailable, StapleRequired
from greentls.ocsp import Stapler
from greentls.ocsp import stapler as module
from tests.ocsp.staplers import Clock, ask, chain_of, tried, until, verdict
from tests.support.helpers import PATIENCE
from tests.support.ocsp_authority import ago

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
