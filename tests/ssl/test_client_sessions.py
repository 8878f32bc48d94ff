"""SSLContext.client_sessions, over sockets and memory BIOs, against servers that we did not write and our own."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import textwrap

import gevent
import pytest
from gevent.socket import create_connection

import greentls
from tests.ssl.early_data import REQUEST, Site
from tests.ssl.peers import StdlibServer, client_context, connect
from tests.support.helpers import PATIENCE, Pki, free_port, tethered, wait_until
from tests.support.ssl_pairs import both_versions, connected, contexts, handshake, sides, talk
from tests.support.ssl_servers import server_context


@pytest.fixture
def server(pki):
    server = StdlibServer(pki)
    yield server
    server.close()


@pytest.fixture
def sessions():
    return greentls.ClientSessions()


def echo(address, context, **options):
    """session_reused of a connection that has read something."""
    with connect(address, context, **options) as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        return sock.session_reused


@both_versions
class TestSockets:
    def test_a_new_context_for_each_connection_resumes(self, pki, server, sessions, version):
        def context():
            return client_context(pki, version, client_sessions=sessions)

        assert [echo(server.address, context()) for _ in range(4)] == [False, True, True, True]
        assert server.context.session_stats()["hits"] == 3

    def test_one_that_connects_itself_finds_the_same(self, pki, server, sessions, version):
        context = client_context(pki, version, client_sessions=sessions)
        echo(server.address, context)
        with context.wrap_socket(gevent.socket.socket(), server_hostname="localhost") as sock:
            sock.connect(("localhost", server.address[1]))
            assert sock.session_reused

    def test_a_change_of_a_context_finds_only_its_own(self, pki, server, sessions, version, tmp_path):
        context = client_context(pki, version, client_sessions=sessions)
        echo(server.address, context)
        context.load_verify_locations(Pki(tmp_path).ca_file)
        assert [echo(server.address, context) for _ in range(2)] == [False, True]

    def test_nobody_gets_by_with_a_session_of_others(self, pki, server, sessions, version, tmp_path):
        """hazard: a session is resumed where its certificate would be refused."""
        lax = client_context(pki, version, client_sessions=sessions, check_hostname=False)
        lax.verify_mode = ssl.CERT_NONE
        assert [echo(server.address, lax, server_hostname="elsewhere.test") for _ in range(2)] == [False, True]
        assert echo(server.address, client_context(pki, version, client_sessions=sessions)) is False
        stranger = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        stranger.load_verify_locations(Pki(tmp_path).ca_file)
        stranger.client_sessions = sessions
        for context, name in (
            (client_context(pki, version, client_sessions=sessions), "elsewhere.test"),
            (stranger, "localhost"),
        ):
            with pytest.raises(ssl.SSLCertVerificationError):
                connect(server.address, context, server_hostname=name)

    def test_a_client_without_the_certificate_finds_nothing(self, pki, sessions, version):
        server = StdlibServer(pki)
        server.context.load_verify_locations(pki.ca_file)
        server.context.verify_mode = ssl.CERT_OPTIONAL
        try:
            known = client_context(pki, version, client_sessions=sessions)
            known.load_cert_chain(*pki.client)
            assert [echo(server.address, known) for _ in range(2)] == [False, True]
            assert echo(server.address, client_context(pki, version, client_sessions=sessions)) is False
        finally:
            server.close()

    @pytest.mark.programs
    def test_a_server_that_was_started_anew_costs_a_full_handshake(self, pki, sessions, version):
        port = free_port()
        reused = []
        for _ in range(2):
            with s_server(pki, port, version):
                context = client_context(pki, version, client_sessions=sessions)
                reused += [echo_line(("127.0.0.1", port), context) for _ in range(2)]
        assert reused == [False, True, False, True]

    def test_abrupt_ends_leave_the_sessions_to_both(self, pki, serve, sessions, version):
        """hazard, facts 4.7: without close_notify OpenSSL empties the cache; here neither side says it."""
        store = greentls.open_store("memory://")
        context = server_context(pki, session_store=store)

        def handle(sock, address):
            sock.sendall(b"x")
            os.close(sock.detach())

        address = serve(context, handle)
        reused = []
        for _ in range(3):
            sock = connect(address, client_context(pki, version, client_sessions=sessions))
            assert sock.recv(1) == b"x"
            reused.append(sock.session_reused)
            os.close(sock.detach())
            del sock
            assert context.drain_sessions(PATIENCE)
        assert reused == [False, True, True]

    def test_sessions_of_a_server_with_a_store(self, pki, serve, sessions, version):
        context = server_context(pki, session_store=greentls.open_store("memory://"))
        address = serve(context)
        reused = []
        for _ in range(3):
            reused.append(echo(address, client_context(pki, version, client_sessions=sessions)))
            assert context.drain_sessions(PATIENCE)
        assert reused == [False, True, True]

    def test_a_session_that_is_given_wins(self, pki, server, sessions, version):
        with connect(server.address, client_context(pki, version)) as sock:
            sock.sendall(b"hello")
            sock.recv(100)
            given = sock.session
        context = client_context(pki, version, client_sessions=sessions)
        echo(server.address, context)
        before = sessions.count
        with connect(server.address, context, session=given) as sock:
            assert sock.session_reused
            assert sessions.count == before
        sock = connect(server.address, context, do_handshake_on_connect=False)
        sock.session = given
        with sock:
            sock.do_handshake()
            assert sessions.count == before

    def test_a_handshake_that_does_not_wait_has_not_failed(self, pki, sessions, version):
        client, server = contexts(pki, version)
        client.client_sessions = sessions
        with connected(client, server):
            pass
        here, there = gevent.socket.socketpair()
        here.settimeout(0.0)
        job = gevent.spawn(server.wrap_socket, there, server_side=True)
        with client.wrap_socket(here, server_hostname="localhost", do_handshake_on_connect=False) as sock:
            with pytest.raises(ssl.SSLWantReadError):
                sock.do_handshake()
            sock.do_handshake(block=True)
            assert sock.session_reused
            with job.get(timeout=PATIENCE) as other:
                sock.settimeout(PATIENCE)
                talk(sock, other)
        with connected(client, server) as (here, _):
            assert here.session_reused

    def test_a_server_that_hangs_on_a_session_is_asked_without_it(self, pki, server, silent_server, sessions, version):
        """hazard: a TLS 1.2 session that a server cannot stand is offered for ever."""
        context = client_context(pki, version, client_sessions=sessions)
        address = ("127.0.0.1", silent_server.port)
        sock = context.wrap_socket(
            create_connection(address), server_hostname="localhost", do_handshake_on_connect=False
        )
        given = first_session(server, context)
        with sock, pytest.raises(TimeoutError):
            context.handshake_timeout = 0.01
            sessions._add(key_of(sock, sessions), (given.made + given.lifetime, given))
            before = sessions.count
            sock.do_handshake()
        assert sessions.count == before - 1

    def test_without_it_nothing_is_kept(self, pki, server, version):
        context = client_context(pki, version)
        assert [echo(server.address, context) for _ in range(2)] == [False, False]

    def test_it_may_be_set_and_unset_at_any_time(self, pki, server, sessions, version):
        context = client_context(pki, version)
        reused = []
        for each in (None, sessions, sessions, None, sessions):
            context.client_sessions = each
            reused.append(echo(server.address, context))
        assert reused == [False, False, True, False, True]

    def test_the_class_can_have_it_for_all(self, pki, server, sessions, version, monkeypatch):
        old = client_context(pki, version)
        echo(server.address, old)
        monkeypatch.setattr(greentls.SSLContext, "client_sessions", sessions)
        assert [echo(server.address, each) for each in (old, old, client_context(pki, version))] == [False, True, True]


def first_session(server, context):
    with connect(server.address, context) as sock:
        sock.sendall(b"hello")
        sock.recv(100)
        return sock.session


def key_of(sock, sessions):
    sessions._offer(sock._connection, sock.getpeername(), None)
    return sock._connection.handshake.session_key


def s_server(pki, port, version):
    """openssl's, in a with block: it sends each line back, backwards."""
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki.cert_file, "-key", pki.key_file]
    process = subprocess.Popen(
        tethered(*command, "-rev", "-quiet", "-tls" + version.replace(".", "_")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def listens():
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    class Running:
        def __enter__(self):
            wait_until(listens, "s_server to listen")

        def __exit__(self, *_):
            process.kill()
            process.wait()

    return Running()


def echo_line(address, context):
    with connect(address, context) as sock:
        sock.sendall(b"hello\n")
        assert sock.recv(100) == b"olleh\n"
        return sock.session_reused


class TestTickets:
    def test_one_is_offered_once_by_count(self, pki, serve, sessions):
        """hazard, RFC 8446 C.4: who offers a ticket twice can be recognised."""
        seen = []

        def note(sock, hello):
            seen.extend(each.identity for each in hello.psk_identities)

        address = serve(server_context(pki, client_hello_callback=note))

        def connections():
            return [echo(address, client_context(pki, client_sessions=sessions)) for _ in range(3)]

        jobs = [gevent.spawn(connections) for _ in range(4)]
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
        assert [job.value[1:] for job in jobs] == [[True, True]] * 4
        assert len(seen) >= 8
        assert len(set(seen)) == len(seen)

    def test_those_that_come_late_are_kept_too(self, pki, sessions):
        """A server gives new ones after it has asked for a certificate, whenever that is."""
        client, server = contexts(pki)
        client.client_sessions = sessions
        client.post_handshake_auth = server.post_handshake_auth = True
        client.load_cert_chain(*pki.client)
        server.load_verify_locations(pki.ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
        with connected(client, server) as (here, there):
            before = sessions.count
            there.verify_client_post_handshake()
            there.sendall(b"who are you?")
            assert here.recv(100) == b"who are you?"
            here.sendall(b"a client")
            assert there.recv(100) == b"a client"
            there.sendall(b"welcome")
            assert here.recv(100) == b"welcome"
            assert sessions.count > before > 0
        with connected(client, server) as (here, _):
            assert here.session_reused


@both_versions
class TestMemoryBIOs:
    def test_the_server_name_is_the_key(self, pki, sessions, version):
        client, server = contexts(pki, version)
        client.client_sessions = sessions
        reused = []
        for _ in range(3):
            here, there = sides(client, server)
            handshake(here, there)
            reused.append(here.tls.session_reused)
        assert reused == [False, True, True]

    def test_without_a_name_nothing_is_kept(self, pki, sessions, version):
        from tests.support.ssl_pairs import Side

        client, server = contexts(pki, version)
        client.check_hostname = False
        client.client_sessions = sessions
        for _ in range(2):
            here, there = Side(client), Side(server, server_side=True)
            handshake(here, there)
            assert not here.tls.session_reused
        assert sessions.count == 0


CLIENT = """
import ssl, sys
from gevent.socket import create_connection
import greentls

port, ca, url = sys.argv[1:]
sessions = greentls.ClientSessions(store=greentls.open_store(url))
sessions._stored.timeout = None
for _ in range(2):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    context.client_sessions, context.callback_timeout = sessions, None
    with context.wrap_socket(create_connection(("127.0.0.1", int(port))), server_hostname="localhost") as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        lookup = sock.session_lookup
        print(sock.session_reused, lookup and lookup.outcome)
sessions.close()
"""


class TestSharedStore:
    def client(self, pki, address, url):
        """What the connections of a process of its own say."""
        command = [sys.executable, "-c", textwrap.dedent(CLIENT), str(address[1]), pki.ca_file, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), done.stderr

    def test_a_second_process_resumes_at_once(self, pki, server, memcached, tmp_path):
        (tmp_path / "key").write_bytes(os.urandom(32))
        url = memcached.url(secret_file=tmp_path / "key")
        assert self.client(pki, server.address, url) == (["False miss", "True None"], "")
        assert self.client(pki, server.address, url) == (["True hit", "True None"], "")
        assert int(memcached.stats()["curr_items"]) > 0

    def test_a_store_that_is_down_costs_full_handshakes(self, pki, server, memcached):
        url = memcached.url(insecure=1)
        memcached.kill()
        said, log = self.client(pki, server.address, url)
        assert said == ["False error", "True None"]
        assert "session store memcached: get" in log


def test_early_data_goes_with_what_is_kept(pki, sessions):
    site = Site(pki)
    site.client.client_sessions = sessions
    with site.connected(REQUEST) as (ours, _):
        assert (ours.session_reused, ours.early_data, ours.early_data_accepted) == (False, b"", None)
    before = sessions.count
    with site.connected(REQUEST) as (ours, theirs):
        assert (ours.session_reused, ours.early_data_accepted, theirs.early_data) == (True, True, REQUEST)
        assert sessions.count == before, "one was taken, one has come"
