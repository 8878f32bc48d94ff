"""LogLimit: logs a continuing failure once in a while. An outage under load is one event, not a thousand lines."""

from __future__ import annotations

from time import monotonic

__all__ = ["LOG_INTERVAL", "LogLimit"]

# Seconds between two log lines about failures of the same kind.
LOG_INTERVAL = 10.0


class LogLimit:
    """Failures of one kind. count: the number of failures since the last success, if the caller counts them."""

    def __init__(self) -> None:
        self.count = 0
        self._silent_until = 0.0

    def allows(self) -> bool:
        """Whether a line may be logged now. If so, the next one may be logged LOG_INTERVAL later."""
        now = monotonic()
        if now < self._silent_until:
            return False
        self._silent_until = now + LOG_INTERVAL
        return True
