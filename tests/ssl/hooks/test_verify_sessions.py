"""verify_callback and sessions: which of them a context resumes that asks."""

from __future__ import annotations

import ssl

import pytest

import greentls
import greentls.ssl
from tests.ssl.hooks.verifier import LockedOut, a_session, raises, refusal
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import both_versions, connected, contexts


class TestSessions:
    @both_versions
    def test_one_that_was_made_without_it_is_worthless_where_it_is(self, pki, mutual, verifier, version):
        """hazard: with a store that two contexts share, the one without it would vouch for the other's clients."""
        store = greentls.open_store("memory://")
        client, server = mutual(version, "server")
        server.session_store = store
        _, lenient = mutual(version, "client")
        client.verify_callback = lenient.verify_callback = None
        lenient.session_store = store
        session = a_session(client, lenient)
        with connected(client, lenient, session=session) as (here, _):
            assert here.session_reused
        with connected(client, server, session=session) as (here, there):
            assert not here.session_reused
            assert verifier.asked == [(there, ["CN=a client", "CN=greentls test CA"], False)]

    @both_versions
    def test_a_clients_of_a_context_without_it_is_asked_about(self, mutual, verifier, version):
        client, server = mutual(version, "client")
        client.verify_callback = None
        session = a_session(client, server)
        client.verify_callback = verifier
        with connected(client, server, session=session) as (here, _):
            assert here.session_reused
            assert [resumed for *_, resumed in verifier.asked] == [True]

    def test_a_refused_resumption_leaves_no_new_session(self, mutual, verifier):
        """hazard: a TLS 1.3 server has given out the next ticket before the callback is asked."""
        client, server = mutual("1.3", "server", store=True)
        kept = server.session_store
        put, removed = [], []
        original_put, original_remove = kept.put, kept.remove
        kept.put = lambda session_id, *rest: put.append(session_id) or original_put(session_id, *rest)
        kept.remove = lambda session_id: removed.append(session_id) or original_remove(session_id)
        session = a_session(client, server)
        put.clear()
        verifier.answers[True] = raises(LockedOut())
        refusal(client, server, session)
        assert server.drain_sessions(PATIENCE)
        assert put and all(kept.get(each) is None for each in put)

    @pytest.mark.parametrize("first", ["plain", "asking"])
    def test_one_without_a_certificate_from_before_post_handshake_authentication_is_worthless(self, pki, first):
        """hazard: such a server lets clients in without a certificate, and another one with its settings does not."""
        client, _ = contexts(pki)
        client.load_cert_chain(*pki.client)
        store = greentls.open_store("memory://")
        servers = []
        for later in (True, False):
            server = contexts(pki)[1]
            server.session_store = store
            server.load_verify_locations(pki.ca_file)
            server.verify_mode = ssl.CERT_REQUIRED
            server.post_handshake_auth = later
            if first == "asking":
                server.verify_callback = lambda sock, chain, *, resumed: None
            servers.append(server)
        client.post_handshake_auth = True
        session = a_session(client, servers[0])
        with connected(client, servers[1], session=session) as (here, there):
            assert not here.session_reused
            assert there.getpeercert()["subject"] == ((("commonName", "a client"),),)

    def test_a_client_that_verifies_offers_none_without_a_certificate(self, pki):
        """hazard: one of an anonymous or a pre-shared key's connection has no peer to be found bad."""
        client, server = contexts(pki, "1.2")
        trusting = contexts(pki, "1.2")[0]
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        for context in (trusting, server, client):
            context.set_ciphers("AECDH-AES128-SHA:ECDHE-ECDSA-AES128-GCM-SHA256:@SECLEVEL=0")
        session = a_session(trusting, server)
        with connected(trusting, server, session=session) as (here, _):
            assert here.session_reused and here.cipher()[0] == "AECDH-AES128-SHA"
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:AECDH-AES128-SHA:@SECLEVEL=0")
        with connected(client, server, session=session) as (here, _):
            assert not here.session_reused
