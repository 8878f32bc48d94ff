"""Callbacks may be coroutine functions, where an event loop runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from greentls.hub.finding import here

__all__ = ["as_function"]

Function = TypeVar("Function", bound=Callable[..., Any] | None)  # Any: whatever it takes and returns


def as_function(function: Function) -> Function:
    """The function itself; for a coroutine function, a function that waits for its coroutine.

    Two of one coroutine function are equal. Under gevent, which has no coroutines, such a call raises TypeError.
    """
    call = getattr(type(function), "__call__", None)  # noqa: B004  # not whether it is callable: which method that is
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        return cast(Function, _Waiting(cast(Callable[..., Any], function)))
    return function


@dataclass(frozen=True)
class _Waiting:
    function: Callable[..., Any]

    def __call__(self, *arguments: object, **options: Any) -> Any:
        return here().result(self.function(*arguments, **options))
