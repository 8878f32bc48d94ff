"""Session: what it knows, its bytes, and how long it is good."""

from __future__ import annotations

import gc
import time

import pytest

from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConfigurationError
from greentls.openssl import library
from tests.support.pairs import (
    TLS12,
    TLS13,
    attempt,
    both_versions,
    client,
    client_context,
    handshake,
    move,
    server_context,
)

FACTS = (
    "id", "id_context", "server_name", "alpn_protocol", "made", "time", "timeout", "lifetime", "has_ticket",
    "ticket_lifetime_hint", "max_early_data", "single_use", "resumable",
)  # fmt: skip


def a_session(pki, version, **settings):
    """A client's, after a handshake; settings: the server's."""
    settings.setdefault("hooks", Hooks(alpn=lambda connection, offered: offered[0]))
    here = client(client_context(pki, version, alpn_protocols=[b"h2"]))
    handshake(here, Connection(server_context(pki, version, **settings)))
    return here.session


@both_versions
class TestFacts:
    def test_what_the_handshake_came_to(self, pki, version):
        began = int(time.time())
        session = a_session(pki, version, session_lifetime=1000)
        assert (session.alpn_protocol, session.id_context, session.max_early_data) == (b"h2", b"", 0)
        assert session.server_name in ("localhost", None)  # a TLS 1.3 server acknowledges it or not
        assert began <= session.made == session.time <= time.time()
        assert (session.has_ticket, session.resumable) == (True, True)
        assert session.single_use is (version == TLS13)
        assert 1 <= session.lifetime <= min(session.timeout, session.ticket_lifetime_hint)
        assert session.ticket_lifetime_hint == 1000
        assert session.lifetime - 5 < session.remaining <= session.lifetime

    def test_the_servers_is_bound_to_its_settings(self, pki, version):
        kept = []
        hooks = Hooks(
            new_session=lambda connection, session: kept.append((session.copy(), connection.session_id_context))
        )
        handshake(client(client_context(pki, version)), Connection(server_context(pki, version, hooks=hooks)))
        assert kept
        assert all(session.id_context == bound and len(bound) == 32 for session, bound in kept)

    def test_bytes_and_back(self, pki, version):
        session = a_session(pki, version)
        copy = Session.from_bytes(bytes(session))
        assert {fact: getattr(copy, fact) for fact in FACTS} == {fact: getattr(session, fact) for fact in FACTS}
        assert copy.to_bytes() == session.to_bytes() == bytes(session)
        assert copy == session
        assert hash(copy) == hash(session)

    def test_equal_is_who_has_the_same_id(self, pki, version):
        one, other = (a_session(pki, version) for _ in range(2))
        assert one != other
        assert len({one, other, Session.from_bytes(bytes(one))}) == 2
        assert one != bytes(one)

    def test_it_is_shown_without_its_secret(self, pki, version):
        session = a_session(pki, version)
        assert repr(session) == f"<Session {session.id.hex()[:16]}>"


def test_without_a_ticket_there_is_nothing_to_resume_under_tls_1_3(pki):
    here, there = client(client_context(pki, TLS13)), Connection(server_context(pki, TLS13))
    for _ in range(2):
        attempt(here.do_handshake)
        move(here, there)
        attempt(there.do_handshake)
        if not here.established:
            move(there, here)
    assert here.established
    assert not here.session.resumable
    move(there, here)
    assert attempt(here.read) is None
    assert here.session.resumable


@pytest.mark.parametrize("damage", [lambda blob: b"", lambda blob: blob[:-1], lambda blob: b"\x04" + blob[1:]])
def test_bytes_that_are_no_session_are_refused_and_leave_no_error(pki, damage):
    blob = damage(bytes(a_session(pki, TLS12)))
    with pytest.raises(ConfigurationError, match=f"session: these {len(blob)} bytes are not an SSL_SESSION"):
        Session.from_bytes(blob)
    assert not library.lib.ERR_peek_error()


class TestVouched:
    """By an OCSP response, until when is told beside the session."""

    def test_it_is_good_until_then(self, pki):
        blob = bytes(a_session(pki, TLS13))
        now = time.time()
        assert [Session.from_bytes(blob, until).vouched_for for until in (None, now - 1, now + 60)] == [
            False,
            False,
            True,
        ]

    def test_its_bytes_do_not_say_so(self, pki):
        session = Session.from_bytes(bytes(a_session(pki, TLS13)), time.time() + 60)
        assert Session.from_bytes(bytes(session)).vouched_until is None


def test_what_a_new_session_hook_is_lent_is_empty_afterwards(pki):
    """hazard: OpenSSL frees what a hook has kept."""
    lent, kept, ids = [], [], []

    def new_session(connection, session):
        lent.append(session)
        ids.append(session.id)
        kept.append(session.copy())

    here = client(client_context(pki, TLS13))
    handshake(here, Connection(server_context(pki, TLS13, hooks=Hooks(new_session=new_session))))
    for session in lent:
        with pytest.raises(AttributeError):
            session.to_bytes()
    assert [Session.from_bytes(bytes(each)).id for each in kept] == ids


def test_one_that_shares_it_outlives_the_connection_and_the_first(pki):
    first = a_session(pki, TLS13)
    other = first.copy()
    blob = bytes(first)
    del first
    gc.collect()
    assert bytes(other) == blob
