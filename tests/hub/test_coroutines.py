"""Callbacks that are functions or coroutine functions."""

from __future__ import annotations

import asyncio
import functools

import pytest
from greenlet import getcurrent

from greentls.hub import as_function
from greentls.hub.coroutines import asker
from tests.support.hubs import LOOPS, run_under


async def double(number):
    return 2 * number


class Doubler:
    async def __call__(self, number):
        return 2 * number


def test_a_function_stays_itself():
    assert as_function(None) is None
    assert as_function(len) is len


def test_functions_for_one_coroutine_function_are_equal():
    assert as_function(double) == as_function(double)
    assert as_function(double) != as_function(Doubler())
    assert hash(as_function(double)) == hash(as_function(double))


@pytest.mark.parametrize("function", [double, functools.partial(double), Doubler()], ids=["def", "partial", "object"])
def test_a_coroutine_function_is_refused_under_gevent(function):
    """No warning that the coroutine was never awaited: warnings are errors here."""
    with pytest.raises(TypeError, match="gevent cannot run a coroutine function"):
        as_function(function)(1)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("function", [double, functools.partial(double), Doubler()], ids=["def", "partial", "object"])
def test_a_coroutine_function_is_waited_for_in_an_event_loop(loop, function):
    assert run_under(loop, lambda: as_function(function)(21)) == 42


@pytest.mark.parametrize("loop", LOOPS)
def test_the_asker_of_a_coroutine_is_the_greenlet_that_waits_for_it(loop):
    async def who():
        return asker(), await asyncio.create_task(inner())

    async def inner():
        return asker()

    def wait():
        assert asker() is getcurrent()
        found = as_function(who)()
        assert found == (getcurrent(), getcurrent())
        assert asker() is getcurrent()
        return True

    assert run_under(loop, wait)
