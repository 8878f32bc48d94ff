"""A refused handshake that nobody catches is one line in the log.

gevent's servers catch nothing: what wrap_socket() raises ends the connection's greenlet, and the hub prints its
traceback and those of its causes. Scanners that try which TLS a server speaks would so write hundreds of lines with
each connection. What the peer is to blame for is marked; and the hub's handle_error, which gevent lets everybody set,
says one line for what is marked, and does what it did for all else: what a hook has raised keeps its traceback.

A hub is told when the first mark is made in it, so that who has no refused handshakes, or catches them, has gevent as
it was.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

from gevent import get_hub

__all__ = ["mark"]

log = logging.getLogger("greentls.handshake")

_MARK = "_greentls_refused"  # an attribute of the exception: who was refused


def mark(error: BaseException, peer: Any) -> None:
    """The handshake has failed for the peer's sake. peer: its address, None if it is gone."""
    setattr(error, _MARK, peer)
    hub = get_hub()
    if not isinstance(hub.handle_error, _HandleError):
        hub.handle_error = _HandleError(hub)


class _HandleError:
    """In the place of a hub's."""

    def __init__(self, hub: Any) -> None:
        self._hub = weakref.ref(hub)
        self._before = vars(hub).get("handle_error")  # somebody else's

    def __call__(self, context: Any, kind: Any, error: Any, traceback: Any) -> None:
        if context is not None and hasattr(error, _MARK):
            log.warning("%s: no handshake: %s", _name(getattr(error, _MARK)), error)
        elif self._before is not None:
            self._before(context, kind, error, traceback)
        elif (hub := self._hub()) is not None:
            type(hub).handle_error(hub, context, kind, error, traceback)


def _name(peer: Any) -> str:
    match peer:
        case (host, port, *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "a client" if peer is None else str(peer)
