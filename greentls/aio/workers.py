"""Workers: the greenlets of an event loop in which OpenSSL is entered.

The loop's own greenlet must not wait, and OpenSSL's callbacks may. So each step of a connection runs in a worker. If
the step waits, its worker switches to the loop with OpenSSL's frames on its stack, and other workers take other steps;
whoever has the answer switches back to it (greentls.hub.asyncio). A step that does not wait costs two switches, a
quarter of a microsecond each, and its worker takes the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeAlias

from greenlet import getcurrent

from greentls.hub.asyncio import Task, hub_of

__all__ = ["Job", "Workers"]

Then: TypeAlias = Callable[[Any, BaseException | None], None]  # Any: what the step returns


class Job:
    """One step: function() is called in a worker, then(value, error) in the loop's greenlet once it has ended."""

    __slots__ = ("done", "error", "function", "then", "value", "waits", "worker")

    def __init__(self, function: Callable[[], object], then: Then) -> None:
        self.function, self.then = function, then
        self.value: object = None
        self.error: BaseException | None = None
        self.waits = self.done = False
        self.worker: Task | None = None

    def throw(self, error: BaseException) -> None:
        """Raises the error where the step waits. In the loop's greenlet; nothing happens if the step has ended."""
        if not self.done and self.worker is not None:
            self.worker.throw(error)


class Workers:
    """Those of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._hub = hub_of(loop)
        self._free: list[Task] = []

    def run(
        self,
        function: Callable[[], object],
        then: Then,
        context: Context | None = None,
    ) -> Job:
        """Begins a step. In the loop's greenlet. If it does not wait, then() has been called on return.

        context: the context variables that the step sees; None: those of its worker.
        """
        job = Job(function, then)
        try:
            worker = self._free.pop()
        except IndexError:
            worker = Task(self._hub, self._work, ())
            worker.start()  # to where it waits for a job
        if context is not None:
            worker.gr_context = context
        job.worker = worker
        worker.switch(job)
        if not job.done:
            job.waits = True
            return job
        self._free.append(worker)
        error, job.error = job.error, None
        try:
            then(job.value, error)
        finally:
            del error  # its traceback may hold this frame
        return job

    def _work(self) -> None:
        while True:
            job: Job = getcurrent().parent.switch()
            try:
                job.value = job.function()
            except BaseException as error:
                job.error = error
            job.done = True
            if job.waits:  # run() has returned; the loop is in the callback that has switched back to here
                self._loop.call_soon(job.then, job.value, job.error)
                self._free.append(getcurrent())
            del job  # no worker keeps a connection
