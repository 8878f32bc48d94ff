"""How unwrap() ends where the peer does not end TLS as it should: as the standard library's own does, side by side."""

from __future__ import annotations

import socket
import ssl
import struct

import gevent
import pytest

import greentls.ssl
from tests.support.clients import in_thread
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import both_versions, carry, contexts, finished, outcome, pair

EITHER = pytest.mark.parametrize("module", [greentls.ssl, ssl], ids=["ours", "stdlib"])
DATA_BEHIND = (ssl.SSLError, "APPLICATION_DATA_AFTER_CLOSE_NOTIFY")
NO_CLOSE_NOTIFY = (ssl.SSLEOFError, "UNEXPECTED_EOF_WHILE_READING")


@pytest.fixture
def tcp():
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends = socket.create_connection(listener.getsockname(), PATIENCE), listener.accept()[0]
    ends[1].settimeout(PATIENCE)
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def client(tcp, pki, version, module):
    """A client's SSLSocket of the module, and the standard library's server of it."""
    here, there = tcp
    server = contexts(pki, version, ssl)[1]
    wrapping = gevent.spawn(in_thread, server.wrap_socket, there, server_side=True)
    here = blocking(contexts(pki, version, module)[0].wrap_socket, here, server_hostname="localhost")
    there = wrapping.get(timeout=PATIENCE)
    with here, there:
        here.server = there
        in_thread(there.sendall, b"hello")
        assert blocking(here.recv, 100) == b"hello"
        yield here


def blocking(method, *arguments, **options):
    """Calls it here if it waits as greenlets do, otherwise in a thread."""
    ours = type(method.__self__).__module__.startswith("greentls.")
    return method(*arguments, **options) if ours else in_thread(method, *arguments, **options)


def hang_up(server):
    socket.socket(fileno=server.detach()).close()


def stop_sending(server):
    server.shutdown(socket.SHUT_WR)  # says no close_notify in the standard library


def reset(server):
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hang_up(server)


def speak(server):
    server.sendall(b"one more thing")


def speak_and_hang_up(server):
    speak(server)
    hang_up(server)


@both_versions
@EITHER
class TestSockets:
    @pytest.mark.parametrize(
        ("act", "error"),
        [
            (hang_up, NO_CLOSE_NOTIFY),
            (stop_sending, NO_CLOSE_NOTIFY),
            (reset, (ConnectionResetError, None)),
            (speak, DATA_BEHIND),
            (speak_and_hang_up, DATA_BEHIND),
        ],
    )
    def test_an_end_that_is_none(self, client, act, error):
        act(client.server)
        failed = outcome(blocking, client.unwrap)
        assert (type(failed), getattr(failed, "reason", None)) == error
        if error is NO_CLOSE_NOTIFY:
            assert (failed.errno, failed.library) == (ssl.SSL_ERROR_EOF, "SSL")
            assert "EOF occurred in violation of protocol" in failed.strerror

    def test_a_wait_that_is_not_wanted(self, client):
        client.setblocking(False)
        for _ in range(2):
            want = outcome(client.unwrap)
            assert (type(want), want.errno, want.reason, want.library) == (ssl.SSLWantReadError, 2, None, None)
        client.settimeout(0.01)
        late = outcome(blocking, client.unwrap)
        assert (type(late), str(late)) == (TimeoutError, "The read operation timed out")

    def test_the_socket_goes_on_in_plaintext_with_flags(self, client):
        ending = gevent.spawn(in_thread, client.server.unwrap)
        plain, server = blocking(client.unwrap), ending.get(timeout=PATIENCE)
        in_thread(server.sendall, b"in clear")
        buffer = bytearray(5)
        assert blocking(client.recv, 2, socket.MSG_PEEK) == b"in"
        assert blocking(client.recv_into, buffer, 2, socket.MSG_PEEK) == 2
        assert (blocking(client.recv, 100), buffer) == (b"in clear", b"in\0\0\0")
        in_thread(server.sendall, b"more")
        assert blocking(client.recv_into, buffer) == 4
        assert blocking(client.send, b"a", socket.MSG_NOSIGNAL) == blocking(client.send, b"b") == 1
        blocking(client.sendall, b"c", socket.MSG_NOSIGNAL)
        blocking(client.sendall, b"d")
        with server.makefile("rb") as file:
            assert in_thread(file.read, 4) == b"abcd"
        for each in (plain, server):
            each.close()

    def test_suppress_ragged_eofs_is_for_reading(self, client):
        hang_up(client.server)
        assert blocking(client.recv, 1) == b""
        assert blocking(client.recv_into, bytearray(1)) == 0
        client.suppress_ragged_eofs = False
        assert isinstance(outcome(blocking, client.recv, 1), ssl.SSLEOFError)


@both_versions
@EITHER
class TestMemoryBIOs:
    def test_an_end_that_is_none(self, pki, version, module):
        client, _ = pair(pki, version, (module, module))
        assert not finished(client.tls.unwrap)
        client.incoming.write_eof()
        failed = outcome(client.tls.unwrap)
        assert (type(failed), failed.reason) == NO_CLOSE_NOTIFY

    @pytest.mark.parametrize("ended", [False, True], ids=["goes on", "ends"])
    def test_data_before_it(self, pki, version, module, ended):
        client, server = pair(pki, version, (module, module))
        server.tls.write(b"one more thing")
        assert not finished(server.tls.unwrap)
        carry(server, client)
        client.incoming.write(b"in clear")
        if ended:
            client.incoming.write_eof()
        failed = outcome(client.tls.unwrap)
        assert (type(failed), failed.reason) == DATA_BEHIND
        assert client.incoming.read().endswith(b"in clear")
