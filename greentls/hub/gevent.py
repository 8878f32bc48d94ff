"""The hub of gevent."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import ModuleType
from typing import TypeVar

import gevent
import gevent.socket
from gevent import get_hub
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from greenlet import getcurrent

__all__ = ["GeventHub", "get_hub"]

T = TypeVar("T")


_Calls = deque[tuple[Callable[..., object], tuple[object, ...]]]


class GeventHub:
    socket: ModuleType = gevent.socket
    spawn = staticmethod(gevent.spawn)
    sleep = staticmethod(gevent.sleep)
    event = Event
    semaphore = BoundedSemaphore

    def __init__(self, hub: gevent.hub.Hub) -> None:
        self._loop = hub.loop
        self.deadlines: dict[float, object] = {}
        self.timer = partial(hub.loop.timer, priority=-1)
        self.call_soon = hub.loop.run_callback
        self._caller: _Caller | None = None

    def caller(self) -> _Caller:
        if self._caller is None:
            self._caller = _Caller(self._loop)
        return self._caller

    def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        result, error = get_hub().threadpool.apply(_outcome, (function, arguments))
        if error is None:
            return result  # type: ignore[no-any-return]  # gevent is untyped
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def result(self, awaitable: Awaitable[T]) -> T:
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # otherwise Python warns that it was never awaited
        raise TypeError("gevent cannot run a coroutine function: pass a function, or use greentls.aio")

    def readable(self, descriptor: int, timeout: float) -> _Readable:
        return _Readable(self._loop, descriptor, timeout)


def _outcome(function: Callable[..., T], arguments: tuple[object, ...]) -> tuple[T | None, BaseException | None]:
    """Returns what the function raises: if it left the function, gevent would print it in the thread."""
    try:
        return function(*arguments), None
    except BaseException as error:
        return None, error


class _Caller:
    """Calls functions in the hub for other threads, which leave them here and only wake the loop.

    run_callback_threadsafe() would count a reference to the loop in the other thread, while the loop's own thread may
    change the same number in C, without the GIL. Once in some 100,000 calls one of both changes is lost. A loop that
    counts too few references ends while greenlets wait for it: they get LoopExit.
    """

    def __init__(self, loop: gevent.core.loop) -> None:
        self._calls: _Calls = deque()
        self._watcher = loop.async_(ref=False)
        self._watcher.start(_make, self._calls, loop)

    def __call__(self, function: Callable[..., object], *arguments: object) -> None:
        self._calls.append((function, arguments))
        self._watcher.send()


def _make(calls: _Calls, loop: gevent.core.loop) -> None:
    for _ in range(len(calls)):
        function, arguments = calls.popleft()
        loop.run_callback(function, *arguments)


class _Readable:
    """Uses one timer for all waits: a gevent.Timeout for each took as long as the system calls."""

    def __init__(self, loop: gevent.core.loop, descriptor: int, timeout: float) -> None:
        self._watcher = loop.io(descriptor, 1)
        self._timer = loop.timer(timeout, timeout, priority=-1)

    def wait(self) -> None:
        # again() and not start(): a stopped timer of libev would continue with its remaining time.
        self._timer.again(getcurrent().throw, TimeoutError, "timed out", update=True)
        try:
            get_hub().wait(self._watcher)
        finally:
            self._timer.stop()

    def close(self) -> None:
        self._watcher.close()
        self._timer.close()
