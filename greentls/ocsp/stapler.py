"""Stapler: an ocsp_callback that fetches OCSP responses in advance.

- One greenlet for each certificate fetches its response in the background. It sleeps for a random 50 to 60 % of the
  response's lifetime, so that workers do not all ask at once. The first worker shares the response in the store, where
  the others look before they ask the responder.
- A handshake uses the response that is there. It waits only for the first fetch for the certificate, and only if it
  would be refused without a response, by the certificate or the policy, or if wait_for_first is set.
- The newest response that verifies counts, wherever it comes from. A responder that is down, slow or answers nonsense
  changes nothing until the last response expires. After a "revoked" nothing is stapled.
- A certificate that no handshake has used for two days has been replaced, and is forgotten. Those given to add() stay.

Each hub in each process has its own responses. A forked worker starts with those in the store.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from cryptography import x509

from greentls import events
from greentls.errors import ConfigurationError, OCSPError, StapleRequired
from greentls.hub import Deadline, PerHub, Task, here
from greentls.ocsp.fetch import fetch
from greentls.ocsp.files import ResponseFiles
from greentls.ocsp.response import (
    CheckedResponse,
    Status,
    build_request,
    check_response,
    is_short_lived,
    issuer_of,
    responder_url,
)
from greentls.stores import SessionStore

if TYPE_CHECKING:
    from greentls.certificates import CertificateChain

__all__ = ["Policy", "StapleFacts", "Stapler"]

log = logging.getLogger("greentls.ocsp")

T = TypeVar("T")

Policy = Literal["lenient", "strict", "must"]
POLICIES = ("lenient", "strict", "must")

# Seconds
FETCH_TIMEOUT = 10.0  # no handshake waits for it, as a rule
STORE_TIMEOUT = 1.0
SHORTEST_PAUSE = 60.0  # between two fetches, however short the lifetime of a response is
FIRST_RETRY = 60.0  # after a failure; twice as long each time
LONGEST_RETRY = 3600.0
FORGOTTEN_AFTER = 2 * 86_400.0


class StapleFacts(NamedTuple):
    """The facts that a Stapler has about a certificate.

    names: the certificate's. responder: the URL, None if there is none. status: of the newest response, None if there
    is none. age: seconds since its thisUpdate. good_until, next_refresh: seconds since the epoch. error: what went
    wrong last, empty if nothing did.
    """

    names: tuple[str, ...]
    responder: str | None
    status: Status | None
    age: float | None
    good_until: float | None
    next_refresh: float | None
    error: str


class Stapler:
    """The value of SSLContext.ocsp_callback, for any number of contexts.

    policy: when to refuse the handshake of a client that asks for a staple. "lenient": if the certificate demands a
    staple (RFC 7633) and there is none. "strict": also if the certificate is revoked, or the last good response has
    expired. "must": also if there is none for another reason. Certificates that name no HTTP responder, and those that
    live for seven days at most, are exempt unless they demand a staple.

    wait_for_first: whether the first handshake with a certificate waits for its response, as long as callback_timeout
    allows. It always waits if it would be refused otherwise. store: a SessionStore that workers share. directory: keeps
    responses for the next start. Responses from either are verified like those of the responder. issuers: certificates
    of CAs that are not among a chain's intermediates. fetch(url, DER request, seconds): returns bytes. clock(): returns
    seconds since the epoch. Raises ConfigurationError for another policy.
    """

    def __init__(
        self,
        *,
        policy: Policy = "lenient",
        wait_for_first: bool = False,
        store: SessionStore | None = None,
        directory: str | os.PathLike[str] | None = None,
        issuers: Iterable[x509.Certificate] = (),
        fetch: Callable[[str, bytes, float], bytes] = fetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if policy not in POLICIES:
            raise ConfigurationError(f"policy {policy!r}", "no such policy", f"known are {', '.join(POLICIES)}")
        self.policy = policy
        self.wait_for_first = wait_for_first
        self._store = store
        self._files = ResponseFiles(directory) if directory is not None else None
        self._issuers = tuple(issuers)
        self._fetch, self._clock = fetch, clock
        self._staples: PerHub[dict[bytes, _Staple]] = PerHub(dict)  # by the certificate's DER

    def __call__(self, sock: Any) -> bytes | None:  # Any: ours, or the standard library's SSLObject
        """The response for the certificate that the handshake has chosen, or None. May wait. Raises StapleRequired."""
        # The standard library's SSLObject, of wrap_bio(), has what we need in its _sslobj.
        facts = sock if hasattr(sock, "certificate_chain") else sock._sslobj
        chain = facts.certificate_chain
        if chain is None:
            return None
        staple = self._staple(chain)
        staple.used = self._clock()
        required = staple.must_staple or (self.policy == "must" and not staple.exempt)
        if required or self.wait_for_first:
            staple.tried.wait()
        response = staple.response
        if response is not None and response.status == "good" and self._clock() < response.good_until:
            return response.der
        if required or (self.policy == "strict" and response is not None):
            raise StapleRequired(f"{', '.join(staple.names)}: {staple.problem}")
        return None

    def add(self, chain: CertificateChain) -> None:
        """Fetches responses for the chain's certificate from now on, even if no handshake uses it."""
        self._staple(chain).kept = True

    def facts(self) -> list[StapleFacts]:
        """The facts of each certificate in this hub."""
        now = self._clock()
        return [each.facts(now) for each in self._staples.get().values()]

    def close(self) -> None:
        """Ends this hub's greenlets."""
        staples = self._staples.get()
        for staple in staples.values():
            if staple.keeper is not None:
                staple.keeper.kill(block=False)
        staples.clear()

    def _staple(self, chain: CertificateChain) -> _Staple:
        staples = self._staples.get()
        staple = staples.get(chain.der)
        if staple is None:
            staple = staples[chain.der] = _Staple(chain, self._issuers)
            if staple.request:
                self._recall(staple, self._files)
            elif staple.error:
                log.warning("%s", str(staple))
        if staple.request and (staple.keeper is None or staple.keeper.dead):  # it may have been killed
            staple.keeper = here().spawn(_look_after, weakref.ref(self), staple)
        return staple

    # -- in the background ---------------------------------------------------------------------------------------------

    def _wants(self, staple: _Staple) -> bool:
        """Whether the certificate is still wanted. Forgets it if it is no longer used."""
        staples = self._staples.get()
        if staples.get(staple.der) is not staple:
            return False
        if not staple.kept and self._clock() - staple.used > FORGOTTEN_AFTER:
            del staples[staple.der]
        return staple.der in staples

    def _refresh(self, staple: _Staple) -> float:
        """Gets a newer response if it is time to. Returns the seconds until the next one is due."""
        for store in (self._files, self._store):
            self._recall(staple, store)
        asks, problem = staple.half_life <= self._clock(), None
        try:
            if asks:
                self._ask(staple)
        except Exception as error:  # a user's fetch() may raise anything
            problem = error
            staple.error = str(error)
            staple.failures += 1
            log.warning("%s", str(staple))
            pause = min(FIRST_RETRY * 2.0 ** min(staple.failures - 1, 10), LONGEST_RETRY) * random.uniform(0.75, 1.25)
        else:
            staple.error, staple.failures = "", 0
            now = self._clock()
            pause = staple.half_life - now
            if pause <= 0 and staple.response:  # the responder still has the old one only
                pause = (staple.response.good_until - now) * random.uniform(0.2, 0.3)
            pause = max(SHORTEST_PAUSE, pause)
        staple.next_refresh = self._clock() + pause
        staple.tried.set()
        if asks and events.handler is not None:
            events.emit(
                "ocsp_fetch",
                side="server",
                names=staple.names,
                status=staple.response.status if staple.response and problem is None else None,
                seconds=staple.seconds,
                next_refresh=staple.next_refresh,
                error=problem,
            )
        del problem  # its traceback has this frame, and so the Stapler
        return pause

    def _ask(self, staple: _Staple) -> None:
        began = perf_counter()
        try:
            der = self._fetch(staple.url, staple.request, FETCH_TIMEOUT)
        finally:
            staple.seconds = perf_counter() - began
        response = self._adopt(staple, der)
        if response is not None:
            for store in (self._files, self._store):
                if store is not None:
                    lifetime = response.good_until - self._clock()
                    self._call(store, "put", partial(store.put, staple.key, der, lifetime))

    def _recall(self, staple: _Staple, store: SessionStore | None) -> None:
        """Takes the response that another worker, or an earlier process, has put into the store."""
        der = self._call(store, "get", partial(store.get, staple.key)) if store is not None else None
        if der is not None:
            try:
                self._adopt(staple, der)
            except OCSPError as error:
                log.info("%s: from %s: %s", ", ".join(staple.names), store.name if store else "", str(error))

    def _adopt(self, staple: _Staple, der: bytes) -> CheckedResponse | None:
        """Takes a response if it is the newest one. Returns it, or None. Raises OCSPError if it does not verify."""
        now = self._clock()
        response = check_response(der, staple.certificate, staple.issuer, now)
        if response.status == "unknown":
            raise OCSPError(f"{response.responder} does not know the certificate")
        if response.good_until <= now:  # it verifies because of CLOCK_SKEW, which clients need not allow
            raise OCSPError("expired")
        if staple.response is not None and response.this_update <= staple.response.this_update:
            return None
        staple.response = response
        staple.tried.set()
        if response.status == "revoked":
            log.critical("%s", str(staple))
        return response

    @staticmethod
    def _call(store: SessionStore, what: str, call: Callable[[], T]) -> T | None:
        """Calls a method of the store. Returns its result, None if it fails."""
        deadline = Deadline(STORE_TIMEOUT, "no answer in {} s")
        try:
            with deadline:
                return call()
        except Exception as error:
            log.warning("%s: %s: %s", store.name, what, str(error) if deadline.passed else repr(error))
            return None


def _look_after(reference: weakref.ref[Stapler], staple: _Staple) -> None:
    """Runs in the greenlet of one certificate. Does not keep the Stapler alive while it sleeps."""
    while True:
        stapler = reference()
        if stapler is None or not stapler._wants(staple):
            return
        pause = stapler._refresh(staple)
        del stapler
        here().sleep(pause)


class _Staple:
    """A certificate and its newest response."""

    def __init__(self, chain: CertificateChain, issuers: Iterable[x509.Certificate]) -> None:
        self.der = chain.der
        self.certificate = chain.certificate
        self.names = chain.names
        self.must_staple = chain.must_staple
        self.key = hashlib.sha256(b"greentls OCSP response 1" + chain.der).digest()  # in stores
        self.response: CheckedResponse | None = None  # the newest, whatever it says and however old it is
        self.error = ""
        self.failures = 0  # since the last success
        self.seconds = 0.0  # of the last fetch
        self.tried = here().event()  # there is a response, or a fetch has failed
        self.next_refresh: float | None = None
        self.used = 0.0  # when a handshake last used it, seconds since the epoch
        self.kept = False  # by add()
        self.keeper: Task | None = None  # the greenlet that fetches
        self._jitter = random.uniform(0.5, 0.6)
        url = responder_url(chain.certificate)
        issuer = issuer_of(chain.certificate, (*chain.intermediates, *issuers))
        self.exempt = not self.must_staple and (url is None or is_short_lived(chain.certificate))
        self.url = url or ""
        self.request = b""  # empty: there is no responder to ask
        if self.exempt:
            pass
        elif url is None:
            self.error = "the certificate names no HTTP responder"
        elif issuer is None:
            self.error = "its issuer is neither in the chain nor among the issuers that Stapler() was given"
        else:
            self.issuer, self.request = issuer, build_request(chain.certificate, issuer)
        if not self.request:
            self.tried.set()

    @property
    def half_life(self) -> float:
        """When to fetch a newer response, in seconds since the epoch."""
        if self.response is None:
            return 0.0
        begins = self.response.this_update
        return begins + (self.response.good_until - begins) * self._jitter

    @property
    def problem(self) -> str:
        """The reason why there is nothing to staple."""
        response = self.response
        if response is not None and response.status == "revoked":
            return f"REVOKED since {response.revocation}"
        return ("the last one has run out; " if response is not None else "") + (self.error or "none has come yet")

    def __str__(self) -> str:
        revoked = self.response is not None and self.response.status == "revoked"
        return f"{', '.join(self.names)}: {self.problem if revoked else self.error}"

    def facts(self, now: float) -> StapleFacts:
        response = self.response
        return StapleFacts(
            self.names,
            self.url or None,
            response.status if response else None,
            now - response.this_update if response else None,
            response.good_until if response else None,
            self.next_refresh,
            self.error,
        )
