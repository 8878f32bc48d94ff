"""SessionCache: a session store behind a server Config's hooks.

- A session is found only where it may be resumed. What it is bound to (Connection.session_id_context: settings and
  server name) is half of its key, so a session of another name is a miss before anything is unsealed or parsed.
- The lifetime counts from the full handshake that a chain of resumptions began with. A resumption under TLS 1.3 makes
  new sessions, each with a lifetime of its own: without this rule a client that keeps resuming would never show its
  certificate again, nor would the server (RFC 8446 4.6.1).
"""

from __future__ import annotations

from typing import cast

from greentls.core.hooks import HookConnection, Hooks
from greentls.errors import ConfigurationError
from greentls.openssl import facts
from greentls.sessions.stored import CHAIN_ENDS, NOTHING, Kept, StoredSessions
from greentls.stores import SessionStore

__all__ = ["SessionCache"]

# Bytes of the session-id context in a key. No secret and no proof: OpenSSL compares the whole of it.
ID_CONTEXT_SIZE = 8


class SessionCache(StoredSessions):
    """hooks: those of a server Config that keeps its sessions in a store.

    timeout: seconds for each call of the store, None for no limit.
    """

    def __init__(self, store: SessionStore, timeout: float | None = 1.0) -> None:
        super().__init__(store, timeout)
        self.hooks = Hooks(get_session=self.get, store_session=self.put, remove_session=self.remove)

    def get(self, connection: HookConnection, session_id: bytes) -> facts.Found | None:
        """Hooks.get_session. Waits for the store."""
        kept, lookup = self.look_up(self.timeout, self._find, session_id, connection.session_id_context)
        connection.handshake.looked_up(lookup)
        if kept is None:
            return None
        chain_ends, session = kept
        connection.handshake.resumes_until(chain_ends)
        return session

    def put(
        self, connection: HookConnection, session_id: bytes, id_context: bytes, expires: int, der: bytes, resumed: bool
    ) -> None:
        """Hooks.store_session. Does not wait."""
        chain_ends = min(expires, connection.handshake.chain_ends) if resumed else expires
        self.write(_key(session_id, id_context), chain_ends, der)

    def remove(self, session_id: bytes, id_context: bytes) -> None:
        """Hooks.remove_session. In any thread and in the hub; neither waits nor raises."""
        self._remove(_key(session_id, id_context))

    def _find(self, session_id: bytes, id_context: bytes) -> Kept[facts.Found] | None:
        key = _key(session_id, id_context)
        waiting = NOTHING if self._at_once else self.waiting(key)
        blob = self.store.get(key) if waiting is NOTHING else cast("bytes | None", waiting)
        if blob is None:
            return None
        found = facts.parse(blob, CHAIN_ENDS, session_id)
        if found is None:
            raise ConfigurationError("session", f"the store's {len(blob)} bytes are none, or another one's")
        return int.from_bytes(blob[:CHAIN_ENDS], "big"), found


def _key(session_id: bytes, id_context: bytes) -> bytes:
    return id_context[:ID_CONTEXT_SIZE] + session_id
