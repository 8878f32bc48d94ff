"""Replacements of select(), poll() and selectors, which see the data that a socket of greentls has read ahead.

monkey.patch() puts them in place. The kernel knows nothing of data that a socket has read already. So while
monkey.patch() is in force, sockets that speak TLS are known by their descriptors, and whatever the program asks about
(a socket, its descriptor, a file over it) is looked up. If one of them has data, the call does not wait: it asks the
kernel without a timeout, and adds the sockets with data to the answer.
"""

from __future__ import annotations

import functools
import select
import selectors
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import gevent.monkey
import gevent.select
import gevent.selectors

from greentls.ssl.plain_socket import PlainSocket
from greentls.ssl.socket import SSLSocket

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["KNOWN", "is_ours", "replacements", "seeing", "selector_classes"]

Original = Callable[..., Any]  # Any: select(), poll() or a method select(), the standard library's or gevent's


#: SSLSocket.by_descriptor while monkey.patch() is in force. Never another one: gevent's patching undoes ours for a
#: moment, and the sockets must be known afterwards.
KNOWN: weakref.WeakValueDictionary[int, SSLSocket | PlainSocket] = weakref.WeakValueDictionary()


def at_hand(thing: FileDescriptorLike) -> bool:
    """Whether the socket of this descriptor, or with this fileno(), has data to read without a wait."""
    known = SSLSocket.by_descriptor
    if not known:
        return False
    try:
        descriptor = thing if isinstance(thing, int) else thing.fileno()
    except (AttributeError, OSError, ValueError):
        return False  # the original function knows the error
    sock = known.get(descriptor)
    return sock is not None and sock.fileno() == descriptor and sock.pending() > 0


class _Select:
    """select.select(), or gevent's. An object, not a function: a class that has it as an attribute, as selectors have,
    must not make a method of it."""

    def __init__(self, original: Original) -> None:
        self._original = original

    def __call__(
        self,
        rlist: Iterable[FileDescriptorLike],
        wlist: Iterable[FileDescriptorLike],
        xlist: Iterable[FileDescriptorLike],
        timeout: float | None = None,
    ) -> tuple[list[FileDescriptorLike], list[FileDescriptorLike], list[FileDescriptorLike]]:
        asked = list(rlist)
        ready = {id(each) for each in asked if at_hand(each)}
        if not ready:
            return self._original(asked, wlist, xlist, timeout)  # type: ignore[no-any-return]  # select()'s
        readable, writable, exceptional = self._original(asked, wlist, xlist, 0)
        ready.update(map(id, readable))
        return [each for each in asked if id(each) in ready], writable, exceptional


class _Poll:
    """select.poll(), or gevent's."""

    _original: Original

    def __init__(self) -> None:
        self._poll = self._original()
        self._masks: dict[int, int] = {}

    def register(
        self, fd: FileDescriptorLike, eventmask: int = select.POLLIN | select.POLLPRI | select.POLLOUT
    ) -> None:
        self._poll.register(fd, eventmask)
        self._masks[_descriptor(fd)] = eventmask

    def modify(self, fd: FileDescriptorLike, eventmask: int) -> None:
        self._poll.modify(fd, eventmask)
        self._masks[_descriptor(fd)] = eventmask

    def unregister(self, fd: FileDescriptorLike) -> None:
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


def _descriptor(thing: FileDescriptorLike) -> int:
    return thing if isinstance(thing, int) else int(thing.fileno())


@functools.cache
def _instead(original: Original) -> type[_Poll] | _Select:
    if getattr(original, "__name__", "") == "poll":
        return type("poll", (_Poll,), {"_original": staticmethod(original)})
    return _Select(original)


def replacements() -> list[tuple[Original, type[_Poll] | _Select]]:
    """Pairs of a function of the standard library's or gevent's, and ours for it."""
    originals = [
        each
        for name in ("select", "poll")
        for each in (gevent.monkey.get_original("select", name), getattr(gevent.select, name))
    ]
    return [(each, _instead(each)) for each in originals if not is_ours(each)]


def is_ours(thing: object) -> bool:
    return isinstance(thing, _Select) or (isinstance(thing, type) and issubclass(thing, _Poll))


def selector_classes() -> Iterator[type]:
    """The classes of selectors, and of gevent.selectors, that have a select() of their own."""
    base = selectors.BaseSelector
    kinds = [*vars(selectors).values(), *vars(gevent.selectors).values()]
    for kind in dict.fromkeys(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, base)):
        if "select" in vars(kind) and kind is not base:
            yield kind


def seeing(original: Original) -> Original:
    """A selector class's method select(), in the place of the original."""

    @functools.wraps(original)
    def select(self: selectors.BaseSelector, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
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
    """The registered keys that may be sockets of ours. An asyncio loop may have thousands of others."""
    keys, known = selector.get_map(), SSLSocket.by_descriptor
    if not keys or not known:
        return []
    if len(keys) <= len(known):
        return list(keys.values())
    return [keys[fd] for fd in list(known) if fd in keys]
