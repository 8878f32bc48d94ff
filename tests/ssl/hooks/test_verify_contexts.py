"""verify_callback where a name has a context of its own: who is asked."""

from __future__ import annotations

import ssl

import gevent
import pytest

import greentls
import greentls.ssl
from tests.ssl.hooks.verifier import a_session, refusal
from tests.support.ssl_pairs import both_versions, connected, contexts


@both_versions
def test_the_context_that_an_sni_callback_chooses_has_the_say(pki, mutual, verifier, version):
    """Its trust anchors are the ones in force, and so is its callback."""
    client, server = mutual(version, "client")
    client.verify_callback = None
    other = contexts(pki, version)[1]
    other.load_verify_locations(pki.ca_file)
    other.verify_mode = ssl.CERT_REQUIRED
    other.verify_callback = verifier

    def choose(sock, name, context):
        sock.context = other

    server.sni_callback = choose
    for resumed in (False, True):
        session = a_session(client, server) if resumed else None
        verifier.asked.clear()
        with connected(client, server, session=session):
            assert [each for *_, each in verifier.asked] == [resumed]


@pytest.mark.parametrize("certificate", [True, False], ids=["with", "without"])
@both_versions
def test_a_name_may_demand_a_certificate_that_the_listener_does_not(pki, verifier, version, certificate):
    """hazard: OpenSSL keeps the first context's verify mode, and nobody would be asked."""
    client, server = contexts(pki, version)
    if certificate:
        client.load_cert_chain(*pki.client)
    strict = contexts(pki, version)[1]
    strict.load_verify_locations(pki.ca_file)
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.verify_callback = verifier

    def choose(sock, name, context):
        sock.context = strict

    server.sni_callback = choose
    if certificate:
        with connected(client, server) as (_, there):
            assert [sock for sock, *_ in verifier.asked] == [there]
    else:
        assert "CERTIFICATE" in refusal(client, server)["server"].reason
        assert verifier.asked == []


@both_versions
def test_a_name_that_demands_none_does_not_take_the_listeners_demand_away(pki, version):
    client, server = contexts(pki, version)
    server.load_verify_locations(pki.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    lax = contexts(pki, version)[1]

    def choose(sock, name, context):
        sock.context = lax

    server.sni_callback = choose
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in refusal(client, server)["server"].reason


def test_a_name_that_asks_at_once_is_not_put_off_by_a_listener_that_asks_later(pki, verifier):
    """hazard: SSL_VERIFY_POST_HANDSHAKE is a bit of the verify mode, and would be the stricter one's, too."""
    client, server = contexts(pki)
    strict = contexts(pki)[1]
    client.post_handshake_auth = server.post_handshake_auth = True
    for context in (server, strict):
        context.load_verify_locations(pki.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    strict.verify_callback = verifier

    def choose(sock, name, context):
        sock.context = strict

    server.sni_callback = choose
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in refusal(client, server)["server"].reason


class TestTwoContexts:
    """The listener's and that of the name: both are asked, and either refuses."""

    @pytest.fixture(params=[False, True], ids=["full", "resumed"])
    def resumed(self, request):
        return request.param

    @pytest.fixture
    def chosen(self, pki, mutual, version):
        """(the client's context, the listener's, the name's), without callbacks."""
        client, server = mutual(version, "server")
        client.verify_callback = server.verify_callback = None
        other = contexts(pki, version)[1]
        other.load_verify_locations(pki.ca_file)
        server.sni_callback = lambda sock, name, context: setattr(sock, "context", other)
        return client, server, other

    @both_versions
    @pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_REQUIRED], ids=["none", "required"])
    def test_the_listeners_callback_is_not_lost(self, chosen, version, mode, resumed):
        """hazard: OpenSSL takes the verification from the chosen SSL_CTX, and the hook was the chosen Config's."""
        client, server, other = chosen
        other.verify_mode = mode
        asked = []
        server.verify_callback = lambda sock, chain, *, resumed: asked.append(("listener", resumed))
        session = a_session(client, server) if resumed else None
        asked.clear()
        with connected(client, server, session=session) as (_, there):
            assert there.session_reused is resumed
        assert asked == [("listener", resumed)]
        refusing = ValueError("not this one")

        def refuse(sock, chain, *, resumed):
            raise refusing

        server.verify_callback = refuse
        assert refusal(client, server, session=session)["server"] is refusing

    @both_versions
    @pytest.mark.parametrize("who", ["listener", "name"])
    def test_both_are_asked_and_each_may_refuse(self, chosen, version, who, resumed):
        client, server, other = chosen
        other.verify_mode = ssl.CERT_REQUIRED
        asked, refusing = [], set()

        def callback(name):
            def verify(sock, chain, *, resumed):
                asked.append((name, resumed))
                if name in refusing:
                    raise ValueError(name)

            return verify

        server.verify_callback, other.verify_callback = callback("listener"), callback("name")
        session = a_session(client, server) if resumed else None
        asked.clear()
        with connected(client, server, session=session) as (_, there):
            assert there.session_reused is resumed
        assert asked == [("listener", resumed), ("name", resumed)]
        refusing.add(who)
        assert str(refusal(client, server, session=session)["server"]) == who

    @both_versions
    def test_one_that_is_both_is_asked_once(self, chosen, verifier, version):
        client, server, other = chosen
        other.verify_mode = ssl.CERT_REQUIRED
        server.verify_callback = other.verify_callback = verifier
        with connected(client, server) as (_, there):
            assert [sock for sock, *_ in verifier.asked] == [there]

    def test_a_clients_is_not_taken_away_by_a_context_without_one(self, pki, verifier):
        client, other = contexts(pki)[0], contexts(pki)[0]
        client.verify_callback = verifier
        here, there = gevent.socket.socketpair()
        with here, there, client.wrap_socket(here, server_hostname="localhost", do_handshake_on_connect=False) as sock:
            with pytest.raises(greentls.errors.ConfigurationError, match="verify"):
                sock.context = other
            other.verify_callback = verifier
            sock.context = other
