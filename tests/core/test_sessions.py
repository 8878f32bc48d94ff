"""Sessions of two Connections in memory: which resume, which are lost, and what a lookup costs."""

from __future__ import annotations

import gc
import time

import pytest

from greentls.core.callbacks import MAX_SESSION_LOOKUPS
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.session import Session
from greentls.errors import TLSError, UnexpectedEOF
from tests.support.pairs import (
    VERSIONS,
    Sessions,
    attempt,
    both_versions,
    chain,
    client,
    client_context,
    handshake,
    hello_with_identities,
    move,
    server_context,
)


def test_one_hello_with_many_identities_costs_few_lookups(pki):
    """Facts 4.3: 1,600 PSK identities in one hello would be 1,600 lookups."""
    sessions = Sessions()
    context = server_context(pki, VERSIONS["1.3"], hooks=sessions.hooks())
    other = Connection(context)
    other.receive_data(hello_with_identities(pki, [number.to_bytes(32, "big") for number in range(400)]))
    with pytest.raises(TLSError):  # the forged binders, or no common key share; never before the cap has worked
        attempt(other.do_handshake)
        raise TLSError("do_handshake", reason="still waiting for the client")
    assert len(sessions.asked) == MAX_SESSION_LOOKUPS


@both_versions
def test_a_session_under_another_ones_id_is_a_miss(pki, version):
    sessions = Sessions()
    context, clients = server_context(pki, version, hooks=sessions.hooks()), client_context(pki, version)
    made = []
    for _ in range(2):
        one, other = client(clients), Connection(context)
        handshake(one, other)
        made.append(one.session)
    blobs = dict(sessions.kept)
    for session_id in blobs:
        sessions.kept[session_id] = blobs[next(other_id for other_id in blobs if other_id != session_id)]
    one, other = client(clients, made[0]), Connection(context)
    handshake(one, other)
    assert sessions.asked and not other.session_reused


@both_versions
def test_sessions_resume_and_an_abrupt_close_keeps_them(pki, version):
    """Facts 4.7: OpenSSL removes the session of a connection that is freed without a close_notify."""
    sessions = Sessions()
    context, clients = server_context(pki, version, hooks=sessions.hooks()), client_context(pki, version)
    one, other = client(clients), Connection(context)
    handshake(one, other)
    session = one.session
    other.receive_data(b"")
    with pytest.raises(UnexpectedEOF):
        other.read()
    del one, other
    gc.collect()
    assert sessions.removed == [] and session.resumable
    one, other = client(clients, session), Connection(context)
    handshake(one, other)
    assert other.session_reused and one.session_reused


def test_a_session_resumes_across_a_hello_retry_request(pki):
    """hazard: the second hello asks every question again, and one hello's lookups were the whole connection's."""
    sessions, names, hellos = Sessions(), [], []
    hooks = sessions.hooks(
        servername=lambda connection, name: names.append(name),
        message=lambda connection, sent, version, kind, data: hellos.append(1) if kind == 22 and data[0] == 1 else None,
    )
    there = server_context(pki, VERSIONS["1.3"], hooks=hooks, groups="P-256")
    here = client_context(pki, VERSIONS["1.3"], groups="X25519:P-256")
    first, second = client(here), Connection(there)
    handshake(first, second)
    assert first.session.resumable
    names.clear(), hellos.clear()
    resumed, server = client(here, first.session), Connection(there)
    handshake(resumed, server)
    assert len(hellos) == 2, "there was no HelloRetryRequest"
    assert names == ["localhost"], "its answer stands"
    assert resumed.session_reused
    assert len(sessions.asked) == MAX_SESSION_LOOKUPS


@both_versions
def test_a_fatal_alert_removes_the_session(pki, version):
    sessions = Sessions()
    context = server_context(pki, version, hooks=sessions.hooks())
    one, other = client(client_context(pki, version)), Connection(context)
    handshake(one, other)
    assert sessions.kept
    other.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TLSError):
        other.read()
    assert sessions.removed
    with pytest.raises(TLSError, match="alert"):
        move(other, one)
        one.read()


def test_a_session_needs_the_verify_mode_it_was_made_under(pki):
    """Without a client certificate a session is worthless where one is asked for: fact 4.5 has OpenSSL go fatal."""
    sessions = Sessions()
    open_context = server_context(pki, hooks=sessions.hooks())
    strict = server_context(
        pki,
        hooks=sessions.hooks(),
        trust=TrustAnchors(files=(pki.ca_file,)),
        verify_mode=VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT,
    )
    assert open_context.session_id_context != strict.session_id_context
    clients = client_context(pki, VERSIONS["1.2"], certificates=[chain(*pki.client)])
    one, other = client(clients), Connection(open_context)
    handshake(one, other)
    one, other = client(clients, one.session), Connection(strict)
    handshake(one, other)
    assert not other.session_reused and other.peer_certificates


def test_bytes_of_a_session_do_not_vouch_for_it(pki):
    one = client(client_context(pki))
    handshake(one, Connection(server_context(pki)))
    again = Session.from_bytes(bytes(one.session), time.time() + 60)
    assert again.vouched_for
    assert not Session.from_bytes(bytes(again)).vouched_for
