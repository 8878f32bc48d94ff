"""Deadline: a block that may wait, but not for ever."""

from __future__ import annotations

from typing import Any

import gevent

__all__ = ["Deadline"]


class Deadline:
    """Raises TimeoutError(sentence) out of its with block once the block has taken seconds; None: never.

    Inside of the block it is a gevent.Timeout, a BaseException: an ``except Exception`` in there, a store's or a
    user's, cannot take it for a failure of its own and go on.
    """

    __slots__ = ("_seconds", "_sentence", "_timeout")

    def __init__(self, seconds: float | None, sentence: str) -> None:
        self._seconds, self._sentence = seconds, sentence

    def __enter__(self) -> None:
        self._timeout = gevent.Timeout.start_new(self._seconds)

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        self._timeout.close()
        if error is not None and error is self._timeout:
            raise TimeoutError(self._sentence) from error.__cause__
