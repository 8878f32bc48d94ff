"""Deadline: a block that may wait, but not for ever."""

from __future__ import annotations

from typing import Any

from gevent import get_hub
from greenlet import getcurrent

__all__ = ["Deadline"]


class Deadline:
    """Raises TimeoutError(sentence) out of its with block once the block has taken seconds; None: never.

    A {} in the sentence becomes the seconds.

    Inside of the block it is a BaseException: an ``except Exception`` in there, a store's or a user's, cannot take it
    for a failure of its own and go on. A gevent.Timeout would do, and costs twice as much for each hook.
    """

    __slots__ = ("_seconds", "_sentence", "_timer", "passed")

    def __init__(self, seconds: float | None, sentence: str) -> None:
        self._seconds, self._sentence = seconds, sentence
        #: Whether it was this one that raised the TimeoutError.
        self.passed = False

    def __enter__(self) -> None:
        self._timer: Any = None
        if self._seconds is not None:
            # Like gevent.Timeout's: what came in time goes first, and the clock is not that of the loop's last turn.
            self._timer = get_hub().loop.timer(self._seconds, priority=-1)
            self._timer.start(getcurrent().throw, _Expired, self, update=True)

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if self._timer is not None:
            self._timer.close()
        if isinstance(error, _Expired) and error.args[0] is self:
            self.passed = True
            raise TimeoutError(self._sentence.format(self._seconds)) from error.__cause__


class _Expired(BaseException):
    """args: the Deadline."""
