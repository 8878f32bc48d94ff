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
from tests.ssl.hooks.verifier import (
    LockedOut,
    a_session,
    both_sides,
    ends_of,
    finish,
    full_and_resumed,
    raises,
    refusal,
)
from tests.support.helpers import PATIENCE, Pki
from tests.support.ssl_pairs import both_versions, connected, contexts, handshake, sides, talk

ALERT = r"(?i)alert"


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
