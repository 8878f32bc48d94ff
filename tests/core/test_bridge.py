"""The bridge's rules, each test named after its hazard. Two connections talk in memory; hooks wait in gevent."""

from __future__ import annotations

import gc
import threading
import time
import traceback

import gevent
import greenlet
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from gevent.event import Event
from OpenSSL import SSL

from greentls.core import bridge
from greentls.core.callbacks import MAX_SESSION_LOOKUPS
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConcurrentUseError, ConnectionDead, TLSError, UnexpectedEOF, WrongThreadError
from greentls.openssl import contexts, errors, library
from greentls.openssl.library import ffi, lib
from tests.support.pairs import (
    VERSIONS,
    Sessions,
    attempt,
    chain,
    client,
    client_context,
    handshake,
    hello_with_identities,
    move,
    server_context,
)

both_versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())


class Waiting:
    """Hooks that all come through here(): they may be told to wait, or to raise, at one of them."""

    def __init__(self, where=None, how=None):
        self.where, self.how = where, how
        self.seen: list[str] = []
        self.inside, self.go_on = Event(), Event()
        self.sessions = Sessions()

    def here(self, name):
        self.seen.append(name)
        if name == self.where:
            self.inside.set()
            if isinstance(self.how, BaseException):
                raise self.how
            self.go_on.wait()

    def server_hooks(self):
        def get(connection, session_id):
            self.here("get")
            return self.sessions.get(connection, session_id)

        def new(connection, session):
            self.here("new")
            self.sessions.new(connection, session)

        return Hooks(
            servername=lambda connection, name: self.here("servername"),
            alpn=lambda connection, offered: self.here("alpn") or offered[0],
            get_session=get,
            new_session=new,
            remove_session=self.sessions.remove,
            ocsp=lambda connection, _: self.here("ocsp"),
            verify=lambda connection, chain, resumed: self.here("verify"),
            certificate=lambda connection: self.here("certificate"),
            keylog=lambda connection, line: self.here("keylog"),
            message=lambda connection, *_: self.here("message"),
        )


class Party:
    """A server with every hook, and clients that make it ask every question."""

    def __init__(self, pki, version, waiting):
        self.waiting = waiting
        self.server_context = server_context(
            pki,
            version,
            hooks=waiting.server_hooks(),
            trust=TrustAnchors(files=(pki.ca_file,)),
            verify_mode=VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT,
        )
        self.client_context = client_context(
            pki, version, alpn_protocols=[b"h2", b"http/1.1"], certificates=[chain(*client_certificate(pki))]
        )

    def session(self):
        """One that the server will find."""
        where, self.waiting.where = self.waiting.where, None
        one, other = self.pair()
        handshake(one, other)
        self.waiting.where = where
        self.waiting.seen.clear()
        return one.session

    def pair(self, session=None):
        one = client(self.client_context, session)
        lib.SSL_set_tlsext_status_type(one._ssl, 1)
        return one, Connection(self.server_context)


def client_certificate(pki, _made={}):  # noqa: B006 - one for the whole run
    if id(pki) not in _made:
        _made[id(pki)] = pki.issue("client.example", client=True)
    return _made[id(pki)]


# The shortest OCSP response: "try later" (RFC 6960 4.2.1).
STAPLE = bytes.fromhex("30030a0103")

FULL = ("servername", "alpn", "certificate", "ocsp", "verify", "keylog", "new", "message")
RESUMED_12 = ("get", "servername", "alpn", "keylog", "message")
RESUMED_13 = ("get", "servername", "alpn", "keylog", "new", "message")
PLACES = [
    pytest.param(version, resumed, where, id=f"{name}-{'resumed' if resumed else 'full'}-{where}")
    for name, version in VERSIONS.items()
    for resumed, hooks in ((False, FULL), (True, RESUMED_13 if name == "1.3" else RESUMED_12))
    for where in hooks
]


def converse(party, session):
    """A handshake as far as it gets: (what the server's operation raised, the two connections)."""
    one, other = party.pair(session)
    raised = None
    for _ in range(6):
        try:
            attempt(one.do_handshake)
            if one.established:
                attempt(one.read)
        except TLSError as error:
            one.alert = error
            break
        move(one, other)
        if raised is None:
            try:
                attempt(other.do_handshake)
            except BaseException as error:
                raised = error
        move(other, one)
    return raised, one, other


def check_refused(party, raised, expected, one, other):
    waiting = party.waiting
    where = waiting.where
    assert raised is expected
    assert isinstance(raised.__cause__, TLSError)
    assert "here" in [frame.name for frame in traceback.extract_tb(raised.__traceback__)]
    # no later callback: the last thing that was asked is the place that failed
    assert waiting.seen[-1] == where and waiting.seen.count(where) == 1
    # no connection, and the peer knows
    assert not other.established
    assert "alert" in one.alert.reason
    with pytest.raises(ConnectionDead):
        other.do_handshake()
    with pytest.raises(TLSError):
        other.write(b"x")
    assert not bridge.running


@pytest.mark.parametrize(("version", "resumed", "where"), PLACES)
@pytest.mark.parametrize("failure", [ValueError, SystemExit, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def test_what_a_hook_raises_is_carried_and_the_peer_gets_an_alert(pki, version, resumed, where, failure):
    expected = failure("from the hook")
    waiting = Waiting(where, expected)
    party = Party(pki, version, waiting)
    session = party.session() if resumed else None
    waiting.where = where
    raised, one, other = converse(party, session)
    check_refused(party, raised, expected, one, other)


@pytest.mark.parametrize(("version", "resumed", "where"), PLACES)
@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_kill_and_timeout_inside_a_hook_are_carried(pki, version, resumed, where, how):
    waiting = Waiting(where)
    party = Party(pki, version, waiting)
    session = party.session() if resumed else None
    expected = gevent.GreenletExit("killed") if how == "kill" else gevent.Timeout(None)
    running = gevent.spawn(converse, party, session)
    assert waiting.inside.wait(10)
    gevent.kill(running, expected) if how == "timeout" else running.kill(expected, block=False)
    raised, one, other = running.get(timeout=10)
    check_refused(party, raised, expected, one, other)


@both_versions
def test_a_second_greenlet_that_writes_during_a_handshake_puts_no_plaintext_on_the_wire(pki, version):
    waiting = Waiting("servername")
    party = Party(pki, version, waiting)
    one, other = party.pair()
    attempt(one.do_handshake)
    move(one, other)
    running = gevent.spawn(attempt, other.do_handshake)
    assert waiting.inside.wait(10)
    for operation in (
        other.do_handshake,
        lambda: other.operation.run("write", lib.SSL_write, (other.operation.ssl, ffi.from_buffer(b"TOP-SECRET"), 10)),
        lambda: other.operation.run("shutdown", lib.SSL_shutdown, (other.operation.ssl,)),
        lambda: other.switch_context(party.server_context),
    ):
        with pytest.raises(ConcurrentUseError, match="another greenlet is inside do_handshake"):
            operation()
    waiting.go_on.set()
    running.get(timeout=10)
    flight = other.data_to_send()
    assert flight and b"TOP-SECRET" not in flight
    one.receive_data(flight)
    handshake(one, other)


@both_versions
def test_a_hook_that_enters_its_own_connection_is_refused(pki, version):
    def servername(connection, name):
        connection.do_handshake()

    one, other = (
        client(client_context(pki, version)),
        Connection(server_context(pki, version, hooks=Hooks(servername=servername))),
    )
    with pytest.raises(ConcurrentUseError, match="own callback"):
        handshake(one, other)


@both_versions
def test_two_handshakes_wait_at_once_and_finish_in_the_other_order(pki, version):
    gates, order = {"first": Event(), "second": Event()}, []
    arrived = []

    def servername(connection, name):
        arrived.append(name)
        gates[name].wait()

    context = server_context(pki, version, hooks=Hooks(servername=servername))
    clients = client_context(pki, version, verify_mode=0)

    def run(name):
        handshake(client(clients, name=name), Connection(context))
        order.append(name)

    greenlets = [gevent.spawn(run, name) for name in gates]
    gevent.sleep(0)
    assert arrived == ["first", "second"]
    gates["second"].set()
    greenlets[1].join(10)
    gates["first"].set()
    gevent.joinall(greenlets, 10, raise_error=True)
    assert order == ["second", "first"]


def test_another_greenlets_errors_do_not_reach_a_waiting_handshake(pki):
    """The error queue belongs to the thread: what fails meanwhile must not become this connection's error."""
    waiting = Waiting("servername")
    party = Party(pki, VERSIONS["1.3"], waiting)
    running = gevent.spawn(converse, party, None)
    assert waiting.inside.wait(10)
    lib.ERR_put_error(20, 0, 258, b"", 0)  # an error of nobody's, in SSL's library
    waiting.where = None
    waiting.go_on.set()
    raised, one, other = running.get(timeout=10)
    assert raised is None and one.established and other.established
    assert errors.take() == []


def test_a_failing_handshake_keeps_its_error_while_its_hook_handshakes_elsewhere(pki):
    """The message hook runs while the error of the fatal alert lies in the queue (facts 2.4)."""
    inner = []

    def message(connection, sent, version, content_type, data):
        if content_type == 21 and not inner:
            inner.append(1)
            handshake(client(client_context(pki)), Connection(server_context(pki)))

    other = Connection(server_context(pki, VERSIONS["1.2"], hooks=Hooks(message=message)))
    one = client(client_context(pki, VERSIONS["1.3"]))
    attempt(one.do_handshake)
    move(one, other)
    with pytest.raises(TLSError, match="unsupported protocol"):
        other.do_handshake()
    assert inner == [1]


def test_stale_errors_of_the_thread_do_not_fail_an_operation(pki):
    one, other = client(client_context(pki)), Connection(server_context(pki))
    handshake(one, other)
    lib.ERR_put_error(20, 0, 258, b"", 0)
    assert attempt(other.read) is None
    lib.ERR_put_error(20, 0, 258, b"", 0)
    one.write(b"hello")
    move(one, other)
    assert other.read() == b"hello"
    lib.ERR_clear_error()


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
    clients = client_context(pki, VERSIONS["1.2"], certificates=[chain(*client_certificate(pki))])
    one, other = client(clients), Connection(open_context)
    handshake(one, other)
    one, other = client(clients, one.session), Connection(strict)
    handshake(one, other)
    assert not other.session_reused and other.peer_certificates


def test_the_session_id_context_survives_renewal_and_differs_between_sites(pki):
    renewed = server_context(pki, certificates=[chain(*pki.issue("localhost", "127.0.0.1", "::1"))])
    elsewhere = server_context(pki, certificates=[chain(*pki.issue("elsewhere.example"))])
    assert server_context(pki).session_id_context == renewed.session_id_context != elsewhere.session_id_context


def test_trust_anchors_in_a_file_count_by_what_is_in_it(pki, tmp_path):
    """Otherwise a session made under an anchor that was removed since would outlive it."""
    before, after = (chain(*pki.issue(name)).certificate.public_bytes(Encoding.PEM) for name in ("a.test", "b.test"))
    identities = []
    for name, content in ("one.pem", before), ("copy.pem", before), ("one.pem", after):
        (tmp_path / name).write_bytes(content)
        context = server_context(pki, trust=TrustAnchors(files=(str(tmp_path / name),)))
        identities.append(context.session_id_context)
    assert identities[0] == identities[1] != identities[2]


def test_a_servername_hook_may_switch_the_context_and_the_first_one_may_be_forgotten(pki):
    """Facts 3.6: the first SSL_CTX still calls back after Python has dropped its side of it."""
    sessions = Sessions()
    second = server_context(
        pki,
        certificates=[chain(*pki.issue("second.example"))],
        hooks=Hooks(alpn=lambda connection, offered: offered[-1]),
    )

    def servername(connection, name):
        connection.switch_context(second)
        gc.collect()

    first = server_context(pki, hooks=sessions.hooks(servername=servername, message=lambda *_: None))
    other = Connection(first)
    del first
    one = client(client_context(pki, alpn_protocols=[b"h2", b"http/1.1"]), name="second.example")
    handshake(one, other)
    assert one.alpn_protocol == b"http/1.1"
    assert one.peer_certificates[0] == second.certificates[0].certificate.public_bytes(Encoding.DER)
    assert sessions.kept


@both_versions
def test_a_hook_that_chooses_what_the_client_does_not_offer_is_refused(pki, version):
    context = server_context(pki, version, hooks=Hooks(alpn=lambda connection, offered: b"spdy/1"))
    one, other = client(client_context(pki, version, alpn_protocols=[b"h2"])), Connection(context)
    with pytest.raises(ValueError, match="spdy/1"):
        handshake(one, other)


@both_versions
def test_a_servername_hook_may_refuse_with_an_alert(pki, version):
    context = server_context(pki, version, hooks=Hooks(servername=lambda connection, name: 112))
    one, other = client(client_context(pki, version)), Connection(context)
    with pytest.raises(TLSError):
        handshake(one, other)
    move(other, one)
    with pytest.raises(TLSError, match="unrecognized name"):
        one.do_handshake()


def test_a_connection_belongs_to_one_thread(pki):
    one = client(client_context(pki))
    attempt(one.do_handshake)
    raised = []

    def elsewhere():
        try:
            one.do_handshake()
        except WrongThreadError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(raised) == 1
    # greenlet frees that thread's first one too early if garbage refers to it: see bridge._thread()
    frames = [frame for frame, _ in traceback.walk_tb(raised[0].__traceback__)]
    assert not [value for frame in frames for value in frame.f_locals.values() if isinstance(value, greenlet.greenlet)]


def test_a_greenlet_collected_inside_a_hook_ends_its_operation(pki):
    """Facts 6.6: GreenletExit is thrown into it from the collector, in whatever greenlet runs."""
    ended = []
    here = greenlet.getcurrent()

    def servername(connection, name):
        try:
            here.switch()
        except greenlet.GreenletExit:
            ended.append(name)
            raise

    def run():
        handshake(client(client_context(pki)), Connection(server_context(pki, hooks=Hooks(servername=servername))))
        ended.append("went on")

    forgotten = greenlet.greenlet(run)
    forgotten.switch()
    assert len(bridge.running) == 1
    del forgotten
    gc.collect()
    assert ended == ["localhost"] and not bridge.running


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
        certificates=[chain(*client_certificate(pki))],
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
        connection.vouched_until = until[0]

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


def test_bytes_of_a_session_do_not_vouch_for_it(pki):
    one = client(client_context(pki))
    handshake(one, Connection(server_context(pki)))
    again = Session.from_bytes(bytes(one.session), time.time() + 60)
    assert again.vouched_for
    assert not Session.from_bytes(bytes(again)).vouched_for


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
    control = library.hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
    raw = contexts.raw(context.ssl_context)
    assert control(raw, 98, 0, ffi.from_buffer(algorithms.encode() + b"\0")) == 1  # SSL_CTRL_SET_SIGALGS_LIST


def test_a_bad_result_is_an_error_and_not_consent(pki):
    """The second net: what the guard does not see, cffi hands to onerror."""
    one = client(client_context(pki))
    other = Connection(server_context(pki, hooks=Hooks(servername=lambda connection, name: 1 << 70)))
    with pytest.raises(OverflowError):
        handshake(one, other)
    assert not other.established


def test_pyopenssl_contexts_are_not_mutated_after_use(pki):
    context = server_context(pki)
    Connection(context)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        context.ciphers = "ALL"
    assert isinstance(context.ssl_context, SSL.Context)
