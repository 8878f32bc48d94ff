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
    """Adds a kind of hub. find: returns the hub of the running greenlet, None if that is gevent's."""
    global _find
    _find = find


def _import_gevent() -> Hub:
    global _gevents
    from greentls.hub import gevent

    _gevents = gevent.here
    return _gevents()


_find: Callable[[], Hub | None] | None = None  # set when greentls.hub.asyncio is imported
_gevents: Callable[[], Hub] = _import_gevent  # at the first use: a program under asyncio needs no gevent
