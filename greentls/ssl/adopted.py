"""A connected socket becomes a TLSStream's: of gevent's sockets with what they are made of, of others by detach().

gevent makes two io watchers and a ``_socket.socket`` for each accepted connection, and sets that to non-blocking. To
detach the descriptor would close the watchers, and another socket with other watchers would follow: 8 microseconds for
each connection. So they are taken out of a gevent socket that nobody waits for. It is left as detach() leaves it.
"""

from __future__ import annotations

import _socket
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import gevent.socket
from gevent import get_hub

if TYPE_CHECKING:
    from socket import socket as Socket

try:
    from gevent._socket3 import _closedsocket
except ImportError:  # another gevent: its sockets are detached
    _closed = None
else:
    _closed = lru_cache(_closedsocket)  # what is in its place has no state

__all__ = ["Watcher", "adopt"]

Watcher: TypeAlias = "gevent.core.io | None"


def adopt(sock: Socket) -> tuple[_socket.socket, Watcher, Watcher]:
    """A non-blocking socket with sock's descriptor, and its watchers for reading and for writing if there are any. sock
    has them no more."""
    if _closed is not None and isinstance(sock, gevent.socket.socket):
        try:
            raw, readable, writable = sock._sock, sock._read_event, sock._write_event
            if sock.hub is get_hub() and isinstance(raw, _socket.socket) and not (readable.active or writable.active):
                sock._sock = _closed(raw.family, raw.type, raw.proto, -1, "detached")
                sock._read_event = sock._write_event = None
                return raw, readable, writable
        except (AttributeError, TypeError):  # another gevent, or a socket that is closed, which detach() will tell
            pass
    raw = _socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    raw.setblocking(False)
    return raw, None, None
