"""Makes one log line of a refused handshake that nobody catches.

gevent's servers do not catch what wrap_socket() raises. The exception ends the connection's greenlet, and the hub
prints its traceback, with those of its causes. A scanner that tries out which TLS a server speaks would cause hundreds
of lines with each connection. So an error that is the peer's fault is marked here. The hub's handle_error, which gevent
allows programs to set, logs one line for a marked error, and treats all others as before: an error from a hook keeps
its traceback.

A hub's handle_error is set when the first error is marked in that hub. In a program without refused handshakes, gevent
stays as it was.
"""

from __future__ import annotations

import logging
import weakref

import gevent.hub
from gevent import get_hub

__all__ = ["mark"]

log = logging.getLogger("greentls.handshake")

_MARK = "_greentls_refused"  # an attribute of the exception: the peer's address


def mark(error: BaseException, peer: object) -> None:
    """Marks an error with which a handshake failed because of the peer. peer: its address, None if it is gone."""
    setattr(error, _MARK, peer)
    hub = get_hub()
    if not isinstance(hub.handle_error, _HandleError):
        hub.handle_error = _HandleError(hub)


class _HandleError:
    """Takes the place of a hub's handle_error."""

    def __init__(self, hub: gevent.hub.Hub) -> None:
        self._hub = weakref.ref(hub)
        self._before = vars(hub).get("handle_error")  # None unless the program has set one

    def __call__(self, context: object, kind: object, error: object, traceback: object) -> None:
        if context is not None and hasattr(error, _MARK):
            log.warning("%s: no handshake: %s", _name(getattr(error, _MARK)), error)
        elif self._before is not None:
            self._before(context, kind, error, traceback)
        elif (hub := self._hub()) is not None:
            type(hub).handle_error(hub, context, kind, error, traceback)


def _name(peer: object) -> str:
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "a client" if peer is None else str(peer)
