"""How the tests of Stapler use one, and how they wait for it."""

from __future__ import annotations

import time
from types import SimpleNamespace

import gevent

from greentls.certificates import CertificateChain
from greentls.ocsp import check_response
from tests.support.helpers import wait_until


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


def check_shared(stores, staplers, authority, responder):
    chain, staples = chain_of(authority.issue()), set()
    for store in stores:
        stapler = staplers(store=store, wait_for_first=True)
        staples.add(ask(stapler, chain))
        tried(stapler)  # and put
    assert len(staples) == len(responder.requests) == 1
