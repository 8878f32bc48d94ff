from __future__ import annotations

import asyncio
import gc
import threading
import traceback

import gevent
import greenlet
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from greentls.core import bridge
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConcurrentUseError, ConnectionDead, TLSError, WrongThreadError
from greentls.hub import here
from greentls.openssl import errors
from greentls.openssl.library import ffi
from tests.support.helpers import PATIENCE
from tests.support.hubs import Job, under_each_hub
from tests.support.openssl import lib
from tests.support.pairs import (
    VERSIONS,
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


class Waiting:
    """Hooks that all come through here(): they may be told to wait, or to raise, at one of them."""

    def __init__(self, where=None, how=None):
        self.where, self.how = where, how
        self.seen: list[str] = []
        self.inside, self.go_on = here().event(), here().event()
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

        def store(connection, session_id, id_context, expires, der, resumed):
            self.here("new")
            self.sessions.new(connection, Session.from_bytes(der))

        return Hooks(
            servername=lambda connection, name: self.here("servername"),
            alpn=lambda connection, offered: self.here("alpn") or offered[0],
            get_session=get,
            store_session=store,
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
            pki, version, alpn_protocols=[b"h2", b"http/1.1"], certificates=[chain(*pki.client)]
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
        lib.SSL_set_tlsext_status_type(one.ssl, 1)
        return one, Connection(self.server_context)


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
    assert not bridge.occupants()


@under_each_hub
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


@under_each_hub
@pytest.mark.parametrize(("version", "resumed", "where"), PLACES)
@pytest.mark.parametrize("how", [gevent.GreenletExit, gevent.Timeout, asyncio.CancelledError])
def test_kill_timeout_and_cancellation_inside_a_hook_are_carried(pki, version, resumed, where, how):
    waiting = Waiting(where)
    party = Party(pki, version, waiting)
    session = party.session() if resumed else None
    expected = how(None)
    running = Job(converse, party, session)
    assert waiting.inside.wait(PATIENCE)
    running.interrupt(expected)
    raised, one, other = running.result()
    check_refused(party, raised, expected, one, other)


@under_each_hub
@both_versions
def test_a_second_greenlet_that_writes_during_a_handshake_puts_no_plaintext_on_the_wire(pki, version):
    waiting = Waiting("servername")
    party = Party(pki, version, waiting)
    one, other = party.pair()
    attempt(one.do_handshake)
    move(one, other)
    running = Job(attempt, other.do_handshake)
    assert waiting.inside.wait(PATIENCE)
    for operation in (
        other.do_handshake,
        lambda: other.run("write", lib.SSL_write, (other.ssl, ffi.from_buffer(b"TOP-SECRET"), 10)),
        lambda: other.run("shutdown", lib.SSL_shutdown, (other.ssl,)),
        lambda: other.switch_config(party.server_context),
    ):
        with pytest.raises(ConcurrentUseError, match="another greenlet is inside do_handshake"):
            operation()
    waiting.go_on.set()
    running.result()
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


@under_each_hub
@both_versions
def test_two_handshakes_wait_at_once_and_finish_in_the_other_order(pki, version):
    gates, order = {"first": here().event(), "second": here().event()}, []
    arrived = []

    def servername(connection, name):
        arrived.append(name)
        gates[name].wait()

    context = server_context(pki, version, hooks=Hooks(servername=servername))
    clients = client_context(pki, version, verify_mode=0)

    def run(name):
        handshake(client(clients, name=name), Connection(context))
        order.append(name)

    greenlets = [Job(run, name) for name in gates]
    here().sleep(0)
    assert arrived == ["first", "second"]
    gates["second"].set()
    greenlets[1].result()
    gates["first"].set()
    greenlets[0].result()
    assert order == ["second", "first"]


@under_each_hub
def test_another_greenlets_errors_do_not_reach_a_waiting_handshake(pki):
    """The error queue belongs to the thread: what fails meanwhile must not become this connection's error."""
    waiting = Waiting("servername")
    party = Party(pki, VERSIONS["1.3"], waiting)
    running = Job(converse, party, None)
    assert waiting.inside.wait(PATIENCE)
    lib.ERR_put_error(20, 0, 258, b"", 0)  # an error of nobody's, in SSL's library
    waiting.where = None
    waiting.go_on.set()
    raised, one, other = running.result()
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


def test_a_servername_hook_may_switch_the_context_and_the_first_one_may_be_forgotten(pki):
    """Facts 3.6: the first SSL_CTX still calls back after Python has dropped its side of it."""
    sessions = Sessions()
    second = server_context(
        pki,
        certificates=[chain(*pki.issue("second.example"))],
        hooks=Hooks(alpn=lambda connection, offered: offered[-1]),
    )

    def servername(connection, name):
        connection.switch_config(second)
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
    assert len(bridge.occupants()) == 1
    del forgotten
    gc.collect()
    assert ended == ["localhost"] and not bridge.occupants()


def test_a_bad_result_is_an_error_and_not_consent(pki):
    """The second net: what the guard does not see, cffi hands to onerror."""
    one = client(client_context(pki))
    other = Connection(server_context(pki, hooks=Hooks(servername=lambda connection, name: 1 << 70)))
    with pytest.raises(OverflowError):
        handshake(one, other)
    assert not other.established
