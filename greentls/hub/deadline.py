"""Deadline: a block that may wait, but not for ever."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from greenlet import getcurrent

from greentls.hub.finding import here

__all__ = ["Deadline"]


class Deadline:
    """A with block that raises TimeoutError once it has taken too long.

    Inside the block it is a BaseException. So an ``except Exception`` there, in a store or in a user's function, cannot
    mistake it for a failure of its own and go on.

    seconds: None for no limit. sentence: the TimeoutError's text; a {} in it becomes the seconds.
    """

    __slots__ = ("_cancel", "_seconds", "_sentence", "passed")

    def __init__(self, seconds: float | None, sentence: str) -> None:
        self._seconds, self._sentence = seconds, sentence
        #: Whether this deadline has passed, rather than some other one.
        self.passed = False

    def __enter__(self) -> None:
        self._cancel: Callable[[], object] | None = None
        if self._seconds is not None:
            self._cancel = here().later(self._seconds, getcurrent().throw, _Expired, self)

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if self._cancel is not None:
            self._cancel()
        if isinstance(error, _Expired) and error.args[0] is self:
            self.passed = True
            raise TimeoutError(self._sentence.format(self._seconds)) from error.__cause__


class _Expired(BaseException):
    """args: the Deadline."""
