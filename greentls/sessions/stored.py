"""StoredSessions: what a session store may do to a handshake, and what it may not.

- A lookup happens inside the handshake, under a deadline. If the store is down, slow or answers with garbage, that is
  logged, and the handshake is a full one. It never costs the connection. A kill, or the caller's own timeout, is not
  the store's failure: it reaches the caller as itself.
- Puts and removals are queued. A few greenlets of each hub write them, those of one session in order. The peer does not
  wait for that: its flight is sent before the store is told. A client may then be quicker than the store, so a lookup
  first asks what is on its way there. A store that takes many changes at a time (BatchStore) has one such greenlet.
- OpenSSL may ask for a removal under its own lock, or from the garbage collector. Nothing may wait there.
- A MemoryStore is asked and told at once, without deadline and queue. Only a removal is noted, and done before the next
  use: the garbage collector may run while this thread holds the store's lock.

In the store, eight bytes precede the bytes of each session: when its chain of resumptions ends.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import perf_counter, time
from typing import TypeVar
from weakref import ref

from greentls import events
from greentls.core.handshake import Outcome, SessionLookup
from greentls.errors import SealError
from greentls.hub import Deadline, PerHub, Task, here
from greentls.log_limit import LogLimit
from greentls.stores import BatchStore, Change, SessionStore
from greentls.stores.memory import MemoryStore

__all__ = ["Kept", "SessionLookup", "StoredSessions", "unpack"]

log = logging.getLogger("greentls.sessions")

# Greenlets of each hub that write to a store. A single one would write 50 sessions a second to a store 20 ms away.
WRITERS = 8

# Changes in the queue of each writer, some 4 MiB in all queues. Beyond that a put is dropped and logged, which costs a
# full handshake. Removals have as much room again, 2 MiB at most: a session that a fatal alert has ended
# must not be resumed. The one writer of a BatchStore has the room of all.
MAX_QUEUED = 1_250

# Changes in one call of a BatchStore: some 200 KiB, which it answers well within the timeout.
MAX_BATCH = 100

CHAIN_ENDS = 8  # bytes before those of a session

NOTHING = object()

T = TypeVar("T")
Kept = tuple[float, T]  # chain_ends: when its chain of resumptions ends, seconds since the epoch; the session
Written = tuple[bytes, "bytes | None", float]  # key; what the store gets, None to remove it; chain_ends


class StoredSessions:
    """Sessions in a store, which any number of these, and of processes, may share.

    timeout: seconds for each call of the store, None for no limit.
    """

    def __init__(self, store: SessionStore, timeout: float | None = 1.0) -> None:
        self.store = store
        self.timeout = timeout
        # A subclass may wait.
        self._at_once = type(store) is MemoryStore
        self._noted: deque[bytes] = deque()  # keys to remove, if _at_once
        self._batches = store if isinstance(store, BatchStore) else None
        self._writers = PerHub(self._new_writers)
        self._all_writers: list[ref[_Writers]] = []  # of all hubs
        self._troubles: dict[str, LogLimit] = {}

    def look_up(
        self, timeout: float | None, question: Callable[..., Kept[T] | None], *arguments: object
    ) -> tuple[Kept[T] | None, SessionLookup]:
        """Asks the store by calling the question with the arguments; it may wait.

        timeout: seconds, None for no limit. Returns what was found, None for nothing, and what became of the lookup. An
        Exception and a timeout find nothing; they are logged.
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

    def write(self, key: bytes, chain_ends: float, session: bytes | None) -> None:
        """Puts a session's bytes under a key, or removes what is there if it is None. Does not wait, and keeps the
        order."""
        blob = None if session is None else int(chain_ends).to_bytes(CHAIN_ENDS, "big") + session
        if self._at_once:
            if self._noted:
                self._remove_noted()
            self._write_at_once(key, blob, chain_ends)
        else:
            self._writers.get().of(key).add((key, blob, chain_ends))

    def waiting(self, key: bytes) -> bytes | object | None:
        """What is on its way to the store under a key: a session's bytes, None for a removal, or NOTHING."""
        return self._writers.get().of(key).latest.get(key, NOTHING)

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until this hub's queues are written, timeout seconds at most. Whether they are."""
        self._remove_noted()
        writers = self._writers.get().all
        with suppress(TimeoutError), Deadline(timeout, ""):
            for writer in writers:
                writer.join()
        return not any(writer.busy for writer in writers)

    def close(self) -> None:
        """Writes what is queued, for one timeout at most, and closes the store."""
        self.drain(self.timeout)
        self.store.close()

    def _remove(self, key: bytes) -> None:
        """Removes what is under a key. In any thread. Neither waits, nor takes a lock, nor logs."""
        if self._at_once:
            self._noted.append(key)
            return
        for reference in self._all_writers:  # it is not known which hub has put the session
            if (writers := reference()) is not None:
                writers.of(key).add((key, None, 0), anywhere=True)

    def _remove_noted(self) -> None:
        while self._noted:
            try:
                key = self._noted.popleft()
            except IndexError:  # another thread was quicker
                return
            self._write_at_once(key, None, 0)

    def _new_writers(self) -> _Writers:
        count = 0 if self._at_once else 1 if self._batches is not None else WRITERS
        writers = _Writers(self, count)
        self._all_writers[:] = [*(each for each in self._all_writers if each() is not None), ref(writers)]
        return writers

    def _write_at_once(self, key: bytes, blob: bytes | None, chain_ends: float) -> None:
        started, problem = perf_counter(), None
        try:
            _write(self.store, key, blob, chain_ends - time())
        except Exception as error:
            problem = error
        if problem is not None or self._troubles or events.handler is not None:
            self._written(blob, started, problem)

    def _write(self, batch: list[Written]) -> None:
        """In one call, under one deadline. More than one change is for a BatchStore."""
        unknown = dict(enumerate(blob for _, blob, _ in batch))  # those whose outcome is not known yet
        deadline = Deadline(self.timeout, "no answer in {} s")
        started, problem = perf_counter(), None
        try:
            now = time()
            changes = [(key, blob, chain_ends - now) for key, blob, chain_ends in batch]
            with deadline:
                write_many = self._batches.write_many if self._batches is not None else self._one_by_one
                for index, failure in write_many(changes):
                    self._written(unknown.pop(index), started, failure)
        except Exception as error:
            problem = error
        for blob in unknown.values():
            self._written(blob, started, problem, deadline.passed)

    def _one_by_one(self, changes: Sequence[Change]) -> Iterator[tuple[int, Exception | None]]:
        for index, change in enumerate(changes):
            _write(self.store, *change)
            yield index, None

    def _written(self, blob: bytes | None, started: float, problem: Exception | None, late: bool = False) -> None:
        what = "remove" if blob is None else "put"
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


def _write(store: SessionStore, key: bytes, blob: bytes | None, lifetime: float) -> None:
    if blob is None:
        store.remove(key)
    elif lifetime > 0:
        store.put(key, blob, lifetime)


def unpack(blob: bytes) -> tuple[float, bytes]:
    """(chain_ends, the session's bytes) of what is in a store. Raises TypeError if they are no bytes."""
    return int.from_bytes(blob[:CHAIN_ENDS], "big"), blob[CHAIN_ENDS:]


class _Writers:
    """The writers of one hub."""

    def __init__(self, cache: StoredSessions, count: int) -> None:
        self.all = tuple(_Writer(cache, MAX_QUEUED * WRITERS // count) for _ in range(count))

    def of(self, key: bytes) -> _Writer:
        """Always the same one for a key, so that its changes stay in order."""
        return self.all[0] if len(self.all) == 1 else self.all[sum(key[-1:]) % len(self.all)]


class _Writer:
    """A queue of changes and, while there are any, the greenlet that writes them."""

    def __init__(self, cache: StoredSessions, room: int) -> None:
        self._hub = here()
        self._call = self._hub.caller()
        self._cache = cache
        self._room = room
        self._queue: deque[Written] = deque()
        self.latest: dict[bytes, bytes | None] = {}  # of each key that is in the queue or being written
        self._greenlet: Task | None = None
        self._starting = False
        self._lost = 0  # removals that found no room and are not logged yet

    def add(self, change: Written, anywhere: bool = False) -> None:
        """anywhere: may be called in any thread and in a finalizer."""
        key, blob, _ = change
        waiting = len(self._queue)
        if waiting >= self._room:
            if blob is not None:
                self._cache._trouble("write", "the queue is full, dropped")
                return
            if waiting >= 2 * self._room:
                self._lost += 1  # it may come from a place where logging is not safe
                return
        self.latest[key] = blob
        self._queue.append(change)
        if self._greenlet is None and not self._starting:
            if anywhere:
                self._starting = True
                with suppress(ValueError):  # the hub is destroyed, and its queue with it
                    self._call(self._start)
            else:
                self._greenlet = self._hub.spawn(self._run)

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
                    for key, blob, _ in batch:
                        if self.latest.get(key, NOTHING) is blob:
                            del self.latest[key]
                if self._queue and most > 1:
                    self._hub.sleep(0)  # what this turn of the loop brings goes with it
        finally:
            self._greenlet = None

    @property
    def busy(self) -> bool:
        return bool(self._queue) or self._greenlet is not None

    def join(self) -> None:
        while self.busy:
            self._start()
            if self._greenlet is not None:
                self._greenlet.join()
