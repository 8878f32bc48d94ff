"""Deadline: a block that may wait, but not for ever."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from gevent import get_hub
from greenlet import getcurrent

from greentls.connection import Connection

__all__ = ["Asking", "Deadline"]


class Deadline:
    """Raises TimeoutError(sentence) out of its with block once the block has taken seconds; None: never.

    A {} in the sentence becomes the seconds.

    Inside of the block it is a BaseException: an ``except Exception`` in there, a store's or a user's, cannot take it
    for a failure of its own and go on. A gevent.Timeout would do, and costs twice as much for each hook.
    """

    __slots__ = ("_seconds", "_sentence", "_timer")

    def __init__(self, seconds: float | None, sentence: str) -> None:
        self._seconds, self._sentence = seconds, sentence

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
            raise TimeoutError(self._sentence.format(self._seconds)) from error.__cause__


class Asking(Deadline):
    """The Deadline of a hook, which also notes on the connection how long the hook took. name: "sni_callback", ..."""

    __slots__ = ("_connection", "_name", "_started")

    def __init__(self, connection: Connection, name: str, seconds: float | None) -> None:
        super().__init__(seconds, f"{name} gave no answer in {{}} s")
        self._connection, self._name = connection, name

    def __enter__(self) -> None:
        super().__enter__()
        self._started = perf_counter()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        seconds = perf_counter() - self._started
        taken = self._connection.hook_seconds
        if taken is None:
            taken = self._connection.hook_seconds = {}
        taken[self._name] = taken.get(self._name, 0.0) + seconds  # a HelloRetryRequest asks twice
        super().__exit__(kind, error, traceback)


class _Expired(BaseException):
    """args: the Deadline."""
