"""Workers: greenlets of an event loop, in which OpenSSL runs if its callbacks may wait.

The loop's own greenlet must not wait. So a step that may wait runs in a worker. If it waits, its worker switches to the
loop with OpenSSL's frames on its stack, and other workers run other steps. When the answer is there, the loop switches
back to it (greentls.hub.asyncio). A step that does not wait costs two switches of a quarter of a microsecond each, and
its worker runs the next step.
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

WAITS = -100  # an answer of PatientVerbs: a hook waits. A pump never answers this

Then: TypeAlias = "Callable[[Job], object]"

_ATTRIBUTE = "_greentls_workers"  # the attribute of a loop that holds its Workers


class Job:
    """One step: a call of function() in a worker. done: it has returned a value, or raised an error."""

    __slots__ = ("done", "error", "function", "then", "value", "worker", "workers")

    def __init__(self, function: Callable[[], object], then: Then) -> None:
        self.function, self.then = function, then
        self.value: Any = None  # Any: what the function returns
        self.error: BaseException | None = None
        self.done = False
        self.worker: Task | None = None
        self.workers: Workers | None = None  # None unless the step waits

    def throw(self, error: BaseException) -> None:
        """Raises the error where the step waits. Does nothing if the step has ended. To be called in the loop's
        greenlet."""
        if not self.done and self.worker is not None:
            self.worker.enter(self.worker.throw, error)


class Workers:
    """The workers of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._hub = hub_of(loop)

    def run(self, function: Callable[[], object], then: Then, context: Context | None = None) -> Job:
        """Begins a step, and returns its job. To be called in the loop's greenlet, or in a task.

        If the step waits, the job is not done yet, and then(job) is called in the loop's greenlet when it is. context:
        the context variables for the step, None for none.
        """
        job = Job(function, then)
        try:
            worker = _free.workers.pop()
            worker.hub = self._hub
        except IndexError:
            worker = Task(self._hub, _work, ())
            worker.start()  # runs until it waits for a job
        worker.gr_context = context
        job.worker = worker
        worker.enter(worker.switch, job)
        if job.done:
            _set_free(worker)
        else:
            job.workers = self
        return job

    def end(self, job: Job) -> None:
        """Ends a step that has waited. Called in its worker, so then() must wait for the loop's next turn."""
        self._loop.call_soon(job.then, job)


class _Free(ThreadLocal):
    """The idle workers of a thread. They refer to no connection and no loop: the collector does not see what the frames
    of a greenlet refer to, so it could never free such an object."""

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
        if job.workers is not None:  # the step has waited: run() has returned
            job.workers.end(job)
            _set_free(getcurrent())
        del job


def workers_of(loop: asyncio.AbstractEventLoop) -> Workers:
    """The workers of an event loop. To be called in the loop's thread."""
    workers: Workers | None = getattr(loop, _ATTRIBUTE, None)
    if workers is None:
        workers = Workers(loop)
        setattr(loop, _ATTRIBUTE, workers)
    return workers


class PatientVerbs:
    """The verbs of a connection whose hooks may wait. Each verb runs in a worker.

    While a hook waits, every verb answers WAITS. When the hook has its answer, again() is called. The verb that has
    waited must then be called again, with the same data, and returns its result. If it has failed, the next verb that
    is called, whichever it is, raises its error.
    """

    def __init__(self, connection: Connection, workers: Workers, again: Callable[[], object]) -> None:
        self._connection, self._workers, self._again = connection, workers, again
        self._job: Job | None = None  # the one that waits
        self._ended: dict[str, Job] = {}  # by verb: jobs that have waited and returned
        self._failed: Job | None = None  # a job that has waited and failed

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
