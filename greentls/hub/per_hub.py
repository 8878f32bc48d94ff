"""What belongs to a hub belongs to a thread and to a process, too: sockets, timers and greenlets work nowhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from weakref import WeakMethod

from greentls.hub.finding import here

__all__ = ["PerHub", "ThreadLocal", "after_fork", "unpatched"]

P = ParamSpec("P")
T = TypeVar("T")


def unpatched(module: str, name: str) -> Any:
    """What a module has under a name, whether gevent has patched it or not. Any: as found at run time."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(import_module(module), name)


if TYPE_CHECKING:
    from threading import local as ThreadLocal
else:
    # Of each native thread. gevent replaces the standard library's by one of each greenlet.
    ThreadLocal = unpatched("_thread", "_local")


class PerHub(ThreadLocal, Generic[P, T]):
    """One object for each hub: made by a function at the first get() under a hub, and anew in a forked process.

    It ends with the thread, or with this PerHub. With one thread for each hub that needs no lock, and no weak key: the
    object may refer to its hub.
    """

    _hub: Any = None  # any object that is here() for as long as the hub lives

    def __init__(self, make: Callable[P, T]) -> None:  # once in each thread
        self._make = make
        after_fork(self._forget)

    def get(self, *arguments: P.args, **options: P.kwargs) -> T:
        """This hub's. The arguments are the function's, if there is none yet."""
        hub = here()
        if self._hub is not hub:
            made = self._make(*arguments, **options)
            if self._hub is not hub:  # a finalizer or a signal handler may have come between
                self._made, self._hub = made, hub
        return self._made

    def _forget(self) -> None:
        self._hub = None


_after_fork: set[WeakMethod[Callable[[], object]]] = set()


def after_fork(method: Callable[[], object]) -> None:
    """Calls a bound method in every forked child, for as long as its object lives."""
    _after_fork.add(WeakMethod(method, _after_fork.discard))


def _forked() -> None:
    for reference in list(_after_fork):
        if (method := reference()) is not None:
            method()


os.register_at_fork(after_in_child=_forked)
