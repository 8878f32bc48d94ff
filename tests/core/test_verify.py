"""Verify and OCSP hooks of two Connections in memory: no hook turns a no into a yes, and a resumption asks again."""

from __future__ import annotations

import time

import pytest

from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import TLSError
from greentls.openssl import contexts, errors
from tests.support.pairs import (
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

# The shortest OCSP response: "try later" (RFC 6960 4.2.1).
STAPLE = bytes.fromhex("30030a0103")


def test_a_verify_hook_cannot_turn_a_no_into_a_yes(pki):
    asked = []
    clients = client_context(
        pki, trust=TrustAnchors(), hooks=Hooks(verify=lambda connection, chain, resumed: asked.append(chain))
    )
    one, other = client(clients), Connection(server_context(pki))
    with pytest.raises(TLSError) as caught:
        handshake(one, other)
    assert caught.value.verify_code == 20 and "local issuer" in caught.value.verify_message
    assert asked == []


@both_versions
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_resumption_asks_the_verify_hook_again(pki, version, side):
    """OpenSSL verifies nothing then (facts 4.1): who was locked out since would come in."""
    asked, refusal = [], LookupError("locked out")

    def verify(connection, chain, resumed):
        asked.append((connection.server_side, len(chain) > 0, resumed))
        if resumed:
            raise refusal

    here = client_context(
        pki,
        version,
        certificates=[chain(*pki.client)],
        hooks=Hooks(verify=verify if side == "client" else None),
    )
    there = server_context(
        pki,
        version,
        trust=TrustAnchors(files=(pki.ca_file,)),
        verify_mode=VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT,
        hooks=Hooks(verify=verify if side == "server" else None),
    )
    one, other = client(here), Connection(there)
    handshake(one, other)
    one, other = client(here, one.session), Connection(there)
    with pytest.raises(LookupError) as caught:
        handshake(one, other)
    assert caught.value is refusal
    assert asked == [(side == "server", True, False), (side == "server", True, True)]
    refused, peer = (one, other) if side == "client" else (other, one)
    assert refused.session_reused and not refused.established
    move(refused, peer)
    with pytest.raises(TLSError, match="alert"):
        attempt(peer.do_handshake)
        peer.read()


@both_versions
@pytest.mark.parametrize("mode", [VERIFY_PEER, 0], ids=["verified", "unverified"])
def test_a_verify_hook_that_verifies_others_leaves_no_errors_behind(pki, version, mode):
    """OpenSSL asks it between the marks that it has set in the error queue (facts 2.2)."""
    inner = []

    def verify(connection, chain, resumed):
        distrusting = client(client_context(pki, version, trust=TrustAnchors()))
        with pytest.raises(TLSError):
            handshake(distrusting, Connection(server_context(pki, version)))
        inner.append(len(chain))

    settings = {} if mode else {"trust": TrustAnchors()}
    one = client(client_context(pki, version, hooks=Hooks(verify=verify), verify_mode=mode, **settings))
    handshake(one, Connection(server_context(pki, version)))
    assert inner == [2 if mode else 1]
    assert errors.take() == []


def test_a_clients_verify_and_ocsp_hooks_see_the_chain_and_the_staple(pki):
    asked = []
    hooks = Hooks(
        verify=lambda connection, chain, resumed: asked.append(len(chain)),
        ocsp=lambda connection, staple: asked.append(staple),
    )
    one = client(client_context(pki, hooks=hooks))
    other = Connection(server_context(pki, hooks=Hooks(ocsp=lambda connection, _: STAPLE)))
    handshake(one, other)
    assert sorted(asked, key=str) == [2, STAPLE]


@both_versions
def test_a_clients_ocsp_hook_that_raises_refuses_with_the_alert_for_it(pki, version):
    def refuse(connection, staple):
        raise expected

    expected = LookupError("revoked")
    one = client(client_context(pki, version, hooks=Hooks(ocsp=refuse)))
    other = Connection(server_context(pki, version, hooks=Hooks(ocsp=lambda connection, _: STAPLE)))
    with pytest.raises(LookupError) as raised:
        handshake(one, other)
    assert raised.value is expected
    move(one, other)
    with pytest.raises(TLSError, match="bad certificate status response"):
        attempt(other.do_handshake)
    assert not one.established and not other.established


@both_versions
def test_a_client_with_an_ocsp_hook_resumes_only_while_a_response_vouches(pki, version):
    """A resumption brings no staple (facts 4.1), so nothing would be checked again."""
    asked, until, sessions = [], [None], Sessions()

    def vouch(connection, staple):
        asked.append(staple)
        connection.handshake.vouch(until[0])

    checks = client_context(pki, version, hooks=Hooks(ocsp=vouch))
    server = server_context(pki, version, hooks=sessions.hooks(ocsp=lambda connection, _: STAPLE))

    def session(offered=None, context=checks):
        one = client(context, offered)
        handshake(one, Connection(server))
        return one.session_reused, one.session

    now = time.time()
    for until[0], resumes in ((None, False), (now - 1, False), (now + 3600, True)):
        _, first = session()
        assert (first.vouched_until, first.vouched_for) == (until[0], resumes)
        asked.clear()
        reused, second = session(first)
        assert reused is resumes
        assert asked == ([] if resumes else [STAPLE])
        assert second.vouched_until == until[0]  # a line of sessions is as good as its first one
    unchecked = client_context(pki, version)
    _, first = session(context=unchecked)
    assert first.vouched_until is None
    assert session(first, unchecked)[0] and not session(first)[0]
    # what was offered says nothing of a full handshake that came instead
    _, vouched = session()
    sessions.kept.clear()
    reused, fresh = session(vouched, unchecked)
    assert not reused and fresh.vouched_until is None


@both_versions
def test_a_server_knows_the_chain_it_has_chosen_inside_its_ocsp_hook(pki, version):
    chosen = []
    chains = [chain(pki.cert_file, pki.key_file), chain(*pki.issue("localhost", kind="rsa"))]
    hooks = Hooks(ocsp=lambda connection, _: chosen.append(connection.certificate_chain))
    context = server_context(pki, version, certificates=chains, hooks=hooks)
    for ours in chains:
        algorithms = "rsa_pss_rsae_sha256" if ours is chains[1] else "ecdsa_secp256r1_sha256"
        clients = client_context(pki, version, hooks=Hooks(ocsp=lambda connection, staple: None))
        restrict_signatures(clients, algorithms)
        handshake(client(clients), Connection(context))
        assert chosen.pop() is ours


def restrict_signatures(context, algorithms):
    contexts.set_signature_algorithms(context.ssl_context, algorithms)
