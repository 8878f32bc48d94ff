"""PerHub: one object for each hub. A socket, timer or greenlet works only in one thread of one process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakMethod

from greentls.hub.finding import here
from greentls.hub.protocol import Hub

__all__ = ["PerHub", "ThreadLocal", "after_fork", "unpatched"]

T = TypeVar("T")


def unpatched(module: str, name: str) -> Any:  # Any: found at run time
    """The original value of a module's name, even if gevent has patched it."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(import_module(module), name)


if TYPE_CHECKING:
    from threading import local as ThreadLocal
else:
    # Of native threads. In a patched program each greenlet has its own threading.local.
    ThreadLocal = unpatched("_thread", "_local")


class PerHub(ThreadLocal, Generic[T]):
    """One object for each hub. A function makes it at the first get() in that hub, and again in a forked process.

    The object is freed with its thread, or with this PerHub. A hub has one thread, so this needs neither a lock nor a
    weak key, and the object may refer to its hub.
    """

    _kept: tuple[Hub | None, Any] = None, None  # the hub and its object. Any: T if there is a hub

    def __init__(self, make: Callable[[], T]) -> None:  # once in each thread
        self._make = make
        after_fork(self._forget)

    def get(self) -> T:
        """This hub's object."""
        hub, kept = here(), self._kept
        if kept[0] is not hub:
            made, kept = self._make(), self._kept
            if kept[0] is not hub:  # otherwise a finalizer or a signal handler has made one meanwhile
                self._kept = kept = hub, made
        found: T = kept[1]
        return found

    def _forget(self) -> None:
        self._kept = None, None


_after_fork: set[WeakMethod[Callable[[], object]]] = set()


def after_fork(method: Callable[[], object]) -> None:
    """Calls a bound method in every forked child, for as long as its object lives."""
    _after_fork.add(WeakMethod(method, _after_fork.discard))


def _forked() -> None:
    for reference in list(_after_fork):
        if (method := reference()) is not None:
            method()


os.register_at_fork(after_in_child=_forked)
