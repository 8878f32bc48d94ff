"""Callbacks may be coroutine functions if an event loop runs."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast, overload

from greenlet import getcurrent

from greentls.hub.finding import here

__all__ = ["MayWait", "as_function", "asker"]

T = TypeVar("T")
P = ParamSpec("P")
MayWait: TypeAlias = T | Coroutine[Any, Any, T]  # of a function, or a coroutine function. Any: as of any coroutine

# In a callback's coroutine, and in the tasks that it makes: a weak reference to the greenlet that waits for it.
_asker: ContextVar[Callable[[], object]] = ContextVar("_asker", default=getcurrent)


def asker() -> object:
    """In a callback's coroutine, the greenlet that waits for it; elsewhere the running greenlet."""
    return _asker.get()()


@overload
def as_function(function: None) -> None: ...
@overload
def as_function(function: Callable[P, MayWait[T]]) -> Callable[P, T]: ...
@overload
def as_function(function: Callable[P, MayWait[T]] | None) -> Callable[P, T] | None: ...
def as_function(function: Callable[P, MayWait[T]] | None) -> Callable[P, T] | None:
    """Returns a function as it is, and for a coroutine function a function that waits for its coroutine.

    Two results for the same coroutine function are equal. Under gevent, which runs no coroutines, calling one raises
    TypeError.
    """
    call = getattr(type(function), "__call__", None)  # noqa: B004  # looks at the method itself
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        return _Waiting(cast("Callable[..., Awaitable[object]]", function))
    return cast("Callable[P, T] | None", function)


@dataclass(frozen=True)
class _Waiting:
    function: Callable[..., Awaitable[object]]

    def __call__(self, *arguments: object, **options: object) -> Any:  # Any: what the coroutine returns
        before = _asker.set(weakref.ref(getcurrent()))
        try:
            return here().result(self.function(*arguments, **options))
        finally:
            _asker.reset(before)
