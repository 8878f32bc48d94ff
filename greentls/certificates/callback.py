"""Callback: certificates that a function knows, or gets: from a database, from an ACME server, on demand.

Whoever connects chooses the name, so names are the attacker's to invent. What he gets for them:

- What is no DNS name is not asked about.
- A name is asked about once, however many wait for it. The call is a greenlet of its own: a handshake that is killed,
  or out of time, leaves it running for the others, and for the next one to find.
- Calls have a rate. What is over it is refused at once, and not remembered; names that are known cost no call.
- Unknown names are remembered too, for a shorter time and in a place of their own: however many there are, they push
  out each other, and no certificate.
- An exception refuses the handshakes that wait for the call. For FAILURE_LIFETIME the name is not asked about again,
  so that the trouble with one does not use up the calls of all.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from time import monotonic
from typing import Any, Generic, TypeVar

from greentls.certificates.chain import CertificateChain
from greentls.certificates.names import normalised
from greentls.errors import TooManyCalls
from greentls.hub import Deadline, Hub, as_function, here

__all__ = ["Callback"]

log = logging.getLogger("greentls.certificates")

LIFETIME = 3600.0  # seconds for which an answer is good
UNKNOWN_LIFETIME = 60.0  # and that there is no certificate: who has just set up a name does not want to wait longer
FAILURE_LIFETIME = 1.0  # and that the function failed
MAX_NAMES = 10_000  # known, and as many unknown: some 10 KiB for each with a certificate
CALLS = 100  # for each PERIOD, and at once: what a database takes. An ACME server takes a few in a minute
PERIOD = 1.0  # seconds
TIMEOUT = 60.0  # seconds for a call: an ACME order takes some ten

Chains = tuple[CertificateChain, ...]
T = TypeVar("T")


class Callback:
    """A source of certificates: function(server_name), which may wait.

    The function answers with a CertificateChain, a sequence of them (one for each kind of key), a pair of files
    (certificates, key), or None: there is none for this name. It gets DNS names only, in lower case, without a dot at
    the end; nobody checks whether they are yours. What it raises refuses the handshakes that wait for it.

    calls, period: calls of the function at most in so many seconds, and as many at once. timeout: seconds for one of
    them. lifetime, unknown_lifetime: seconds for which an answer is good, a certificate's no longer than itself.
    max_names: how many known ones are remembered, and how many unknown ones.
    """

    def __init__(
        self,
        function: Callable[[str], Any],
        *,
        lifetime: float = LIFETIME,
        unknown_lifetime: float = UNKNOWN_LIFETIME,
        max_names: int = MAX_NAMES,
        calls: int = CALLS,
        period: float = PERIOD,
        timeout: float = TIMEOUT,
    ) -> None:
        self._function = as_function(function)
        self._lifetime, self._unknown_lifetime, self._timeout = lifetime, unknown_lifetime, timeout
        self._known: _Memory[Chains] = _Memory(max_names)
        self._unknown: _Memory[bool] = _Memory(max_names)  # whether that is because the function failed
        self._flights: dict[tuple[Hub, str], _Flight] = {}  # each hub has its own
        self._calls, self._period = calls, period
        self._tokens, self._filled = float(calls), monotonic()

    def get(self, server_name: str | None) -> Chains | None:
        """Waits for the function, if it has to be asked. Raises what it raises, TimeoutError, TooManyCalls."""
        name = normalised(server_name)
        if name is None:
            return None
        if known := self._known.get(name):
            return known[0]
        if unknown := self._unknown.get(name):
            if unknown[0]:
                raise TooManyCalls(name, f"the last call failed less than {FAILURE_LIFETIME} s ago")
            return None
        return self._flight(name).result()

    def forget(self, server_name: str) -> None:
        """The next handshake asks about this name again."""
        name = normalised(server_name)
        if name is not None:
            self._known.forget(name)
            self._unknown.forget(name)

    def _flight(self, name: str) -> _Flight:
        hub = here()
        flight = self._flights.get((hub, name))
        if flight is None:
            self._take_token(name)
            flight = self._flights[hub, name] = _Flight()
            hub.spawn(self._fly, (hub, name), flight)
        return flight

    def _take_token(self, name: str) -> None:
        now = monotonic()
        self._tokens = min(self._calls, self._tokens + (now - self._filled) * self._calls / self._period)
        self._filled = now
        if self._tokens < 1 or len(self._flights) >= self._calls:
            raise TooManyCalls(name, f"{self._calls} calls in {self._period} s, or at once, are all there may be")
        self._tokens -= 1

    def _fly(self, place: tuple[Hub, str], flight: _Flight) -> None:
        name = place[1]
        try:
            with Deadline(self._timeout, f"certificates: {name}: no answer in {{}} s"):
                flight.chains = _chains(self._function(name))
            if flight.chains:
                self._known.put(name, flight.chains, min(self._lifetime, _remaining(flight.chains)))
            else:
                self._unknown.put(name, False, self._unknown_lifetime)
        except BaseException as error:
            log.warning("certificates: %s: %r", name, error)
            self._unknown.put(name, True, FAILURE_LIFETIME)
            flight.failure = error
        finally:
            del self._flights[place]
            flight.landed.set()
            del flight  # its failure's traceback holds this frame


class _Flight:
    """One call of the function, for all that wait for its answer."""

    def __init__(self) -> None:
        self.landed = here().event()
        self.chains: Chains | None = None
        self.failure: BaseException | None = None

    def result(self) -> Chains | None:
        """Waits for it."""
        try:
            self.landed.wait()
            if self.failure is not None:
                raise self.failure
            return self.chains
        finally:
            del self  # the failure's traceback holds this frame


def _chains(answer: Any) -> Chains | None:
    if answer is None:
        return None
    if isinstance(answer, CertificateChain):
        return (answer,)
    if isinstance(answer, Sequence) and answer and not isinstance(answer, str | bytes):
        if all(isinstance(each, CertificateChain) for each in answer):
            return tuple(answer)
        if len(answer) == 2 and not any(isinstance(each, CertificateChain) for each in answer):
            return (CertificateChain.load(*answer),)
    kind = type(answer).__name__  # not the answer: it may be a private key
    raise TypeError(f"certificates: the answer is a {kind}: neither None, nor CertificateChains, nor a pair of files")


def _remaining(chains: Chains) -> float:
    """Seconds until the first of them ends; one that has ended already is asked about again soon."""
    ends = min(chain.certificate.not_valid_after_utc for chain in chains)
    return max((ends - datetime.now(timezone.utc)).total_seconds(), FAILURE_LIFETIME)


class _Memory(Generic[T]):
    """Values with lifetimes; those used last are kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, tuple[float, T]] = OrderedDict()  # when it ends

    def get(self, name: str) -> tuple[T] | None:
        ends, value = self._kept.get(name, (0.0, None))
        if monotonic() >= ends:
            self.forget(name)
            return None
        self._kept.move_to_end(name)
        return (value,)  # type: ignore[return-value]  # not the default, which has ended

    def put(self, name: str, value: T, lifetime: float) -> None:
        self._kept[name] = monotonic() + lifetime, value
        self._kept.move_to_end(name)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def forget(self, name: str) -> None:
        self._kept.pop(name, None)
