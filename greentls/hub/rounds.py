"""Rounds: asks objects again and again whether they are done, by one timer for all those of a hub."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from greentls.hub.finding import here
from greentls.hub.protocol import Timer

__all__ = ["Rounds"]

T = TypeVar("T")


class Rounds(Generic[T]):
    """Belongs to one hub (greentls.hub.PerHub). A timer for each object would cost 5 microseconds.

    ask: called in the hub with each object, again and again; it must not wait. True: the object is done, and forgotten.
    seconds: from one question to an object to the next one, and to the first one. The loop does not end meanwhile.
    """

    TURNS = 8  # of the timer in that time
    MOST = 256  # questions in a turn: a quarter of a millisecond

    def __init__(self, ask: Callable[[T], bool], seconds: float) -> None:
        self._ask, self._seconds = ask, seconds
        self._hub = here()
        # Those to be asked, in order. Nobody is kept alive by this.
        self._waiting: deque[weakref.ref[T]] = deque()
        self._asked = 0  # how many questions there have been
        # How many things had been added by each of the last turns: those before the first one are due.
        self._added: deque[int] = deque()
        self._timer: Timer | None = None

    def add(self, thing: T) -> None:
        """Does not wait. A finalizer may call it, too."""
        self._waiting.append(weakref.ref(thing))
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        self._timer = self._hub.timer(self._seconds / self.TURNS)
        self._timer.start(self._turn, update=True)

    def _turn(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()
        waiting, added = self._waiting, self._added
        added.append(self._asked + len(waiting))
        try:
            if len(added) > self.TURNS:
                for _ in range(min(added[0] - self._asked, len(waiting), self.MOST)):
                    reference = waiting.popleft()
                    self._asked += 1
                    thing = reference()
                    if thing is not None and not self._ask(thing):
                        waiting.append(reference)
                if added[0] <= self._asked:
                    added.popleft()
        finally:  # a question that raises, or a signal, ends the rounds of no other
            if waiting and self._timer is None:
                self._arm()
