"""Strategy: what each does with one step of a handshake. tests/ssl/test_strategies.py has whole handshakes."""

from __future__ import annotations

import threading

import gevent
import pytest
from gevent.event import Event

from greentls.core.connection import WANT_READ, Connection
from greentls.core.hooks import Hooks
from greentls.strategy import STRATEGIES
from greentls.wire import RecordReader
from greentls.wire.hello import ClientHello
from tests.support.helpers import PATIENCE
from tests.support.pairs import (
    TLS13,
    Sessions,
    attempt,
    both_versions,
    client,
    client_context,
    handshake,
    move,
    server_context,
)


def test_each_has_its_name_and_coroutine_needs_no_code():
    assert {name: each.name for name, each in STRATEGIES.items()} == {name: name for name in STRATEGIES}
    assert STRATEGIES["coroutine"][1:] == (None, None)
    assert [name for name, each in STRATEGIES.items() if each.call] == ["thread"]
    assert [name for name, each in STRATEGIES.items() if each.client_hello] == ["prefetch"]


class TestThread:
    call = staticmethod(STRATEGIES["thread"].call)

    @pytest.fixture
    def connection(self, pki):
        return Connection(server_context(pki))

    def test_the_step_is_done_elsewhere_and_its_result_comes_back(self, connection):
        here = threading.get_ident()
        assert self.call(connection, threading.get_ident) != here
        assert self.call(connection, lambda: WANT_READ) == WANT_READ

    @pytest.mark.parametrize("kind", [KeyError, SystemExit, gevent.GreenletExit])
    def test_what_it_raises_is_raised_here(self, connection, kind):
        error = kind("in the step")

        def step():
            raise error

        with pytest.raises(kind) as caught:
            self.call(connection, step)
        assert caught.value is error
        assert self.call(connection, lambda: 7) == 7

    def test_others_run_while_it_computes(self, connection):
        inside, go_on = threading.Event(), threading.Event()
        job = gevent.spawn(self.call, connection, lambda: inside.set() or (go_on.wait(PATIENCE) and 1))
        gevent.get_hub().threadpool.apply(inside.wait, (PATIENCE,))
        assert not job.ready()
        go_on.set()
        assert job.get(timeout=PATIENCE) == 1

    def test_whoever_is_killed_leaves_when_the_step_is_done(self, connection):
        inside, go_on, done = threading.Event(), threading.Event(), []
        job = gevent.spawn(
            self.call, connection, lambda: inside.set() or (go_on.wait(PATIENCE) and done.append(True)) or 1
        )
        gevent.get_hub().threadpool.apply(inside.wait, (PATIENCE,))
        killer = gevent.spawn(job.kill)
        gevent.idle()
        assert not job.ready(), "nothing interrupts OpenSSL"
        go_on.set()
        killer.join(PATIENCE)
        assert isinstance(job.value, gevent.GreenletExit)
        assert done == [True]


class TestPrefetch:
    """The ClientHello is read first, and what OpenSSL will ask is asked at once."""

    def asked(self, pki, version, hooks, session=None):
        """A server that has had its questions, its client, and the first flight."""
        here = client(client_context(pki, version, alpn_protocols=[b"h2"]), session)
        server = Connection(server_context(pki, version, hooks=hooks))
        attempt(here.do_handshake)
        flight = here.data_to_send()
        (message,) = RecordReader().feed(flight)
        STRATEGIES["prefetch"].client_hello(server, ClientHello.parse(message))
        server.receive_data(flight)
        return server, here

    @both_versions
    def test_the_answers_are_there_before_openssl_is_entered(self, pki, version):
        questions = []
        hooks = Hooks(
            servername=lambda connection, name: questions.append(name),
            alpn=lambda connection, offered: questions.append(offered) or offered[0],
        )
        server, here = self.asked(pki, version, hooks)
        assert server.unread, "OpenSSL has read nothing"
        assert questions == ["localhost", (b"h2",)]
        handshake(here, server)
        assert here.alpn_protocol == b"h2"
        assert len(questions) == 2, "each once"

    def test_they_wait_side_by_side(self, pki):
        sessions = Sessions()
        server = Connection(server_context(pki, TLS13, hooks=sessions.hooks()))
        handshake(first := client(client_context(pki, TLS13)), server)
        waiting, go_on = [], Event()

        def wait(*_):
            waiting.append(True)
            if len(waiting) == 2:
                go_on.set()
            assert go_on.wait(PATIENCE), "one after the other"

        hooks = Hooks(servername=wait, get_session=wait)
        with gevent.Timeout(PATIENCE):
            self.asked(pki, TLS13, hooks, first.session)
        assert len(waiting) == 2

    def test_what_a_question_raises_is_raised_when_openssl_asks(self, pki):
        def refuse(*_):
            raise PermissionError("not this name")

        server, here = self.asked(pki, TLS13, Hooks(servername=refuse))
        with pytest.raises(PermissionError, match="not this name"):
            server.do_handshake()
        assert move(server, here), "an alert"

    def test_one_that_is_killed_leaves_no_question_behind(self, pki, new_greenlets):
        inside = Event()

        def wait(*_):
            inside.set()
            Event().wait()

        job = gevent.spawn(self.asked, pki, TLS13, Hooks(servername=wait))
        assert inside.wait(PATIENCE)
        job.kill(timeout=PATIENCE)
        gevent.idle()
        assert new_greenlets() == []
