"""Work that forked processes do."""

from __future__ import annotations

import os

import gevent


def in_processes(count, work):
    """What work(number) answered in each of so many processes: bytes."""
    children = []
    for number in range(count):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                gevent.reinit()
                os.write(writing, work(number))
            finally:
                os._exit(0)
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
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            gevent.reinit()
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
