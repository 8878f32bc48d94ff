"""Tests under each hub: under_each_hub marks them, and what they spawn is a Job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import gevent
import pytest
import uvloop
from gevent._hub_local import get_hub_if_exists  # has no public name

from greentls.hub import Deadline, here
from greentls.hub.asyncio import Task, hub_of
from tests.support.helpers import PATIENCE

#: For a test, or a class of tests, that waits by greentls.hub only. It runs in a greenlet of each hub.
under_each_hub = pytest.mark.usefixtures("each_hub")

LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def run_under(name: str, function: Callable[[], object]) -> object:
    """What the function returns in a greenlet of a hub: "gevent", or one of LOOPS."""
    if name == "gevent":
        return function()
    loop = LOOPS[name]()
    try:
        return loop.run_until_complete(hub_of(loop).run(function))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def in_loop(make, main):
    """What a coroutine returns in a new event loop."""
    loop = make()
    try:
        return loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
    finally:
        loop.close()


def references_put_right():
    """Whether gevent's loop had counted a reference too few: one is added then."""
    hub = get_hub_if_exists()
    if hub is None or hub.loop.activecnt >= 0:
        return False
    hub.loop.ref()
    gevent.sleep(0.001)  # a timer without a reference may have passed, and not been called yet
    if hub.loop.activecnt <= 0:
        return True
    hub.loop.unref()
    return False


class Job:
    """A function in a greenlet of its own: value is what it returned or, whatever it raised, that."""

    def __init__(self, function, *arguments):
        self.value = None
        self.raised = False
        self._task = here().spawn(self._run, function, *arguments)

    def _run(self, function, *arguments):
        try:
            self.value = function(*arguments)
        except BaseException as error:
            self.value, self.raised = error, True
            if not isinstance(error, Exception):
                raise

    def kill(self):
        self._task.kill(block=False)

    def interrupt(self, error):
        """Raises the error where it waits, at the hub's next turn."""
        if isinstance(self._task, Task):
            here().call_soon(self._task.throw_in, error)
        else:
            self._task.kill(error, block=False)

    def join(self):
        with Deadline(PATIENCE, "it has not ended"):
            self._task.join()
        return self

    @property
    def dead(self):
        return self._task.dead

    def result(self):
        self.join()
        if self.raised:
            raise self.value
        return self.value


def together(function, *arguments):
    """What the function returns for each of the arguments, all of them at once."""
    jobs = [Job(function, each) for each in arguments]
    return [job.result() for job in jobs]


def wait_for(condition, what):
    """Until condition() is true; others in this hub run meanwhile. Raises TimeoutError, which says what never came."""
    with Deadline(PATIENCE, f"waited {PATIENCE} s in vain for {what}"):
        while not condition():
            here().sleep(0.001)
