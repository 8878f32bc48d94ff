"""Callback: certificates from a function, which gets them from a database, an ACME server, or the like.

The client chooses the name, so an attacker can invent any number of names. Therefore:

- The function gets DNS names only.
- It is called once for a name, however many handshakes wait. The call has its own greenlet: if a handshake is killed,
  or its deadline passes, the call continues for the other handshakes and for the next one.
- The rate of calls is limited. A name above it is refused at once and not remembered. Known names need no call.
- Unknown names are remembered, too, for a shorter time. They are kept apart, so they displace no certificate.
- If the function raises, the handshakes that wait are refused, and the function is not called again for this name
  within FAILURE_LIFETIME. So one bad name does not use up the calls for all.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from time import monotonic
from typing import Generic, TypeVar

from greentls.certificates.chain import CertificateChain
from greentls.certificates.names import normalised
from greentls.errors import TooManyCalls
from greentls.hub import Deadline, Hub, as_function, here

__all__ = ["Callback"]

log = logging.getLogger("greentls.certificates")

LIFETIME = 3600.0  # seconds for which an answer is remembered
UNKNOWN_LIFETIME = 60.0  # seconds for an unknown name: a new certificate should be found soon
FAILURE_LIFETIME = 1.0  # seconds for a failure
MAX_NAMES = 10_000  # known names, and as many unknown ones; a certificate takes about 10 KiB
CALLS = 100  # calls in each PERIOD, and at once. This suits a database; an ACME server allows a few a minute
PERIOD = 1.0  # seconds
TIMEOUT = 60.0  # seconds for a call: an ACME order takes about ten

Chains = tuple[CertificateChain, ...]
T = TypeVar("T")


class Callback:
    """A source of certificates that calls function(server_name), which may wait.

    The function returns a CertificateChain, a sequence of them (one for each kind of key), a pair of files
    (certificates, key), or None if there is none for the name. It is called with DNS names, in lower case and without a
    dot at the end. Whatever it raises refuses the handshakes that wait for it.

    calls, period: at most so many calls in so many seconds, and at once. timeout: seconds for one call. lifetime,
    unknown_lifetime: seconds for which an answer is remembered; a certificate is forgotten when it expires. max_names:
    the number of known names, and of unknown names, that are remembered.
    """

    def __init__(
        self,
        function: Callable[[str], object],
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
        self._unknown: _Memory[bool] = _Memory(max_names)  # the value: whether the function has failed
        self._flights: dict[tuple[Hub, str], _Flight] = {}  # by hub and name
        self._calls, self._period = calls, period
        self._tokens, self._filled = float(calls), monotonic()

    def get(self, server_name: str | None) -> Chains | None:
        """Returns the chains for a name, None if there are none. May wait for the function. Raises what the function
        raises, TimeoutError, or TooManyCalls."""
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
        """Forgets a name, so that the next handshake calls the function again."""
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
            raise TooManyCalls(name, f"more than {self._calls} calls in {self._period} s, or at once")
        self._tokens -= 1

    def _fly(self, place: tuple[Hub, str], flight: _Flight) -> None:
        name = place[1]
        try:
            with Deadline(self._timeout, f"certificates: {name}: no answer in {{}} s"):
                flight.chains = _chains(self._function(name))
            if flight.chains:
                ends = min(chain.certificate.not_valid_after_utc for chain in flight.chains)
                remaining = max((ends - datetime.now(timezone.utc)).total_seconds(), FAILURE_LIFETIME)
                self._known.put(name, flight.chains, min(self._lifetime, remaining))
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
    """One call of the function, for all handshakes that wait for its answer."""

    def __init__(self) -> None:
        self.landed = here().event()
        self.chains: Chains | None = None
        self.failure: BaseException | None = None

    def result(self) -> Chains | None:
        """Waits for the call. Returns its answer, or raises what it raised."""
        try:
            self.landed.wait()
            if self.failure is not None:
                raise self.failure
            return self.chains
        finally:
            del self  # the failure's traceback holds this frame


def _chains(answer: object) -> Chains | None:
    if answer is None:
        return None
    if isinstance(answer, CertificateChain):
        return (answer,)
    if isinstance(answer, Sequence) and answer and not isinstance(answer, str | bytes):
        if all(isinstance(each, CertificateChain) for each in answer):
            return tuple(answer)
        if len(answer) == 2 and not any(isinstance(each, CertificateChain) for each in answer):
            return (CertificateChain.load(*answer),)
    kind = type(answer).__name__  # the answer itself may be a private key
    raise TypeError(f"certificates: the answer is a {kind}: neither None, nor CertificateChains, nor a pair of files")


class _Memory(Generic[T]):
    """Keeps the values used last, each for its lifetime."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, tuple[float, T]] = OrderedDict()  # (when its lifetime ends, the value)

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
