"""here(): the hub of the running greenlet, found at run time."""

from __future__ import annotations

from collections.abc import Callable

from greentls.hub.protocol import Hub

__all__ = ["here"]


def here() -> Hub:
    """The hub of the running greenlet."""
    return _here()


def _import_gevent() -> Hub:
    global _here
    from greentls.hub import gevent

    _here = gevent.here
    return _here()


_here: Callable[[], Hub] = _import_gevent
