"""Rounds: one timer for many objects, under each hub."""

from __future__ import annotations

import gc
import weakref

import pytest

from greentls.hub.rounds import Rounds
from tests.support.hubs import under_each_hub, wait_for

SECONDS = 0.01


class Thing:
    def __init__(self, asked, times=1):
        self.asked, self.times = asked, times

    def done(self):
        self.asked.append(self)
        return self.asked.count(self) == self.times


@under_each_hub
class TestRounds:
    def test_each_is_asked_until_it_is_done(self):
        asked = []
        rounds = Rounds(Thing.done, SECONDS)
        things = [Thing(asked, times) for times in (1, 3, 2)]
        for thing in things:
            rounds.add(thing)
        assert not asked
        wait_for(lambda: rounds._timer is None, "the end of the rounds")
        assert sorted(asked.count(thing) for thing in things) == [1, 2, 3]
        assert asked[:3] == things

    def test_it_goes_on_with_those_who_come_later(self):
        asked = []
        rounds = Rounds(Thing.done, SECONDS)
        for count in (1, 2):
            thing = Thing(asked)
            rounds.add(thing)
            wait_for(lambda count=count: len(asked) == count, "the question")

    def test_a_question_that_raises_ends_nobody_elses(self):
        asked = []

        def ask(thing):
            asked.append(thing)
            if len(asked) == 1:
                raise ZeroDivisionError
            return True

        rounds = Rounds(ask, 0.0)
        things = [Thing(asked), Thing(asked)]
        rounds._waiting.extend(map(weakref.ref, things))
        with pytest.raises(ZeroDivisionError):
            for _ in range(Rounds.TURNS + 1):
                rounds._turn()
        wait_for(lambda: asked == things, "the question to the other")

    def test_it_keeps_nobody_alive(self):
        asked = []
        rounds = Rounds(Thing.done, SECONDS)
        rounds.add(Thing(asked))
        gc.collect()
        wait_for(lambda: rounds._timer is None, "the end of the rounds")
        assert not asked

    def test_it_asks_so_many_at_once(self, monkeypatch):
        """hazard: thousands of connections are looked at, and the hub stands still meanwhile."""
        asked, at_once = [], []
        monkeypatch.setattr(Rounds, "MOST", 10)
        rounds = Rounds(Thing.done, SECONDS)
        turn = rounds._turn

        def counted():
            before = len(asked)
            turn()
            at_once.append(len(asked) - before)

        rounds._turn = counted
        things = [Thing(asked) for _ in range(35)]
        for thing in things:
            rounds.add(thing)
        wait_for(lambda: len(asked) == len(things), "all the questions")
        assert max(at_once) == 10
        assert asked == things
