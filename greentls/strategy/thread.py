"""Thread: each step of a handshake in a native thread.

Private-key operations leave the loop and use other cores. User code never runs there. A question is posted to the hub,
a greenlet answers it, and the native thread sleeps meanwhile. So there is a pool of threads, and a lookup of 20 ms
occupies one of them for that time. The greenlet that does the handshake waits for the thread. If it is killed or times
out meanwhile, the exception is thrown into the greenlet that answers, leaves the hook there, and the bridge carries it
as always. A thread that computes cannot be interrupted. It finishes its step within a millisecond or two, and only then
does the caller continue.

With gevent 26.9 and later, an idle native thread ends, because it holds its hub. So application threads that come and
go, each destroying its own hub, leave nothing behind. If a hub is destroyed while a hook waits, the answer never comes:
the native thread that waits for it stays, with the hub and the connection.

After the handshake, records are handled on the loop: encrypting one takes a few microseconds, a trip to a thread and
back fifty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from weakref import ref

import gevent.event
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool
from greenlet import getcurrent

from greentls.core.bridge import Operation
from greentls.core.connection import Connection
from greentls.hub import PerHub, here

__all__ = ["call"]

Result = TypeVar("Result")

# Native threads for a hub's handshakes. A thread that waits for an answer does nothing else. 64 concurrent lookups of
# 20 ms allow 3,200 handshakes a second, about what two cores can compute.
THREADS = 64
# Seconds until an idle native thread ends. -1 means never: an older gevent loses a task that arrives while a thread
# ends.
IDLE = 10.0 if tuple(map(int, gevent.__version__.split(".")[:2])) >= (26, 9) else -1

_allocate_lock = get_original("_thread", "allocate_lock")


def _pool() -> ThreadPool:
    return ThreadPool(THREADS, idle_task_timeout=IDLE)


# Not hub.threadpool: hooks may need that one, for example to look up an address, while handshakes occupy this pool.
_pools = PerHub(_pool)


def _spawn(step: Callable[[], int]) -> gevent.event.AsyncResult:
    """Starts a task in this hub's pool. Returns its AsyncResult."""
    pool = _pools.get()
    task = pool.spawn(_outcome, step)
    pool.fork_watcher.stop()  # it would keep the pool, and so the hub, alive after the hub is destroyed
    return task


class _Errand:
    """One step that a greenlet lets a native thread do."""

    def __init__(self, operation: Operation, step: Callable[[], int]) -> None:
        self._operation, self._step = operation, step
        self._call = here().caller()
        self._taken = _allocate_lock()  # acquired by the native thread, or by the greenlet that gives up the step
        self._interrupt: BaseException | None = None  # thrown into the greenlet that waits
        self._question: _Question | None = None

    def run(self) -> int:
        self._operation.go_elsewhere(self._ask)
        try:
            task = _spawn(self._do)
            while not task.ready():
                try:
                    task.wait()
                except BaseException as interrupt:
                    if self._taken.acquire(False):  # the step has not begun
                        raise
                    self._cancel(interrupt)
            result, error = task.get()
        finally:
            self._operation.come_back()
        failure = error if self._interrupt is None else self._interrupt
        if failure is None:
            return result  # type: ignore[no-any-return]  # gevent is untyped
        try:
            raise failure
        finally:
            del failure, error  # the traceback holds this frame

    def _do(self) -> int:
        """Runs in the native thread."""
        return self._step() if self._taken.acquire(False) else 0

    def _cancel(self, interrupt: BaseException) -> None:
        if self._interrupt is None:
            self._interrupt = interrupt
        if self._question is not None:
            self._question.interrupt(interrupt)

    def _ask(self, body: Callable[..., object], *arguments: object) -> object:
        """Runs in the native thread: lets the hub's thread run a callback's body, and waits for the result."""
        question = _Question(self._operation, body, arguments)
        self._call(self._answer, question)
        question.answered.acquire()
        if question.error is not None:
            raise question.error
        return question.value

    def _answer(self, question: _Question) -> None:
        """Runs in the hub."""
        self._question = question
        if self._interrupt is None:
            question.start()
        else:
            question.refuse(self._interrupt)


class _Question:
    """A callback's body, which a greenlet runs. The native thread waits for answered."""

    def __init__(self, operation: Operation, body: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self._operation, self._body, self._arguments = operation, body, arguments
        self.value: object = None
        self.error: BaseException | None = None
        self.answered = _allocate_lock()
        self.answered.acquire()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        # Not at the end of _run(): a greenlet that is killed before it starts never gets there.
        self._greenlet.rawlink(self._done)

    def refuse(self, error: BaseException) -> None:
        self.error = error
        self.answered.release()

    def interrupt(self, error: BaseException) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(error, block=False)

    def _run(self) -> None:
        thread = self._operation.stand_in(ref(getcurrent()))
        try:
            self.value = self._body(*self._arguments)
        except BaseException as error:
            self.error = error
        finally:
            self._operation.stand_in(thread)

    def _done(self, greenlet: gevent.Greenlet) -> None:
        self._greenlet = None
        if self.error is None and isinstance(greenlet.value, gevent.GreenletExit):
            self.error = greenlet.value
        self.error = self.error or greenlet.exception
        self.answered.release()


def _outcome(step: Callable[[], Result]) -> tuple[Result | None, BaseException | None]:
    """Returns the step's result and exception. gevent would print an exception that leaves a thread or greenlet."""
    try:
        return step(), None
    except BaseException as error:
        return None, error


def call(connection: Connection, step: Callable[[], int]) -> int:
    """Strategy.call."""
    return _Errand(connection, step).run()
