"""Hub: what a loop offers to greenlets that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Protocol, TypeVar

__all__ = ["Event", "Hub", "Readable", "Task", "Timer"]

T = TypeVar("T")


class Task(Protocol):
    """A greenlet that spawn() has made."""

    @property
    def dead(self) -> bool:
        """Whether it has ended, or was killed before its first turn."""

    def join(self) -> object:
        """Waits until it has ended. Does not raise what it raised."""

    def kill(self, *, block: bool) -> object:
        """Raises GreenletExit in it, at the hub's next turn. block: waits until it has ended."""

    def rawlink(self, function: Callable[[Any], object]) -> object:  # Any: each hub's own kind of task
        """Calls the function with this task, in the hub, when the task has ended in whatever way."""


class Event(Protocol):
    """Something that happens once, for the greenlets of one hub."""

    def set(self) -> object: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has happened, timeout seconds at most. Returns whether it has."""


class Timer(Protocol):
    """A call in the hub after some seconds. An answer that comes in time goes first."""

    def start(self, function: Callable[..., object], *arguments: object, update: bool) -> object:
        """update: whether the seconds begin now, rather than at the loop's last turn."""

    def close(self) -> object:
        """Cancels the call. Must be called in the end, also after the call."""


class Readable(Protocol):
    """Waits for data on a descriptor."""

    def wait(self) -> object:
        """Waits until there is something to read. Raises TimeoutError after the timeout that readable() was given."""

    def close(self) -> object:
        """Must be called before the descriptor is closed."""


class Hub(Protocol):
    """A thread's loop, for the greenlets of that thread. Only call_from_thread() may be called in other threads.

    For as long as the hub lives, here() returns the same object in all its greenlets. The methods that wait must not be
    called in the hub itself, that is, in a callback of the loop.
    """

    @property
    def socket(self) -> ModuleType:
        """What clients use of the module ``socket``: socket(), getaddrinfo(), create_connection(), constants.

        Its sockets wait in the hub.
        """

    def spawn(self, function: Callable[..., object], *arguments: object) -> Task:
        """Calls the function in a greenlet of its own, at the hub's next turn. What it raises is reported."""

    def sleep(self, seconds: float) -> object: ...

    def event(self) -> Event: ...

    def semaphore(self, places: int) -> AbstractContextManager[object]:
        """A with block for so many greenlets at a time; the others wait for a place."""

    def timer(self, seconds: float, *, ref: bool = True) -> Timer:
        """ref: False if a program that has nothing else to do may end before the timer."""

    def call_soon(self, function: Callable[..., object], *arguments: object) -> object:
        """Calls the function in the hub at its next turn."""

    def call_from_thread(self, function: Callable[..., object], *arguments: object) -> object:
        """As call_soon(), in any thread and in a finalizer: it takes no lock that its thread may hold."""

    def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls a function that would block the hub in a native thread. Waits for it. It must not raise."""

    def readable(self, descriptor: int, timeout: float) -> Readable:
        """timeout: seconds for each wait."""

    def result(self, awaitable: Awaitable[T]) -> T:
        """Waits for an awaitable. Returns, or raises, what it does; if this wait is interrupted, it is cancelled.

        Raises TypeError under gevent.
        """
