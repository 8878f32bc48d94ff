"""Trouble that is not over yet, said once in a while: an outage under load is one event, not a thousand lines."""

from __future__ import annotations

from time import monotonic

__all__ = ["LOG_INTERVAL", "Trouble"]

# Seconds between two log lines about the same trouble.
LOG_INTERVAL = 10.0


class Trouble:
    """Failures of one kind that are not over yet, or not for LOG_INTERVAL."""

    def __init__(self) -> None:
        self.count = 0
        self._silent_until = 0.0

    def may_be_said(self) -> bool:
        now = monotonic()
        if now < self._silent_until:
            return False
        self._silent_until = now + LOG_INTERVAL
        return True
