"""Where sessions live, so that another worker, or the same one after a restart, can resume them.

A store knows nothing of TLS: opaque bytes in, the same bytes out. What those bytes are is a master secret: whoever has
them can stand in for either side of a resumption and, under TLS 1.2, read every connection of that session, recorded
ones too. A store that sends them out of the process is therefore wrapped in a SealedStore, and open_store() refuses to
do without unless it is told ``insecure=1``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from greentls.stores.urls import open_store

__all__ = ["SessionStore", "open_store"]


@runtime_checkable
class SessionStore(Protocol):
    """The contract.

    May block, in the running greenlet only. Its caller has a deadline and may be killed: any method may be left by any
    BaseException at any point where it waits, and the store must be as good as before for the next caller.

    May be lost: anything, at any time. A forgotten session costs a full handshake, an outage costs full handshakes, so
    a method that cannot do its work just raises an Exception: the caller logs it and goes on. Must be reliable: get()
    answers with exactly the bytes that were put under this id last, or with None; never with others, never after their
    lifetime, and never after remove() has returned.

    May be shared: by any number of greenlets, threads and, where it is a server's, processes.
    """

    name: str  # "memory", "memcached": for pages and log lines

    def get(self, session_id: bytes) -> bytes | None:
        """The session's bytes, None if there are none. Must not remove them: RFC 8446 C.4 leaves single use to us."""

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        """Keeps the bytes for lifetime seconds (more than 0), in place of what was under this id."""

    def remove(self, session_id: bytes) -> None:
        """Forgets what is under this id; it need not exist."""

    def close(self) -> None:
        """Gives back what the store holds of the system. It may be used again, or closed again."""
