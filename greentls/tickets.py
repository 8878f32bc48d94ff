"""TicketKeys: the keys that seal a server's session tickets, and how a fleet agrees on them.

A ticket is a session that the client keeps (RFC 5077 section 4, RFC 8446 4.6.1). The server has sealed its secrets with
a key. That key opens every ticket under it and so, under TLS 1.2, the recorded connections. It lives for hours, and
never leaves a process in clear. A ticket that no key opens costs a full handshake and nothing else.

Shared keys are one small value in a store: a list of keys, each with the time when it begins to seal and the time when
it ceases to open. Every process looks at it three times a minute:

1. It merges the keys that it finds with those that it holds, and drops those that have ended.
2. When the newest key has sealed for a rotation, less a minute, it adds one more. All know that key when it begins.
3. If the list differs from what it found, it puts the list by compare-and-swap. If that comes too late, it starts
   again.

So all processes have the same list, and seal with the newest key that has begun. While the store is down, they use the
keys that they hold. If the store has lost everything, or moved to another node, the first process puts the list again:
keys are lost only with the last process. A process that starts while the store is down makes its own key; the others
learn it when the store is back.

The times come from the clocks of many machines. An error of half a minute costs nothing: when that machine starts to
use a new key, all processes know it already, and while it uses an old one, all still know that. A clock that is minutes
early uses a new key before some processes have looked, which costs some full handshakes at each rotation. Beyond SKEW
a clock counts as wrong. If a key begins later than the fastest right clock would announce it, every process drops it.
Otherwise it would count as the newest key until then, and no process would add another. The machine with the wrong
clock then seals with its own keys, which the others may not open.

The algorithm is that of h2o's src/ssl.c, except that h2o discards its own keys for those that it finds.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
import os
import random
import struct
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from greentls import events
from greentls.errors import ConfigurationError
from greentls.hub import Deadline, Event, PerHub, Task, Timer, here
from greentls.log_limit import LogLimit
from greentls.secret_file import read_secret_file, repeats
from greentls.stores import SharedValues

__all__ = ["TicketKey", "TicketKeys"]

log = logging.getLogger("greentls.tickets")

Path = str | os.PathLike[str]

# Seconds for which a shared key opens. A new one begins at a quarter of it, so the last ticket under a key has three
# quarters left: more than the two hours of context.SESSION_LIFETIME. h2o has one hour, HAProxy's manual suggests
# twelve.
LIFETIME = 3 * 3600.0

ANNOUNCE = 60.0  # seconds from a key's announcement to its first use: as h2o
REFRESH = 20.0  # seconds between two looks at the store, give or take a quarter: two may fail within ANNOUNCE
SKEW = 300.0  # seconds by which the fleet's clocks may differ: as Kerberos
AHEAD = SKEW + ANNOUNCE  # seconds by which a key may be announced before it begins, by this machine's clock
STORE_TIMEOUT = 5.0  # seconds for one look at the store
ATTEMPTS = 20  # swaps in a row that may fail because another process was quicker
MAX_KEYS = 32  # keys in the list: usually five, and one more for each process that started during an outage

FILE_INTERVAL = 1.0  # seconds between two looks at a file
MAX_FILE = 65_536  # bytes
LOG_INTERVAL = 10.0  # seconds between two log lines about the same file


@dataclass(frozen=True)
class TicketKey:
    """A key for AES-CBC and HMAC-SHA256, as RFC 5077 section 4 recommends.

    name: 16 bytes, which the ticket shows. aes: 16 or 32 bytes. hmac: 16 to 64 bytes. Raises ConfigurationError.
    """

    name: bytes
    aes: bytes = field(repr=False)
    hmac: bytes = field(repr=False)

    def __post_init__(self) -> None:
        sizes = len(self.name), len(self.aes), len(self.hmac)
        if sizes[0] != 16 or sizes[1] not in (16, 32) or not 16 <= sizes[2] <= 64:
            raise ConfigurationError(
                "ticket key", f"a name, AES key and HMAC key of {sizes} bytes", "give 16, 32 (or 16), and 32 bytes"
            )

    @classmethod
    def new(cls) -> TicketKey:
        return cls(os.urandom(16), os.urandom(32), os.urandom(32))


class TicketKeys(ABC):
    """The value of SSLContext.ticket_keys. Contexts, greenlets and threads may share one; forked processes inherit
    it."""

    @staticmethod
    def static(keys: Sequence[TicketKey]) -> TicketKeys:
        """Fixed keys. The first one seals; all of them open. Raises ConfigurationError if there is none."""
        return _StaticKeys(keys)

    @staticmethod
    def file(*paths: Path, clock: Callable[[], float] = time.monotonic) -> TicketKeys:
        """Keys from files, which are read again when they change. A broken file leaves the keys as they were.

        Either one file in HAProxy's format (tls-ticket-keys): three or more lines of base64, each the 48 or 80 bytes of
        a name, an AES and an HMAC key. All of the last three open; the middle one seals. Or files in nginx's format
        (ssl_session_ticket_key): 48 bytes as above, or 80 with the HMAC key before the AES key. The first file's key
        seals. Raises OSError, and ConfigurationError, also for a file to which others have access.
        """
        return _FileKeys(paths, clock)

    @staticmethod
    def shared(
        store: SharedValues,
        rotation: float | None = None,
        lifetime: float = LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> TicketKeys:
        """Keys on which all users of a store of greentls.open_store() agree.

        rotation: seconds between two new keys, by default a quarter of lifetime. lifetime: seconds for which a key
        opens, from its first use. It should be rotation and the lifetime of a session, or more. clock: returns seconds
        since the epoch. Connects at the first use. Raises ConfigurationError, also for a store that would keep the keys
        in clear.
        """
        return _SharedKeys(store, lifetime / 4 if rotation is None else rotation, lifetime, clock)

    @property
    @abstractmethod
    def keys(self) -> tuple[TicketKey, ...]:
        """The keys that open; the first one seals. Used inside the handshake, so it does not wait."""

    @property
    @abstractmethod
    def age(self) -> float:
        """Seconds since the file or store was last read successfully, math.inf if it never was by this clock."""

    def ready(self, timeout: float | None) -> None:  # noqa: B027  most kinds have nothing to wait for
        """Waits for the first keys of the fleet, timeout seconds at most. After that there are keys, if only this
        process's own."""

    def refresh(self) -> None:  # noqa: B027  most kinds have nothing to read
        """Reads the file or store now. May wait. Raises OSError, ConfigurationError, and what the store raises; in that
        case the keys stay as they were."""

    def opening(self, name: bytes) -> tuple[TicketKey, bool] | None:
        """Returns the key with this name, and whether another key seals by now; None if there is no such key."""
        keys = self.keys
        return next(((each, each is not keys[0]) for each in keys if each.name == name), None)


class _StaticKeys(TicketKeys):
    def __init__(self, keys: Sequence[TicketKey]) -> None:
        self._keys = tuple(keys)
        if not self._keys:
            raise ConfigurationError("ticket keys", "none is given", "give one or more, the one that seals first")

    @property
    def keys(self) -> tuple[TicketKey, ...]:
        return self._keys

    @property
    def age(self) -> float:
        return 0.0


class _Changing(TicketKeys):
    """Keys that change. Tells greentls.events of each change once, and of failures."""

    _source: str
    _told: tuple[TicketKey, ...] = ()

    @property
    @abstractmethod
    def _held_now(self) -> tuple[TicketKey, ...]:
        """The keys that open, in an order that changes only with them. Reads nothing."""

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """A with block around code that may change the keys, or raise."""
        try:
            yield
        except Exception as error:
            # As text, because the frames of a traceback contain keys.
            self._tell(error=f"{type(error).__name__}: {error}")
            raise
        # Compared with the keys that were told of last: another greenlet may have told of newer ones meanwhile.
        before, after = self._told, self._held_now
        if after != before:
            self._told = after
            self._tell(_names(after, before), _names(before, after))

    def _tell(self, added: tuple[str, ...] = (), removed: tuple[str, ...] = (), error: str | None = None) -> None:
        events.emit("ticket_keys", source=self._source, added=added, removed=removed, error=error)


def _names(keys: tuple[TicketKey, ...], others: tuple[TicketKey, ...]) -> tuple[str, ...]:
    """The names of the keys that are not among the others."""
    return tuple(each.name.hex() for each in keys if each not in others)


# -- files -------------------------------------------------------------------------------------------------------------


class _FileKeys(_Changing):
    def __init__(self, paths: Sequence[Path], clock: Callable[[], float]) -> None:
        self._paths, self._clock = paths, clock
        self._source = ", ".join(os.fspath(path) for path in paths)
        self._silent_until = -math.inf
        self._contents: list[bytes] | None = None
        self._keys: tuple[TicketKey, ...] = ()
        self.refresh()

    @property
    def keys(self) -> tuple[TicketKey, ...]:
        self._look(self._clock())
        return self._keys

    @property
    def _held_now(self) -> tuple[TicketKey, ...]:
        return self._keys

    @property
    def age(self) -> float:
        now = self._clock()
        self._look(now)
        return now - self._good

    def _look(self, now: float) -> None:
        if now - self._looked < FILE_INTERVAL:
            return
        try:
            self.refresh()
        except (OSError, ConfigurationError) as error:
            if now >= self._silent_until:
                self._silent_until = now + LOG_INTERVAL
                log.warning("%s; the keys that were read %.0f s ago are used on", error, now - self._good)

    def refresh(self) -> None:
        self._looked = self._clock()
        with self._telling():
            contents = [read_secret_file(path, _subject(path), MAX_FILE) for path in self._paths]
            if contents != self._contents:  # not the file's time, because two changes may have the same
                self._keys = _parse_files(self._paths, contents)
                self._contents = contents
        self._good = self._looked


def _subject(path: Path) -> str:
    return f"ticket key file {os.fspath(path)}"


def _key(subject: str, name: bytes, aes: bytes, hmac: bytes) -> TicketKey:
    if repeats(aes) or repeats(hmac):
        raise ConfigurationError(subject, "a key whose bytes are nearly all the same", "give random ones")
    return TicketKey(name, aes, hmac)


def _parse_files(paths: Sequence[Path], contents: Sequence[bytes]) -> tuple[TicketKey, ...]:
    if len(contents) == 1 and len(contents[0]) not in (48, 80):
        return _parse_haproxy(_subject(paths[0]), contents[0])
    keys = []
    for path, data in zip(paths, contents, strict=True):
        subject = _subject(path)
        if len(data) not in (48, 80):
            raise ConfigurationError(subject, f"{len(data)} bytes", "nginx's format has 48 or 80")
        size = (len(data) - 16) // 2
        first, second = data[16 : 16 + size], data[16 + size :]
        keys.append(_key(subject, data[:16], *((first, second) if size == 16 else (second, first))))
    return _StaticKeys(keys).keys


def _parse_haproxy(subject: str, data: bytes) -> tuple[TicketKey, ...]:
    lines = [line for line in data.splitlines() if line.strip()]
    try:
        decoded = [base64.b64decode(line.strip(), validate=True) for line in lines]
    except binascii.Error:
        decoded = []
    if {len(each) for each in decoded} not in ({48}, {80}) or len(decoded) < 3:
        remedy = "it takes one key of 48 or 80 bytes, or three lines or more of base64 with 48 each, or 80 each"
        raise ConfigurationError(subject, f"{len(data)} bytes in {len(lines)} lines are no keys", remedy)
    size = (len(decoded[0]) - 16) // 2
    oldest, sealing, next_one = (
        _key(subject, each[:16], each[16 : 16 + size], each[16 + size :]) for each in decoded[-3:]
    )
    return sealing, next_one, oldest


# -- a fleet -----------------------------------------------------------------------------------------------------------

_NAME = "ticket-keys"
_FORMAT = b"\x01"
_ENTRY = struct.Struct(">16s32s32sQQ")  # name, AES key, HMAC key, begins, ends


class _Agreed(NamedTuple):
    """A key in the list. begins: when it begins to seal. ends: when it ceases to open. Seconds since the epoch."""

    begins: int
    ends: int
    key: TicketKey


class _SharedKeys(_Changing):
    def __init__(self, store: SharedValues, rotation: float, lifetime: float, clock: Callable[[], float]) -> None:
        if not isinstance(store, SharedValues):
            raise ConfigurationError(
                f"ticket keys: store: a {type(store).__name__}",
                "has no shared values",
                "give one of greentls.open_store()'s",
            )
        if not store.private:
            raise ConfigurationError(
                f"ticket keys: store {store.name}", "would keep them in clear", "give it a secret_file"
            )
        if not 2 * ANNOUNCE <= rotation <= lifetime / 2 < math.inf:
            raise ConfigurationError(
                f"ticket keys: rotation={rotation}, lifetime={lifetime}",
                f"a rotation takes {2 * ANNOUNCE:.0f} seconds or more, a lifetime two rotations or more",
            )
        self._store, self._rotation, self._lifetime, self._clock = store, rotation, lifetime, clock
        self._held: tuple[_Agreed, ...] = ()  # the key that begins last is the first; replaced, never changed
        self._source = store.name
        self._agreed = -math.inf
        self._failures = 0
        self._wrong_clock = LogLimit()
        self._refreshers = PerHub(partial(_Refresher, weakref.ref(self)))

    @property
    def keys(self) -> tuple[TicketKey, ...]:
        now = self._clock()
        if not self._held or self._held[-1].begins > now + AHEAD:  # this clock was ahead, and was corrected
            with self._telling():
                self._held = (self._new(now),)
        held = self._held
        sealing = next((each for each in held if each.begins <= now), held[-1])
        return (sealing.key, *(each.key for each in held if each is not sealing))

    @property
    def _held_now(self) -> tuple[TicketKey, ...]:
        return tuple(each.key for each in self._held)

    @property
    def age(self) -> float:
        since = self._clock() - self._agreed
        return max(0.0, since) if since > -SKEW else math.inf  # the clock was corrected since then

    def ready(self, timeout: float | None) -> None:
        first = self._refreshers.get().first
        if not self._held and first is not None:
            first.wait(timeout)

    def look(self) -> None:
        """Like refresh(), but has a deadline, and logs failures instead of raising them."""
        problem = ""
        deadline = Deadline(STORE_TIMEOUT, "no answer in {} s")
        try:
            with self._telling(), deadline:
                self._agree()
        except Exception as error:
            problem = str(error) if deadline.passed else repr(error)
        if problem:
            self._failures += 1
            age = f"agreed on {self.age:.0f} s ago" if self.age < math.inf else "never agreed on"
            what = f"the keys held, {age}, are used on ({self._failures} failures so far)"
            log.warning("ticket keys: store %s: %s: %s", self._store.name, problem, what)
        elif self._failures:
            log.warning("ticket keys: store %s works again after %d failures", self._store.name, self._failures)
            self._failures = 0

    def refresh(self) -> None:
        with self._telling():
            self._agree()

    def _agree(self) -> None:
        for _ in range(ATTEMPTS):
            value, token = self._store.gets(_NAME)
            found = () if value is None else _unpack(value)
            now = self._clock()
            known = {*found, *self._held}
            early = {each for each in known if each.begins > now + AHEAD}
            wanted = self._wanted(known - early, now)
            if wanted == found or self._store.cas(_NAME, _pack(wanted), token, self._lifetime + SKEW):
                self._held, self._agreed = wanted, now
                if early:
                    self._left_out(early, now)
                return
        raise RuntimeError(f"other processes were quicker, {ATTEMPTS} times in a row")

    def _left_out(self, early: set[_Agreed], now: float) -> None:
        days = (max(each.begins for each in early) - now) / 86_400
        names = ", ".join(sorted(each.key.name.hex() for each in early))
        problem = f"a clock is wrong: keys that begin {days:.1f} days from now are left out: {names}"
        self._tell(error=problem)
        if self._wrong_clock.allows():
            log.warning("ticket keys: store %s: %s", self._store.name, problem)

    def _wanted(self, known: set[_Agreed], now: float) -> tuple[_Agreed, ...]:
        keys = {each for each in known if now < each.ends + SKEW}
        newest = max((each.begins for each in keys), default=None)
        if newest is None:
            keys.add(self._new(now))
        elif newest + self._rotation <= now + ANNOUNCE:
            keys.add(self._new(now + ANNOUNCE))
        return tuple(sorted(keys, key=lambda each: (each.begins, each.key.name), reverse=True))[:MAX_KEYS]

    def _new(self, begins: float) -> _Agreed:
        return _Agreed(int(begins), math.ceil(begins + self._lifetime), TicketKey.new())


def _pack(keys: Sequence[_Agreed]) -> bytes:
    return _FORMAT + b"".join(
        _ENTRY.pack(each.key.name, each.key.aes, each.key.hmac, each.begins, each.ends) for each in keys
    )


def _unpack(value: bytes) -> tuple[_Agreed, ...]:
    """Raises ConfigurationError."""
    if value[:1] != _FORMAT or len(value) % _ENTRY.size != 1 or len(value) > 1 + MAX_KEYS * _ENTRY.size:
        raise ConfigurationError(f"shared value {_NAME}", f"these {len(value)} bytes are of another format")
    return tuple(
        _Agreed(begins, ends, TicketKey(name, aes, hmac))
        for name, aes, hmac, begins, ends in _ENTRY.iter_unpack(value[1:])
    )


class _Refresher:
    """Looks at the store again and again, in one hub, as long as the keys are in use.

    Each look has its own greenlet. Between two looks there is only a timer, which does not keep the program running.
    """

    def __init__(self, keys: weakref.ref[_SharedKeys]) -> None:
        self.first: Event | None = here().event()  # set after the first look
        self._process = os.getpid()
        self._keys = keys
        self._timer: Timer | None = None
        self._start()

    def _start(self) -> None:  # in the hub, except for the first time
        if self._timer is not None:
            self._timer.close()
        keys = self._keys()
        if keys is not None and self._process == os.getpid():  # a forked child inherits the timer
            here().spawn(keys.look).rawlink(self._done)

    def _done(self, _: Task) -> None:  # in the hub, however the greenlet has ended
        if self.first is not None:
            self.first.set()
            self.first = None
        self._timer = here().timer(REFRESH * random.uniform(0.75, 1.25), ref=False)
        self._timer.start(self._start, update=True)
