"""Lookups that greenlets begin in the same turn of the loop are one command to memcached."""

from __future__ import annotations

import pytest
from gevent import GreenletExit
from pymemcache.exceptions import MemcacheServerError

from greentls.hub import here
from greentls.stores import memcached as memcached_module
from greentls.stores.memcached import MemcachedStore
from tests.stores.samples import ID, MANY, OTHER, SESSION, answered
from tests.support.helpers import PATIENCE
from tests.support.hubs import Job, under_each_hub


@pytest.fixture
def commands(monkeypatch):
    """How many keys each command has asked for."""
    asked, get_many = [], memcached_module._Client.get_many

    def noted(client, keys):
        asked.append(len(keys))
        return get_many(client, keys)

    monkeypatch.setattr(memcached_module._Client, "get_many", noted)
    return asked


def fill(store):
    assert set(store.write_many([(each, each, 60) for each in MANY])) == {(at, None) for at in range(len(MANY))}


@under_each_hub
class TestLookups:
    @pytest.fixture
    def store(self, memcached):
        store = MemcachedStore([(memcached.host, memcached.port)])
        yield store
        store.close()

    def test_they_ask_together_and_each_gets_its_own(self, store, commands):
        fill(store)
        ids = [*MANY[:5], OTHER, OTHER, MANY[0]]
        jobs = [Job(store.get, each) for each in ids]
        assert [job.result() for job in jobs] == [*MANY[:5], None, None, MANY[0]]
        assert commands == [6], "no key twice"
        assert store.get(MANY[7]) == MANY[7]
        assert commands == [6, 1]

    def test_one_command_is_bounded(self, store, commands):
        """hazard: a node that lies may send so many times the longest answer."""
        fill(store)
        jobs = [Job(store.get, each) for each in MANY]
        assert [job.result() for job in jobs] == MANY
        assert sorted(commands) == [8, 16, 16]

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

        class Killed(memcached_module._Lookup):
            def __init__(self, node):
                super().__init__(node)
                lookups.append(self)
                if not begun:
                    self.task.kill(block=False)

        lookups, inside = [], here().event()
        with monkeypatch.context() as patch:
            patch.setattr(memcached_module, "_Lookup", Killed)
            patch.setattr(memcached_module._Client, "get_many", lambda *_: inside.set() or here().sleep(PATIENCE))
            jobs = [Job(answered, store.get, each) for each in MANY[:5]]
            if begun:
                assert inside.wait(PATIENCE)
                lookups[0].task.kill(block=False)
            for error in [job.result() for job in jobs]:
                assert isinstance(error, ConnectionError) and "the lookup was ended" in str(error)
        assert store.get(MANY[0]) == MANY[0]

    def test_what_fails_is_each_ones_own_error(self, store, monkeypatch):
        """hazard: an exception that several greenlets raise at once has the traceback of all of them."""
        fill(store)

        def fail(client, keys):
            raise MemcacheServerError(b"out of memory")

        monkeypatch.setattr(memcached_module._Client, "get_many", fail)
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
