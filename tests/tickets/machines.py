"""Machines with ticket keys: their clocks, their files, a store that fails, and how to wait for them."""

from __future__ import annotations

import base64
import gc

import gevent

from greentls.hub import here
from greentls.stores.memory import MemoryStore
from greentls.tickets import LIFETIME, TicketKeys

NOW = 1_800_000_000


ROTATION = LIFETIME / 4


class Clock:
    """One machine's. Where several share an instance, others may be ahead of it."""

    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now

    def ahead(self, seconds):
        return lambda: self.now + seconds


def haproxy(*keys):
    return b"".join(base64.b64encode(each.name + each.aes + each.hmac) + b"\n" for each in keys)


def nginx(key):
    return key.name + (key.hmac + key.aes if len(key.aes) == 32 else key.aes + key.hmac)


def looking():
    """The greenlets that look at a store."""
    found = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.ready()]
    return [each for each in found if getattr(each, "_run", None) and each._run.__name__ == "look"]


class Failing:
    """A store that does what it is told: fail, forget, hang, or be slow."""

    name, shared, private = "failing", True, True

    def __init__(self):
        self.inner = MemoryStore()
        self.error = None
        self.hang = None
        self.calls = 0

    def gets(self, name):
        self.calls += 1
        if self.hang is not None:
            self.hang.wait()
        if self.error is not None:
            raise self.error
        here().sleep(0)
        return self.inner.gets(name)

    def cas(self, name, value, token, lifetime):
        here().sleep(0)
        return self.inner.cas(name, value, token, lifetime)

    def add(self, name, value, lifetime):
        raise NotImplementedError


def fleet(store, clock, count=2, **options):
    return [TicketKeys.shared(store, clock=clock, **options) for _ in range(count)]


def refresh(*machines):
    for each in machines:
        each.refresh()
