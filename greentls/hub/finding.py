"""here() finds the hub of the running greenlet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from greentls.hub.protocol import Hub

__all__ = ["find_first", "here"]


def here() -> Hub:
    """The hub of the running greenlet."""
    if _find is not None and (hub := _find()) is not None:
        return hub
    try:
        return _get_hub().greentls  # type: ignore[no-any-return]  # gevent is untyped
    except AttributeError:
        return _first()


def find_first(find: Callable[[], Hub | None]) -> None:
    """Adds a kind of hub. find(): returns the hub of the running greenlet, None if the greenlet is gevent's."""
    global _find
    _find = find


def _first() -> Hub:
    """Makes the hub for one of gevent's hubs. This imports gevent, which a program under asyncio does not need."""
    global _get_hub
    from greentls.hub.gevent import GeventHub, get_hub

    _get_hub = get_hub
    hub = get_hub()
    hub.greentls = found = GeventHub(hub)
    return found


_find: Callable[[], Hub | None] | None = None  # set when greentls.hub.asyncio is imported
_get_hub: Callable[[], Any] = object  # gevent's get_hub(), once _first() has run. Any: gevent is untyped
