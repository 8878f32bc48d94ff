"""here(): the hub of the running greenlet, found at run time."""

from __future__ import annotations

from collections.abc import Callable

from greentls.hub.protocol import Hub

__all__ = ["find_first", "here"]


def here() -> Hub:
    """The hub of the running greenlet."""
    if _find is not None and (hub := _find()) is not None:
        return hub
    return _gevents()


def find_first(find: Callable[[], Hub | None]) -> None:
    """A second kind of hub: find() returns the running greenlet's, or None if that is under gevent."""
    global _find
    _find = find


def _import_gevent() -> Hub:
    global _gevents
    from greentls.hub import gevent

    _gevents = gevent.here
    return _gevents()


_find: Callable[[], Hub | None] | None = None  # of greentls.hub.asyncio, once that is imported
_gevents: Callable[[], Hub] = _import_gevent  # a program under asyncio need not have gevent
