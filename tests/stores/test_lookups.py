"""Lookups that greenlets begin in the same turn of the loop are one command to memcached, and puts go with them."""

from __future__ import annotations

import pytest
from gevent import GreenletExit
from pymemcache.exceptions import MemcacheServerError

from greentls.hub import here
from greentls.stores import memcached as memcached_module
from greentls.stores.memcached import MemcachedStore
from tests.stores.samples import ID, MANY, OTHER, SESSION, answered, talking
from tests.support.helpers import PATIENCE
from tests.support.hubs import Job, under_each_hub


@pytest.fixture
def store(memcached):
    store = MemcachedStore([(memcached.host, memcached.port)])
    yield store
    store.close()


@pytest.fixture
def commands(monkeypatch):
    """How many changes were sent at once, and how many keys were asked for with them."""
    asked, ask = [], memcached_module._Client.ask

    def noted(client, changes, keys):
        asked.append((len(changes), len(keys)))
        return ask(client, changes, keys)

    monkeypatch.setattr(memcached_module._Client, "ask", noted)
    return asked


def fill(store):
    assert set(store.write_many([(each, each, 60) for each in MANY])) == {(at, None) for at in range(len(MANY))}


def write(store, *changes):
    return list(store.write_many([(each, value, 60) for each, value in changes]))


@under_each_hub
class TestLookups:
    def test_they_ask_together_and_each_gets_its_own(self, store, commands):
        fill(store)
        commands.clear()
        ids = [*MANY[:5], OTHER, OTHER, MANY[0]]
        jobs = [Job(store.get, each) for each in ids]
        assert [job.result() for job in jobs] == [*MANY[:5], None, None, MANY[0]]
        assert commands == [(0, 6)], "no key twice"
        assert store.get(MANY[7]) == MANY[7]
        assert commands == [(0, 6), (0, 1)]

    def test_one_command_is_bounded(self, store, commands):
        """hazard: a node that lies may send so many times the longest answer."""
        fill(store)
        commands.clear()
        jobs = [Job(store.get, each) for each in MANY]
        assert [job.result() for job in jobs] == MANY
        assert sorted(commands) == [(0, 8), (0, 16), (0, 16)]

    def test_a_kill_of_one_does_not_harm_the_others(self, store):
        fill(store)
        for turn in range(12):
            jobs = [Job(store.get, each) for each in MANY[:5]]
            for _ in range(turn % 6):
                here().sleep(0)
            jobs[turn % 5].kill()
            for at, job in enumerate(jobs):
                value = job.join().value
                if at == turn % 5:
                    assert value in (None, MANY[at]) or isinstance(value, GreenletExit)
                else:
                    assert value == MANY[at]

    @pytest.mark.parametrize("begun", [False, True])
    def test_a_kill_of_the_one_that_asks_is_an_error_to_those_who_wait(self, store, monkeypatch, begun):
        """hazard: a program kills all its greenlets, and who looks up a session waits for ever."""
        fill(store)

        class Killed(memcached_module._Question):
            def __init__(self, node):
                super().__init__(node)
                lookups.append(self)
                if not begun:
                    self.task.kill(block=False)

        lookups, inside = [], here().event()
        with monkeypatch.context() as patch:
            patch.setattr(memcached_module, "_Question", Killed)
            patch.setattr(memcached_module._Client, "ask", lambda *_: inside.set() or here().sleep(PATIENCE))
            jobs = [Job(answered, store.get, each) for each in MANY[:5]]
            if begun:
                assert inside.wait(PATIENCE)
                lookups[0].task.kill(block=False)
            for error in [job.result() for job in jobs]:
                assert isinstance(error, ConnectionError) and "the question was ended" in str(error)
        assert store.get(MANY[0]) == MANY[0]

    def test_what_fails_is_each_ones_own_error(self, store, monkeypatch):
        """hazard: an exception that several greenlets raise at once has the traceback of all of them."""
        fill(store)

        def fail(client, changes, keys):
            raise MemcacheServerError(b"out of memory")

        monkeypatch.setattr(memcached_module._Client, "ask", fail)
        jobs = [Job(answered, store.get, each) for each in MANY[:3]]
        errors = [job.result() for job in jobs]
        assert [(type(each), each.args) for each in errors] == [(MemcacheServerError, (b"out of memory",))] * 3
        assert len(set(map(id, errors))) == 3

    def test_an_answer_that_comes_in_crumbs(self, store, monkeypatch):
        fill(store)
        recv = memcached_module._Wire.recv
        store.put(ID, SESSION * 100, 60)
        monkeypatch.setattr(memcached_module._Wire, "recv", lambda wire, size: recv(wire, 1))
        jobs = [Job(store.get, each) for each in (MANY[0], OTHER, ID, MANY[1])]
        assert [job.result() for job in jobs] == [MANY[0], None, SESSION * 100, MANY[1]]


@under_each_hub
class TestPutsThatGoWithLookups:
    def test_they_are_one_command(self, store, commands):
        fill(store)
        commands.clear()
        lookups = [Job(store.get, each) for each in (MANY[0], OTHER)]
        puts = Job(write, store, (OTHER, SESSION), (MANY[1], None), (MANY[2], b"new"))
        others = Job(write, store, (ID, SESSION))
        assert puts.result() == [(0, None), (1, None), (2, None)]
        assert [job.result() for job in lookups] == [MANY[0], SESSION], "who asks behind a put sees it"
        assert others.result() == [(0, None)]
        assert sorted(commands) == [(1, 0), (3, 2)], "changes of two are not mixed"
        assert [store.get(each) for each in (ID, MANY[1], MANY[2])] == [SESSION, None, b"new"]

    def test_what_one_put_fails_with_is_nobody_elses(self, store, commands):
        fill(store)
        commands.clear()
        lookup = Job(store.get, MANY[0])
        puts = Job(write, store, (ID, b"1"), (OTHER, bytes(2 << 20)), (MANY[1], b"2"))
        (_, first), (_, second), (_, third) = puts.result()
        assert first is None and third is None and "too large" in str(second)
        assert lookup.result() == MANY[0]
        assert commands == [(3, 1)]
        assert [store.get(each) for each in (ID, OTHER, MANY[1])] == [b"1", None, b"2"]

    def test_a_kill_of_the_lookups_leaves_the_puts(self, store):
        fill(store)
        for turn in range(8):
            lookups = [Job(store.get, each) for each in MANY[:2]]
            puts = Job(write, store, (ID, b"%d" % turn))
            for _ in range(turn % 5):
                here().sleep(0)
            for job in lookups:
                job.kill()
            assert puts.result() == [(0, None)]
            assert store.get(ID) == b"%d" % turn

    def test_a_kill_of_the_puts_leaves_the_lookups(self, store):
        fill(store)
        for turn in range(12):
            lookups = [Job(store.get, each) for each in MANY[:2]]
            puts = Job(write, store, (ID, b"%d" % turn))
            for _ in range(turn % 6):
                here().sleep(0)
            puts.kill()
            assert [job.result() for job in lookups] == MANY[:2]
            value = puts.join().value
            assert value in (None, [(0, None)]) or isinstance(value, GreenletExit)

    def test_what_was_not_sent_when_its_deadline_passed_is_never_sent(self, store, commands, monkeypatch):
        """hazard: a put is late, its session is removed, and then the put is sent."""
        fill(store)
        commands.clear()
        connected, go_on = here().event(), here().event()
        run = memcached_module._Node.run

        def late(node, *arguments):
            connected.set()
            assert go_on.wait(PATIENCE)
            return run(node, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(memcached_module._Node, "run", late)
            lookup = Job(store.get, MANY[0])
            puts = Job(write, store, (ID, SESSION))
            assert connected.wait(PATIENCE)
            puts.kill()
            puts.join()
            go_on.set()
            assert lookup.result() == MANY[0]
        assert commands == [(0, 1)]
        assert store.get(ID) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"END\r\nSTORED\r\n",
        b"STORED\r\nSTORED\r\n",
        b"STORED\r\nEND\r\nSTORED\r\n",
        b"VALUE {key} 0 5\r\nhello\r\nEND\r\n",
        b"STORED\r\nVALUE {key} 0 5\r\nhello\r\nEND\r\nEND\r\n",
        b"STORED\r\nCLIENT_ERROR line too long\r\n",
        b"SERVER_ERROR " + b"x" * 5000,
    ],
)
def test_answers_that_do_not_fit_are_nobodys(answer):
    """hazard: the answer to a put is taken for a session, or the connection is used on with an answer left over."""
    accepted = []

    def talk(sock):
        accepted.append(sock.recv(4096))
        key = accepted[-1].split()[-1]
        sock.sendall(answer.replace(b"{key}", key) if len(accepted) == 1 else b"END\r\n")
        sock.recv(4096)

    with talking(talk) as address:
        store = MemcachedStore([address], timeout=PATIENCE)
        lookup, puts = Job(answered, store.get, ID), Job(write, store, (OTHER, b"1"))
        assert isinstance(lookup.result(), Exception)
        ((_, error),) = puts.result()
        assert isinstance(error, Exception)
        assert accepted[0].startswith(b"set ") and accepted[0].endswith(
            b"get greentls:1:default:s:%b\r\n" % ID.hex().encode()
        )
        assert not store._cluster()._nodes[0]._idle
        store.close()
