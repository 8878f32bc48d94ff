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
    """

    def __init__(
        self,
        listener: socket.socket,
        count: int,
        work: Callable[[Parent], int],
        started: Callable[[], None],
        patience: float,
    ) -> None:
        self._listener = listener
        self._count = count
        self._work = work
        self._started = started
        self._patience = patience
        self._ready = False
        self._workers: dict[int, float] = {}  # pid: when it was forked
        self._due: list[float] = []  # when workers are to be forked
        self._pause = 0.0

    def run(self) -> int:
        """Until SIGTERM or SIGINT. The exit status; in a worker, that of work(), since a child returns from here too.

        0 after SIGTERM, 130 after SIGINT; 1 if a worker had to be killed or the first one never got ready, 2 if that
        one refused its settings, which it has then told.
        """
        parent = os.getpid()
        self._lifeline = os.pipe()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _EVENTS)
        self._due.append(monotonic())
        try:
            while True:
                if self._fork_due():
                    return self._work(Parent(parent, self._lifeline[0]))
                event = self._next_event()
                if event is None:
                    continue
                if event.si_signo in _STOP:
                    return self._drain(0 if event.si_signo == signal.SIGTERM else 130)
                if event.si_signo == signal.SIGUSR1 and event.si_pid in self._workers and not self._ready:
                    self._ready = True
                    self._started()
                    self._due += [monotonic()] * (self._count - 1)
                for worker, status in self._reap():
                    if not self._ready:
                        return self._never_ready(status)
                    self._replace(worker, status)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _next_event(self) -> signal.struct_siginfo | None:
        """None: a worker is due."""
        if not self._due:
            return signal.sigwaitinfo(_EVENTS)
        return signal.sigtimedwait(_EVENTS, max(0.0, min(self._due) - monotonic()))

    def _fork_due(self) -> bool:
        """Forks the workers that are due. True in a worker."""
        now = monotonic()
        due = sum(when <= now for when in self._due)
        self._due = [when for when in self._due if when > now]
        return any(self._fork() for _ in range(due))

    def _fork(self) -> bool:
        try:
            pid = os.fork()
        except OSError as error:
            if not self._ready:
                raise
            self._retry(f"no new worker: {error.strerror}")
            return False
        if pid:
            self._workers[pid] = monotonic()
            return False
        os.close(self._lifeline[1])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _EVENTS)
        return True

    def _reap(self) -> list[tuple[int, int]]:
        """(pid, exit status or negative signal) of the workers that ended. One SIGCHLD may stand for several."""
        looked = [(pid, *os.waitpid(pid, os.WNOHANG)) for pid in self._workers]
        return [(pid, os.waitstatus_to_exitcode(status)) for pid, ended, status in looked if ended]

    def _never_ready(self, status: int) -> int:
        if status == 2:
            return 2
        log.error("the first worker ended before it served: %s", _ending(status))
        return 1

    def _replace(self, pid: int, status: int) -> None:
        lived = monotonic() - self._workers.pop(pid)
        if lived >= SHORT_LIFE:
            self._pause = 0.0
            self._due.append(monotonic())
            log.warning("worker %d ended after %.0f s: %s; replaced", pid, lived, _ending(status))
        else:
            self._retry(f"worker {pid} ended after {lived:.1f} s: {_ending(status)}")

    def _retry(self, trouble: str) -> None:
        self._pause = min(self._pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        self._due.append(monotonic() + self._pause)
        log.warning("%s; another one in %.2g s", trouble, self._pause)

    def _drain(self, status: int) -> int:
        """Lets the workers end. SIGKILL for those that do not within patience seconds, or at once if asked again."""
        self._listener.close()
        self._signal_all(signal.SIGTERM)
        log.warning("draining; a second Ctrl-C or SIGTERM ends it at once")
        end = monotonic() + self._patience
        while True:
            for pid, _ in self._reap():
                del self._workers[pid]
            if not self._workers:
                return status
            event = signal.sigtimedwait(_EVENTS, max(0.0, end - monotonic()))
            if event is None or event.si_signo in _STOP:
                log.warning("killed: worker %s", ", ".join(map(str, self._workers)))
                self._signal_all(signal.SIGKILL)
                for pid in self._workers:
                    os.waitpid(pid, 0)
                return status or 1

    def _signal_all(self, signum: signal.Signals) -> None:
        for pid in self._workers:  # not reaped yet, so the numbers are theirs
            os.kill(pid, signum)


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.strsignal(-status) or f"signal {-status}"
