"""ReplayGuard: a fleet of servers accepts early data once, or not at all.

A client's first flight needs no answer, so anybody who has a copy of it can send it again, to the same server or to
another one (RFC 8446 8). Two things together stop that:

- OpenSSL accepts early data only with a ticket whose age, as the client tells it, is right within ten seconds. The copy
  tells the same age, so it is good for no longer than that.
- The fleet remembers for longer than that what it has accepted (RFC 8446 8.2), by ClientHello.random. A copy cannot
  change it, since the binder covers it. The guard is asked only once the binder was found good, so that nobody without
  a session can fill its memory.

If the store cannot be asked, early data is refused. That costs one round trip: the client sends it again after the
handshake.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from greentls.core.hooks import HookConnection
from greentls.errors import ConfigurationError
from greentls.log_limit import LogLimit
from greentls.ssl.hooks.deadline import HookDeadline

__all__ = ["WINDOW", "ReplayGuard"]

log = logging.getLogger("greentls.core.early_data")

# Seconds for which a first flight is remembered. OpenSSL's TICKET_AGE_ALLOWANCE is 10 s, a second more with rounding.
# memcached counts whole seconds, and may forget one second early. The rest is for clocks: a server whose clock is
# behind accepts a copy for that much longer, and no synchronised clock is wrong by anything near 45 s.
WINDOW = 60


@dataclass
class ReplayGuard:
    """Hooks.early_data: whether early data is accepted.

    store: SharedValues that all servers share. timeout: seconds for its answer, None for ever. Raises
    ConfigurationError for a store that is not shared, or has no add().
    """

    store: object  # whatever the user has set, which is checked here
    timeout: float | None
    _trouble: LogLimit = field(default_factory=LogLimit, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        add = getattr(self.store, "add", None)
        if not callable(add) or getattr(self.store, "shared", False) is not True:
            raise ConfigurationError(
                "max_early_data",
                "no store that all servers share remembers what was taken, so that another one would take it again",
                'set replay_guard or session_store to an open_store("memcached://..."), or max_early_data to 0',
            )
        self._add = add

    def __call__(self, connection: HookConnection, client_random: bytes) -> bool:
        """Whether this first flight is new to all servers. Waits for the store."""
        try:
            with HookDeadline(connection, "replay_guard", self.timeout):
                return self._add(f"early-data:{client_random.hex()}", b"", WINDOW) is True
        except Exception as error:  # a kill, or the caller's own gevent.Timeout, goes where it was aimed
            if self._trouble.allows():
                name = getattr(self.store, "name", "?")
                log.warning("replay guard %s: %s; early data is refused", name, repr(error))  # not its traceback
            return False
