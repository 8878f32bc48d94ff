"""The room where greentls waits: what a hub promises, under gevent."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
import weakref

import gevent
import pytest

from greentls.hub import Deadline, PerHub, after_fork, here
from tests.support.forks import forked
from tests.support.helpers import PATIENCE


def in_a_thread(function):
    """What it returns in a native thread, whose hub is destroyed."""
    answers = []

    def run():
        try:
            answers.append(function())
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    return answers[0]


class Thing:
    def __init__(self, *arguments):
        self.arguments = arguments


class TestHere:
    def test_all_greenlets_of_a_hub_find_the_same(self):
        assert here() is here() is gevent.spawn(here).get()

    def test_each_thread_has_its_own(self):
        assert in_a_thread(here) is not here()

    def test_one_that_is_destroyed_is_not_found_again(self):
        def two():
            first = here()
            gevent.get_hub().destroy(destroy_loop=True)
            return first, here()

        first, second = in_a_thread(two)
        assert first is not second


class TestPerHub:
    def test_it_is_made_once_of_the_arguments_it_gets_first(self):
        things = PerHub(Thing)
        thing = things.get(1)
        assert thing.arguments == (1,)
        assert things.get(2) is thing
        assert gevent.spawn(things.get, 3).get() is thing

    def test_each_hub_has_its_own(self):
        things = PerHub(Thing)
        assert in_a_thread(things.get) is not things.get()

        def two():
            first = things.get()
            gevent.get_hub().destroy(destroy_loop=True)
            return first, things.get()

        first, second = in_a_thread(two)
        assert first is not second

    def test_two_of_them_do_not_share(self):
        assert PerHub(Thing).get() is not PerHub(Thing).get()

    def test_a_forked_process_begins_anew(self):
        things = PerHub(os.getpid)
        things.get()
        assert forked(lambda: 0 if things.get() == os.getpid() else 1) == 0
        assert things.get() == os.getpid()

    def test_it_goes_with_its_thread_and_with_what_holds_it(self):
        """hazard: threads that come and go, or stores that do, leave what they had for each hub."""
        things = PerHub(Thing)
        kept = []
        in_a_thread(lambda things=things: kept.append(weakref.ref(things.get())))
        kept.append(weakref.ref(things.get()))
        things.get().back = things  # as a store's queues know their store
        del things
        gc.collect()
        assert [each() for each in kept] == [None, None]

    def test_whoever_comes_between_has_the_same(self):
        """hazard: a finalizer that runs while the object is made has one of its own."""
        things = PerHub(lambda: Thing() if inside else (inside.append(1), inside.append(things.get()), Thing())[2])
        inside = []
        assert things.get() is inside[1]

    def test_a_patched_program_has_one_for_all_its_greenlets(self):
        """hazard: gevent makes of threading.local what each greenlet has its own of. Also where it comes second."""
        program = """
            import gevent
            things = greentls.hub.PerHub(object)
            assert gevent.spawn(things.get).get() is things.get()
        """
        patch, ours = "from gevent import monkey; monkey.patch_all()", "import greentls.hub"
        for first in ([patch, ours], [ours, patch]):
            lines = "\n".join([*first, textwrap.dedent(program)])
            subprocess.run([sys.executable, "-c", lines], check=True, timeout=PATIENCE)


class TestAfterFork:
    def test_a_method_is_called_while_its_object_lives(self):
        class Counter(list):
            __hash__ = object.__hash__

            def note(self):
                self.append(1)

        counter, gone = Counter(), Counter()
        after_fork(counter.note)
        after_fork(counter.note)
        after_fork(gone.note)
        reference = weakref.ref(gone)
        del gone
        assert reference() is None
        assert forked(lambda: 0 if counter == [1] else 1) == 0
        assert counter == []


class TestDeadline:
    def test_a_block_in_time_is_left_alone(self):
        with Deadline(PATIENCE, "late") as nothing:
            here().sleep(0)
        assert nothing is None

    def test_it_raises_out_of_the_block_only(self):
        """hazard: a store takes the deadline for a failure of its own, and goes on."""
        deadline = Deadline(0.01, "no answer in {} s")
        with pytest.raises(TimeoutError, match=r"^no answer in 0\.01 s$"), deadline:
            try:
                here().sleep(PATIENCE)
            except Exception:
                pytest.fail("inside of the block it must be no Exception")
        assert deadline.passed

    def test_none_is_no_limit(self):
        with Deadline(None, ""):
            here().sleep(0.01)

    def test_an_outer_one_passes_through_an_inner_one(self):
        outer, inner = Deadline(0.01, "outer"), Deadline(PATIENCE, "inner")
        with pytest.raises(TimeoutError, match="outer"), outer, inner:
            here().sleep(PATIENCE)
        assert outer.passed
        assert not inner.passed


class TestWaiting:
    def test_an_event_wakes_all_that_wait(self):
        event = here().event()
        waiting = [gevent.spawn(event.wait) for _ in range(3)]
        assert not event.wait(0.01)
        event.set()
        gevent.joinall(waiting, PATIENCE)
        assert [each.value for each in waiting] == [True] * 3
        assert event.wait()

    def test_a_semaphore_lets_so_many_in(self):
        semaphore, inside, most, leave = here().semaphore(2), [], [], here().event()

        def enter():
            with semaphore:
                inside.append(1)
                most.append(len(inside))
                leave.wait(PATIENCE)
                inside.pop()

        tasks = [here().spawn(enter) for _ in range(5)]
        here().sleep(0.01)
        assert len(inside) == 2
        leave.set()
        for task in tasks:
            task.join()
        assert max(most) == 2
        assert len(most) == 5

    def test_a_task_that_is_killed_is_dead_and_says_so(self):
        told = here().event()
        task = here().spawn(here().sleep, PATIENCE)
        task.rawlink(lambda _: told.set())
        here().sleep(0)
        assert not task.dead
        task.kill(block=False)
        assert told.wait(PATIENCE)
        assert task.dead

    def test_later_is_cancelled_as_often_as_one_likes(self):
        called = []
        cancel = here().later(0.01, called.append, 1)
        cancel()
        cancel()
        done = here().event()
        here().later(0.02, done.set)
        assert done.wait(PATIENCE)
        assert called == []

    def test_a_timer_that_nobody_waits_for_keeps_no_program(self):
        program = "import gevent, greentls.hub; greentls.hub.here().later(60, print, ref=False); gevent.wait()"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)

    def test_a_thread_wakes_the_hub(self):
        woken = here().event()
        call = here().call_from_thread
        threading.Thread(target=call, args=(woken.set,)).start()
        assert woken.wait(PATIENCE)

    def test_in_thread_leaves_the_hub_to_others(self):
        reading, writing = os.pipe()
        gevent.spawn(os.write, writing, b"x")
        assert here().in_thread(os.read, reading, 1) == b"x"
        os.close(reading)
        os.close(writing)

    def test_readable_waits_and_gives_up(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            readable = here().readable(ours, 0.01)
            with pytest.raises(TimeoutError):
                readable.wait()
            theirs.send(b"x")
            readable.wait()
            readable.close()
