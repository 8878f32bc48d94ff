"""Workers: the greenlets of an event loop in which OpenSSL is entered if its callbacks may wait.

The loop's own greenlet must not wait. So a step that may wait runs in a worker. If it does wait, its worker switches to
the loop with OpenSSL's frames on its stack, and other workers take other steps; whoever has the answer switches back to
it (greentls.hub.asyncio). A step that does not wait costs two switches, a quarter of a microsecond each, and its worker
takes the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from greenlet import getcurrent

from greentls.hub import ThreadLocal
from greentls.hub.asyncio import Task, hub_of

if TYPE_CHECKING:
    from greentls.core.connection import Connection

__all__ = ["WAITS", "Job", "PatientVerbs", "Workers", "workers_of"]

T = TypeVar("T")

WAITS = -100  # PatientVerbs: a hook waits. None of a pump's answers

Then: TypeAlias = "Callable[[Job], object]"

_ATTRIBUTE = "_greentls_workers"  # of a loop, which holds its workers


class Job:
    """One step: function() is called in a worker. done: it has ended, by returning a value or by raising an error."""

    __slots__ = ("done", "error", "function", "then", "value", "worker", "workers")

    def __init__(self, function: Callable[[], object], then: Then) -> None:
        self.function, self.then = function, then
        self.value: Any = None  # Any: what the function returns
        self.error: BaseException | None = None
        self.done = False
        self.worker: Task | None = None
        self.workers: Workers | None = None  # if the step waits

    def throw(self, error: BaseException) -> None:
        """Raises the error where the step waits. In the loop's greenlet; nothing happens if the step has ended."""
        if not self.done and self.worker is not None:
            self.worker.enter(self.worker.throw, error)


class Workers:
    """Those of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._hub = hub_of(loop)

    def run(self, function: Callable[[], object], then: Then, context: Context | None = None) -> Job:
        """Begins a step. In the loop's greenlet, or in a task.

        Returns the job. If the step waits, it is not done yet, and then(job) is called in the loop's greenlet once it
        is. context: the context variables that the step sees; None: none.
        """
        job = Job(function, then)
        try:
            worker = _free.workers.pop()
            worker.hub = self._hub
        except IndexError:
            worker = Task(self._hub, _work, ())
            worker.start()  # to where it waits for a job
        worker.gr_context = context
        job.worker = worker
        worker.enter(worker.switch, job)
        if job.done:
            _set_free(worker)
        else:
            job.workers = self
        return job

    def end(self, job: Job) -> None:
        """Of a step that has waited. In its worker: the loop is in the callback that has switched back to there."""
        self._loop.call_soon(job.then, job)


class _Free(ThreadLocal):
    """A thread's workers that have nothing to do. They know neither a connection nor a loop: the collector does not see
    what the frames of a greenlet refer to, so it could never be collected."""

    def __init__(self) -> None:
        self.workers: list[Task] = []


_free = _Free()


def _set_free(worker: Task) -> None:
    del worker.hub
    worker.gr_context = None
    _free.workers.append(worker)


def _work() -> None:
    while True:
        job: Job = getcurrent().parent.switch()
        try:
            job.value = job.function()
        except BaseException as error:
            job.error = error
        job.done = True
        if job.workers is not None:  # run() has returned
            job.workers.end(job)
            _set_free(getcurrent())
        del job


def workers_of(loop: asyncio.AbstractEventLoop) -> Workers:
    """The workers of an event loop. In the loop's thread."""
    workers: Workers | None = getattr(loop, _ATTRIBUTE, None)
    if workers is None:
        workers = Workers(loop)
        setattr(loop, _ATTRIBUTE, workers)
    return workers


class PatientVerbs:
    """A connection's verbs whose hooks may wait: each runs in a worker.

    A verb that waits answers WAITS, as does any other meanwhile. again() is called once the hook has its answer. Then
    the same verb is to be called again, with the same data, and returns what it came to. What it raises, whichever verb
    comes first raises.
    """

    def __init__(self, connection: Connection, workers: Workers, again: Callable[[], object]) -> None:
        self._connection, self._workers, self._again = connection, workers, again
        self._job: Job | None = None  # which waits
        self._ended: dict[str, Job] = {}  # that have waited, by their verbs
        self._failed: Job | None = None  # that has waited

    def step_read(self, size: int) -> bytes | int:
        return self._do("read", self._connection.step_read, size)

    def step_write(self, data: bytes) -> int:
        return self._do("write", self._connection.step_write, data)

    def shutdown(self) -> int:
        """Connection.shutdown()."""
        return self._do("shutdown", self._connection.shutdown)

    def throw(self, error: BaseException) -> None:
        """Raises the error where a hook waits."""
        if self._job is not None:
            self._job.throw(error)

    def _do(self, name: str, verb: Callable[..., T], *arguments: object) -> T | int:
        job = self._failed or self._ended.pop(name, None)
        if job is None:
            if self._job is not None:
                return WAITS
            job = self._workers.run(partial(verb, *arguments), partial(self._end, name))
            if not job.done:
                self._job = job
                return WAITS
        if job.error is None:
            said: T = job.value
            return said
        try:
            raise job.error
        finally:
            self._failed = None
            del job  # the traceback has this frame

    def _end(self, name: str, job: Job) -> None:
        self._job = None
        if job.error is None:
            self._ended[name] = job
        else:
            self._failed = job
        self._again()
