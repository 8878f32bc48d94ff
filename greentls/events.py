"""Events: one callable gets each of them as a dict, to count or to log it.

    import greentls.events
    greentls.events.handler = print

Every event has its name as ``event``, and the keys that ``EVENTS`` lists. Durations are in seconds. The handler may
keep the dict. It is called in the greenlet where the event happens, so it must not wait or take long. An exception from
it is logged, once in ten seconds, and changes nothing. Without a handler no dict is made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from greentls.log_limit import LogLimit

__all__ = ["EVENTS", "Event", "emit", "handler"]

log = logging.getLogger("greentls.events")

Event = dict[str, Any]  # Any: each event has its own keys and types (EVENTS)

#: None, or a callable that gets each event.
handler: Callable[[Event], object] | None = None

#: The events, and the keys of each besides its name.
EVENTS = {
    # A handshake has ended. error: None, or the exception that the caller gets. resumption, version, cipher, alpn:
    # None if the handshake failed before they were known. early_data: whether it was accepted, None if none was sent.
    # lookup: None, or the result of the session lookup: store, outcome, seconds. hooks: {name: seconds} of each called
    # hook.
    "handshake": (
        "side", "error", "seconds", "server_name", "resumption", "version", "cipher", "alpn", "early_data", "lookup",
        "hooks",
    ),
    # A session store was called. operation: get, put, remove. outcome: of a get as in SessionLookup, otherwise done,
    # timeout or error. error: None or the exception. seconds: in a batch, since the batch began.
    "session_store": ("store", "operation", "outcome", "seconds", "error"),
    # An OCSP responder was asked. side: server by a Stapler, client under SSLContext.ocsp. names: of the certificate;
    # None on a client, where they belong to the peer. status: good, revoked or, on a client, unknown; None with an
    # error. seconds: until the answer. next_refresh: when a Stapler will ask again, seconds since the epoch; None on a
    # client. error: None, or the reason why there is no valid response.
    "ocsp_fetch": ("side", "names", "status", "seconds", "next_refresh", "error"),
    # A SigningKey was asked. side: server or client. algorithm: its name in RFC 8446 4.2.3. error: None, or the
    # exception that refused the handshake.
    "signature": ("side", "algorithm", "seconds", "error"),
    # TicketKeys have changed, or could not be refreshed and stay the same. There is no event for an unchanged refresh.
    # source: the files' paths, or the store's name. added, removed: names of keys, in hexadecimal. error: None, or the
    # exception's text, because its traceback leads to the keys.
    "ticket_keys": ("source", "added", "removed", "error"),
}  # fmt: skip

_trouble = LogLimit()


def emit(event: str, **facts: object) -> None:
    """Calls the handler. If the facts are expensive, check ``handler`` first."""
    if handler is None:
        return
    try:
        handler({"event": event, **facts})
    except Exception:
        if _trouble.allows():
            log.warning("greentls.events.handler fails for %s", event, exc_info=True)
