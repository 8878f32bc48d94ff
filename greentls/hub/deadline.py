"""Deadline: limits how long a block may wait.

There is one for each handshake, and one for each question to a store, and nearly all end long before their time. A
timer for each would cost 5 microseconds. But the deadlines of a hub that take the same number of seconds pass in the
order in which they begin. So they stand in a line, and only the first one needs a timer.
"""

from __future__ import annotations

from time import monotonic
from types import TracebackType

from greenlet import getcurrent, greenlet

from greentls.hub.finding import here
from greentls.hub.protocol import Hub, Timer

__all__ = ["Deadline"]


class Deadline:
    """A with block that raises TimeoutError after some seconds.

    Inside the block a BaseException is raised. So an ``except Exception`` in a store, or in a user's function, cannot
    take it for one of its own failures and continue.

    seconds: None for no limit. sentence: the TimeoutError's text; a {} in it becomes the seconds.
    """

    __slots__ = ("_line", "_seconds", "_sentence", "ends", "passed", "whom")

    ends: float  # by time.monotonic()
    whom: greenlet | None  # it interrupts this one, which could not be collected if it were kept behind the block

    def __init__(self, seconds: float | None, sentence: str) -> None:
        self._seconds, self._sentence = seconds, sentence
        self._line: _Line | None = None
        #: Whether this deadline has passed: a TimeoutError may also be another deadline's.
        self.passed = False

    def __enter__(self) -> None:
        seconds = self._seconds
        if seconds is None:
            return
        hub = here()
        lines: dict[float, _Line] = hub.deadlines  # type: ignore[assignment]  # the hub does not know what it keeps
        line = lines.get(seconds)
        if line is None:
            line = lines.setdefault(seconds, _Line(hub))
        self._line = line
        self.ends, self.whom = monotonic() + seconds, getcurrent()
        line.waiting[self] = None
        if line.timer is None:
            try:
                line.arm()
            except BaseException:
                line.waiting.pop(self, None)
                self.whom = None
                raise

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        line = self._line
        if line is not None:
            line.waiting.pop(self, None)
            self.whom = None
            if not line.waiting:
                line.rest()
        if error is not None and isinstance(error, _Expired) and error.args[0] is self:
            self.passed = True
            raise TimeoutError(self._sentence.format(self._seconds)) from error.__cause__


class _Line:
    """The deadlines of a hub that take the same time.

    Another greenlet may come between any two lines of this, as a finalizer may switch to it.
    """

    __slots__ = ("_ends", "_hub", "timer", "waiting")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        #: In order: the first one ends first.
        self.waiting: dict[Deadline, object] = {}
        self.timer: Timer | None = None  # for the first one, or for one that was before it

    def arm(self) -> None:
        for first in list(self.waiting)[:1]:
            self._ends = ends = first.ends
            self.timer = timer = self._hub.timer(max(ends - monotonic(), 0.0))
            timer.start(self._pass, update=True)

    def _disarm(self) -> None:
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.close()

    def rest(self) -> None:
        """Nobody waits: the timer would keep the program from its end."""
        self._disarm()
        if self.waiting and self.timer is None:  # somebody has come meanwhile
            self.arm()

    def _pass(self) -> None:
        """In the hub: the first one is late, unless it has left and the one behind it has more time."""
        self._disarm()
        for first in list(self.waiting)[:1]:
            whom = first.whom
            late = first.ends <= self._ends and self.waiting.pop(first, self) is None
            if self.timer is None:
                self.arm()
            if late and whom is not None:
                whom.throw(_Expired, first)


class _Expired(BaseException):
    """args: the Deadline."""
