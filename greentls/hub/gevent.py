"""gevent's hub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import gevent
import gevent.socket
from gevent import get_hub
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from greenlet import getcurrent

from greentls.hub.protocol import Hub

__all__ = ["here"]

T = TypeVar("T")


def here() -> Hub:
    """This thread's."""
    hub = get_hub()
    try:
        found: Hub = hub.greentls
    except AttributeError:
        found = hub.greentls = _GeventHub(hub)
    return found


class _GeventHub:
    socket: Any = gevent.socket
    spawn = staticmethod(gevent.spawn)
    sleep = staticmethod(gevent.sleep)
    event = Event
    semaphore = BoundedSemaphore

    def __init__(self, hub: Any) -> None:
        self._loop = hub.loop
        self.call_soon = hub.loop.run_callback
        self.call_from_thread = hub.loop.run_callback_threadsafe

    def later(
        self, seconds: float, function: Callable[..., object], *arguments: Any, ref: bool = True
    ) -> Callable[[], object]:
        timer = self._loop.timer(seconds, ref=ref, priority=-1)
        # update: the clock is not that of the loop's last turn
        timer.start(function, *arguments, update=True)
        cancel: Callable[[], object] = timer.close
        return cancel

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        result: T = get_hub().threadpool.apply(function, arguments)
        return result

    def result(self, awaitable: Awaitable[T]) -> T:
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # or it would be said that it was never awaited
        raise TypeError("a coroutine function answers under asyncio only (greentls.aio): gevent runs functions")

    def readable(self, sock: Any, timeout: float) -> _Readable:
        return _Readable(self._loop, sock, timeout)


class _Readable:
    """One timer serves all the waits: a gevent.Timeout for each took as long as its system calls."""

    def __init__(self, loop: Any, sock: Any, timeout: float) -> None:
        self._watcher = loop.io(sock.fileno(), 1)
        self._timer = loop.timer(timeout, timeout, priority=-1)

    def wait(self) -> None:
        # Not start(): in libev a timer that was stopped goes on with what time it had left.
        self._timer.again(getcurrent().throw, TimeoutError, "timed out", update=True)
        try:
            get_hub().wait(self._watcher)
        finally:
            self._timer.stop()

    def close(self) -> None:
        self._watcher.close()
        self._timer.close()
