"""Early data between greentls and programs of others; copies of it at another worker of the fleet."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest
from gevent.socket import create_connection

import greentls
from tests.interop.foreign_programs import Program
from tests.support.clients import in_thread
from tests.support.helpers import PATIENCE

WORKER = Path(__file__).with_name("early_data_worker.py")
REQUEST = b"GET /early\n"
HANDSHAKE, APPLICATION_DATA = 22, 23


class Tap:
    """Between a client and a server. Keeps what the client sends, and lets only its first flight pass: a ClientHello
    and one record of early data. The rest, its Finished, waits for release()."""

    def __init__(self, port):
        self.first_flight = b""
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(port,), daemon=True)
        self._thread.start()

    def release(self):
        self._released.set()

    def _run(self, port):
        with (
            self._listener.accept()[0] as client,
            socket.create_connection(("127.0.0.1", port), PATIENCE) as server,
            client.makefile("rb") as file,
            contextlib.suppress(OSError),
        ):
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            early = False
            while head := file.read(5):
                record = head + file.read(int.from_bytes(head[3:], "big"))
                if early:
                    assert self._released.wait(PATIENCE)
                else:
                    self.first_flight += record
                    early = head[0] == APPLICATION_DATA
                server.sendall(record)
            server.shutdown(socket.SHUT_WR)
            back.join(PATIENCE)

    @staticmethod
    def _pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def close(self):
        self.release()
        self._listener.close()
        self._thread.join(PATIENCE)


@pytest.fixture
def tap():
    taps = []

    def tap(port):
        taps.append(Tap(port))
        return taps[-1]

    yield tap
    for each in taps:
        in_thread(each.close)


@pytest.fixture
def worker(pki, memcached, tmp_path):
    """worker() starts one more; all have one memcached, and wait for it for so many seconds."""
    secret = tmp_path / "fleet.key"
    secret.write_bytes(os.urandom(32))

    def start(seconds=PATIENCE):
        store = memcached.url(secret_file=secret)
        program = Program(sys.executable, WORKER, pki.cert_file, pki.key_file, store, seconds)
        program.port = int(program.wait_for(r"^listening on (\d+)\n")[1])
        return program

    return start


@pytest.fixture
def s_client(pki, tmp_path):
    """s_client(port, ...) is running; with early=True it resumes the session of the one before."""

    def start(port, *options, early=False):
        session = tmp_path / "session.pem"
        if early:
            (tmp_path / "request").write_bytes(REQUEST)
            options = ("-sess_in", session, "-early_data", tmp_path / "request", *options)
        else:
            options = ("-sess_out", session, *options)
        return Program(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost"),
            *("-CAfile", pki.ca_file, "-verify_return_error", *options),
        )

    return start


def acquaint(s_client, port, *options):
    """Leaves a session behind that allows early data."""
    client = s_client(port, *options)
    client.write(b"hello\n").wait_for("^answer to hello")
    assert client.finish() == 0, client.text


def test_s_client_is_answered_before_its_finished_and_a_copy_is_refused_by_the_other_worker(worker, s_client, tap):
    first, other = worker(), worker()
    acquaint(s_client, first.port)
    between = tap(first.port)
    client = s_client(between.port, early=True)
    first.wait_for(r"^guard True\nconnection TLSv1\.3 True finished False\nread GET /early finished False$")
    client.wait_for("^answer to GET /early$")
    assert "finished True" not in first.text.partition("read GET /early")[2]

    def replay(port):
        """The same bytes again. The server's flight comes back, and it waits for a Finished that nobody can make."""
        with create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(between.first_flight)
            assert sock.recv(1)[0] == HANDSHAKE

    for each in (other, first):
        replay(each.port)
        each.wait_for(r"^guard False\nfailed \w+$")
    assert "connection" not in other.text
    assert first.text.count("GET /early") == 1

    between.release()
    first.wait_for("^read GET /early finished False\n(.*\n)*finished True$")
    assert client.finish() == 0
    assert "Early data was accepted" in client.text
    assert "Reused, TLSv1.3" in client.text


def test_the_other_worker_takes_early_data_too(worker, s_client):
    first, other = worker(), worker()
    acquaint(s_client, first.port)
    client = s_client(other.port, early=True)
    client.wait_for("^answer to GET /early$")
    assert client.finish() == 0
    assert "Early data was accepted" in client.text
    other.wait_for("^guard True$")


def test_without_its_memcached_a_worker_takes_no_early_data_and_goes_on(worker, s_client, memcached, pki, tmp_path):
    port = worker(seconds=1).port
    acquaint(s_client, port)
    memcached.pause()  # neither the session nor an answer of the guard
    try:
        client = s_client(port, early=True)
        client.write(b"GET /late\n").wait_for("^answer to GET /late")
        assert client.finish() == 0
        assert "Early data was rejected" in client.text
    finally:
        memcached.resume()


def test_tls_12_clients_notice_nothing(worker, s_client):
    program = worker()
    for _ in range(2):
        client = s_client(program.port, "-tls1_2")
        client.write(b"hello\n").wait_for("^answer to hello")
        assert client.finish() == 0
    program.wait_for(r"connection TLSv1\.2 None finished True")


def test_gnutls_cli(worker, pki, tmp_path):
    program = worker()
    (tmp_path / "request").write_bytes(REQUEST)
    client = Program(
        *("gnutls-cli", "--port", program.port, "--x509cafile", pki.ca_file, "--sni-hostname", "localhost"),
        *("--verify-hostname", "localhost", "--resume", "--waitresumption"),
        *(f"--earlydata={tmp_path / 'request'}", "127.0.0.1"),
    )
    program.wait_for(r"^guard True\nconnection TLSv1\.3 True finished False\nread GET /early finished False$")
    client.wait_for("^answer to GET /early$")
    assert client.finish() == 0


# -- the client's side -------------------------------------------------------------------------------------------------


@pytest.fixture
def s_server(pki):
    """s_server(...) listens; what it is told on its standard input it sends."""

    def start(*options):
        program = Program(
            *("openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", pki.cert_file, "-key", pki.key_file),
            *("-early_data", *options),
        )
        program.port = int(program.wait_for(r"^ACCEPT 127\.0\.0\.1:(\d+)\n")[1])
        return program

    return start


@pytest.fixture
def visit(pki):
    """visit(server, session, early): the client's socket after its handshake."""
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.ca_file)
    visits = []

    def visit(server, session=None, early=b""):
        raw = create_connection(("127.0.0.1", server.port), PATIENCE)
        sock = context.wrap_socket(raw, server_hostname="localhost", session=session, do_handshake_on_connect=False)
        visits.append(sock)
        if early:
            sock.early_data = early
        sock.do_handshake()
        return sock

    yield visit
    for sock in visits:
        sock.close()


def session_of(server, visit):
    sock = visit(server)
    server.write(b"welcome\n")
    assert sock.recv(100) == b"welcome\n"
    assert sock.early_data_accepted is None
    session = sock.session
    sock.close()
    return session


def test_s_server_takes_early_data_once_and_gets_it_again_when_it_does_not(s_server, visit):
    server = s_server()
    session = session_of(server, visit)
    assert session.max_early_data == 16384
    sock = visit(server, session, REQUEST)
    server.wait_for("^GET /early$")
    server.wait_for("^End of early data$")
    assert sock.early_data_accepted is True
    assert sock.session_reused
    sock.close()

    sock = visit(server, session, REQUEST)  # OpenSSL's server takes a ticket once
    assert sock.early_data_accepted is False
    sock.sendall(b"again: " + REQUEST)
    server.wait_for("^again: GET /early$")
    assert server.text.count("GET /early") == 2


def test_a_longer_early_data_than_the_session_allows_is_refused_before_anything_is_sent(s_server, visit):
    server = s_server("-max_early_data", 10)
    session = session_of(server, visit)
    with pytest.raises(ValueError, match="11 bytes of early data; the session allows 10"):
        visit(server, session, REQUEST)
