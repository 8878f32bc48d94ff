"""Hub: the services of an event loop for greenlets that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Protocol, TypeVar

__all__ = ["Event", "Hub", "Readable", "Task", "Timer"]

T = TypeVar("T")


class Task(Protocol):
    """A greenlet that Hub.spawn() has made."""

    @property
    def dead(self) -> bool:
        """Whether it has ended, or was killed before it started."""

    def join(self) -> object:
        """Waits until it has ended. Does not raise what it raised."""

    def kill(self, *, block: bool) -> object:
        """Raises GreenletExit in it, at the hub's next turn. block: waits until it has ended."""

    def rawlink(self, function: Callable[[Task], object]) -> object:
        """Calls the function with this task, in the hub, once the task has ended for any reason."""


class Event(Protocol):
    """An event that happens once. It belongs to the greenlets of one hub."""

    def set(self) -> object: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has happened, timeout seconds at most. Returns whether it has."""


class Timer(Protocol):
    """Calls a function in the hub after some seconds. An answer that comes in time is delivered first."""

    def start(self, function: Callable[..., object], *arguments: object, update: bool) -> object:
        """Starts the timer. update: whether the seconds count from now, rather than from the loop's last turn."""

    def close(self) -> object:
        """Cancels the call. Must be called in any case, even after the call was made."""


class Readable(Protocol):
    """Waits until a descriptor is readable."""

    def wait(self) -> object:
        """Waits until there is something to read. Raises TimeoutError after the timeout that readable() was given."""

    def close(self) -> object:
        """Must be called before the descriptor is closed."""


class Hub(Protocol):
    """The event loop of a thread, as its greenlets use it. Other threads may only use what caller() has returned.

    As long as the hub lives, here() returns the same object in all its greenlets. The methods that wait must not be
    called in the hub itself, that is, in a callback of the loop.
    """

    #: greentls.hub.deadline keeps its own here, by their seconds.
    deadlines: dict[float, object]

    @property
    def socket(self) -> ModuleType:
        """A replacement of the module ``socket``, whose sockets wait in the hub. It has what clients need: socket(),
        getaddrinfo(), create_connection(), constants."""

    def spawn(self, function: Callable[..., object], *arguments: object) -> Task:
        """Calls the function in a new greenlet, at the hub's next turn. What it raises is reported."""

    def sleep(self, seconds: float) -> object: ...

    def event(self) -> Event: ...

    def semaphore(self, places: int) -> AbstractContextManager[object]:
        """Returns a context manager whose with block admits so many greenlets at a time; the others wait."""

    def timer(self, seconds: float, *, ref: bool = True) -> Timer:
        """Returns a timer. ref: False if the program may end before the timer does."""

    def call_soon(self, function: Callable[..., object], *arguments: object) -> object:
        """Calls the function in the hub at its next turn."""

    def caller(self) -> Callable[..., object]:
        """Returns a function like call_soon(), which may be called in any thread and in a finalizer. It takes no lock
        that the running thread may hold. gevent's raises ValueError if the hub is destroyed. To be called in the hub's
        thread."""

    def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls a function, which would block the hub, in a native thread. Waits for it, and returns or raises what it
        does."""

    def readable(self, descriptor: int, timeout: float) -> Readable:
        """Returns a Readable. timeout: seconds for each wait."""

    def result(self, awaitable: Awaitable[T]) -> T:
        """Waits for an awaitable, and returns or raises what it does. If the wait is interrupted, the awaitable is
        cancelled. Under gevent this raises TypeError."""
