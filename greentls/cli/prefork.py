"""A parent and its workers: fork, replace, drain.

Theory of operation. The parent owns the listener and never uses gevent or TLS: a hub, a store's connection or an
SSL_CTX from before a fork would be shared by accident. Each worker makes its own.

The workers accept from the parent's one listener. With SO_REUSEPORT each would have a queue of its own: the kernel
deals connections out evenly, but those in the queue of a worker that dies are reset, and a second server on the same
port is not refused but gets half of the traffic. An even load is worth less than that.

Whatever happens to the parent is a signal: a worker ended (SIGCHLD), the first one is ready (SIGUSR1), stop (SIGTERM,
SIGINT). All are blocked and taken one by one with sigtimedwait(2), so no handler interrupts anything, and none is lost
between a look and a wait.

The first worker goes ahead alone: it reads the files, makes the certificates, imports the application. What is wrong is
so found and told once, however many workers there are to be.

Before it comes the key process, if there is one: workers ask it in each handshake, so it also ends after them.

A worker also ends when its parent is gone: it holds the reading end of a pipe that nobody writes to.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

__all__ = ["Parent", "Supervisor"]

log = logging.getLogger("greentls.serve")

# Seconds. A worker that ends sooner than SHORT_LIFE has not served anybody: its replacement waits, twice as long each
# time, so that a broken application costs a log line now and then and not a processor.
SHORT_LIFE = 5.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0

_STOP = {signal.SIGTERM, signal.SIGINT}
_EVENTS = {signal.SIGCHLD, signal.SIGUSR1} | _STOP


Work = Callable[["Parent"], int]


@dataclass(frozen=True)
class Parent:
    """What a worker knows of its parent. gone: a descriptor that becomes readable when the parent has ended."""

    pid: int
    gone: int

    def ready(self) -> None:
        """Tells it that this worker serves."""
        if os.getppid() == self.pid:  # else it has ended, and its number may be another's
            os.kill(self.pid, signal.SIGUSR1)


class Supervisor:
    """Keeps count workers on one listener.

    work(parent): a worker's life, in the child; returns its exit status. It must end upon SIGTERM. started(): called
    once, in the parent, when the first worker is ready. patience: seconds that workers have to end before SIGKILL.
    keys(parent): the key process's life, if there is to be one.
    """

    def __init__(
        self,
        listener: socket.socket,
        count: int,
        work: Work,
        started: Callable[[], None],
        patience: float,
        keys: Work | None = None,
    ) -> None:
        self._listener = listener
        self._count = count
        self._work = work
        self._started = started
        self._patience = patience
        self._keys = keys
        self._ready = False  # the first worker
        self._children: dict[int, tuple[Work, float]] = {}  # pid: what it does, and since when
        self._due: list[tuple[float, Work]] = []  # when to fork, and for what
        self._pause = 0.0

    def run(self) -> int:
        """Until SIGTERM or SIGINT. The exit status; in a worker, that of work(), since a child returns from here too.

        0 after SIGTERM, 130 after SIGINT; 1 if a worker had to be killed or the first one never got ready, 2 if that
        one refused its settings, which it has then told.
        """
        parent = os.getpid()
        self._lifeline = os.pipe()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _EVENTS)
        self._due.append((monotonic(), self._keys or self._work))
        try:
            while True:
                if work := self._fork_due():
                    return work(Parent(parent, self._lifeline[0]))
                event = self._next_event()
                if event is None:
                    continue
                if event.si_signo in _STOP:
                    return self._drain(0 if event.si_signo == signal.SIGTERM else 130)
                if event.si_signo == signal.SIGUSR1 and event.si_pid in self._children and not self._ready:
                    self._one_is_ready(event.si_pid)
                for child, status in self._reap():
                    if not self._ready:
                        return self._never_ready(child, status)
                    self._replace(child, status)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _next_event(self) -> signal.struct_siginfo | None:
        """None: a worker is due."""
        if not self._due:
            return signal.sigwaitinfo(_EVENTS)
        return signal.sigtimedwait(_EVENTS, max(0.0, min(when for when, _ in self._due) - monotonic()))

    def _one_is_ready(self, pid: int) -> None:
        if self._children[pid][0] is self._keys:
            self._due.append((monotonic(), self._work))
            return
        self._ready = True
        self._started()
        self._due += [(monotonic(), self._work)] * (self._count - 1)

    def _fork_due(self) -> Work | None:
        """Forks the children that are due. In a child: what it has to do."""
        now = monotonic()
        due = [work for when, work in self._due if when <= now]
        self._due = [(when, work) for when, work in self._due if when > now]
        return next((work for work in due if self._fork(work)), None)

    def _fork(self, work: Work) -> bool:
        try:
            pid = os.fork()
        except OSError as error:
            if not self._ready:
                raise
            self._retry(work, f"no new {self._name(work)}: {error.strerror}")
            return False
        if pid:
            self._children[pid] = work, monotonic()
            return False
        os.close(self._lifeline[1])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _EVENTS)
        return True

    def _reap(self) -> list[tuple[int, int]]:
        """(pid, exit status or negative signal) of the children that ended. One SIGCHLD may stand for several."""
        looked = [(pid, *os.waitpid(pid, os.WNOHANG)) for pid in self._children]
        return [(pid, os.waitstatus_to_exitcode(status)) for pid, ended, status in looked if ended]

    def _name(self, work: Work) -> str:
        return "key process" if work is self._keys else "worker"

    def _never_ready(self, pid: int, status: int) -> int:
        work, _ = self._children.pop(pid)
        self._end(signal.SIGTERM)
        if status == 2:
            return 2
        log.error("the first %s ended before it served: %s", self._name(work), _ending(status))
        return 1

    def _replace(self, pid: int, status: int) -> None:
        work, since = self._children.pop(pid)
        lived = monotonic() - since
        if lived >= SHORT_LIFE:
            self._pause = 0.0
            self._due.append((monotonic(), work))
            log.warning("%s %d ended after %.0f s: %s; replaced", self._name(work), pid, lived, _ending(status))
        else:
            self._retry(work, f"{self._name(work)} {pid} ended after {lived:.1f} s: {_ending(status)}")

    def _retry(self, work: Work, trouble: str) -> None:
        self._pause = min(self._pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        self._due.append((monotonic() + self._pause, work))
        log.warning("%s; another one in %.2g s", trouble, self._pause)

    def _drain(self, status: int) -> int:
        """Lets the workers end. SIGKILL for those that do not within patience seconds, or at once if asked again."""
        self._listener.close()
        self._signal_workers(signal.SIGTERM)
        log.warning("draining; a second Ctrl-C or SIGTERM ends it at once")
        end = monotonic() + self._patience
        while True:
            for pid, _ in self._reap():
                del self._children[pid]
            workers = self._workers()
            if not workers:
                self._end(signal.SIGTERM)
                return status
            event = signal.sigtimedwait(_EVENTS, max(0.0, end - monotonic()))
            if event is None or event.si_signo in _STOP:
                log.warning("killed: worker %s", ", ".join(map(str, workers)))
                self._end(signal.SIGKILL)
                return status or 1

    def _workers(self) -> list[int]:
        return [pid for pid, (work, _) in self._children.items() if work is self._work]

    def _signal_workers(self, signum: signal.Signals) -> None:
        for pid in self._workers():  # not reaped yet, so the numbers are theirs
            os.kill(pid, signum)

    def _end(self, signum: signal.Signals) -> None:
        """Of the children that are left."""
        for pid in self._children:
            os.kill(pid, signum)
        for pid in self._children:
            os.waitpid(pid, 0)


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.strsignal(-status) or f"signal {-status}"
