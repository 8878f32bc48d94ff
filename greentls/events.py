"""What happens, for whoever counts or logs it: one callable that gets a dict for each event.

    import greentls.events
    greentls.events.handler = print

Every event has ``event``, its name; what else is in it is in ``EVENTS``. Durations are seconds. The dict is the
handler's own. It is called in the greenlet where the event happens, and must neither wait nor take long; what it raises
is logged, once in ten seconds, and changes nothing. Without a handler no dict is made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from greentls.log_limit import Trouble

__all__ = ["EVENTS", "emit", "handler"]

log = logging.getLogger("greentls.events")

#: None, or who is told.
handler: Callable[[dict[str, Any]], object] | None = None

#: The events, and what is in each besides its name.
EVENTS = {
    # A handshake has ended. error: None, or the exception that its caller gets. resumption, version, cipher, alpn:
    # None where it failed before. early_data: whether it was accepted, None if none was sent. lookup: None, or what
    # became of the lookup of the session: store, outcome, seconds. hooks: {name: seconds} of those that were asked.
    "handshake": (
        "side", "error", "seconds", "server_name", "resumption", "version", "cipher", "alpn", "early_data", "lookup",
        "hooks",
    ),
    # A call of a session store. operation: get, put, remove. outcome: of a get as in SessionLookup; else done, timeout
    # or error. error: None or the exception. seconds: of what is written in one batch, since that began.
    "session_store": ("store", "operation", "outcome", "seconds", "error"),
    # An OCSP responder was asked. side: server by a Stapler, client under SSLContext.ocsp. names: the certificate's,
    # None at a client, where they are the peer's. status: good, revoked or, at a client, unknown; None if there is an
    # error. seconds: of the question and its answer. next_refresh: when a Stapler wants to ask again, seconds since the
    # epoch; None at a client. error: None, or why there is no response that counts.
    "ocsp_fetch": ("side", "names", "status", "seconds", "next_refresh", "error"),
    # A SigningKey was asked. side: whose handshake it was. algorithm: its name in RFC 8446 4.2.3. error: None, or the
    # exception that refused the handshake.
    "signature": ("side", "algorithm", "seconds", "error"),
    # TicketKeys that are now others, or could not be refreshed and stay. Nothing is told while they are the same.
    # source: the files' paths, or the store's name. added, removed: names of keys, in hexadecimal. error: None or what
    # went wrong, as text: an exception's traceback leads to the keys themselves.
    "ticket_keys": ("source", "added", "removed", "error"),
}  # fmt: skip

_trouble = Trouble()


def emit(event: str, **facts: Any) -> None:
    """Tells the handler. Look at ``handler`` first where the facts cost something."""
    if handler is None:
        return
    try:
        handler({"event": event, **facts})
    except Exception:
        if _trouble.may_be_said():
            log.warning("greentls.events.handler raises, of %s", event, exc_info=True)
