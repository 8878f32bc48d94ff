"""HookDeadline: the time that a hook may take, and has taken."""

from __future__ import annotations

from time import perf_counter
from types import TracebackType

from greentls.core.hooks import HookConnection
from greentls.hub import Deadline

__all__ = ["HookDeadline"]


class HookDeadline(Deadline):
    """The Deadline of a hook, which also notes on the connection how long the hook took.

    name: of the hook, "sni_callback" for example. seconds: that it may take, None for ever.
    """

    __slots__ = ("_connection", "_name", "_started")

    def __init__(self, connection: HookConnection, name: str, seconds: float | None) -> None:
        super().__init__(seconds, f"{name} gave no answer in {{}} s")
        self._connection, self._name = connection, name

    def __enter__(self) -> None:
        super().__enter__()
        self._started = perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._connection.handshake.took(self._name, perf_counter() - self._started)
        super().__exit__(kind, error, traceback)
