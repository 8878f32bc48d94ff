"""ReplayGuard: early data is taken once by a whole fleet, or not at all.

A client's first flight needs no answer, so whoever has a copy of it can send it again, to the same server or to another
one (RFC 8446 8). Two things together stop that:

- OpenSSL takes early data only with a ticket whose age, as the client tells it, is right within ten seconds. The copy
  tells the same age, so it is good for no longer than that.
- For longer than that the fleet remembers what it has taken (RFC 8446 8.2): by ClientHello.random, which a copy cannot
  change, since the binder covers it. It is asked only after the binder was found good, so that nobody without a
  session can fill its memory.

Who cannot ask refuses. To refuse early data costs one round trip: the client sends it again after the handshake.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from greentls.core.connection import Connection
from greentls.errors import ConfigurationError
from greentls.log_limit import Trouble
from greentls.ssl.hooks.deadline import Asking

__all__ = ["WINDOW", "ReplayGuard"]

log = logging.getLogger("greentls.core.early_data")

# Seconds for which a first flight is remembered. OpenSSL's TICKET_AGE_ALLOWANCE is 10 s, a second more with rounding;
# memcached counts whole seconds, one less than asked for at worst. The rest is for clocks: a server whose clock is
# behind takes a copy for that much longer. 45 s is far from what any synchronised clock may be wrong by.
WINDOW = 60


@dataclass
class ReplayGuard:
    """Hooks.early_data. store: SharedValues that all servers share. timeout: seconds for its answer, or None.

    Raises ConfigurationError for a store that is not shared, or has no add().
    """

    store: Any
    timeout: float | None
    _trouble: Trouble = field(default_factory=Trouble, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(getattr(self.store, "add", None)) or getattr(self.store, "shared", False) is not True:
            raise ConfigurationError(
                "max_early_data",
                "no store that all servers share remembers what was taken, so that another one would take it again",
                'set replay_guard or session_store to an open_store("memcached://..."), or max_early_data to 0',
            )

    def __call__(self, connection: Connection, client_random: bytes) -> bool:
        """True: this first flight has not been here before."""
        try:
            with Asking(connection, "replay_guard", self.timeout):
                return self.store.add(f"early-data:{client_random.hex()}", b"", WINDOW) is True
        except Exception as error:  # a kill, or the caller's own gevent.Timeout, goes where it was aimed
            if self._trouble.may_be_said():
                name = getattr(self.store, "name", "?")
                log.warning("replay guard %s: %s; early data is refused", name, repr(error))  # not its traceback
            return False
