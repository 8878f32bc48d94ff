"""The hub for asyncio, and for every loop with asyncio's interface. Its greenlets wait in an event loop.

A coroutine can wait only if all its callers are coroutines, but OpenSSL's callbacks are called from C. A greenlet can
wait anywhere, also without gevent. The parent of each greenlet is the greenlet in which the loop runs. To wait, a
greenlet switches to its parent, as if its function had returned, and the loop continues. To end the wait, a callback of
the loop switches back.

- Only the loop's own greenlet resumes a greenlet, because the greenlet switches back there at its next wait. So if one
  greenlet acts on another, for example by Event.set(), that happens in a callback at the loop's next turn.
- A wait ends once: by an answer, a deadline or a kill. Whatever comes later has no effect (_Wait).
- The loop's own greenlet never waits. A call there that would wait, in a callback or a coroutine, raises
  WrongThreadError. ``await hub.run(function)`` runs a function in a greenlet, where it can wait.
- A coroutine that a greenlet waits for runs in its own asyncio task (AsyncioHub.result).
- While libuv polls, its loop has a pointer to an array of 15 KiB on the C stack. uv_poll_start(), called by
  add_reader(), reads and writes that array. When a greenlet that started higher up the stack runs, greenlet moves that
  part of the loop's stack away; libuv would then write into the greenlet's own stack. So greenlets start far below
  (_far_below).

here() returns this hub in a thread where an event loop runs. A patched program may run the loop in one of gevent's
greenlets. In that case here() returns this hub only in greenlets that it has made, and gevent's in all others.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import AbstractEventLoop, Handle
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from contextvars import Context, copy_context
from functools import partial
from types import ModuleType
from typing import TypeVar, cast

from greenlet import GreenletExit, getcurrent, greenlet

from greentls.errors import WrongThreadError
from greentls.hub import asyncio_sockets
from greentls.hub.asyncio_sockets import Addresses
from greentls.hub.finding import find_first
from greentls.hub.protocol import Hub

__all__ = ["AsyncioHub", "Task", "hub_of"]

T = TypeVar("T")

_ATTRIBUTE = "_greentls_hub"  # the attribute of a loop that holds its hub


def hub_of(loop: AbstractEventLoop) -> AsyncioHub:
    """The hub of an event loop. To be called in the loop's thread."""
    hub: AsyncioHub | None = getattr(loop, _ATTRIBUTE, None)
    if hub is None:
        hub = AsyncioHub(loop)
        setattr(loop, _ATTRIBUTE, hub)
    return hub


def _find() -> Hub | None:
    me = getcurrent()
    if type(me) is Task:
        return me.hub
    loop, gevents = asyncio._get_running_loop(), sys.modules.get("gevent.hub")
    if loop is None:
        if gevents is None:
            raise WrongThreadError("no event loop runs in this thread: nothing can wait here")
        return None
    while me is not None:
        if type(me) is Task:
            return me.hub
        if gevents is not None and isinstance(me, gevents.Hub):
            return None
        me = me.parent
    return hub_of(loop)


find_first(_find)


class AsyncioHub:
    """A greentls.hub.Hub. run() lets a coroutine wait for a greenlet, and result() lets a greenlet wait for a
    coroutine."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.deadlines: dict[float, object] = {}

    # -- between coroutines and greenlets ------------------------------------------------------------------------------

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls a function that may wait, in a greenlet that starts at once. Returns or raises what the function does.

        An exception that is raised in this coroutine meanwhile, such as CancelledError, is raised where the function
        waits.
        """
        task = Task(self, function, arguments)
        task.start()
        if not task.dead:
            ended = asyncio.Event()
            task.rawlink(lambda _: ended.set())
        while not task.dead:
            try:
                await ended.wait()
            except BaseException as error:
                task.throw_in(error)
        return cast(T, task.outcome())

    def result(self, awaitable: Awaitable[T]) -> T:
        future = asyncio.ensure_future(awaitable, loop=self.loop)
        try:
            if not future.done():
                wait = _Wait(self)
                future.add_done_callback(wait.end_now)
                try:
                    wait()
                except BaseException:
                    future.cancel()
                    raise
            return future.result()
        finally:
            del future  # the traceback of its exception has this frame

    # -- greentls.hub.Hub ----------------------------------------------------------------------------------------------

    socket: ModuleType = asyncio_sockets.module

    def spawn(self, function: Callable[..., object], *arguments: object) -> Task:
        task = Task(self, function, arguments)
        task.rawlink(Task.report)
        self.call_soon(task.start)
        return task

    def sleep(self, seconds: float) -> None:
        wait = _Wait(self)
        handle = self.loop.call_later(seconds, wait.end_now)
        try:
            wait()
        finally:
            handle.cancel()

    def event(self) -> _Event:
        return _Event(self)

    def semaphore(self, places: int) -> AbstractContextManager[None]:
        return _Semaphore(self, places)

    def timer(self, seconds: float, *, ref: bool = True) -> _Timer:
        return _Timer(self.loop, seconds)

    def call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        if not self.loop.is_closed():  # a greenlet may outlive its loop
            self.loop.call_soon(function, *arguments)

    def caller(self) -> Callable[..., object]:
        return self._call_from_thread

    def _call_from_thread(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(function, *arguments)

    def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return self.result(self.loop.run_in_executor(None, function, *arguments))

    def readable(self, descriptor: int, timeout: float) -> _Readable:
        return _Readable(self, descriptor, timeout)

    # -- for its sockets: greentls.hub.asyncio_sockets.SocketHub -------------------------------------------------------

    def getaddrinfo(self, host: str | None, port: int | str | None, **options: int) -> Addresses:
        return self.result(self.loop.getaddrinfo(host, port, **options))

    def until_ready(self, descriptor: int, writing: bool, timeout: float | None) -> None:
        add, remove = self.loop.add_reader, self.loop.remove_reader
        if writing:
            add, remove = self.loop.add_writer, self.loop.remove_writer
        wait = _Wait(self)
        add(descriptor, wait.end_now)
        try:
            if timeout is None:
                wait()
                return
            timer = self.timer(timeout)
            timer.start(getcurrent().throw, TimeoutError, "timed out", update=True)
            try:
                wait()
            finally:
                timer.close()
        finally:
            remove(descriptor)


class Task(greenlet):  # type: ignore[misc]  # greenlet is untyped
    """A greentls.hub.Task."""

    gr_context: Context | None

    def __init__(self, hub: AsyncioHub, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        super().__init__()
        self.hub = hub
        self.gr_context = copy_context()
        self._function, self._arguments = function, arguments
        self._outcome: tuple[object, BaseException | None] = None, None
        self._links: list[Callable[[Task], object]] = []

    def start(self) -> None:
        """Runs this greenlet until it waits or ends."""
        if not self.dead:
            _far_below(partial(self.enter, self.switch))

    def enter(self, how: Callable[..., object], *arguments: object) -> None:
        """Runs this greenlet until it waits or ends. After that, the loop's greenlet resumes it.

        how: its switch() or throw(). To be called in the loop's greenlet or in a task: a callback that is a function
        may use another connection.
        """
        me = self.parent = getcurrent()
        how(*arguments)
        while type(me) is Task:
            me = self.parent = me.parent

    def run(self) -> None:
        function, arguments = self._function, self._arguments
        del self._function, self._arguments
        try:
            self._outcome = function(*arguments), None
        except BaseException as error:
            self._outcome = None, error
        finally:
            self._end()

    def throw_in(self, error: BaseException) -> None:
        """Raises the error where this greenlet waits. To be called in the loop's greenlet."""
        if self:
            self.throw(error)
        elif not self.dead:
            self.parent = getcurrent()
            self.throw(GreenletExit)  # it has not started, and never will
            self._outcome = None, error
            self._end()

    def outcome(self) -> object:
        """Returns or raises what the function did. To be called once, when this greenlet is dead."""
        value, error = self._outcome
        self._outcome = None, None
        if error is None:
            return value
        try:
            raise error
        finally:
            del error, self  # the traceback has this frame

    def report(self) -> None:
        """Reports what the function raised to the loop's exception handler."""
        try:
            self.outcome()
        except GreenletExit:
            pass
        except Exception as error:
            self.hub.loop.call_exception_handler({"message": f"greenlet of greentls: {error!r}", "exception": error})

    def rawlink(self, function: Callable[[Task], object]) -> None:
        self._links.append(function)
        if self.dead:
            self._end()

    def join(self) -> None:
        if not self.dead:
            wait = _Wait(self.hub)
            self.rawlink(wait.end_now)
            wait()

    def kill(self, *, block: bool) -> None:
        self.hub.call_soon(self.throw_in, GreenletExit())
        if block:
            self.join()

    def _end(self) -> None:
        while self._links:
            self.hub.call_soon(self._links.pop(0), self)


def _far_below(function: Callable[[], object], levels: int = 15) -> int:
    """Calls a function 4 KiB further down the C stack for each level: list.sort() occupies that much, in every Python,
    while it calls its key function."""
    if levels:
        [None].sort(key=lambda _: _far_below(function, levels - 1))
    else:
        function()
    return 0


def _task() -> Task:
    """The Task in which the running greenlet waits. Raises WrongThreadError in the loop's own greenlet."""
    task = getcurrent()
    while type(task) is not Task:
        task = task.parent
        if task is None:
            sentence = "an event loop must not wait: use greentls.aio's connections, or await hub.run(function)"
            raise WrongThreadError(sentence)
    return task


class _Wait:
    """One wait of one greenlet. It ends, or is interrupted, once."""

    __slots__ = ("_ended", "_greenlet", "_hub")

    def __init__(self, hub: AsyncioHub) -> None:
        self._hub = hub
        self._ended = False
        self._greenlet: greenlet | None = None  # the one that waits

    def __call__(self) -> None:
        task = _task()
        if not self._ended:
            self._greenlet = getcurrent()
            try:
                task.parent.switch()
            finally:
                self._greenlet = None

    def end(self) -> None:
        """Ends the wait at the loop's next turn. To be called in the loop's thread."""
        if not self._ended:
            self._ended = True
            self._hub.call_soon(self.end_now)

    def end_now(self, *_: object) -> None:
        """Ends the wait. To be called in the loop's greenlet."""
        self._ended = True
        if self._greenlet is not None:
            self._greenlet.switch()


class _Timer:
    """A greentls.hub.Timer that fires two turns of the loop after its time.

    An answer that comes in time must win, however late the loop is. But libuv may check its timers before its sockets.
    """

    __slots__ = ("_call", "_handle", "_loop", "_seconds")

    def __init__(self, loop: AbstractEventLoop, seconds: float) -> None:
        self._loop, self._seconds = loop, seconds
        self._handle: Handle | None = None

    def start(self, function: Callable[..., object], *arguments: object, update: bool) -> None:
        self._call = function, arguments
        self._handle = self._loop.call_later(self._seconds, self._due, 2)

    def _due(self, turns: int) -> None:
        if turns:
            self._handle = self._loop.call_soon(self._due, turns - 1)
        else:
            function, arguments = self._call
            function(*arguments)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class _Event:
    def __init__(self, hub: AsyncioHub) -> None:
        self._hub = hub
        self._happened = False
        self._waiting: list[_Wait] = []

    def set(self) -> None:
        self._happened = True
        for wait in self._waiting:
            wait.end()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._happened:
            wait = _Wait(self._hub)
            self._waiting.append(wait)
            handle = None if timeout is None else self._hub.loop.call_later(timeout, wait.end_now)
            try:
                wait()
            finally:
                self._waiting.remove(wait)
                if handle is not None:
                    handle.cancel()
        return self._happened


class _Semaphore:
    def __init__(self, hub: AsyncioHub, places: int) -> None:
        self._hub, self._free = hub, places
        self._waiting: deque[_Wait] = deque()

    def __enter__(self) -> None:
        _task()  # raises at once if nothing can wait here, before a store opens a connection in vain
        while not self._free:
            wait = _Wait(self._hub)
            self._waiting.append(wait)
            try:
                wait()
            except BaseException:
                self._next()  # this greenlet may have been given the place
                raise
            finally:
                with suppress(ValueError):
                    self._waiting.remove(wait)
        self._free -= 1

    def __exit__(self, *_: object) -> None:
        self._free += 1
        self._next()

    def _next(self) -> None:
        if self._free and self._waiting:
            self._waiting.popleft().end()


class _Readable:
    def __init__(self, hub: AsyncioHub, descriptor: int, timeout: float) -> None:
        self._hub, self._descriptor, self._timeout = hub, descriptor, timeout

    def wait(self) -> None:
        self._hub.until_ready(self._descriptor, False, self._timeout)

    def close(self) -> None:
        """Does nothing: between two waits it holds nothing."""
