"""ThreadLocal: threading.local of each native thread, also where gevent has made the standard library's one of each
greenlet. What is kept for a hub, its sockets and its buffers, is a thread's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gevent.monkey import get_original

__all__ = ["ThreadLocal"]

if TYPE_CHECKING:
    from threading import local as ThreadLocal
else:
    ThreadLocal = get_original("_thread", "_local")
