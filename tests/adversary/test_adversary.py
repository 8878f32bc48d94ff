"""Some thousand hostile peers, the same ones each time; `make adversary` has others."""

from __future__ import annotations

import gc

import pytest

from tests.adversary import adversary
from tests.support.hubs import LOOPS, run_under

# Cases of each family: seconds of one core in all. tlslite-ng computes in Python.
CASES = {"after": 700, "during": 600, "hello": 300, "retry": 300, "early": 240, "tlslite": 120, "noise": 240}


@pytest.fixture(scope="module")
def lab(pki):
    gc.collect()
    gc.freeze()  # each case looks for what is left over: of its own, not of the other tests
    yield adversary.Lab(pki)
    gc.unfreeze()


def test_every_family_has_its_cases():
    assert set(CASES) == set(adversary.FAMILIES)


@pytest.mark.parametrize("family", CASES)
def test_whatever_a_peer_does(lab, family):
    found = adversary.run(lab, family, range(CASES[family]))
    assert not found, f"{len(found)} cases:\n" + "\n".join(found[:10])


@pytest.fixture(scope="module")
def transports(pki):
    """The same for greentls.aio."""
    gc.collect()
    gc.freeze()
    yield adversary.Lab(pki, "transport")
    gc.unfreeze()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("family", CASES)
def test_whatever_a_peer_does_to_a_transport_of_asyncios(transports, family, loop):
    found = []
    cases = range(CASES[family] // 6) if loop == "asyncio" else range(CASES[family] // 6, CASES[family] // 4)
    run_under(loop, lambda: found.extend(adversary.run(transports, family, cases)))
    assert not found, f"{len(found)} cases:\n" + "\n".join(found[:10])


def test_a_failure_is_found_and_named(lab, monkeypatch):
    """The harness itself: a target that gives what nobody has sent."""
    monkeypatch.setattr(adversary.BIOTarget, "read", lambda self: b"invented" * (not self.got))
    monkeypatch.setattr(adversary, "FACES", ("bio",))
    found = adversary.run(lab, "after", range(3))
    assert found
    assert "--seed after:" in found[0]
    assert "plaintext that the peer did not send" in found[0]


def test_a_failure_of_a_transport_is_found(transports, monkeypatch):
    monkeypatch.setattr(adversary.TransportTarget, "read", lambda self: b"invented" * (not self.got))
    found = []
    run_under("asyncio", lambda: found.extend(adversary.run(transports, "after", range(3))))
    assert "plaintext that the peer did not send" in "".join(found)
