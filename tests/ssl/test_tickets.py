"""SSLContext.ticket_keys: tickets that another process, or another context, opens."""

from __future__ import annotations

import math
import ssl

import gevent
import gevent.socket
import pytest
from gevent.event import Event

import greentls
from greentls.errors import ConfigurationError
from greentls.stores.memory import MemoryStore
from greentls.tickets import TicketKey, TicketKeys
from tests.support.clients import exchange, in_thread, stdlib_context
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import both_versions, contexts, outcome
from tests.support.ssl_servers import server_context


@pytest.fixture
def keys():
    return TicketKeys.static([TicketKey.new()])


@both_versions
@pytest.mark.parametrize("strategy", ["coroutine", "thread"])
def test_a_foreign_client_resumes_at_another_context(pki, serve, version, keys, strategy):
    addresses = [serve(server_context(pki, ticket_keys=keys, strategy=strategy)) for _ in range(2)]
    context = stdlib_context(pki, version)
    first = in_thread(exchange, addresses[0], context)
    second = in_thread(exchange, addresses[1], context, session=first.session)
    third = in_thread(exchange, addresses[0], context, session=second.session)
    assert (first.reused, second.reused, third.reused) == (False, True, True)
    assert first.session.has_ticket


@both_versions
def test_the_store_agrees_for_two_contexts_that_share_it(pki, serve, version):
    store = MemoryStore()
    addresses = [serve(server_context(pki, ticket_keys=TicketKeys.shared(store))) for _ in range(2)]
    context = stdlib_context(pki, version)
    first = in_thread(exchange, addresses[0], context)
    assert in_thread(exchange, addresses[1], context, session=first.session).reused


@both_versions
def test_without_them_tickets_are_the_contexts_own(pki, serve, version):
    addresses = [serve(server_context(pki)) for _ in range(2)]
    context = stdlib_context(pki, version)
    first = in_thread(exchange, addresses[0], context)
    assert not in_thread(exchange, addresses[1], context, session=first.session).reused
    assert in_thread(exchange, addresses[0], context, session=first.session).reused


class Store(MemoryStore):
    """Fails, or hangs until it is told to go on."""

    def __init__(self, trouble):
        super().__init__()
        self.trouble = trouble

    def gets(self, name):
        self.trouble()
        return super().gets(name)


@pytest.fixture
def hang():
    """What hangs until the end of the test."""
    end = Event()
    yield end.wait
    end.set()
    gevent.sleep(0)


def fail():
    raise ConnectionError("no memcached")


@both_versions
@pytest.mark.parametrize("kind", ["down", "hangs"])
def test_a_store_in_trouble_costs_full_handshakes_and_no_connections(pki, serve, version, kind, hang):
    trouble = fail if kind == "down" else hang
    settings = {"callback_timeout": 0.05}
    troubled = [server_context(pki, ticket_keys=TicketKeys.shared(Store(trouble)), **settings) for _ in range(2)]
    addresses = [serve(each) for each in troubled]
    context = stdlib_context(pki, version)
    first = in_thread(exchange, addresses[0], context)
    assert first.data == b"hello"
    assert in_thread(exchange, addresses[0], context, session=first.session).reused, "by a key of its own"
    second = in_thread(exchange, addresses[1], context, session=first.session)
    assert second.data == b"hello"
    assert not second.reused
    assert troubled[0].ticket_keys.age == math.inf


@both_versions
def test_who_is_killed_while_it_waits_for_the_first_keys_is_gone(pki, version, hang):
    waiting = Event()

    def wait():
        waiting.set()
        hang()

    client, server = contexts(pki, version)
    server.ticket_keys, server.callback_timeout = TicketKeys.shared(Store(wait)), None
    here, there = gevent.socket.socketpair()
    jobs = [
        gevent.spawn(outcome, client.wrap_socket, here, server_hostname="localhost"),
        gevent.spawn(server.wrap_socket, there, server_side=True),
    ]
    assert waiting.wait(PATIENCE)
    jobs[1].kill(gevent.GreenletExit("gone"), timeout=PATIENCE)
    assert isinstance(jobs[1].value, gevent.GreenletExit)
    answer = jobs[0].get(timeout=PATIENCE)
    if version == "1.3":  # the client was done before
        with answer:
            answer = outcome(answer.recv, 1)
    assert isinstance(answer, ssl.SSLError), answer


def test_keys_beside_a_store_are_refused_whichever_comes_first(pki, keys):
    context = server_context(pki, ticket_keys=keys)
    with pytest.raises(ConfigurationError, match=r"session_store beside ticket_keys: .*; choose one of the two"):
        context.session_store = MemoryStore()
    assert context.session_store is None
    context = server_context(pki, session_store=MemoryStore())
    with pytest.raises(ConfigurationError, match=r"ticket_keys beside session_store: .*; choose one of the two"):
        context.ticket_keys = keys
    assert context.ticket_keys is None
    context.session_store = None
    context.ticket_keys = keys
    assert context.ticket_keys is keys


def test_what_is_none_is_refused(pki, keys):
    context = server_context(pki)
    with pytest.raises(TypeError, match="not a TicketKeys"):
        context.ticket_keys = b"x" * 80
    with pytest.raises(ssl.SSLError, match="Cannot add ticket keys to a PROTOCOL_TLS_CLIENT context"):
        greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT).ticket_keys = keys


def test_tickets_that_the_options_forbid_are_an_error_of_the_context(pki, keys):
    context = server_context(pki, ticket_keys=keys)
    context.options |= ssl.OP_NO_TICKET
    with pytest.raises(ConfigurationError, match="there would be no tickets"):
        context.compile(True)


def test_the_same_keys_compile_no_new_context(pki, keys):
    context = server_context(pki, ticket_keys=keys)
    compiled = context.compile(True)
    context.ticket_keys = keys
    assert context.compile(True) is compiled
    context.ticket_keys = None
    assert context.compile(True) is not compiled
