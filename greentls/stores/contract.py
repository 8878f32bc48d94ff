"""The contracts of stores: what a store must do, and what its callers must expect of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from greentls.errors import ConfigurationError

__all__ = ["BatchStore", "Change", "SessionStore", "SharedValues", "Store", "check_value"]

Change = tuple[bytes, "bytes | None", float]  # session id, the session or None to remove it, its lifetime

_VALUE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,160}")  # with the longest context a key of memcached's 250 bytes at most


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


@runtime_checkable
class BatchStore(Protocol):
    """What a SessionStore may offer besides: many puts and removals for about the price of one."""

    def write_many(self, changes: Sequence[Change]) -> Iterator[tuple[int, Exception | None]]:
        """Does as put() and remove() would: each change is a session id, the session or None, and its lifetime.

        Those of one session stay in order. As soon as it is known, and in any order, tells of each, by its index, what
        went wrong: None if nothing did. May be left, and may raise, wherever it waits: what it has not told of is taken
        for failed. It is one call under the caller's deadline.
        """


@runtime_checkable
class SharedValues(Protocol):
    """Small values on which a fleet agrees, each under a name: 1 to 160 of ``A-Z a-z 0-9 . _ : -``.

    As with sessions, any method may block, fail with an Exception, and be left by any BaseException where it waits; and
    a value may be lost at any time. But where two change one value at once, one of them is told that it came too late.

    lifetime: seconds, more than 0. Raises ConfigurationError for another one, or for a name of other characters.
    """

    name: str
    shared: bool  # other processes see the same values
    private: bool  # a value leaves the process sealed or not at all: it may be a secret

    def gets(self, name: str) -> tuple[bytes | None, Any]:
        """The value, None if there is none (or if it does not open), and a token that cas() takes."""

    def cas(self, name: str, value: bytes, token: Any, lifetime: float) -> bool:
        """Puts the value if nobody has changed it since gets() gave the token. False: somebody has; look again."""

    def add(self, name: str, value: bytes, lifetime: float) -> bool:
        """Puts the value if there is none under this name: True for one caller at most, until its lifetime ends.

        Asks one place only. Where that is out of reach, or full, it raises: who would answer in its stead does not know
        what it had been told. It is not told either after a restart of that place.
        """


class Store(SessionStore, SharedValues, Protocol):
    """What open_store() returns: it keeps sessions and shared values."""


def check_value(name: str, lifetime: float) -> None:
    """What every store demands of a shared value. Raises ConfigurationError."""
    if not _VALUE_NAME.fullmatch(name):
        raise ConfigurationError(f"shared value {name!r}", "1 to 160 of A-Z a-z 0-9 . _ : - are allowed")
    if not lifetime > 0:
        raise ConfigurationError(f"shared value {name!r}: lifetime={lifetime}", "must be more than 0 seconds")
