"""Stapler: responses that workers share in a store and keep in a directory."""

from __future__ import annotations

import pytest
from gevent.event import Event

import greentls
from greentls.ocsp import stapler as module
from greentls.ocsp.files import ResponseFiles
from greentls.ocsp.response import MAX_RESPONSE
from greentls.stores.memory import MemoryStore
from tests.ocsp.staplers import ask, chain_of, check_shared, tried, verdict
from tests.support.helpers import PATIENCE
from tests.support.ocsp_authority import Authority, ago


def test_workers_share_what_one_has_fetched(authority, responder, staplers):
    check_shared([MemoryStore()] * 5, staplers, authority, responder)


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
