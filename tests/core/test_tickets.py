"""Tickets of two Connections in memory: sealed and opened by keys that a hook gives."""

from __future__ import annotations

import os

import gevent
import pytest
from gevent.event import Event

from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConfigurationError, ConnectionDead
from greentls.ssl.hooks.callbacks import TicketKeyChoice
from greentls.tickets import TicketKey, TicketKeys
from tests.support.helpers import PATIENCE
from tests.support.pairs import TLS12, TLS13, both_versions, client, client_context, handshake, server_context
from tests.support.session_der import ticket


def ticket_server(pki, version, keys, **settings):
    hook = keys if callable(keys) else TicketKeyChoice(keys, 1.0)
    return server_context(pki, version, hooks=Hooks(ticket_key=hook), **settings)


def visit(clients, servers, session=None):
    """(session for the next visit, whether it was resumed)"""
    here, there = client(clients, session), Connection(servers)
    handshake(here, there)
    assert here.session_reused == there.session_reused
    return here.session, here.session_reused


KEYS = {"aes-256": TicketKey.new(), "aes-128": TicketKey(os.urandom(16), os.urandom(16), os.urandom(16))}


class TestBridge:
    @both_versions
    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_another_context_resumes(self, pki, version, key):
        clients = client_context(pki, version)
        one, other = (ticket_server(pki, version, TicketKeys.static([key])) for _ in range(2))
        session, reused = visit(clients, one)
        assert not reused
        assert session.has_ticket
        assert key.name in bytes(session)
        assert visit(clients, other, session)[1]

    @both_versions
    def test_without_keys_only_the_same_context_resumes(self, pki, version):
        clients = client_context(pki, version)
        one, other = (server_context(pki, version) for _ in range(2))
        session, _ = visit(clients, one)
        assert visit(clients, one, session)[1]
        assert not visit(clients, other, session)[1]

    @both_versions
    def test_an_unknown_key_is_a_full_handshake_and_a_new_ticket(self, pki, version):
        clients = client_context(pki, version)
        one, other = (ticket_server(pki, version, TicketKeys.static([TicketKey.new()])) for _ in range(2))
        session, _ = visit(clients, one)
        session, reused = visit(clients, other, session)
        assert not reused
        assert visit(clients, other, session)[1]

    @both_versions
    def test_an_old_key_opens_and_the_client_gets_a_ticket_under_the_new_one(self, pki, version):
        old, new = TicketKey.new(), TicketKey.new()
        clients = client_context(pki, version)
        session, _ = visit(clients, ticket_server(pki, version, TicketKeys.static([old])))
        both = ticket_server(pki, version, TicketKeys.static([new, old]))
        session, reused = visit(clients, both, session)
        assert reused
        assert new.name in bytes(session)
        assert visit(clients, ticket_server(pki, version, TicketKeys.static([new])), session)[1]

    def test_a_ticket_of_tls_1_2_is_used_again_and_one_of_tls_1_3_replaced(self, pki):
        keys = TicketKeys.static([TicketKey.new()])
        for version, same in ((TLS12, True), (TLS13, False)):
            clients, servers = client_context(pki, version), ticket_server(pki, version, keys)
            first, _ = visit(clients, servers)
            second, reused = visit(clients, servers, first)
            assert reused
            assert (ticket(bytes(first)) == ticket(bytes(second))) == same

    @both_versions
    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_a_damaged_ticket_is_a_full_handshake(self, pki, version, key):
        clients, servers = client_context(pki, version), ticket_server(pki, version, TicketKeys.static([key]))
        session, _ = visit(clients, servers)
        blob = bytes(session)
        whole = ticket(blob)
        for place in (0, 15, 16, 31, 32, len(whole) // 2, len(whole) - 33, len(whole) - 32, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            offered = Session.from_bytes(blob.replace(whole, bytes(damaged)))
            session, reused = visit(clients, servers, offered)
            assert not reused, place
            assert visit(clients, servers, session)[1]
        assert visit(clients, servers, Session.from_bytes(blob))[1]

    @both_versions
    def test_a_ticket_made_with_the_other_kind_of_key_under_the_same_name_is_a_full_handshake(self, pki, version):
        key = KEYS["aes-128"]
        same_name = TicketKey(key.name, os.urandom(32), os.urandom(32))
        clients = client_context(pki, version)
        session, _ = visit(clients, ticket_server(pki, version, TicketKeys.static([key])))
        assert not visit(clients, ticket_server(pki, version, TicketKeys.static([same_name])), session)[1]

    @both_versions
    def test_no_key_at_all_is_no_ticket_and_no_failure(self, pki, version):
        clients = client_context(pki, version)
        session, _ = visit(clients, ticket_server(pki, version, lambda connection, name: None))
        assert not session.has_ticket
        session, _ = visit(clients, ticket_server(pki, version, TicketKeys.static([TicketKey.new()])))
        assert not visit(clients, ticket_server(pki, version, lambda connection, name: None), session)[1]

    @both_versions
    @pytest.mark.parametrize("when", ["seal", "open"])
    @pytest.mark.parametrize("error", [ValueError("no"), gevent.Timeout(), gevent.GreenletExit(), KeyError])
    def test_what_the_hook_raises_reaches_the_caller_and_nothing_goes_on(self, pki, version, when, error):
        key = TicketKey.new()
        clients = client_context(pki, version)
        session, _ = visit(clients, ticket_server(pki, version, TicketKeys.static([key])))

        def hook(connection, name):
            if (name is None) == (when == "seal"):
                raise error
            return key, False

        here, there = (
            client(clients, session if when == "open" else None),
            Connection(ticket_server(pki, version, hook)),
        )
        kind = error if isinstance(error, type) else type(error)
        with pytest.raises(kind) as caught:
            handshake(here, there)
        assert caught.value is error or kind is KeyError
        assert not there.established
        with pytest.raises(ConnectionDead):
            there.do_handshake()

    @both_versions
    def test_a_key_that_is_none_is_an_error_and_not_a_ticket_in_clear(self, pki, version):
        class Short:
            name, aes, hmac = b"n" * 16, b"a" * 17, b"h" * 32

        for broken in (Short, type("Nameless", (Short,), {"name": b"n"}), "key"):
            there = Connection(ticket_server(pki, version, lambda connection, name, key=broken: (key, False)))
            with pytest.raises(Exception) as caught:
                handshake(client(client_context(pki, version)), there)
            assert isinstance(caught.value, (ConfigurationError, AttributeError, IndexError, ValueError))

    @both_versions
    def test_the_hook_may_wait_while_others_do_the_same(self, pki, version):
        """hazard: key_name and iv lie on the C stack, which is another greenlet's while this one waits."""
        keys = [TicketKey.new() for _ in range(20)]
        clients = client_context(pki, version)
        waiting = []
        go = Event()

        def hook(connection, name):
            if name is not None:
                waiting.append(name)
                if len(waiting) == 20:
                    go.set()
                go.wait()
                gevent.sleep(0)
                return next(each for each in keys if each.name == name), False
            gevent.sleep(0)
            return connection.key, False

        servers = ticket_server(pki, version, hook)

        def one(key, session):
            here, there = client(clients, session), Connection(servers)
            there.key = key
            handshake(here, there)
            return here.session, here.session_reused

        def all_at_once(sessions):
            jobs = [gevent.spawn(one, key, session) for key, session in zip(keys, sessions, strict=True)]
            gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
            return [job.value for job in jobs]

        first = all_at_once([None] * 20)
        for (session, _), key in zip(first, keys, strict=True):
            assert key.name in bytes(session)
        second = all_at_once([session for session, _ in first])
        assert [reused for _, reused in second] == [True] * 20
        assert len(waiting) == 20

    @both_versions
    def test_the_first_contexts_keys_stay_in_force(self, pki, version):
        ours, others = TicketKeys.static([TicketKey.new()]), TicketKeys.static([TicketKey.new()])
        second = ticket_server(pki, version, others)

        def switch(connection, name):
            connection.switch_config(second)

        hooks = Hooks(ticket_key=TicketKeyChoice(ours, 1.0), servername=switch)
        session, _ = visit(client_context(pki, version), server_context(pki, version, hooks=hooks))
        assert ours.keys[0].name in bytes(session)

    def test_a_store_beside_them_or_no_tickets_is_refused(self, pki):
        hooks = Hooks(ticket_key=lambda *_: None, get_session=lambda *_: None)
        with pytest.raises(ConfigurationError, match="choose one of the two"):
            server_context(pki, hooks=hooks)
        with pytest.raises(ConfigurationError, match="OP_NO_TICKET"):
            ticket_server(pki, 0, TicketKeys.static([TicketKey.new()]), options=0x4000)
