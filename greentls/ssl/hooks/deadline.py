"""Asking: the Deadline of a hook."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from greentls.core.connection import Connection
from greentls.hub import Deadline

__all__ = ["Asking"]


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
