"""The heap that a storm of handshakes leaves behind, given back to the system.

Between its two flights a handshake keeps some 22 KiB in OpenSSL. If thousands of clients come at the same time, the
heap grows by that for each. All of it is freed again, but it lies between the smaller pieces that connections keep, and
glibc gives back the end of the heap only: 10 KiB stay behind for each idle connection. malloc_trim(3) gives back the
whole pages in between.

It holds malloc's lock meanwhile: 38 ms after 5,000 handshakes at once, which is 8 microseconds for each; 1.5 ms if it
finds nothing. So it is called seldom, and in a native thread without the GIL.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import count

from greentls.hub.per_hub import unpatched

__all__ = ["EACH", "connection_rests"]

EACH = 1000  # connections that have become idle, and have left 10 MB at most, between two calls of malloc_trim()

_trim: Callable[[int], object] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
_start: Callable[..., object] = unpatched("_thread", "start_new_thread")
_rested = count(1)


def connection_rests() -> None:
    """A connection has become idle. In any thread; does not wait."""
    if next(_rested) % EACH or _trim is None:
        return
    try:
        _start(_trim, (0,))
    except RuntimeError:  # no more threads: memory that could be given back is no reason to fail
        pass
