"""SessionCache: a session store behind a server Context's hooks. StoredSessions: the same store's good manners.

What a store does to a handshake, and what it may not:

- A lookup happens inside the handshake, under a deadline. A store that is down, slow or full of garbage costs the
  resumption, so a full handshake, and a line in the log: never the connection. What is not the store's doing, a kill or
  the caller's own gevent.Timeout, is no miss and goes where it was aimed.
- What is to be put or removed is queued and written by a few greenlets per hub, each session's in order, behind the
  peer's back: the flight that announces a ticket is on the wire before the store hears of it. So what is on its way
  there is found here: a client may be quicker than the store. A removal may be asked for by the garbage collector or
  under OpenSSL's lock, where nothing may wait.
- A session is found only where it may be resumed: what it is bound to (Connection.session_id_context: settings and
  server name) is half of its key, so that a session of another name is a miss before anything is unsealed or parsed.
- A session's lifetime counts from the full handshake that it comes from. A resumption under TLS 1.3 makes new sessions,
  each with a lifetime of its own: without this a client that keeps resuming would never show its certificate again, nor
  the server (RFC 8446 4.6.1). So before a session's bytes stand eight with the time when its line ends.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter, time
from typing import Any, Literal, NamedTuple, cast
from weakref import WeakKeyDictionary

import gevent
from gevent import get_hub

from greentls import events
from greentls.bridge import Hooks
from greentls.errors import ConfigurationError, SealError
from greentls.session import Session
from greentls.stores import SessionStore
from greentls.stores.memory import MemoryStore
from greentls.trouble import Trouble

__all__ = ["Kept", "SessionCache", "SessionLookup", "StoredSessions", "unpack"]

log = logging.getLogger("greentls.sessions")

# Greenlets that write to a store at once, per hub. One would put 50 sessions a second into a store that is 20 ms away.
WRITERS = 8

# Puts and removals that wait for each of them: some 4 MiB in all. What comes on top is dropped and logged; it costs a
# full handshake.
MAX_QUEUED = 1_250

# Bytes of the session-id context in a key. No secret and no proof: OpenSSL compares the whole of it.
ID_CONTEXT_SIZE = 8

_NO_LIMIT = nullcontext()
_NOTHING = object()

Outcome = Literal["hit", "miss", "expired", "unsealable", "timeout", "error"]
Kept = tuple[float, Session]  # seconds since the epoch when its line of sessions ends


class SessionLookup(NamedTuple):
    """What became of the lookup of one connection's session.

    outcome: a "hit" was found; whether OpenSSL resumes it is another question (session-id context, version, cipher). A
    "miss" was not. "expired" was found too late, by this machine's clock. "unsealable" does not open: sealed under a
    secret that is not here, damaged or forged. "timeout" and "error": the store gave no answer.
    """

    store: str
    outcome: Outcome
    seconds: float


class StoredSessions:
    """store: may be shared by any number of these and of processes. timeout: seconds for each of its calls, or None."""

    def __init__(self, store: SessionStore, timeout: float | None = 1.0) -> None:
        self.store = store
        self.timeout = timeout
        self._writers: WeakKeyDictionary[Any, tuple[_Writer, ...]] = WeakKeyDictionary()
        self._troubles: dict[str, Trouble] = {}
        # A dict needs neither a deadline nor somebody to write to it later. What is derived from it may wait.
        self._at_once = type(store) is MemoryStore

    def look_up(self, question: Callable[[], Kept | None], timeout: float | None) -> tuple[Kept | None, SessionLookup]:
        """What a function finds in the store, and how that went: nothing, if it raises an Exception or takes too long.

        timeout: seconds, None for ever.
        """
        outcome: Outcome | None = None
        problem: Exception | None = None
        kept = None
        started = perf_counter()
        with self._limit(timeout):
            try:
                kept = question()
                outcome = "miss" if kept is None else "expired" if kept[0] <= time() else "hit"
            except SealError as error:
                outcome, problem = "unsealable", error
                self._trouble("open", str(error))
            except Exception as error:
                outcome, problem = "error", error
                self._trouble("get", repr(error))
        if outcome is None:
            outcome = "timeout"
            self._trouble("get", f"no answer in {timeout} s")
        elif outcome != "error":
            self._well("get")
        seconds = perf_counter() - started
        self._tell("get", outcome, seconds, problem)
        return kept if outcome == "hit" else None, SessionLookup(self.store.name, outcome, seconds)

    def write(self, key: bytes, kept: Kept | None) -> None:
        """Puts it under the key, soon, or removes what is there. Never waits. What a key is told stays in order."""
        if self._at_once and kept is not None:
            self._write(key, kept)
        else:
            _writer_of(key, self._hubs_writers()).add(key, kept, here=True)

    def _limit(self, timeout: float | None) -> AbstractContextManager[Any]:
        return _NO_LIMIT if self._at_once else gevent.Timeout(timeout, False)

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until this hub's queues are written, timeout seconds at most. False if they are not."""
        writers = self._hubs_writers()
        with gevent.Timeout(timeout, False):
            for writer in writers:
                writer.join()
        return not any(writer.busy for writer in writers)

    def close(self) -> None:
        """Writes what is queued, one timeout long at most, and closes the store."""
        self.drain(self.timeout)
        self.store.close()

    def _waiting(self, key: bytes) -> Kept | object | None:
        return _writer_of(key, self._hubs_writers()).waiting(key)

    def _hubs_writers(self) -> tuple[_Writer, ...]:
        hub = get_hub()
        writers = self._writers.get(hub)
        if writers is None:
            writers = self._writers[hub] = tuple(_Writer(hub, self) for _ in range(WRITERS))
        return writers

    def _write(self, key: bytes, kept: Kept | None) -> None:
        what = "remove" if kept is None else "put"
        outcome, problem, started = "timeout", None, perf_counter()
        with self._limit(self.timeout):
            try:
                if kept is None:
                    self.store.remove(key)
                elif (remaining := kept[0] - time()) > 0:
                    self.store.put(key, _pack(*kept), remaining)
                outcome = "done"
            except Exception as error:
                outcome, problem = "error", error
        if outcome == "done":
            self._well(what)
        else:
            self._trouble(what, repr(problem) if problem else f"no answer in {self.timeout} s")
        self._tell(what, outcome, perf_counter() - started, problem)

    def _tell(self, operation: str, outcome: str, seconds: float, error: Exception | None) -> None:
        if events.handler is not None:
            events.emit(
                "session_store",
                store=self.store.name,
                operation=operation,
                outcome=outcome,
                seconds=seconds,
                error=error,
            )

    def _trouble(self, what: str, problem: str) -> None:
        trouble = self._troubles.setdefault(what, Trouble())
        trouble.count += 1
        if trouble.may_be_said():
            log.warning("session store %s: %s: %s (%d so far)", self.store.name, what, problem, trouble.count)

    def _well(self, what: str) -> None:
        trouble = self._troubles.get(what) if self._troubles else None
        if trouble is not None and trouble.may_be_said():
            log.warning("session store %s: %s works again after %d failures", self.store.name, what, trouble.count)
            del self._troubles[what]


class SessionCache(StoredSessions):
    """A server's hooks."""

    def __init__(self, store: SessionStore, timeout: float | None = 1.0) -> None:
        super().__init__(store, timeout)
        self.hooks = Hooks(get_session=self.get, new_session=self.put, remove_session=self.remove)

    def get(self, connection: Any, session_id: bytes) -> Session | None:
        """Hooks.get_session. Tells what came of it as connection.session_lookup."""

        def question() -> Kept | None:
            key = _key(session_id, connection.session_id_context)
            waiting = self._waiting(key)
            if waiting is not _NOTHING:  # a client is quicker than the store
                return cast("Kept | None", waiting)
            blob = self.store.get(key)
            if blob is None:
                return None
            kept = unpack(blob)
            if kept[1].id != session_id:
                raise ConfigurationError("session", "the store answered with another one's")
            return kept

        kept, connection.session_lookup = self.look_up(question, self.timeout)
        if kept is None:
            return None
        connection.session_ends, session = kept
        return session

    def put(self, connection: Any, session: Session) -> None:
        """Hooks.new_session. Never waits."""
        ends: float = session.time + session.timeout
        if connection.session_reused:
            ends = min(ends, connection.session_ends)
        self.write(_key(session.id, session.id_context), (ends, session))

    def remove(self, session_id: bytes, id_context: bytes) -> None:
        """Hooks.remove_session. Never waits, never raises; may be called in the hub and in any thread."""
        key = _key(session_id, id_context)
        for writers in list(self._writers.values()):  # one hub's as a rule; with several, who put it is not known
            _writer_of(key, writers).add(key, None)


def _pack(ends: float, session: Session) -> bytes:
    return int(ends).to_bytes(8, "big") + session.to_bytes()


def unpack(blob: bytes) -> Kept:
    """What a store has kept. Raises ConfigurationError, or TypeError if the store gave no bytes."""
    return int.from_bytes(blob[:8], "big"), Session.from_bytes(blob[8:])


def _key(session_id: bytes, id_context: bytes) -> bytes:
    return id_context[:ID_CONTEXT_SIZE] + session_id


def _writer_of(key: bytes, writers: tuple[_Writer, ...]) -> _Writer:
    """Always the same one, so that what is done to a session stays in order."""
    return writers[sum(key[-1:]) % len(writers)]


class _Writer:
    """What is to be written, under its key, and while there is something the greenlet that writes it."""

    def __init__(self, hub: Any, cache: StoredSessions) -> None:
        self._loop = hub.loop
        self._cache = cache
        self._queue: deque[tuple[bytes, Kept | None]] = deque()
        self._latest: dict[bytes, Kept | None] = {}  # of what is in the queue or being written
        self._greenlet: Any = None
        self._starting = False

    def add(self, key: bytes, kept: Kept | None, here: bool = False) -> None:
        """here: in the hub's thread, and not in the garbage collector, so that nobody has to be woken up."""
        if len(self._queue) >= MAX_QUEUED:
            if kept is not None:  # a removal may come from where not even a log line is safe
                self._cache._trouble("write", "the queue is full, dropped")
            return
        self._latest[key] = kept
        self._queue.append((key, kept))
        if self._greenlet is None and not self._starting:
            self._starting = True
            start = self._loop.run_callback if here else self._loop.run_callback_threadsafe
            start(self._start)

    def _start(self) -> None:  # in the hub
        self._starting = False
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        try:
            while self._queue:
                key, kept = self._queue.popleft()
                try:
                    self._cache._write(key, kept)
                finally:
                    if self._latest.get(key, _NOTHING) is kept:
                        del self._latest[key]
        finally:
            self._greenlet = None

    def waiting(self, key: bytes) -> Kept | object | None:
        """What the store is about to be told of it, _NOTHING if nothing."""
        return self._latest.get(key, _NOTHING)

    @property
    def busy(self) -> bool:
        return bool(self._queue) or self._greenlet is not None

    def join(self) -> None:
        while self.busy:
            if self._greenlet is None:
                self._start()
            self._greenlet.join()
