"""The contracts of stores: what a store must do, and what its callers must expect of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from greentls.errors import ConfigurationError

__all__ = ["BatchStore", "Change", "SessionStore", "SharedValues", "Store", "check_value"]

Change = tuple[bytes, "bytes | None", float]  # session id; the session, None to remove it; its lifetime in seconds

_VALUE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,160}")  # with the longest context, memcached's 250 bytes for a key


@runtime_checkable
class SessionStore(Protocol):
    """Keeps the sessions of servers, or of clients.

    - A method may wait, but only the running greenlet. The caller has a deadline and may be killed: wherever a method
      waits, any BaseException may end it, and the store must be as good as before for the next caller.
    - A store may lose anything at any time, since that costs a full handshake only. A method that cannot do its work
      raises an Exception; the caller logs it and continues.
    - get() returns exactly the bytes that were put under this id last, or None. It never returns others, nor bytes
      whose lifetime is over, nor bytes that remove() has removed.
    - Many greenlets, threads and, for a server's store, processes may share a store.
    """

    name: str  # "memory", "memcached": for pages and log lines

    def get(self, session_id: bytes) -> bytes | None:
        """The session's bytes, None if there are none. Does not remove them: callers decide what is used once."""

    def put(self, session_id: bytes, session: bytes, lifetime: float) -> None:
        """Keeps the bytes for lifetime seconds (more than 0), in place of what was under this id."""

    def remove(self, session_id: bytes) -> None:
        """Forgets what is under this id, if there is anything."""

    def close(self) -> None:
        """Releases sockets and the like. The store may be used, or closed, again."""


@runtime_checkable
class BatchStore(Protocol):
    """A SessionStore that also does many puts and removals for about the price of one."""

    def write_many(self, changes: Sequence[Change]) -> Iterator[tuple[int, Exception | None]]:
        """Does what put() and remove() would do. Changes of one session stay in order.

        Yields the index of each change with what went wrong, None for success, as soon as that is known and in any
        order. May wait, raise and be ended as the other methods: a change that was not yielded counts as failed. The
        caller's deadline is for the whole call.
        """


Token = Any  # each store's own


@runtime_checkable
class SharedValues(Protocol):
    """Keeps small values on which a fleet agrees, each under a name of 1 to 160 of ``A-Z a-z 0-9 . _ : -``.

    As with sessions, a method may wait, raise an Exception, and be ended where it waits; and a value may be lost at any
    time. But if two change a value at once, one of them learns that it came too late.

    lifetime: seconds, more than 0. Methods raise ConfigurationError for another lifetime or name.
    """

    name: str
    shared: bool  # whether other processes see the same values
    private: bool  # whether values leave the process sealed, or not at all: they may then be secrets

    def gets(self, name: str) -> tuple[bytes | None, Token]:
        """The value, None if there is none or if it does not open; and a token for cas()."""

    def cas(self, name: str, value: bytes, token: Token, lifetime: float) -> bool:
        """Puts the value if it has not changed since gets() gave the token. False if it has: look again."""

    def add(self, name: str, value: bytes, lifetime: float) -> bool:
        """Puts the value if there is none under this name. True for one caller at most, until its lifetime ends.

        A single node decides. If that node is down or full, this raises: another node cannot know which names were
        added. Nor does the same node know it after a restart.
        """


class Store(SessionStore, SharedValues, Protocol):
    """The result of open_store(): a store of sessions and shared values."""


def check_value(name: str, lifetime: float) -> None:
    """Raises ConfigurationError for a name or lifetime that no store takes."""
    if not _VALUE_NAME.fullmatch(name):
        raise ConfigurationError(f"shared value {name!r}", "1 to 160 of A-Z a-z 0-9 . _ : - are allowed")
    if not lifetime > 0:
        raise ConfigurationError(f"shared value {name!r}: lifetime={lifetime}", "must be more than 0 seconds")
