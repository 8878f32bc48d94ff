"""Work that forked processes do. One that raises or hangs says where, on standard error, and ends with status 1."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import traceback

import gevent
from greenlet import greenlet

from tests.support.helpers import PATIENCE


def in_processes(count, work):
    """What work(number) answered in each of so many processes: bytes."""
    children = []
    for number in range(count):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            _be_child(lambda number=number, writing=writing: os.write(writing, work(number)) and 0)
        os.close(writing)
        children.append((pid, reading))
    answers = []
    for pid, reading in children:
        with open(reading, "rb") as file:
            answers.append(file.read())
        os.waitpid(pid, 0)
    return answers


def forked(work):
    """The exit status of a child that has done it. Nothing else runs in this process meanwhile."""
    if (pid := os.fork()) == 0:
        _be_child(work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def say_where(*_):
    """The stacks of the greenlets that wait. faulthandler has only that of the running one, often the hub."""
    for each in gc.get_objects():
        if isinstance(each, greenlet) and each.gr_frame is not None:
            os.write(2, "".join([f"{type(each)}\n", *traceback.format_stack(each.gr_frame)]).encode())


def _be_child(work):
    status = 1
    try:
        signal.signal(signal.SIGALRM, say_where)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * 0.9)
        faulthandler.dump_traceback_later(PATIENCE, exit=True, file=2)
        gevent.reinit()
        status = work()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)
