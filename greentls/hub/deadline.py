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

    __slots__ = ("_line", "_seconds", "_sentence", "passed")

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
        line.waiting[self] = monotonic() + seconds, getcurrent()
        if line.timer is None:
            try:
                line.arm()
            except BaseException:
                line.leave(self)
                raise

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if self._line is not None:
            self._line.leave(self)
        if isinstance(error, _Expired) and error.args[0] is self:
            self.passed = True
            raise TimeoutError(self._sentence.format(self._seconds)) from error.__cause__


class _Line:
    """The deadlines of a hub that take the same time.

    Another greenlet may come between any two lines of this, as a finalizer may switch to it.
    """

    __slots__ = ("_ends", "_hub", "timer", "waiting")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        #: When each ends, by time.monotonic(), and whom it interrupts. The first one ends first.
        self.waiting: dict[Deadline, tuple[float, greenlet]] = {}
        self.timer: Timer | None = None  # for the first one, or for one that was before it

    def arm(self) -> None:
        for ends, _ in list(self.waiting.values())[:1]:
            self._ends = ends
            self.timer = timer = self._hub.timer(max(ends - monotonic(), 0.0))
            timer.start(self._pass, update=True)

    def _disarm(self) -> None:
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.close()

    def leave(self, deadline: Deadline) -> None:
        self.waiting.pop(deadline, None)
        if not self.waiting:  # the timer would keep the program from its end
            self._disarm()
            if self.waiting and self.timer is None:  # somebody has come meanwhile
                self.arm()

    def _pass(self) -> None:
        """In the hub: the first one is late, unless it has left and the one behind it has more time."""
        self._disarm()
        for first, (ends, whom) in list(self.waiting.items())[:1]:
            late = ends <= self._ends and self.waiting.pop(first, None) is not None
            if self.timer is None:
                self.arm()
            if late:
                whom.throw(_Expired, first)


class _Expired(BaseException):
    """args: the Deadline."""
