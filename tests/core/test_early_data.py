"""Early data between two Connections in memory: OpenSSL's order of things, and what may go wrong in it."""

from __future__ import annotations

import ssl

import pytest

from greentls.core.config import VERIFY_PEER
from greentls.core.connection import Connection
from greentls.core.early_data import EarlyConnection
from greentls.core.hooks import Hooks
from greentls.errors import ConfigurationError, ConnectionDead, TLSError, UnexpectedEOF
from greentls.openssl import library, symbols
from tests.support.pairs import TLS12, TLS13, Sessions, attempt, client, client_context, handshake, move, server_context

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
FATAL_ALERT_RECORD = bytes([23])  # under TLS 1.3 keys an alert looks like data


class Kill(BaseException):
    """As GreenletExit: not an Exception."""


class Guard:
    """Hooks.early_data that takes each first flight once."""

    def __init__(self):
        self.asked = []

    def __call__(self, connection, client_random):
        self.asked.append(client_random)
        return self.asked.count(client_random) == 1


class Site:
    """A server's context, a client's, and a session that allows early data."""

    def __init__(self, pki, max_early_data=1000, guard=None, **settings):
        self.guard = guard or Guard()
        self.sessions = Sessions()
        hooks = self.sessions.hooks(early_data=self.guard, **settings.pop("hooks", {}))
        self.server = server_context(pki, TLS13, max_early_data=max_early_data, hooks=hooks, **settings)
        self.client = client_context(pki, TLS13)
        ends = client(self.client), EarlyConnection(self.server)
        handshake(*ends)
        assert not ends[1].unfinished
        assert ends[1].early_data_accepted is None
        self.session = ends[0].session

    def offer(self, early_data=REQUEST, context=None):
        """(a client, its first flight)."""
        end = client(context or self.client, self.session)
        end.offer_early_data(early_data)
        assert attempt(end.do_handshake) is None
        return end, end.data_to_send()

    def begun(self, early_data=REQUEST):
        """(client, server) once the server has the first flight."""
        ours, flight = self.offer(early_data)
        theirs = EarlyConnection(self.server)
        theirs.receive_data(flight)
        assert attempt(theirs.do_handshake)
        return ours, theirs


@pytest.fixture
def site(pki):
    return Site(pki)


def finish(client, server):
    move(server, client)
    client.do_handshake()
    move(client, server)
    server.do_handshake()
    assert server.established and not server.unfinished
    move(server, client)


def talk(client, server):
    for source, target in ((client, server), (server, client)):
        source.write(b"hello")
        move(source, target)
        assert target.read() == b"hello"


def test_early_data_is_read_and_answered_before_the_clients_finished(site):
    client, server = site.begun()
    assert (server.unfinished, server.early_data, server.pending) == (True, REQUEST, len(REQUEST))
    assert server.read(3) + server.read() == REQUEST
    assert attempt(server.read) is None
    server.write(b"answer")
    server.write(memoryview(b"x" * 40_000))
    move(server, client)
    client.do_handshake()
    assert client.early_data_accepted and server.early_data_accepted
    assert client.read() == b"answer"
    assert sum(len(client.read()) for _ in range(3)) == 40_000
    assert server.unfinished
    move(client, server)
    assert attempt(server.read) is None  # finishes the handshake on the way
    assert not server.unfinished
    assert server.early_data == REQUEST
    move(server, client)
    talk(client, server)
    assert client.session_reused and client.session.max_early_data == 1000  # of the ticket that has come since


def test_the_end_of_the_handshake_and_data_behind_it_come_in_one_read(site):
    client, server = site.begun()
    assert server.read() == REQUEST
    move(server, client)
    client.do_handshake()
    client.write(b"not early")
    move(client, server)
    assert server.read() == b"not early"
    assert not server.unfinished


def test_a_second_do_handshake_waits_for_the_finish_and_loses_nothing(site):
    client, server = site.begun()
    assert attempt(server.do_handshake) is None
    finish(client, server)
    assert server.read() == REQUEST
    talk(client, server)


@pytest.mark.parametrize("waits", ["do_handshake", "read"])
def test_byte_by_byte(site, waits):
    client, flight = site.offer()
    server = EarlyConnection(site.server)
    for octet in flight:
        assert not server.unfinished
        server.receive_data(bytes([octet]))
        established = attempt(server.do_handshake)
    assert established and server.unfinished
    got = b"" if waits == "do_handshake" else server.read()
    move(server, client)
    client.do_handshake()
    for octet in client.data_to_send():
        assert server.unfinished
        server.receive_data(bytes([octet]))
        assert attempt(getattr(server, waits)) is (None if waits == "read" or server.unfinished else True)
    assert not server.unfinished
    assert (got or server.read()) == REQUEST
    move(server, client)
    talk(client, server)


def test_a_copy_of_the_first_flight_gives_no_data(site):
    client, flight = site.offer()
    server, other = EarlyConnection(site.server), EarlyConnection(site.server)
    for each in (server, other):
        each.receive_data(flight)
    assert attempt(server.do_handshake)
    assert attempt(other.do_handshake) is None
    assert (other.established, other.early_data) == (False, b"")
    assert len(site.guard.asked) == 2
    finish(client, server)


def test_refused_early_data_is_skipped_and_the_client_sends_again(pki):
    site = Site(pki, guard=lambda connection, client_random: False)
    client, flight = site.offer()
    server = EarlyConnection(site.server)
    server.receive_data(flight)
    assert attempt(server.do_handshake) is None
    move(server, client)
    client.do_handshake()
    move(client, server)
    server.do_handshake()
    assert (client.early_data_accepted, server.early_data_accepted, server.early_data) == (False, False, b"")
    assert server.session_reused
    move(server, client)
    talk(client, server)


def test_an_answer_that_is_not_true_is_a_no(pki):
    site = Site(pki, guard=lambda connection, client_random: 1)
    _, flight = site.offer()
    server = EarlyConnection(site.server)
    server.receive_data(flight)
    assert attempt(server.do_handshake) is None


def test_a_connection_that_cannot_tell_early_data_apart_refuses_it(site, pki):
    ours, flight = site.offer()
    server = Connection(site.server)
    server.receive_data(flight)
    assert attempt(server.do_handshake) is None
    move(server, ours)
    ours.do_handshake()
    assert ours.early_data_accepted is False
    assert site.guard.asked == []
    move(ours, server)
    server.do_handshake()
    move(server, ours)
    talk(ours, server)


def test_early_data_does_not_survive_a_hello_retry_request(pki):
    site = Site(pki, groups="P-521")  # no key share of it is in the first hello
    ours, flight = site.offer()
    server = EarlyConnection(site.server)
    server.receive_data(flight)
    for _ in range(2):
        attempt(server.do_handshake)
        move(server, ours)
        attempt(ours.do_handshake)
        move(ours, server)
    server.do_handshake()
    assert (ours.early_data_accepted, server.early_data, site.guard.asked) == (False, b"", [])
    assert server.session_reused
    move(server, ours)
    talk(ours, server)


def test_tls_12_clients_notice_nothing(pki):
    site = Site(pki)
    both = server_context(pki, max_early_data=1000, hooks=site.server.hooks)
    ours, server = client(client_context(pki, TLS12)), EarlyConnection(both)
    handshake(ours, server)
    assert (server.version, server.unfinished, server.early_data_accepted) == ("TLSv1.2", False, None)
    talk(ours, server)
    resumed, server = client(client_context(pki, TLS12), ours.session), EarlyConnection(both)
    handshake(resumed, server)
    assert resumed.session_reused


def test_a_client_sends_no_more_than_its_session_allows(site):
    assert site.begun(bytes(1000))[1].early_data == bytes(1000)
    end, flight = site.offer(bytes(1001))
    server = EarlyConnection(site.server)
    server.receive_data(flight)
    assert attempt(server.do_handshake) is None
    finish(end, server)
    assert (end.early_data_accepted, server.early_data_accepted) == (None, None)


def allow(session, size):
    """A client that takes more than it was given."""
    set_max = symbols.address("SSL_SESSION_set_max_early_data")
    library.ffi.cast("int (*)(SSL_SESSION *, uint32_t)", set_max)(session.pointer, size)


@pytest.mark.parametrize("taken", [True, False])
def test_a_server_takes_no_more_than_it_allowed_and_skips_no_more_than_16_kib(pki, taken):
    site = Site(pki, guard=lambda connection, client_random: taken)
    allow(site.session, 100_000)
    _, flight = site.offer(bytes(1001 if taken else 17_000))
    server = EarlyConnection(site.server)
    server.receive_data(flight)
    with pytest.raises(TLSError, match="too much early data"):
        server.do_handshake()
    assert server.early_data == b""
    assert server.data_to_send()[-24:-21] == b"\x17\x03\x03"  # an alert, under the server's key


def test_a_bad_finished_ends_it_with_an_alert(site):
    client, server = site.begun()
    move(server, client)
    client.do_handshake()
    flight = bytearray(client.data_to_send())
    flight[-1] ^= 1
    server.receive_data(flight)
    assert server.read() == REQUEST  # it was here before
    with pytest.raises(TLSError, match="bad record mac"):
        server.read()
    assert server.data_to_send()[:1] == FATAL_ALERT_RECORD
    with pytest.raises(ConnectionDead):
        server.write(b"x")


def test_an_end_before_the_clients_finished_is_no_end_of_the_data(site):
    _, server = site.begun()
    server.receive_data(b"")
    assert server.read() == REQUEST
    with pytest.raises(UnexpectedEOF):
        server.read()
    with pytest.raises(UnexpectedEOF):
        server.do_handshake()


def test_close_notify_before_the_clients_finished_reaches_the_client(site):
    client, server = site.begun()
    server.write(b"goodbye")
    server.shutdown()
    move(server, client)
    client.do_handshake()
    assert client.read() == b"goodbye"
    assert client.read() == b""
    assert client.closed_by_peer


@pytest.mark.parametrize("kind", [ValueError, Kill])
def test_what_the_guard_raises_refuses_the_connection(pki, kind):
    problem = kind("guard")

    def guard(connection, client_random):
        raise problem

    site = Site(pki, guard=guard)
    client, flight = site.offer()
    server = EarlyConnection(site.server)
    server.receive_data(flight)
    with pytest.raises(kind) as raised:
        server.do_handshake()
    assert raised.value is problem
    assert (server.established, server.early_data) == (False, b"")
    move(server, client)
    with pytest.raises(TLSError, match="alert"):
        client.do_handshake()
        client.read()  # the alert stands behind the server's flight


@pytest.mark.parametrize(
    "when",
    [
        (False, 1),  # the ClientHello
        (True, 2),  # the ServerHello
        (False, 5),  # EndOfEarlyData
        (False, 20),  # the client's Finished
        (True, 4),  # a ticket
    ],
    ids=["client_hello", "server_hello", "end_of_early_data", "finished", "new_session_ticket"],
)
def test_a_hook_that_openssl_does_not_listen_to_ends_it_all_the_same(pki, when):
    armed = []

    def message(connection, sent, version, content_type, data):
        if armed and content_type == 22 and (sent, data[0]) == when:
            raise Kill

    site = Site(pki, hooks={"message": message})
    ours, flight = site.offer()
    server = EarlyConnection(site.server)
    server.receive_data(flight)
    armed.append(True)
    with pytest.raises(Kill):
        if attempt(server.do_handshake):
            assert server.read() == REQUEST
            server.write(b"answer")
            move(server, ours)
            ours.do_handshake()
            move(ours, server)
            server.read()
    move(server, ours)
    with pytest.raises(TLSError, match="alert"):
        ours.do_handshake()
        while True:
            ours.read()


def test_a_hook_that_fails_with_the_hello_retry_request_sends_an_alert(pki):
    site = Site(pki)

    def message(connection, sent, version, content_type, data):
        if content_type == 22 and sent:
            raise Kill

    hooks = Hooks(message=message, early_data=site.guard)
    server = EarlyConnection(server_context(pki, TLS13, max_early_data=1000, hooks=hooks, groups="P-521"))
    ours, flight = site.offer()
    server.receive_data(flight[: 5 + int.from_bytes(flight[3:5], "big")])  # the ClientHello alone
    with pytest.raises(Kill):
        server.do_handshake()
    move(server, ours)
    with pytest.raises(TLSError, match="alert"):
        ours.do_handshake()


def test_a_session_that_allows_none_sends_none(pki):
    server = server_context(pki, TLS13)
    first = client(client_context(pki, TLS13))
    handshake(first, Connection(server))
    assert (first.early_data_limit, first.session.max_early_data) == (0, 0)
    second, there = client(client_context(pki, TLS13), first.session), Connection(server)
    second.offer_early_data(REQUEST)
    handshake(second, there)
    assert (second.session_reused, second.early_data_accepted) == (True, None)


def test_a_session_that_another_connection_has_spoilt_sends_none(site):
    """A fatal alert ends the session, whoever else was about to resume it."""
    other, there = site.begun()
    move(there, other)
    ours = client(site.client, site.session)
    ours.offer_early_data(REQUEST)
    other.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TLSError):
        other.do_handshake()
        other.read()
    assert not site.session.resumable
    server = EarlyConnection(site.server)
    handshake(ours, server)
    assert (ours.session_reused, ours.early_data_accepted, server.early_data) == (False, None, b"")


@pytest.mark.parametrize("settings", [{"version": TLS12}, {"options": ssl.OP_NO_TLSv1_3}], ids=["version", "option"])
def test_a_client_that_may_not_speak_tls_13_sends_none(pki, site, settings):
    both = server_context(pki, max_early_data=1000, hooks=site.server.hooks)
    ours, server = client(client_context(pki, **settings), site.session), EarlyConnection(both)
    ours.offer_early_data(REQUEST)
    handshake(ours, server)
    assert (ours.version, ours.early_data_limit, ours.early_data_accepted) == ("TLSv1.2", 0, None)


def test_stateless_tickets_carry_early_data_too(pki):
    guard = Guard()
    server = server_context(pki, TLS13, max_early_data=1000, hooks=Hooks(early_data=guard))
    first = client(client_context(pki, TLS13))
    handshake(first, EarlyConnection(server))
    for _ in range(2):  # a ticket is good for more than one connection
        second, there = client(client_context(pki, TLS13), first.session), EarlyConnection(server)
        second.offer_early_data(REQUEST)
        attempt(second.do_handshake)
        move(second, there)
        assert attempt(there.do_handshake)
        assert there.read() == REQUEST
        finish(second, there)
        talk(second, there)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hooks": Hooks()}, "nobody tells what is a replay"),
        ({"max_early_data": 16385}, "up to 16384"),
        ({"max_early_data": -1}, "up to 16384"),
        ({"verify_mode": VERIFY_PEER}, "leave it off where clients are verified"),
        ({"hooks": Hooks(early_data=Guard(), psk_server=lambda connection, identity: b"")}, "no age"),
    ],
)
def test_what_would_make_it_unsafe_is_refused(pki, settings, said):
    with pytest.raises(ConfigurationError, match=said):
        server_context(pki, **{"max_early_data": 1000, "hooks": Hooks(early_data=Guard()), **settings})
    with pytest.raises(ConfigurationError, match="a server needs"):
        client_context(pki, max_early_data=1000)
