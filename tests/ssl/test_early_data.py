"""Early data over SSLContext and SSLSocket: what is configured, what the guard does, who waits for what."""

from __future__ import annotations

import logging
import ssl

import gevent
import gevent.event
import gevent.socket
import pytest

import greentls.events
from greentls.errors import ConfigurationError, WantRead
from greentls.ssl.hooks.replay_guard import WINDOW
from greentls.stores.memory import MemoryStore
from greentls.strategy import STRATEGIES
from tests.ssl.early_data import REQUEST, Guard, Site, socketpair
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import contexts, handshake, sides


@pytest.fixture
def site(pki):
    return Site(pki)


def test_a_request_comes_with_the_hello_and_is_answered_at_once(site):
    connection, here, there = site.offered()
    with here, site.serve(there) as server:
        assert (server.handshake_finished, server.early_data, server.early_data_accepted) == (False, REQUEST, True)
        assert (server.version(), server.session_reused, server.pending()) == ("TLSv1.3", True, len(REQUEST))
        assert server.recv(1000) == REQUEST
        server.sendall(b"answer")
        site.finish(connection, here)
        assert connection.read() == b"answer"
        assert not server.handshake_finished
        server.do_handshake()
        assert server.handshake_finished
        assert server.early_data == REQUEST
        ((name, lifetime),) = site.server.replay_guard.asked
        assert (len(name), lifetime) == (len("early-data:") + 64, WINDOW)
        assert list(server.hook_seconds) == ["replay_guard"]


def test_both_sides_of_ours(site, monkeypatch):
    told = []
    monkeypatch.setattr(greentls.events, "handler", told.append)
    with site.connected(REQUEST, site.session) as (client, server):
        assert (client.early_data, client.early_data_accepted, client.session_reused) == (REQUEST, True, True)
        assert (server.early_data, server.early_data_accepted, server.handshake_finished) == (REQUEST, True, True)
    facts = [(event["early_data"], event["resumption"]) for event in told if event["event"] == "handshake"]
    assert facts == [(True, "stateful"), (True, "ticket")]


def test_without_a_session_nothing_is_sent_early(site):
    with site.connected(REQUEST) as (client, server):
        assert (client.early_data, client.early_data_accepted) == (b"", None)
        assert (server.early_data, server.early_data_accepted) == (b"", None)


def test_a_client_that_asks_its_verify_callback_says_nothing_before(site):
    """hazard: a resumption is asked about behind the handshake, when who is refused then would have the request."""
    asked = []
    site.client.verify_callback = lambda sock, chain, *, resumed: asked.append(resumed)
    with site.connected(REQUEST, site.session) as (client, server):
        assert client.session_reused
        assert (client.early_data, client.early_data_accepted) == (b"", None)
        assert (server.early_data, server.early_data_accepted) == (b"", None)
    assert asked == [True]


def test_where_the_server_has_changed_its_mind_the_client_sends_again(site):
    site.server.max_early_data = 0
    with site.connected(REQUEST, site.session) as (client, server):
        assert (client.early_data_accepted, client.session_reused) == (False, True)
        assert server.early_data == b""
        client.sendall(client.early_data)
        assert server.recv(1000) == REQUEST


def test_it_is_off_unless_it_is_asked_for(pki):
    site = contexts(pki)
    site[1].session_store = Guard()
    ends = sides(*site)
    handshake(*ends)
    assert ends[0].tls.session.max_early_data == 0


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "set replay_guard or session_store"),
        ({"session_store": MemoryStore()}, "set replay_guard or session_store"),
        ({"session_store": Guard(), "replay_guard": MemoryStore()}, "set replay_guard or session_store"),
        ({"replay_guard": object()}, "set replay_guard or session_store"),
        ({"replay_guard": Guard(), "max_early_data": 20_000}, "up to 16384"),
        ({"replay_guard": Guard(), "verify_mode": ssl.CERT_OPTIONAL}, "where clients are verified"),
    ],
)
def test_what_would_make_it_unsafe_is_refused(pki, settings, said):
    _, context = contexts(pki)
    context.load_verify_locations(pki.ca_file)
    context.max_early_data = 1000
    for name, value in settings.items():
        setattr(context, name, value)
    with pytest.raises(ConfigurationError, match=said):
        context.compile(True)
    here, there = socketpair()
    with here, pytest.raises(ssl.SSLError, match=said):
        context.wrap_socket(there, server_side=True)


def test_the_session_store_is_the_guard_unless_there_is_another_one(pki):
    guard = Guard()
    site = Site(pki, session_store=guard, replay_guard=None)
    with site.connected(REQUEST, site.session) as (client, _):
        assert client.early_data_accepted
    assert len(guard.asked) == 1


def test_the_same_guard_again_compiles_nothing_anew(site):
    compiled = site.server.compile(True)
    site.server.replay_guard = site.server.replay_guard
    site.server.max_early_data = 1000
    assert site.server.compile(True) is compiled
    site.server.replay_guard = Guard()
    assert site.server.compile(True) is not compiled


def test_a_context_that_a_client_hello_callback_chooses_takes_it(pki):
    site = Site(pki)
    front = contexts(pki)[1]
    front.client_hello_callback = lambda sock, hello: site.server
    connection, here, there = site.offered()
    with here, front.wrap_socket(there, server_side=True) as server:
        assert (server.early_data, server.handshake_finished) == (REQUEST, False)
        site.finish(connection, here)
        server.do_handshake()


def test_a_name_whose_clients_are_verified_takes_none(pki):
    """Early data comes before anything is known of the client, and a verify_callback is asked behind the handshake."""
    site = Site(pki)
    vip = contexts(pki)[1]
    vip.load_verify_locations(pki.ca_file)
    vip.verify_mode = ssl.CERT_OPTIONAL
    site.server.sni_callback = lambda sock, name, context: setattr(sock, "context", vip)
    with site.connected() as (client, _):
        site.session = client.session
    with site.connected(REQUEST, site.session) as (client, server):
        assert client.session_reused
        assert (client.early_data_accepted, server.early_data, server.handshake_finished) == (False, b"", True)
    assert site.server.replay_guard.asked == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy(pki, strategy):
    site = Site(pki, strategy=strategy)
    connection, here, there = site.offered()
    with here, site.serve(there) as server:
        assert (server.recv(1000), server.handshake_finished) == (REQUEST, False)
        site.finish(connection, here)
        server.do_handshake()
        assert server.handshake_finished
        server.sendall(b"answer")


def test_memory_bios_refuse_it_since_nobody_could_tell(site):
    connection, here, there = site.offered()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = site.server.wrap_bio(incoming, outgoing, server_side=True)
    with here, there:
        incoming.write(there.recv(65536))
        with pytest.raises(ssl.SSLWantReadError):
            server.do_handshake()
        connection.receive_data(outgoing.read())
        connection.do_handshake()
        assert connection.early_data_accepted is False
        incoming.write(connection.data_to_send())
        server.do_handshake()
    assert site.server.replay_guard.asked == []


def test_who_may_set_it_and_when(site):
    here, there = socketpair()
    with (
        here,
        site.client.wrap_socket(
            there, server_hostname="localhost", session=site.session, do_handshake_on_connect=False
        ) as client,
    ):
        with pytest.raises(ValueError, match="1001 bytes of early data; the session allows 1000"):
            client.early_data = bytes(1001)
        client.early_data = bytearray(b"x" * 1000)
        assert client.early_data == b"x" * 1000
        client.early_data = b""
        here.close()
        with pytest.raises(OSError):
            client.do_handshake()
        with pytest.raises(ValueError, match="before the handshake"):
            client.early_data = b"x"
    here, there = socketpair()
    with here, site.server.wrap_socket(there, server_side=True, do_handshake_on_connect=False) as server:
        with pytest.raises(ValueError, match="at a client"):
            server.early_data = b"x"
        assert (server.handshake_finished, server.early_data_accepted) == (False, None)


# -- the guard ---------------------------------------------------------------------------------------------------------


class Broken(Guard):
    def __init__(self, trouble):
        super().__init__()
        self.trouble = trouble

    def add(self, name, value, lifetime):
        super().add(name, value, lifetime)
        return self.trouble()


def fail():
    raise ConnectionError("the guard is down")


def refused(site):
    with site.connected(REQUEST, site.session) as (client, server):
        assert (client.early_data_accepted, client.session_reused, server.early_data) == (False, True, b"")
        client.sendall(REQUEST)
        assert server.recv(1000) == REQUEST


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (fail, "ConnectionError('the guard is down')"),
        (lambda: gevent.sleep(PATIENCE), "TimeoutError('replay_guard gave no answer in 0.05 s')"),
    ],
    ids=["down", "slow"],
)
def test_a_guard_in_trouble_costs_the_early_data_and_a_log_line(pki, caplog, trouble, said):
    site = Site(pki, Broken(trouble), callback_timeout=0.05)
    with caplog.at_level(logging.WARNING, "greentls"):
        for _ in range(3):
            refused(site)
    (line,) = [record.getMessage() for record in caplog.records]  # an outage is one event
    assert line == f"replay guard guard: {said}; early data is refused"
    assert len(site.server.replay_guard.asked) == 3


def test_with_its_memcached_down_no_early_data_is_taken(pki, memcached, caplog):
    guard = greentls.open_store(memcached.url(insecure=1))
    site = Site(pki, guard)
    with site.connected(REQUEST, site.session) as (client, _):
        assert client.early_data_accepted
    memcached.kill()
    with caplog.at_level(logging.WARNING, "greentls"):
        refused(site)
    assert "early data is refused" in caplog.text
    guard.close()


@pytest.mark.parametrize("answer", [None, 1, b"1", False])
def test_whatever_is_not_true_is_a_no(pki, answer):
    refused(Site(pki, Broken(lambda: answer)))


class Trouble(BaseException):
    """As GreenletExit: not an Exception."""


def test_what_is_no_exception_ends_the_connection(pki):
    def trouble():
        raise Trouble

    site = Site(pki, Broken(trouble))
    _, here, there = site.offered()
    with here, pytest.raises(Trouble):
        site.serve(there)


@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_a_kill_or_the_callers_timeout_inside_the_guard_goes_where_it_was_aimed(pki, how):
    waiting = gevent.event.Event()

    def wait():
        waiting.set()
        gevent.sleep(PATIENCE)

    site = Site(pki, Broken(wait), callback_timeout=None)
    connection, here, there = site.offered()
    caught = []

    def serve():
        try:
            with gevent.Timeout(0.1 if how == "timeout" else None):
                site.serve(there)
        except BaseException as error:
            caught.append(error)

    job = gevent.spawn(serve)
    assert waiting.wait(PATIENCE)
    if how == "kill":
        job.kill()
    job.join(PATIENCE)
    assert [type(error) for error in caught] == [gevent.GreenletExit if how == "kill" else gevent.Timeout]
    connection.receive_data(here.recv(65536))
    with pytest.raises(greentls.errors.TLSError, match="alert"):
        connection.do_handshake()
        connection.read()
    assert not connection.early_data_accepted
    here.close()


# -- meanwhile ---------------------------------------------------------------------------------------------------------


def test_full_duplex_before_and_over_the_finish(site):
    connection, here, there = site.offered()
    answer = bytes(range(256)) * 8000  # 2 MB: more than the sockets take
    with here, site.serve(there) as server:
        writer = gevent.spawn(server.sendall, answer)
        got = bytearray()
        reader = gevent.spawn(lambda: [got.extend(server.recv(1000)) for _ in range(2)])
        site.finish(connection, here)
        connection.write(b"not early")
        here.sendall(connection.data_to_send())
        back = bytearray()
        while len(back) < len(answer):
            try:
                back += connection.read()
            except WantRead:
                connection.receive_data(here.recv(65536))
        gevent.joinall([writer, reader], timeout=PATIENCE, raise_error=True)
        assert back == answer
        assert got == REQUEST + b"not early"
        assert server.handshake_finished


def test_unwrap_waits_for_the_finish(site):
    connection, here, there = site.offered()
    with here:
        server = site.serve(there)
        assert server.recv(1000) == REQUEST
        job = gevent.spawn(server.unwrap)
        site.finish(connection, here)
        while not connection.closed_by_peer:
            try:
                connection.read()
            except WantRead:
                connection.receive_data(here.recv(65536))
        connection.shutdown()
        here.sendall(connection.data_to_send())
        with job.get(timeout=PATIENCE) as plain:
            here.sendall(b"in clear")
            assert plain.recv(100) == b"in clear"


def test_a_server_that_closes_at_once_says_so(site):
    connection, here, there = site.offered()
    with here:
        server = site.serve(there)
        server.sendall(b"goodbye")
        server.close()
        while (data := here.recv(65536)) and not connection.closed_by_peer:
            connection.receive_data(data)
            connection.do_handshake()
            assert connection.read() == b"goodbye"
            assert connection.read() == b""
        assert connection.closed_by_peer


def test_an_end_before_the_finish_is_an_error_and_no_end_of_data(site):
    _, here, there = site.offered()
    with site.serve(there) as server:
        assert server.recv(1000) == REQUEST
        here.shutdown(gevent.socket.SHUT_WR)
        with pytest.raises(ssl.SSLEOFError):
            server.recv(1000)
        here.close()


def test_a_client_that_leaves_before_its_tickets_came_has_been_heard(site):
    connection, here, there = site.offered()
    with site.serve(there) as server:
        assert server.recv(1000) == REQUEST
        site.finish(connection, here)
        connection.write(b"goodbye")
        here.sendall(connection.data_to_send())
        here.close()
        assert server.recv(1000) == b"goodbye"


def test_hundreds_at_once(pki):
    """Each first flight comes twice, and a hundred wait in the guard at once: one of the two is taken, the other one's
    sender is stuck."""

    class Slow(Guard):
        enough = gevent.event.Event()

        def add(self, name, value, lifetime):
            answer = super().add(name, value, lifetime)
            if len(self.asked) == 100:
                self.enough.set()
            assert self.enough.wait(PATIENCE)
            return answer

    guard, taken, ended = Slow(), [], []
    site = Site(pki, guard, callback_timeout=PATIENCE)

    def serve(sock):
        try:
            with site.serve(sock) as server:
                taken.extend([server.early_data] if server.early_data else [])
                got = b""
                while not got.endswith(b"end"):
                    got += server.recv(1000)
                    server.sendall(b"x" * 50_000)
                ended.append(got)
        except (ssl.SSLError, OSError):
            pass  # the copy's, when its sender leaves

    def visit(number):
        early = b"request %d " % number
        connection, flight = site.first_flight(early)
        (here, there), (copier, copy) = pairs = [socketpair() for _ in range(2)][:: 1 if number % 2 else -1]
        jobs = [gevent.spawn(serve, each) for each in (there, copy)]
        for sock, _ in pairs:
            sock.sendall(flight)
        site.finish(connection, here)
        connection.write(b"end" if connection.early_data_accepted else early + b"end")
        here.sendall(connection.data_to_send())
        copier.close()
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
        here.close()

    gevent.joinall([gevent.spawn(visit, number) for number in range(200)], timeout=PATIENCE, raise_error=True)
    assert sorted(taken) == sorted(b"request %d " % number for number in range(200))
    assert sorted(ended) == sorted(b"request %d end" % number for number in range(200))
    assert len(guard.asked) == 400
