"""What a peer is told when a hook refuses where OpenSSL has no more questions: an alert that says why."""

from __future__ import annotations

import re

import pytest

from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import TLSError
from tests.support.openssl import hide, late
from tests.support.pairs import (
    TLS13,
    Sessions,
    attempt,
    both_versions,
    chain,
    client,
    client_context,
    handshake,
    move,
    server_context,
)

both_sides = pytest.mark.parametrize("side", ["server", "client"])


class Refused(Exception):
    pass


class Refusing:
    """A client, a server, and a session that one of the two does not want to see resumed."""

    def __init__(self, pki, version, side):
        self.sessions = Sessions()

        def verify(connection, certificates, resumed):
            if resumed:
                raise Refused

        hooks = self.sessions.hooks(verify=verify if side == "server" else None)
        mutual = {"trust": TrustAnchors(files=(pki.ca_file,)), "verify_mode": VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT}
        own = [chain(*pki.issue("client.example", client=True))]
        self.server = server_context(pki, version, hooks=hooks, **mutual)
        hooks = Hooks(verify=verify if side == "client" else None)
        self.client = client_context(pki, version, hooks=hooks, certificates=own)
        self.side = side

    def ends(self):
        """(the side that has refused, its peer, which has not heard of it)."""
        one, other = client(self.client), Connection(self.server)
        handshake(one, other)
        one, other = client(self.client, one.session), Connection(self.server)
        with pytest.raises(Refused):
            handshake(one, other)
        assert self.session_is_forgotten()
        return (other, one) if self.side == "server" else (one, other)

    def session_is_forgotten(self):
        return self.side == "client" or self.sessions.removed


def heard(peer):
    """What a peer raises that has got an alert."""
    with pytest.raises(TLSError) as raised:
        attempt(peer.do_handshake)
        attempt(peer.read)
    return raised.value.reason


@both_sides
@both_versions
def test_a_verify_hook_that_refuses_a_resumption_says_bad_certificate(pki, version, side):
    here, there = Refusing(pki, version, side).ends()
    move(here, there)
    assert re.search(late("bad certificate"), heard(there))


@both_sides
@both_versions
def test_where_openssl_hides_its_function_the_alert_is_another_one(pki, version, side, monkeypatch):
    """A distribution's OpenSSL exports no such function; the peer hears a fatal alert all the same."""

    hide(monkeypatch, "ossl_statem_send_fatal")
    here, there = Refusing(pki, version, side).ends()
    move(here, there)
    assert any(alert in heard(there) for alert in ("bad record mac", "unexpected message"))


@both_versions
def test_another_hook_that_fails_there_says_internal_error(pki, version):
    def keylog(connection, line):
        raise Refused

    clients = client_context(pki, version)
    one, other = client(clients), Connection(server_context(pki, version, hooks=Hooks(keylog=keylog)))
    with pytest.raises(Refused):
        handshake(one, other)
    move(other, one)
    assert re.search(late("internal error"), heard(one))


def test_a_hook_that_fails_after_the_handshake_says_internal_error(pki):
    """A client's new_session, inside read()."""

    def new_session(connection, session):
        raise Refused

    one = client(client_context(pki, TLS13, hooks=Hooks(new_session=new_session)))
    other = Connection(server_context(pki, TLS13))
    with pytest.raises(Refused):
        handshake(one, other)
    move(one, other)
    assert re.search(late("internal error"), heard(other))
