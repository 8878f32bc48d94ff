"""select(), poll() and selectors that see what a socket of greentls has read ahead. monkey.patch() puts them in place.

A descriptor is what these functions are told, and what they ask the kernel about. So a socket that speaks TLS is known
by its descriptor while we are patched, and whatever the program gives (the socket, its descriptor, a file over it) is
looked up. If one of those asked about has data at hand, nobody waits: the kernel is asked without a timeout, and its
answer completed.
"""

from __future__ import annotations

import functools
import select
import selectors
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import gevent.monkey
import gevent.select
import gevent.selectors

from greentls.ssl.plain_socket import PlainSocket
from greentls.ssl.socket import SSLSocket

__all__ = ["KNOWN", "is_ours", "replacements", "seeing", "selector_classes"]


#: What SSLSocket.by_descriptor is while we are patched. One for ever: gevent's patching undoes ours for a moment.
KNOWN: weakref.WeakValueDictionary[int, SSLSocket | PlainSocket] = weakref.WeakValueDictionary()


def at_hand(thing: Any) -> bool:
    """Whether reading from what has this descriptor, or is it, needs no wait for the descriptor."""
    known = SSLSocket.by_descriptor
    if not known:
        return False
    try:
        descriptor = thing if isinstance(thing, int) else thing.fileno()
    except (AttributeError, OSError, ValueError):
        return False  # whoever is asked next knows the error
    sock = known.get(descriptor)
    return sock is not None and sock.fileno() == descriptor and sock.pending() > 0


class _Select:
    """select.select(), or gevent's. No function: what a class has as an attribute must not become its method."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __call__(self, rlist: Iterable[Any], wlist: Any, xlist: Any, timeout: float | None = None) -> Any:
        asked = list(rlist)
        ready = {id(each) for each in asked if at_hand(each)}
        if not ready:
            return self._original(asked, wlist, xlist, timeout)
        readable, *others = self._original(asked, wlist, xlist, 0)
        ready.update(map(id, readable))
        return [each for each in asked if id(each) in ready], *others


class _Poll:
    """select.poll(), or gevent's."""

    _original: Any

    def __init__(self) -> None:
        self._poll = self._original()
        self._masks: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = select.POLLIN | select.POLLPRI | select.POLLOUT) -> None:
        self._poll.register(fd, eventmask)
        self._masks[_descriptor(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int) -> None:
        self._poll.modify(fd, eventmask)
        self._masks[_descriptor(fd)] = eventmask

    def unregister(self, fd: Any) -> None:
        self._poll.unregister(fd)
        self._masks.pop(_descriptor(fd), None)

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        ready = [fd for fd, mask in self._masks.items() if mask & select.POLLIN and at_hand(fd)]
        if not ready:
            return self._poll.poll(timeout)  # type: ignore[no-any-return]  # whatever poll() it is
        found = dict(self._poll.poll(0))
        for fd in ready:
            found[fd] = found.get(fd, 0) | select.POLLIN
        return list(found.items())


def _descriptor(thing: Any) -> int:
    return thing if isinstance(thing, int) else int(thing.fileno())


@functools.cache
def _instead(original: Any) -> Any:
    if getattr(original, "__name__", "") == "poll":
        return type("poll", (_Poll,), {"_original": staticmethod(original)})
    return _Select(original)


def replacements() -> list[tuple[Any, Any]]:
    """(the standard library's or gevent's, ours)."""
    originals = [
        each
        for name in ("select", "poll")
        for each in (gevent.monkey.get_original("select", name), getattr(gevent.select, name))
    ]
    return [(each, _instead(each)) for each in originals if not is_ours(each)]


def is_ours(thing: Any) -> bool:
    return isinstance(thing, _Select) or (isinstance(thing, type) and issubclass(thing, _Poll))


def selector_classes() -> Iterator[type]:
    """Those of selectors and of gevent that have a select() of their own."""
    base = selectors.BaseSelector
    kinds = [*vars(selectors).values(), *vars(gevent.selectors).values()]
    for kind in dict.fromkeys(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, base)):
        if "select" in vars(kind) and kind is not base:
            yield kind


def seeing(original: Any) -> Any:
    """A selector's method select()."""

    @functools.wraps(original)
    def select(self: Any, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = [key for key in _known_keys(self) if key.events & selectors.EVENT_READ and at_hand(key.fd)]
        if not ready:
            return original(self, timeout)  # type: ignore[no-any-return]  # a selector's
        found = {key.fd: (key, events) for key, events in original(self, 0)}
        for key in ready:
            _, events = found.get(key.fd, (key, 0))
            found[key.fd] = key, events | selectors.EVENT_READ
        return list(found.values())

    return select


def _known_keys(selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    """What is registered and may be a socket of ours: an asyncio loop has thousands that are not."""
    keys, known = selector.get_map(), SSLSocket.by_descriptor
    if not keys or not known:
        return []
    if len(keys) <= len(known):
        return list(keys.values())
    return [keys[fd] for fd in list(known) if fd in keys]
