"""StoredSessions: a store's good manners, whoever keeps sessions in it.

What a store does to a handshake, and what it may not:

- A lookup happens inside the handshake, under a deadline. A store that is down, slow or full of garbage costs the
  resumption, so a full handshake, and a line in the log: never the connection. What is not the store's doing, a kill or
  the caller's own gevent.Timeout, is no miss and goes where it was aimed.
- What is to be put or removed is queued and written by a few greenlets per hub, each session's in order, behind the
  peer's back: the flight that announces a ticket is on the wire before the store hears of it. So what is on its way
  there is found here: a client may be quicker than the store. Where the store takes many at a time (BatchStore), one
  greenlet is enough. A removal may be asked for by the garbage collector or under OpenSSL's lock, where nothing may
  wait.
- A MemoryStore needs none of that: it is asked, and told, on the spot. Only a removal is noted, since the garbage
  collector may run while the store's own lock is held, and done before the store is used next.

A session's bytes in the store follow eight with the time when its chain of resumptions ends.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import perf_counter, time
from typing import Any
from weakref import ref

from greentls import events
from greentls.core.handshake import Outcome, SessionLookup
from greentls.core.session import Session
from greentls.errors import SealError
from greentls.hub import Deadline, PerHub, Task, here
from greentls.log_limit import LogLimit
from greentls.stores import BatchStore, Change, SessionStore
from greentls.stores.memory import MemoryStore

__all__ = ["Kept", "SessionLookup", "StoredSessions", "unpack"]

log = logging.getLogger("greentls.sessions")

# Greenlets that write to a store at once, per hub. One would put 50 sessions a second into a store that is 20 ms away.
WRITERS = 8

# Changes that wait for each of them before another put is dropped and logged, which costs a full handshake: some 4 MiB
# in all. Removals have as much room again, 2 MiB at most: a session that died of a fatal alert must not be resumed. The
# one writer of a store that takes many at a time has all the room.
MAX_QUEUED = 1_250

# Puts and removals that such a store takes at a time: 200 KiB, so that its answers come well within the timeout.
MAX_BATCH = 100

NOTHING = object()

Kept = tuple[float, Session]  # seconds since the epoch when its line of sessions ends


class StoredSessions:
    """store: may be shared by any number of these and of processes. timeout: seconds for each of its calls, or None."""

    def __init__(self, store: SessionStore, timeout: float | None = 1.0) -> None:
        self.store = store
        self.timeout = timeout
        # A dict needs neither a deadline nor somebody to write to it later. What is derived from it may wait.
        self._at_once = type(store) is MemoryStore
        self._noted: deque[bytes] = deque()  # what is to be removed from it
        self._batches = store if isinstance(store, BatchStore) else None
        self._writers = PerHub(self._new_writers)
        self._all_writers: list[ref[_Writers]] = []  # of all hubs
        self._troubles: dict[str, LogLimit] = {}

    def look_up(
        self, timeout: float | None, question: Callable[..., Kept | None], *arguments: Any
    ) -> tuple[Kept | None, SessionLookup]:
        """What a function finds in the store, and how that went: nothing, if it raises an Exception or takes too long.

        timeout: seconds, None for ever.
        """
        outcome: Outcome
        problem: Exception | None = None
        kept = deadline = None
        started = perf_counter()
        try:
            if self._at_once:
                if self._noted:
                    self._remove_noted()
                kept = question(*arguments)
            else:
                deadline = Deadline(timeout, "no answer in {} s")
                with deadline:
                    kept = question(*arguments)
        except SealError as error:
            outcome, problem = "unsealable", error
            self._trouble("open", str(error))
        except Exception as error:
            if deadline is not None and deadline.passed:
                outcome = "timeout"
                self._trouble("get", str(error))
            else:
                outcome, problem = "error", error
                self._trouble("get", repr(error))
        else:
            outcome = "miss" if kept is None else "expired" if kept[0] <= time() else "hit"
        if self._troubles and outcome not in ("error", "timeout"):
            self._well("get")
        seconds = perf_counter() - started
        if events.handler is not None:
            self._tell("get", outcome, seconds, problem)
        return kept if outcome == "hit" else None, SessionLookup(self.store.name, outcome, seconds)

    def write(self, key: bytes, kept: Kept | None) -> None:
        """Puts it under the key, soon, or removes what is there. Never waits. What a key is told stays in order."""
        if self._at_once:
            if self._noted:
                self._remove_noted()
            self._write_at_once(key, kept)
        else:
            self._writers.get().of(key).add(key, kept)

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until this hub's queues are written, timeout seconds at most. False if they are not."""
        self._remove_noted()
        writers = self._writers.get().all
        with suppress(TimeoutError), Deadline(timeout, ""):
            for writer in writers:
                writer.join()
        return not any(writer.busy for writer in writers)

    def close(self) -> None:
        """Writes what is queued, one timeout long at most, and closes the store."""
        self.drain(self.timeout)
        self.store.close()

    def _remove(self, key: bytes) -> None:
        """Removes what is under the key, soon. In any thread; where nothing may wait, be locked or be logged."""
        if self._at_once:
            self._noted.append(key)
            return
        for reference in self._all_writers:  # one hub's as a rule; with several, which one put it is not known
            if (writers := reference()) is not None:
                writers.of(key).add(key, None, anywhere=True)

    def _remove_noted(self) -> None:
        while self._noted:
            try:
                key = self._noted.popleft()
            except IndexError:  # another thread was quicker
                return
            self._write_at_once(key, None)

    def _waiting(self, key: bytes) -> Kept | object | None:
        """What the store is about to be told of a key; NOTHING if nothing."""
        return self._writers.get().of(key).waiting(key)

    def _new_writers(self) -> _Writers:
        count = 0 if self._at_once else 1 if self._batches is not None else WRITERS
        writers = _Writers(self, count)
        self._all_writers[:] = [*(each for each in self._all_writers if each() is not None), ref(writers)]
        return writers

    def _write_at_once(self, key: bytes, kept: Kept | None) -> None:
        started, problem = perf_counter(), None
        try:
            _write(self.store, *_change(key, kept, time()))
        except Exception as error:
            problem = error
        self._written(kept, started, problem)

    def _write(self, batch: list[tuple[bytes, Kept | None]]) -> None:
        """Under one deadline, as batches of more than one are a BatchStore's."""
        unknown = dict(enumerate(kept for _, kept in batch))  # what has become of them
        deadline = Deadline(self.timeout, "no answer in {} s")
        started, problem = perf_counter(), None
        try:
            now = time()
            changes = [_change(key, kept, now) for key, kept in batch]
            with deadline:
                write_many = self._batches.write_many if self._batches is not None else self._one_by_one
                for index, failure in write_many(changes):
                    self._written(unknown.pop(index), started, failure)
        except Exception as error:
            problem = error
        for kept in unknown.values():
            self._written(kept, started, problem, deadline.passed)

    def _one_by_one(self, changes: Sequence[Change]) -> Iterator[tuple[int, Exception | None]]:
        for index, change in enumerate(changes):
            _write(self.store, *change)
            yield index, None

    def _written(self, kept: Kept | None, started: float, problem: Exception | None, late: bool = False) -> None:
        what = "remove" if kept is None else "put"
        if problem is not None:
            self._trouble(what, str(problem) if late else repr(problem))
        elif self._troubles:
            self._well(what)
        if events.handler is not None:
            outcome = "timeout" if late else "error" if problem else "done"
            self._tell(what, outcome, perf_counter() - started, None if late else problem)

    def _tell(self, operation: str, outcome: str, seconds: float, error: Exception | None) -> None:
        name = self.store.name
        events.emit("session_store", store=name, operation=operation, outcome=outcome, seconds=seconds, error=error)

    def _trouble(self, what: str, problem: str) -> None:
        trouble = self._troubles.setdefault(what, LogLimit())
        trouble.count += 1
        if trouble.allows():
            log.warning("session store %s: %s: %s (%d so far)", self.store.name, what, problem, trouble.count)

    def _well(self, what: str) -> None:
        trouble = self._troubles.get(what)
        if trouble is not None and trouble.allows():
            log.warning("session store %s: %s works again after %d failures", self.store.name, what, trouble.count)
            del self._troubles[what]


def _change(key: bytes, kept: Kept | None, now: float) -> Change:
    if kept is None:
        return key, None, 0
    ends, session = kept
    return key, int(ends).to_bytes(8, "big") + session.to_bytes(), ends - now


def _write(store: SessionStore, key: bytes, session: bytes | None, lifetime: float) -> None:
    if session is None:
        store.remove(key)
    elif lifetime > 0:
        store.put(key, session, lifetime)


def unpack(blob: bytes) -> Kept:
    """What a store has kept. Raises ConfigurationError, or TypeError if the store gave no bytes."""
    return int.from_bytes(blob[:8], "big"), Session.from_bytes(blob[8:])


class _Writers:
    """One hub's."""

    def __init__(self, cache: StoredSessions, count: int) -> None:
        self.all = tuple(_Writer(cache, MAX_QUEUED * WRITERS // count) for _ in range(count))

    def of(self, key: bytes) -> _Writer:
        """Always the same one, so that what a key is told stays in order."""
        return self.all[0] if len(self.all) == 1 else self.all[sum(key[-1:]) % len(self.all)]


class _Writer:
    """A queue of changes and, while there are any, the greenlet that writes them."""

    def __init__(self, cache: StoredSessions, room: int) -> None:
        self._hub = here()
        self._cache = cache
        self._room = room
        self._queue: deque[tuple[bytes, Kept | None]] = deque()
        self._latest: dict[bytes, Kept | None] = {}  # of what is in the queue or being written
        self._greenlet: Task | None = None
        self._starting = False
        self._lost = 0  # removals that found no room, and of which nothing has been said

    def add(self, key: bytes, kept: Kept | None, anywhere: bool = False) -> None:
        """anywhere: in any thread and in a finalizer, from which the hub has to be woken up."""
        waiting = len(self._queue)
        if waiting >= self._room:
            if kept is not None:
                self._cache._trouble("write", "the queue is full, dropped")
                return
            if waiting >= 2 * self._room:
                self._lost += 1  # a removal may come from where not even a log line is safe
                return
        self._latest[key] = kept
        self._queue.append((key, kept))
        if self._greenlet is None and not self._starting:
            self._starting = True
            call = self._hub.call_from_thread if anywhere else self._hub.call_soon
            call(self._start)

    def _start(self) -> None:  # in the hub
        self._starting = False
        if self._greenlet is None:
            self._greenlet = self._hub.spawn(self._run)

    def _run(self) -> None:
        most = MAX_BATCH if self._cache._batches is not None else 1
        try:
            while self._queue:
                if self._lost:
                    lost, self._lost = self._lost, 0
                    self._cache._trouble("remove", f"the queue is full, {lost} dropped")
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), most))]
                try:
                    self._cache._write(batch)
                finally:
                    for key, kept in batch:
                        if self._latest.get(key, NOTHING) is kept:
                            del self._latest[key]
        finally:
            self._greenlet = None

    def waiting(self, key: bytes) -> Kept | object | None:
        """What the store is about to be told of it, NOTHING if nothing."""
        return self._latest.get(key, NOTHING)

    @property
    def busy(self) -> bool:
        return bool(self._queue) or self._greenlet is not None

    def join(self) -> None:
        while self.busy:
            self._start()
            if self._greenlet is not None:
                self._greenlet.join()
