"""The room where greentls waits: what a hub promises."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import gevent
import pytest
from greenlet import GreenletExit

from greentls.hub import Deadline, PerHub, after_fork, here
from tests.layers.floors import modules
from tests.support.forks import forked
from tests.support.helpers import PATIENCE, free_port
from tests.support.hubs import Job, references_put_right, under_each_hub, wait_for


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


def later(seconds, function, *arguments):
    timer = here().timer(seconds)
    timer.start(function, *arguments, update=True)
    return timer


class Thing:
    pass


class TestHere:
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
    def test_it_is_made_once(self):
        things = PerHub(Thing)
        thing = things.get()
        assert things.get() is thing
        assert gevent.spawn(things.get).get() is thing

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


@under_each_hub
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

    def test_each_of_a_line_has_its_own_time(self):
        """Those of equal length share a timer. The one that it was set for may leave before its time, or pass."""
        passed = []

        def wait(number, until):
            try:
                with Deadline(0.05, "late"):
                    until.wait()
            except TimeoutError:
                passed.append(number)

        left, never = here().event(), here().event()
        jobs = []
        for number in range(4):
            jobs.append(Job(wait, number, left if number == 0 else never))
            here().sleep(0.01)
        left.set()
        for job in jobs:
            job.result()
        assert [number for number in passed if number != 0] == [1, 2, 3], "whether the first one left in time or not"
        assert [line.timer for line in here().deadlines.values()] == [None] * len(here().deadlines), "the loop may end"

    def test_one_that_comes_while_the_last_leaves(self, monkeypatch):
        """hazard: a finalizer runs where the line is empty, and what it begins has no timer."""
        begun = []

        def begin():
            with Deadline(0.02, "late"):
                here().event().wait()

        with Deadline(0.02, "") as _:
            (line,) = [line for line in here().deadlines.values() if line.timer is not None]
            close = line._disarm

            def disarm(line):
                if not begun:
                    begun.append(Job(begin))
                    here().sleep(0)
                close()

            monkeypatch.setattr(type(line), "_disarm", disarm)
        with pytest.raises(TimeoutError, match="late"):
            begun[0].result()

    def test_what_came_in_time_goes_before_it(self):
        """hazard: the loop is late, and takes answers that are there for late ones."""
        ours, theirs = socket.socketpair()
        here_too, there_too = socket.socketpair()
        with ours, theirs, here_too, there_too:
            answer, start = here().readable(ours.fileno(), PATIENCE), here().readable(here_too.fileno(), PATIENCE)

            def wait():
                with Deadline(0.05, "late"):
                    answer.wait()

            def block():
                start.wait()  # so that the loop is where it looks at sockets, and looks at timers next
                theirs.send(b"x")
                time.sleep(0.1)

            jobs = [Job(wait), Job(block)]
            here().sleep(0)
            there_too.send(b"x")
            for job in jobs:
                job.result()
            answer.close()
            start.close()


@under_each_hub
class TestWaiting:
    def test_all_greenlets_of_a_hub_find_the_same(self):
        assert here() is here() is Job(here).result()

    def test_an_event_wakes_all_that_wait(self):
        event = here().event()
        jobs = [Job(event.wait) for _ in range(3)]
        assert not event.wait(0.01)
        event.set()
        assert [job.result() for job in jobs] == [True] * 3
        assert event.wait()
        assert event.wait(0)

    def test_one_that_is_killed_while_it_waits_leaves_the_others(self):
        event = here().event()
        jobs = [Job(event.wait) for _ in range(3)]
        here().sleep(0)
        jobs[1].kill()
        event.set()
        assert [jobs[each].result() for each in (0, 2)] == [True, True]
        assert isinstance(jobs[1].join().value, GreenletExit)

    def test_a_semaphore_lets_so_many_in(self):
        semaphore, inside, most, leave = here().semaphore(2), [], [], here().event()

        def enter():
            with semaphore:
                inside.append(1)
                most.append(len(inside))
                leave.wait(PATIENCE)
                inside.pop()

        jobs = [Job(enter) for _ in range(5)]
        wait_for(lambda: len(inside) == 2, "two inside")
        leave.set()
        for job in jobs:
            job.result()
        assert max(most) == 2
        assert len(most) == 5

    def test_a_place_is_not_lost_with_who_was_let_in(self):
        """hazard: a greenlet is killed between its turn and its next step, and nobody else ever gets the place."""
        semaphore = here().semaphore(1)
        entered = []

        def enter(number):
            with semaphore:
                entered.append(number)

        with semaphore:
            first, second = Job(enter, 1), Job(enter, 2)
            here().sleep(0)
            first.kill()
        second.result()
        assert entered == [2]

    def test_what_is_thrown_at_a_wait_ends_it_once(self):
        """hazard: what the greenlet waited for before comes later, and ends the next wait."""
        event, second = here().event(), here().event()

        def wait():
            try:
                event.wait()
            except GreenletExit:
                later(0.02, second.set)
                return second.wait()

        job = Job(wait)
        here().sleep(0)
        job.kill()
        event.set()
        assert job.result() is True

    def test_a_task_that_is_killed_is_dead_and_says_so(self):
        told = here().event()
        task = here().spawn(here().sleep, PATIENCE)
        task.rawlink(lambda _: told.set())
        here().sleep(0)
        assert not task.dead
        task.kill(block=False)
        assert told.wait(PATIENCE)
        assert task.dead

    def test_a_task_that_is_killed_before_its_first_turn_has_none(self):
        told, called = here().event(), []
        task = here().spawn(called.append, 1)
        task.rawlink(lambda _: told.set())
        task.kill(block=False)
        assert told.wait(PATIENCE)
        task.join()
        assert task.dead
        assert called in ([], [1])  # an event loop kills at its next turn, behind the task's first

    def test_a_link_of_a_task_that_is_dead_is_called(self):
        told = here().event()
        task = here().spawn(int)
        task.join()
        task.rawlink(lambda _: told.set())
        assert told.wait(PATIENCE)

    def test_kill_waits_if_it_is_told_to(self):
        ended = []

        def slow():
            try:
                here().sleep(PATIENCE)
            finally:
                here().sleep(0.01)
                ended.append(1)

        task = here().spawn(slow)
        here().sleep(0)
        task.kill(block=True)
        assert ended == [1]

    @pytest.mark.stderr
    def test_what_a_task_raises_is_reported(self, capfd, caplog):
        task = here().spawn(lambda: 1 / 0)
        task.join()
        here().sleep(0)
        assert "division by zero" in capfd.readouterr().err + caplog.text

    def test_a_timer_is_closed_as_often_as_one_likes(self):
        called = []
        timer = later(0.01, called.append, 1)
        timer.close()
        timer.close()
        here().timer(0.01).close()  # never started
        done = here().event()
        later(0.02, done.set)
        assert done.wait(PATIENCE)
        assert called == []

    def test_call_soon_is_not_now(self):
        called = []
        here().call_soon(called.append, 1)
        assert called == []
        here().sleep(0)
        assert called == [1]

    def test_a_thread_wakes_the_hub(self):
        woken = here().event()
        call = here().caller()
        threading.Thread(target=call, args=(woken.set,)).start()
        assert woken.wait(PATIENCE)

    def test_calls_from_threads_come_in_order_and_not_now(self):
        call, called = here().caller(), []

        def calls():
            for number in range(100):
                call(called.append, number)

        for number in range(3):
            thread = threading.Thread(target=calls)
            thread.start()
            thread.join(PATIENCE)
            assert len(called) == 100 * number
            wait_for(lambda expected=100 * (number + 1): len(called) == expected, "the calls")
        assert called == [*range(100)] * 3

    def test_in_thread_leaves_the_hub_to_others(self):
        reading, writing = os.pipe()
        job = Job(os.write, writing, b"x")
        assert here().in_thread(os.read, reading, 1) == b"x"
        job.result()
        os.close(reading)
        os.close(writing)

    def test_what_is_raised_in_a_thread_is_raised_here_and_not_printed(self):
        expected = ValueError("in a thread")

        def fail():
            raise expected

        with pytest.raises(ValueError, match="in a thread") as caught:
            here().in_thread(fail)
        assert caught.value is expected

    def test_readable_waits_and_gives_up(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            readable = here().readable(ours.fileno(), 0.01)
            with pytest.raises(TimeoutError):
                readable.wait()
            theirs.send(b"x")
            readable.wait()
            readable.close()

    def test_an_object_for_each_hub(self):
        things = PerHub(Thing)
        assert Job(things.get).result() is things.get()


@under_each_hub
class TestSockets:
    """here().socket, in the place of the module."""

    @pytest.fixture
    def server(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield listener

    def test_a_client_talks_while_others_run(self, server):
        sock = here().socket.create_connection(server.getsockname(), PATIENCE)
        there = server.accept()[0]
        with sock, there:
            sock.sendall(b"question")
            assert there.recv(100) == b"question"
            job = Job(there.send, b"answer")
            assert sock.recv(100) == b"answer"
            job.result()
            with sock.makefile("rb") as file:
                there.send(b"line\n")
                assert file.readline() == b"line\n"

    def test_more_than_the_kernel_takes_is_sent(self, server):
        data = os.urandom(8 << 20)
        sock = here().socket.create_connection(server.getsockname(), PATIENCE)
        there = server.accept()[0]
        with sock, there:
            received = here().event(), bytearray()

            def receive():
                while len(received[1]) < len(data):
                    received[1].extend(there.recv(1 << 20))

            thread = threading.Thread(target=receive)
            thread.start()
            sock.sendall(data)
            here().in_thread(thread.join)
        assert received[1] == data

    def test_it_gives_up_after_its_timeout_and_goes_on(self, server):
        sock = here().socket.create_connection(server.getsockname(), PATIENCE)
        there = server.accept()[0]
        with sock, there:
            sock.settimeout(0.01)
            assert sock.gettimeout() == 0.01
            with pytest.raises(TimeoutError):
                sock.recv(1)
            with pytest.raises(TimeoutError):
                while True:
                    sock.send(bytes(1 << 20))
            sock.settimeout(0.0)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            there.send(b"x")
            sock.settimeout(PATIENCE)
            assert sock.recv(1) == b"x"

    def test_nobody_there_is_an_error(self):
        with pytest.raises(ConnectionRefusedError):
            here().socket.create_connection(("127.0.0.1", free_port()), PATIENCE)

    def test_a_name_has_addresses(self):
        module = here().socket
        found = module.getaddrinfo("127.0.0.1", 80, type=module.SOCK_STREAM)
        assert [each[4] for each in found] == [("127.0.0.1", 80)]
        with pytest.raises(module.gaierror):
            module.getaddrinfo("no address\0", 80)

    def test_a_wait_that_is_killed_leaves_the_socket_as_it_was(self, server):
        sock = here().socket.create_connection(server.getsockname(), PATIENCE)
        there = server.accept()[0]
        with sock, there:
            job = Job(sock.recv, 1)
            here().sleep(0)
            job.kill()
            job.join()
            there.send(b"x")
            assert sock.recv(1) == b"x"


def test_a_call_from_a_thread_leaves_gevents_count_of_references_alone():
    """hazard: the loop changes it in C, without the GIL. If one of two changes is lost, the loop ends too early."""
    call, loop, called = here().caller(), gevent.get_hub().loop, []
    before = loop.activecnt
    thread = threading.Thread(target=call, args=(called.append, 1))
    thread.start()
    thread.join(PATIENCE)  # the hub does not run meanwhile
    assert loop.activecnt == before
    assert called == []
    wait_for(lambda: called == [1], "the call")


def test_a_reference_too_few_is_put_right():
    """What the tests do for each other (tests/conftest.py)."""

    def thread():
        loop = gevent.get_hub().loop
        before = references_put_right(), loop.activecnt
        loop.unref()
        return before, references_put_right(), loop.activecnt, references_put_right()

    assert in_a_thread(thread) == ((False, 0), True, 0, False)


def test_nobody_makes_gevent_count_in_another_thread():
    assert not [name for path, name, _ in modules() if ".run_callback_threadsafe" in path.read_text("utf-8")]


def test_to_wait_for_threads_keeps_no_program():
    program = "import gevent, greentls.hub; greentls.hub.here().caller(); gevent.wait()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)


def test_a_timer_that_nobody_waits_for_keeps_no_program():
    program = (
        "import gevent, greentls.hub; greentls.hub.here().timer(60, ref=False).start(print, update=True); gevent.wait()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)
