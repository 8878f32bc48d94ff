"""Deadline: limits how long a block may wait."""

from __future__ import annotations

from types import TracebackType

from greenlet import getcurrent

from greentls.hub.finding import here
from greentls.hub.protocol import Timer

__all__ = ["Deadline"]


class Deadline:
    """A with block that raises TimeoutError after some seconds.

    Inside the block a BaseException is raised. So an ``except Exception`` in a store, or in a user's function, cannot
    take it for one of its own failures and continue.

    seconds: None for no limit. sentence: the TimeoutError's text; a {} in it becomes the seconds.
    """

    __slots__ = ("_seconds", "_sentence", "_timer", "passed")

    def __init__(self, seconds: float | None, sentence: str) -> None:
        self._seconds, self._sentence = seconds, sentence
        #: Whether this deadline has passed: a TimeoutError may also be another deadline's.
        self.passed = False

    def __enter__(self) -> None:
        self._timer: Timer | None = None
        if self._seconds is not None:
            self._timer = timer = here().timer(self._seconds)
            timer.start(getcurrent().throw, _Expired, self, update=True)

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.close()
        if isinstance(error, _Expired) and error.args[0] is self:
            self.passed = True
            raise TimeoutError(self._sentence.format(self._seconds)) from error.__cause__


class _Expired(BaseException):
    """args: the Deadline."""
