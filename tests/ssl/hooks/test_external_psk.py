"""External pre-shared keys whose look-up waits: RFC 4279 under TLS 1.2, RFC 8446 4.2.11 under TLS 1.3."""

from __future__ import annotations

import ssl

import gevent
import gevent.socket
import pytest
from gevent.event import Event

import greentls
import greentls.ssl
from greentls.core.callbacks import MAX_PSK_LOOKUPS
from tests.support.helpers import PATIENCE
from tests.support.pairs import hello_with_identities
from tests.support.ssl_pairs import TLS_VERSIONS, both_versions, connected, contexts, handshakes, talk

KEY = b"sixteen bytes of"
both_sides = pytest.mark.parametrize("side", ["client", "server"])


class Lookup:
    """Both sides' callback. behave: what it does before it answers, at the side that the test is about."""

    def __init__(self):
        self.asked = []
        self.behave = None

    def __call__(self, name):
        self.asked.append(name)
        if self.behave is not None:
            self.behave()
        return KEY


def psk_contexts(version, side, lookup):
    """(client's, server's) that know the key and nothing else; side's callback is the lookup."""
    client, server = (greentls.ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER))
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    for context in (client, server):
        context.minimum_version = context.maximum_version = TLS_VERSIONS[version]
        context.set_ciphers("kECDHEPSK")
    asks = lookup if side == "client" else lambda hint: None
    client.set_psk_client_callback(lambda hint: (asks(hint), ("device", KEY))[1])
    server.set_psk_server_callback(lookup if side == "server" else lambda identity: KEY)
    return client, server


@pytest.fixture
def lookup():
    return Lookup()


@both_versions
@both_sides
def test_it_waits_while_others_finish(version, side, lookup):
    client, server = psk_contexts(version, side, lookup)
    inside, go_on = Event(), Event()

    def wait():
        lookup.behave = None
        inside.set()
        assert go_on.wait(PATIENCE)

    lookup.behave = wait
    running = gevent.spawn(handshakes, client, server)
    assert inside.wait(PATIENCE)
    for _ in range(3):
        with connected(client, server):
            pass
    assert not running.ready()
    go_on.set()
    here, there = running.get(timeout=PATIENCE)
    with here, there:
        talk(here, there)
        assert here.resumption == there.resumption == "psk"
        assert set(lookup.asked) == {"device" if side == "server" else None}


@both_versions
@both_sides
@pytest.mark.parametrize("how", ["exception", "Timeout", "kill", "deadline"])
def test_no_answer_is_no_connection(version, side, lookup, how):
    """hazard: to OpenSSL "no key" is an answer, and under TLS 1.3 it goes on without one."""
    client, server = psk_contexts(version, side, lookup)
    expected = {"exception": LookupError("no database"), "Timeout": gevent.Timeout(None)}.get(how)
    inside = Event()

    def behave():
        inside.set()
        if expected is not None:
            raise expected
        Event().wait()

    lookup.behave = behave
    if how == "deadline":
        client.callback_timeout = server.callback_timeout = 0.05
    here, there = gevent.socket.socketpair()
    results = {}

    def run(name, function, *arguments, **options):
        try:
            results[name] = function(*arguments, **options)
        except BaseException as error:
            results[name] = error

    for sock in (here, there):
        sock.settimeout(PATIENCE)
    jobs = {
        "client": gevent.spawn(run, "client", client.wrap_socket, here),
        "server": gevent.spawn(run, "server", server.wrap_socket, there, server_side=True),
    }
    if how == "kill":
        assert inside.wait(PATIENCE)
        jobs[side].kill(block=False)
    gevent.joinall(list(jobs.values()), PATIENCE)
    if expected is not None:
        assert results[side] is expected
    elif how == "kill":
        assert isinstance(results[side], gevent.GreenletExit)
    else:
        assert isinstance(results[side], TimeoutError)
        assert f"psk_{side}_callback gave no answer in 0.05 s" in str(results[side])
    other = results["client" if side == "server" else "server"]
    assert isinstance(other, ssl.SSLError)
    if (side, version) != ("client", "1.3"):  # its hello is written by then, and is refused for itself
        assert "ALERT" in other.reason


@both_versions
def test_an_unknown_identity_has_an_alert_of_its_own(version, lookup):
    client, server = psk_contexts(version, "server", lookup)
    server.set_psk_server_callback(lambda identity: b"")
    here, there = handshakes(client, server)
    assert isinstance(there, ssl.SSLError)
    assert {"1.2": "UNKNOWN_PSK_IDENTITY", "1.3": "HANDSHAKE_FAILURE"}[version] in here.reason


def test_under_tls_1_3_a_server_with_a_certificate_goes_on_to_it(pki):
    client, server = contexts(pki)
    client.set_psk_client_callback(lambda hint: ("device", KEY))
    server.set_psk_server_callback(lambda identity: b"")
    with connected(client, server) as (here, _):
        assert here.getpeercert()["subject"] == ((("commonName", "localhost"),),)


def test_a_client_may_do_without(pki):
    client, server = contexts(pki)
    client.set_psk_client_callback(lambda hint: None)
    server.set_psk_server_callback(lambda identity: KEY)
    with connected(client, server) as (here, there):
        assert here.resumption == there.resumption == "full"


class TestSessions:
    """TLS 1.3 calls sessions pre-shared keys, too, and OpenSSL asks for the key of each."""

    @pytest.mark.parametrize("store", [None, "memory://"], ids=["tickets", "store"])
    def test_a_session_is_no_identity(self, pki, store, lookup):
        """hazard: the look-up would get 32 random bytes, up to a NUL, which may even be somebody's name."""
        client, server = contexts(pki)
        server.session_store = store and greentls.open_store(store)
        server.set_psk_server_callback(lookup)
        session = None
        for _ in range(5):
            with connected(client, server, session=session) as (here, _):
                assert here.session_reused is (session is not None)
                session = here.session
            assert server.drain_sessions(PATIENCE)
        assert lookup.asked == []

    def test_an_identity_is_no_session(self, lookup):
        """hazard: a look-up in the session store for each external identity, and a hit for whom it is not."""
        client, server = psk_contexts("1.3", "server", lookup)
        asked = []
        server.session_store = store = greentls.open_store("memory://")
        get, store.get = store.get, lambda session_id: asked.append(session_id) or get(session_id)
        client.set_psk_client_callback(lambda hint: ("x" * 32, KEY))  # as long as a session id
        with connected(client, server) as (here, _):
            assert here.resumption == "psk"
        assert asked == []
        assert lookup.asked == ["x" * 32]

    def test_the_session_of_a_key_is_resumed_without_the_key(self, lookup):
        client, server = psk_contexts("1.2", "server", lookup)
        server.session_store = greentls.open_store("memory://")
        with connected(client, server) as (here, _):
            session = here.session
        assert server.drain_sessions(PATIENCE)
        lookup.asked.clear()
        with connected(client, server, session=session) as (here, _):
            assert here.session_reused
        assert lookup.asked == []


def test_a_hello_retry_request_asks_again(lookup):
    client, server = psk_contexts("1.3", "server", lookup)
    server.set_ecdh_curve("secp521r1")  # for which no client sends a key share of its own accord
    with connected(client, server) as (here, there):
        assert here.resumption == there.resumption == "psk"
    assert lookup.asked == ["device", "device"]
    assert len(lookup.asked) <= MAX_PSK_LOOKUPS


def test_one_hello_with_many_identities_costs_few_lookups(pki, lookup):
    """hazard: OpenSSL asks for the key of each of a thousand identities before it looks at a single binder."""
    _, server = psk_contexts("1.3", "server", lookup)
    server.set_psk_server_callback(lambda identity: lookup(identity) and b"")
    hello = hello_with_identities(pki, [b"device %d" % number for number in range(400)])
    here, there = gevent.socket.socketpair()
    with here:
        here.sendall(hello)
        with pytest.raises(ssl.SSLError):
            server.wrap_socket(there, server_side=True)
    assert lookup.asked == [f"device {number}" for number in range(MAX_PSK_LOOKUPS)]


@pytest.mark.parametrize("identity", [b"device\0junk", b"\0", b"d\xe9vice", bytes(32)])
def test_what_is_no_text_is_no_identity(pki, lookup, identity):
    """hazard: OpenSSL tells the callback the part before the first NUL, which may be somebody else's name."""
    _, server = psk_contexts("1.3", "server", lookup)
    here, there = gevent.socket.socketpair()
    with here:
        here.sendall(hello_with_identities(pki, [identity]))
        with pytest.raises(ssl.SSLError):
            server.wrap_socket(there, server_side=True)
    assert lookup.asked == []
