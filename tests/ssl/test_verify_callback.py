"""verify_callback: asked once OpenSSL has found a peer good, and again when a resumption verifies nothing."""

from __future__ import annotations

import datetime
import ssl
import traceback

import gevent
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from gevent.event import Event

import greentls
import greentls.ssl
from tests.support.helpers import PATIENCE, Pki
from tests.support.ssl_pairs import both_versions, connected, contexts, handshake, sides, talk

both_sides = pytest.mark.parametrize("side", ["client", "server"])
full_and_resumed = pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])
ALERT = r"(?i)alert"


class Verifier:
    """A callback that keeps what it is asked. answer: what to do when it is asked with that `resumed`."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    def __call__(self, sock, chain, *, resumed):
        self.asked.append((sock, [each.subject.rfc4514_string() for each in chain], resumed))
        return self.answers.get(resumed, lambda: None)()


@pytest.fixture
def verifier():
    return Verifier()


@pytest.fixture(params=["tickets", "store"])
def kept(request):
    return request.param


@pytest.fixture
def mutual(pki, verifier):
    """mutual(version, side): (client's, server's context), each verifies the other, and side's asks the verifier."""

    def make(version, side, store=False):
        client, server = contexts(pki, version)
        client.load_cert_chain(*pki.client)
        server.load_verify_locations(pki.ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
        if store:
            server.session_store = greentls.open_store("memory://")
        {"client": client, "server": server}[side].verify_callback = verifier
        return client, server

    return make


def a_session(client, server):
    with connected(client, server) as (here, _):
        assert server.drain_sessions(PATIENCE)
        return here.session


def ends_of(client, server, session=None):
    """Both ends' greenlets, and what each came to: its socket, or what ended it, GreenletExit too."""
    here, there = gevent.socket.socketpair()
    results = {}

    def run(side, function, *arguments, **options):
        try:
            results[side] = function(*arguments, **options)
        except BaseException as error:
            results[side] = error

    jobs = {
        "client": gevent.spawn(run, "client", client.wrap_socket, here, server_hostname="localhost", session=session),
        "server": gevent.spawn(run, "server", server.wrap_socket, there, server_side=True),
    }
    return jobs, results


def finish(jobs, results):
    """What ended each of them. A side that is done with its handshake reads, and learns that the other one is not."""
    gevent.joinall(list(jobs.values()), PATIENCE)
    for side, end in results.items():
        if not isinstance(end, BaseException):
            with end:
                end.settimeout(PATIENCE)
                try:
                    results[side] = end.recv(1)
                except Exception as error:
                    results[side] = error
    return results


def refusal(client, server, session=None):
    return finish(*ends_of(client, server, session))


@both_versions
@both_sides
class TestAsked:
    def test_it_sees_the_socket_the_chain_and_that_nothing_was_resumed(self, mutual, verifier, version, side):
        with connected(*mutual(version, side)) as ends:
            subject = {"client": "CN=localhost", "server": "CN=a client"}[side]
            sock = ends[side == "server"]
            assert verifier.asked == [(sock, [subject, "CN=greentls test CA"], False)]

    def test_a_resumption_asks_again(self, mutual, verifier, version, side, kept):
        """hazard: OpenSSL verifies nothing when it resumes, so a client that was locked out since would come in."""
        client, server = mutual(version, side, store=kept == "store")
        session = a_session(client, server)
        with connected(client, server, session=session) as ends:
            assert ends[0].session_reused and ends[1].session_reused
            assert [resumed for *_, resumed in verifier.asked] == [False, True]
            sock, chain, _ = verifier.asked[-1]
            assert sock is ends[side == "server"]
            assert chain[0] == {"client": "CN=localhost", "server": "CN=a client"}[side]

    def test_over_memory_bios(self, mutual, verifier, version, side):
        ends = sides(*mutual(version, side))
        handshake(*ends)
        assert [sock for sock, *_ in verifier.asked] == [ends[side == "server"].tls]

    @full_and_resumed
    def test_it_may_wait_while_other_connections_come_and_go(self, pki, mutual, verifier, version, side, resumed):
        client, server = mutual(version, side)
        session = a_session(client, server) if resumed else None
        inside, go_on = Event(), Event()
        verifier.answers[resumed] = lambda: inside.set() or (go_on.wait() and None)
        jobs, results = ends_of(client, server, session)
        assert inside.wait(PATIENCE)
        for _ in range(3):
            with connected(*contexts(pki, version)):
                pass
        assert not jobs[side].dead
        go_on.set()
        gevent.joinall(list(jobs.values()), PATIENCE)
        with results["client"] as here, results["server"] as there:
            assert here.session_reused is resumed
            talk(here, there)


class LockedOut(Exception):
    pass


def raises(error):
    def answer():
        raise error

    return answer


def waits_for_ever():
    Event().wait()


FAILURES = ["exception", "Timeout", "kill", "deadline", "False"]


@both_versions
@both_sides
@full_and_resumed
@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_is_not_none_refuses(mutual, verifier, version, side, resumed, failure):
    client, server = mutual(version, side)
    if failure == "deadline":
        client.callback_timeout = server.callback_timeout = 0.05
    session = a_session(client, server) if resumed else None
    expected = {"exception": LockedOut("since yesterday"), "Timeout": gevent.Timeout(None)}.get(failure)
    inside = Event()
    verifier.answers[resumed] = {
        "exception": raises(expected),
        "Timeout": raises(expected),
        "kill": lambda: inside.set() or waits_for_ever(),
        "deadline": waits_for_ever,
        "False": lambda: False,
    }[failure]
    jobs, results = ends_of(client, server, session)
    if failure == "kill":
        assert inside.wait(PATIENCE)
        jobs[side].kill(block=False)
    finish(jobs, results)
    other = results[{"client": "server", "server": "client"}[side]]
    assert isinstance(other, ssl.SSLError) and "ALERT" in other.reason
    raised = results[side]
    if expected is not None:
        assert raised is expected
        assert traceback.extract_tb(raised.__traceback__)[-1].name == "answer"
    else:
        kind = {"kill": gevent.GreenletExit, "deadline": TimeoutError, "False": TypeError}[failure]
        assert type(raised) is kind
        if failure != "kill":
            assert "verify_callback" in str(raised)
    assert len(verifier.asked) == 1 + resumed


@both_versions
@both_sides
def test_the_alert_of_a_refusal_is_bad_certificate(mutual, verifier, version, side):
    client, server = mutual(version, side)
    verifier.answers[False] = raises(LockedOut())
    results = refusal(client, server)
    other = {"client": results["server"], "server": results["client"]}[side]
    assert isinstance(other, ssl.SSLError) and "BAD_CERTIFICATE" in other.reason
    refused = results[side].__cause__
    assert refused.verify_message == "certificate rejected"


class TestOpenSSLsOwnChecks:
    @pytest.fixture
    def constrained(self, pki):
        """A chain that is good but for the intermediate CA's name constraints: (certificates, key)."""
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in ("narrow CA", "localhost")]
        now = datetime.datetime.now(datetime.timezone.utc)
        made = []
        for issuer_name, issuer_key, index in ((pki._name, pki._key, 0), (names[0], keys[0], 1)):
            builder = (
                x509.CertificateBuilder()
                .subject_name(names[index])
                .issuer_name(issuer_name)
                .public_key(keys[index].public_key())
                .serial_number(index + 1)
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=1))
                .add_extension(x509.BasicConstraints(index == 0, None), True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[index].public_key()), False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
            )
            if index == 0:
                usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
                permitted = x509.NameConstraints([x509.DNSName("elsewhere.test")], None)
                builder = builder.add_extension(usage, True).add_extension(permitted, True)
            else:
                builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            made.append(builder.sign(issuer_key, hashes.SHA256()))
        return made[::-1], keys[1]

    @both_versions
    def test_name_constraints_come_before_it(self, pki, constrained, verifier, version):
        """hazard: the callback of SSL_CTX_set_verify(3) sees the last certificate before OpenSSL checks these."""
        client, server = contexts(pki, version)
        server = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*constrained)
        client.verify_callback = verifier
        results = refusal(client, server)
        assert isinstance(results["client"], ssl.SSLCertVerificationError)
        assert (results["client"].verify_code, results["client"].verify_message) == (47, "permitted subtree violation")
        assert verifier.asked == []

    @both_versions
    @pytest.mark.parametrize("flaw", ["unknown ca", "name"])
    def test_a_no_of_openssls_keeps_its_words(self, pki, verifier, version, flaw, tmp_path):
        client, server = contexts(pki, version)
        if flaw == "unknown ca":
            server.load_cert_chain(*Pki(tmp_path).issue("localhost"))
        else:
            server.load_cert_chain(*pki.issue("elsewhere.test"))
        client.verify_callback = verifier
        results = refusal(client, server)
        assert results["client"].verify_code == {"unknown ca": 20, "name": 62}[flaw]
        assert flaw == "name" or "UNKNOWN_CA" in results["server"].reason
        assert verifier.asked == []


class TestWithoutVerification:
    @both_versions
    def test_a_client_that_checks_nothing_leaves_it_to_the_callback(self, pki, verifier, version, tmp_path):
        client, server = contexts(pki, version)
        server.load_cert_chain(*Pki(tmp_path).issue("somebody"))
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        client.verify_callback = verifier
        with connected(client, server) as (here, _):
            assert verifier.asked == [(here, ["CN=somebody"], False)]
            session = here.session
        with connected(client, server, session=session) as (here, _):
            assert here.session_reused and verifier.asked[1:] == [(here, ["CN=somebody"], True)]

    @both_versions
    @full_and_resumed
    def test_and_its_no_is_a_no(self, pki, verifier, version, resumed):
        client, server = contexts(pki, version)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        client.verify_callback = verifier
        session = a_session(client, server) if resumed else None
        refused = LockedOut()
        verifier.answers[resumed] = raises(refused)
        results = refusal(client, server, session)
        assert results["client"] is refused
        assert isinstance(results["server"], ssl.SSLError) and "ALERT" in results["server"].reason

    def test_it_gives_no_client_certificate_to_a_server_that_is_refused(self, pki, verifier):
        client, server = contexts(pki)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        client.load_cert_chain(*pki.client)
        client.verify_callback = verifier
        verifier.answers[False] = raises(LockedOut())
        server.load_verify_locations(pki.ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
        seen = []
        server.verify_callback = lambda sock, chain, *, resumed: seen.append(chain)
        results = refusal(client, server)
        assert isinstance(results["client"], LockedOut) and isinstance(results["server"], ssl.SSLError)
        assert seen == []

    @both_versions
    @full_and_resumed
    def test_an_optional_certificate_that_is_not_there_is_not_asked_about(self, pki, verifier, version, resumed):
        client, server = contexts(pki, version)
        server.load_verify_locations(pki.ca_file)
        server.verify_mode = ssl.CERT_OPTIONAL
        server.verify_callback = verifier
        session = a_session(client, server) if resumed else None
        with connected(client, server, session=session) as (_, there):
            assert there.session_reused is resumed and there.getpeercert() is None
        assert verifier.asked == []

    def test_a_server_that_asks_for_none_is_told_so(self, pki, verifier):
        """hazard: a callback that is never asked looks like one that says yes."""
        _, server = contexts(pki)
        server.verify_callback = verifier
        here, there = gevent.socket.socketpair()
        with here, there, pytest.raises(ssl.SSLError, match="set verify_mode to CERT_REQUIRED"):
            server.wrap_socket(there, server_side=True)


class TestNoDataBeforeTheVerdict:
    @full_and_resumed
    def test_what_a_refused_client_has_sent_already_reaches_nobody(self, mutual, verifier, resumed):
        """hazard: a TLS 1.3 client is done, and sends, before the server has looked at its certificate."""
        client, server = mutual("1.3", "server")
        session = a_session(client, server) if resumed else None
        inside, go_on = Event(), Event()

        def refuse_later():
            inside.set()
            go_on.wait()
            raise LockedOut

        verifier.answers[resumed] = refuse_later
        here, there = gevent.socket.socketpair()
        received = []

        def serve():
            try:
                with server.wrap_socket(there, server_side=True) as sock:
                    received.append(sock.recv(100))
            except LockedOut as error:
                received.append(error)

        job = gevent.spawn(serve)
        with client.wrap_socket(here, server_hostname="localhost", session=session) as sock:
            sock.sendall(b"a request")
            assert inside.wait(PATIENCE)
            assert received == []
            go_on.set()
            sock.settimeout(PATIENCE)
            with pytest.raises(ssl.SSLError, match=ALERT):
                sock.recv(100)
        job.join(PATIENCE)
        assert [type(each) for each in received] == [LockedOut]

    @both_versions
    def test_a_resuming_client_sends_nothing_of_its_own_before_the_verdict(self, mutual, verifier, version):
        client, server = mutual(version, "client")
        session = a_session(client, server)
        verifier.answers[True] = raises(LockedOut())
        here, there = sides(client, server, session=session)
        with pytest.raises(LockedOut):
            handshake(here, there)
        with pytest.raises(ssl.SSLError, match="callback raised"):
            here.tls.write(b"a request")


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


class TestAssignment:
    @pytest.mark.parametrize("callback", ["a string", lambda sock: None, lambda sock, chain: None, 42])
    def test_one_that_cannot_be_called_is_refused_at_once(self, callback):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with pytest.raises(TypeError):
            context.verify_callback = callback
        assert context.verify_callback is None

    @pytest.mark.parametrize(
        "callback",
        [lambda sock, chain, resumed: None, lambda sock, chain, *, resumed=False: None, lambda *_, **__: None, dict],
    )
    def test_any_other_is_taken(self, callback):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_callback = callback
        assert context.verify_callback is callback
        context.verify_callback = None

    def test_the_same_one_compiles_nothing_anew(self, pki, verifier):
        client, _ = contexts(pki)
        client.verify_callback = verifier
        before = client.compile(False)
        client.verify_callback = verifier
        assert client.compile(False) is before
