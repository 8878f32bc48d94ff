"""Hub: what a loop offers to greenlets that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

__all__ = ["Event", "Hub", "Readable", "Task"]

T = TypeVar("T")


class Task(Protocol):
    """A greenlet that spawn() has made."""

    @property
    def dead(self) -> bool:
        """It has ended, or will never begin."""

    def join(self) -> object:
        """Waits until it has ended. Raises nothing of what it raised."""

    def kill(self, *, block: bool) -> object:
        """Raises GreenletExit in it, at the hub's next turn. block: waits until it has ended."""

    def rawlink(self, function: Callable[[Any], object]) -> object:
        """Calls the function in the hub once the task has ended, however it did: it gets the task."""


class Event(Protocol):
    """Something that happens once. In one thread."""

    def set(self) -> object: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has happened, timeout seconds at most. Whether it has."""


class Readable(Protocol):
    """A connected socket's readiness."""

    def wait(self) -> object:
        """Waits until there is something to read. Raises TimeoutError after the seconds that it was made with."""

    def close(self) -> object:
        """Before the socket is closed."""


class Hub(Protocol):
    """One thread's loop, and the greenlets that wait for it. But for call_from_thread(), only for that thread.

    While a hub lives, here() answers with the same object in each of its greenlets. What waits must not be called in
    the hub itself.
    """

    @property
    def socket(self) -> Any:
        """Has what clients use of the module ``socket``: socket(), getaddrinfo(), create_connection(), constants. Its
        sockets wait in the hub. Any: a module."""

    def spawn(self, function: Callable[..., object], *arguments: Any) -> Task:
        """Calls the function in a greenlet of its own, from the hub's next turn on. What it raises is reported."""

    def sleep(self, seconds: float) -> object: ...

    def event(self) -> Event: ...

    def semaphore(self, places: int) -> AbstractContextManager[Any]:
        """Lets so many greenlets in at once; another one waits at the door."""

    def later(
        self, seconds: float, function: Callable[..., object], *arguments: Any, ref: bool = True
    ) -> Callable[[], object]:
        """Calls the function in the hub. Returns what cancels that; to be called in any case, and may be called twice.

        What came in time goes before. ref: False if a program that has nothing else to do may end before.
        """

    def call_soon(self, function: Callable[..., object], *arguments: Any) -> object:
        """Calls the function in the hub, at its next turn."""

    def call_from_thread(self, function: Callable[..., object], *arguments: Any) -> object:
        """The same, from any thread and from a finalizer: takes no lock that its thread may hold."""

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """What the function returns in a native thread. Waits. For what blocks, as files do; it must not raise."""

    def readable(self, sock: Any, timeout: float) -> Readable: ...

    def result(self, awaitable: Awaitable[T]) -> T:
        """What the awaitable returns, or raises. Waits; if something is raised here meanwhile, it is cancelled. Raises
        TypeError where no event loop runs."""
