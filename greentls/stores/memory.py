"""MemoryStore: sessions and shared values of one process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from greentls.errors import ConfigurationError
from greentls.stores.contract import check_value

__all__ = ["MemoryStore"]

# nginx keeps some 4,000 sessions per megabyte of ssl_session_cache, and OpenSSL's own cache 20,480 sessions.
MAX_ENTRIES = 20_480
MAX_BYTES = 32 << 20
ENTRY_OVERHEAD = 300  # bytes that CPython needs for an entry besides the session


class MemoryStore:
    """Keeps the sessions used last, and shared values, in this process. Does not wait.

    max_entries: the number of sessions, and of shared values. max_bytes: the memory of the sessions. If there is no
    room, the session used least recently is dropped, which costs a full handshake. A shared value is never dropped,
    since a second add() would then succeed: putting a new one raises MemoryError instead.
    """

    name = "memory"
    shared = False
    private = True

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        for option, value in (("entries", max_entries), ("bytes", max_bytes)):
            if value < 1:
                raise ConfigurationError(f"memory store: {option}={value}", "must be 1 or more")
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._sessions: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()  # id -> (session, when it expires)
        self._bytes = 0
        self._values: dict[str, tuple[bytes, float, int]] = {}  # name -> (value, when it expires, its token)
        self._changes = 0
        self._lock = threading.Lock()  # between threads; nothing waits while it is held

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session_id: bytes) -> bytes | None:
        with self._lock:
            kept = self._sessions.get(session_id)
            if kept is None:
                return None
            if kept[1] <= time.monotonic():
                self._drop(session_id)
                return None
            self._sessions.move_to_end(session_id)
            return kept[0]

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        with self._lock:
            sessions = self._sessions
            if session_id in sessions:
                self._drop(session_id)
            if lifetime > 0:
                sessions[session_id] = bytes(session), time.monotonic() + lifetime
                self._bytes += len(session) + ENTRY_OVERHEAD
            while len(sessions) > self.max_entries or self._bytes > self.max_bytes:
                self._drop(next(iter(sessions)))

    def remove(self, session_id: bytes) -> None:
        with self._lock:
            self._drop(session_id)

    def gets(self, name: str) -> tuple[bytes | None, int]:
        check_value(name, 1)
        with self._lock:
            value, _, token = self._value(name)
            return value, token

    def cas(self, name: str, value: bytes, token: int, lifetime: float) -> bool:
        check_value(name, lifetime)
        with self._lock:
            if self._value(name)[2] != token:
                return False
            self._keep(name, value, lifetime)
            return True

    def add(self, name: str, value: bytes, lifetime: float) -> bool:
        return self.cas(name, value, 0, lifetime)

    def close(self) -> None:
        with self._lock:
            self._sessions.clear()
            self._values.clear()
            self._bytes = 0

    def _value(self, name: str) -> tuple[bytes | None, float, int]:
        value, expires, token = self._values.get(name, (None, 0.0, 0))
        return (value, expires, token) if expires > time.monotonic() else (None, 0.0, 0)

    def _keep(self, name: str, value: bytes, lifetime: float) -> None:
        now = time.monotonic()
        self._values.pop(name, None)  # so that the oldest are first
        while self._values and next(iter(self._values.values()))[1] <= now:
            del self._values[next(iter(self._values))]
        if len(self._values) >= self.max_entries:
            self._values = {each: kept for each, kept in self._values.items() if kept[1] > now}
        if len(self._values) >= self.max_entries:
            raise MemoryError(f"memory store: {self.max_entries} shared values, and none has expired")
        self._changes += 1
        self._values[name] = bytes(value), now + lifetime, self._changes

    def _drop(self, session_id: bytes) -> None:
        session, _ = self._sessions.pop(session_id, (None, 0.0))
        if session is not None:
            self._bytes -= len(session) + ENTRY_OVERHEAD
