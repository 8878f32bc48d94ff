"""What Stapler tells greentls.events.handler of what it has fetched."""

from __future__ import annotations

import gc
import weakref

import pytest

from greentls import events
from greentls.errors import ResponderUnavailable
from greentls.log_limit import LogLimit
from greentls.ocsp import Stapler
from greentls.ocsp import stapler as module
from greentls.stores.memory import MemoryStore
from tests.ocsp.staplers import ask, chain_of, check_shared, tried, verdict
from tests.support.ocsp_authority import ago


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
    monkeypatch.setattr(events, "_trouble", LogLimit())
    chain, stapler = chain_of(authority.issue()), staplers(wait_for_first=True)
    assert verdict(ask(stapler, chain), chain) == "good"
    tried(stapler)
    assert [each.getMessage() for each in logged.records] == ["greentls.events.handler fails for ocsp_fetch"]
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
