"""A parent and its workers: fork, replace, drain.

Theory of operation. The parent owns the listener and never uses gevent or TLS: workers would share a hub, a store's
connection or an SSL_CTX from before the fork. Each worker makes its own.

The workers accept from the parent's one listener. With SO_REUSEPORT each would have its own queue. The kernel would
distribute connections evenly, but reset those in the queue of a worker that dies. And a second server on the same port
would get half of the traffic instead of an error. An even load is not worth that.

Every event of the parent is a signal: a worker ended (SIGCHLD), the first one is ready (SIGUSR1), stop (SIGTERM,
SIGINT). All are blocked and taken one by one with sigtimedwait(2), so no handler interrupts anything, and no signal is
lost between a check and a wait.

The first worker starts alone: it reads the files, makes the certificates, imports the application. So an error is found
and reported once, whatever the number of workers.

The key process, if there is one, starts before it and ends after the workers, which ask it in each handshake.

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

# Seconds. A worker that ends before SHORT_LIFE has probably served nobody. Its replacement waits, twice as long each
# time, so that a broken application costs an occasional log line and not a processor.
SHORT_LIFE = 5.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0

_STOP = {signal.SIGTERM, signal.SIGINT}
_EVENTS = {signal.SIGCHLD, signal.SIGUSR1} | _STOP

Work = Callable[["Parent"], int]


@dataclass(frozen=True)
class Parent:
    """A worker's view of its parent. gone: a descriptor that becomes readable when the parent has ended."""

    pid: int
    gone: int

    def ready(self) -> None:
        """Reports that this worker serves."""
        if os.getppid() == self.pid:  # otherwise it has ended, and another process may have its number
            os.kill(self.pid, signal.SIGUSR1)


@dataclass(eq=False)
class Supervisor:
    """Keeps count workers running on one listener.

    work(parent): runs a worker in the child and returns its exit status. It must end on SIGTERM. started(): called once
    in the parent, when the first worker is ready. patience: seconds that workers have to end before SIGKILL.
    keys(parent): runs the key process in the child, if there is one.
    """

    listener: socket.socket
    count: int
    work: Work
    started: Callable[[], None]
    patience: float
    keys: Work | None = None

    def __post_init__(self) -> None:
        self._ready = False  # the first worker
        self._children: dict[int, tuple[Work, float]] = {}  # pid: its work, and the time of the fork
        self._due: list[tuple[float, Work]] = []  # times to fork children, and their work
        self._pause = 0.0

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT, and returns the exit status. In a worker it returns that of work().

        The status is 0 after SIGTERM and 130 after SIGINT. It is 1 if a worker had to be killed or the first one was
        never ready, and 2 if the first one refused and reported its settings.
        """
        parent = os.getpid()
        self._lifeline = os.pipe()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _EVENTS)
        self._due.append((monotonic(), self.keys or self.work))
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
        """Waits for a signal. Returns None when a worker is due."""
        if not self._due:
            return signal.sigwaitinfo(_EVENTS)
        return signal.sigtimedwait(_EVENTS, max(0.0, min(when for when, _ in self._due) - monotonic()))

    def _one_is_ready(self, pid: int) -> None:
        if self._children[pid][0] is self.keys:
            self._due.append((monotonic(), self.work))
            return
        self._ready = True
        self.started()
        self._due += [(monotonic(), self.work)] * (self.count - 1)

    def _fork_due(self) -> Work | None:
        """Forks the children that are due. Returns the work in a child, and None in the parent."""
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
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent handles it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _EVENTS)
        return True

    def _reap(self) -> list[tuple[int, int]]:
        """Returns (pid, exit status or negative signal) of each ended child. One SIGCHLD may stand for several."""
        looked = [(pid, *os.waitpid(pid, os.WNOHANG)) for pid in self._children]
        return [(pid, os.waitstatus_to_exitcode(status)) for pid, ended, status in looked if ended]

    def _name(self, work: Work) -> str:
        return "key process" if work is self.keys else "worker"

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
        """Ends the workers. Kills those that do not end within patience seconds, or at once on a second signal."""
        self.listener.close()
        for pid in self._workers():  # not reaped yet, so no other process has their numbers
            os.kill(pid, signal.SIGTERM)
        log.warning("draining; a second Ctrl-C or SIGTERM ends it at once")
        end = monotonic() + self.patience
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
        return [pid for pid, (work, _) in self._children.items() if work is self.work]

    def _end(self, signum: signal.Signals) -> None:
        """Signals the remaining children and waits for their end."""
        for pid in self._children:
            os.kill(pid, signum)
        for pid in self._children:
            os.waitpid(pid, 0)


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.strsignal(-status) or f"signal {-status}"
