"""SSLSocket as a socket: connect() and accept() before there is TLS, sendfile(), the peer that closed too early."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import ssl
import struct

import gevent
import gevent.socket
import gevent.ssl
import pytest
from gevent.server import StreamServer
from gevent.socket import cancel_wait_ex

import greentls.ssl
from tests.support.helpers import PATIENCE, free_port, wait_until
from tests.support.ssl_pairs import both_versions, connected, contexts, outcome, talk


@pytest.fixture
def listener(pki):
    """listener(version): an SSLSocket that listens."""
    opened = []

    def listen(version="1.3", **options):
        raw = gevent.socket.socket()
        raw.settimeout(PATIENCE)
        sock = contexts(pki, version)[1].wrap_socket(raw, server_side=True, **options)
        opened.append(sock)
        sock.bind(("127.0.0.1", 0))
        sock.listen(5)
        return sock

    yield listen
    for sock in opened:
        sock.close()


def unconnected(pki, version="1.3", **options):
    raw = gevent.socket.socket()
    raw.settimeout(PATIENCE)
    return contexts(pki, version)[0].wrap_socket(raw, server_hostname="localhost", **options)


@both_versions
class TestConnectAndAccept:
    @pytest.mark.parametrize("connect", ["connect", "connect_ex"])
    def test_the_handshake_comes_with_them(self, pki, listener, version, connect):
        listening = listener(version)
        accepting = gevent.spawn(listening.accept)
        with unconnected(pki, version) as sock:
            assert sock.version() is None
            assert not getattr(sock, connect)(listening.getsockname())
            assert sock.version() == f"TLSv{version}"
            peer, address = accepting.get(timeout=PATIENCE)
            with peer:
                assert type(peer) is greentls.ssl.SSLSocket
                assert (peer.server_side, address) == (True, sock.getsockname())
                talk(sock, peer)

    def test_unless_it_shall_not(self, pki, listener, version):
        listening = listener(version, do_handshake_on_connect=False)
        accepting = gevent.spawn(listening.accept)
        with unconnected(pki, version, do_handshake_on_connect=False) as sock:
            sock.connect(listening.getsockname())
            with accepting.get(timeout=PATIENCE)[0] as peer:
                assert sock.version() is peer.version() is None
                job = gevent.spawn(peer.do_handshake)
                sock.do_handshake()
                job.get(timeout=PATIENCE)
                talk(sock, peer)

    def test_a_second_connect_is_refused(self, pki, listener, version):
        client, server = contexts(pki, version)
        with connected(client, server) as (here, there):
            with pytest.raises(ValueError, match="already-connected"):
                here.connect(("127.0.0.1", 1))
            with pytest.raises(ValueError, match="server-side"):
                there.connect(("127.0.0.1", 1))

    def test_nobody_there(self, pki, version):
        with unconnected(pki, version) as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(("127.0.0.1", free_port()))
        with unconnected(pki, version) as sock:
            assert sock.connect_ex(("127.0.0.1", free_port())) == errno.ECONNREFUSED

    def test_before_it_is_connected_there_is_nothing_to_say(self, pki, version):
        with unconnected(pki, version) as sock:
            for call in (sock.do_handshake, sock.getpeercert, lambda: sock.recv(1), lambda: sock.send(b"x")):
                with pytest.raises(OSError) as caught:
                    call()
                assert caught.value.errno == errno.ENOTCONN
            with pytest.raises(ValueError, match="No SSL wrapper"):
                sock.unwrap()


def waiting(job):
    """The greenlet has come to its wait, in the hub."""
    job.start()
    gevent.idle()
    assert not job.dead


class TestWhoeverWaitsInAcceptOrConnect:
    """close() and detach() wake it with EBADF: it must not wait for a descriptor that is somebody else's by now."""

    @pytest.mark.parametrize("end", ["close", "detach"])
    def test_a_listener_that_is_closed(self, listener, end):
        listening = listener()
        address = listening.getsockname()
        job = gevent.Greenlet(outcome, listening.accept)
        waiting(job)
        descriptor = getattr(listening, end)() or -1
        error = job.get(timeout=PATIENCE)
        assert (type(error), error.errno) == (cancel_wait_ex, errno.EBADF)
        if descriptor != -1:
            with socket.socket(fileno=descriptor) as still:
                assert still.getsockname() == address

    def test_another_listener_with_the_same_descriptor_keeps_its_connections(self, listener):
        listening = listener()
        descriptor = listening.fileno()
        job = gevent.Greenlet(outcome, listening.accept)
        waiting(job)
        listening.close()
        gevent.idle()
        with contextlib.ExitStack() as opened:
            while (other := opened.enter_context(socket.create_server(("127.0.0.1", 0)))).fileno() != descriptor:
                assert len(opened._exit_callbacks) < 100
            with socket.create_connection(other.getsockname()) as client:
                assert job.get(timeout=PATIENCE).errno == errno.EBADF
                accepted, address = other.accept()
                accepted.close()
                assert address == client.getsockname()

    @pytest.mark.parametrize("end", ["close", "detach"])
    @pytest.mark.parametrize("connect", ["connect", "connect_ex"])
    def test_a_socket_that_is_closed_while_it_connects(self, pki, full, connect, end):
        sock = unconnected(pki)
        job = gevent.Greenlet(outcome, getattr(sock, connect), full)
        waiting(job)
        descriptor = getattr(sock, end)() or -1
        answer = job.get(timeout=PATIENCE)
        assert answer == errno.EBADF if connect == "connect_ex" else answer.errno == errno.EBADF
        assert sock.fileno() == -1
        if descriptor != -1:
            os.close(descriptor)

    def test_closed_before(self, pki, listener):
        listening, sock = listener(), unconnected(pki)
        address = listening.getsockname()
        for each in (listening, sock):
            each.close()
        for call in (listening.accept, functools.partial(sock.connect, address)):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EBADF
        assert sock.connect_ex(address) == errno.EBADF

    def test_what_is_connected_accepts_nothing(self, pki):
        with connected(*contexts(pki)) as (here, _), pytest.raises(OSError) as caught:
            here.accept()
        assert caught.value.errno == errno.EINVAL

    def test_without_waiting(self, pki, listener):
        listening = listener()
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()
        with unconnected(pki) as sock:
            sock.settimeout(0)
            with pytest.raises(BlockingIOError):
                sock.connect(listening.getsockname())
            gevent.socket.wait_write(sock.fileno(), PATIENCE)
            sock.settimeout(PATIENCE)
            listening.settimeout(PATIENCE)
            accepting = gevent.spawn(listening.accept)
            sock.do_handshake()
            with accepting.get(timeout=PATIENCE)[0] as peer:
                talk(sock, peer)


class TestAContextOfTheOtherSide:
    """It may wrap what listens: wrap_socket() asks for a side only once there is a connection."""

    @pytest.mark.parametrize("server_side", [False, True])
    def test_accept_serves_tls(self, pki, server_side):
        client, server = contexts(pki)
        with server.wrap_socket(gevent.socket.create_server(("127.0.0.1", 0)), server_side=server_side) as listening:
            assert listening.server_side is server_side
            assert listening.version() is None
            accepting = gevent.spawn(listening.accept)
            raw = gevent.socket.create_connection(listening.getsockname(), PATIENCE)
            sock = client.wrap_socket(raw, server_hostname="localhost")
            with sock, accepting.get(timeout=PATIENCE)[0] as peer:
                assert peer.server_side is True
                talk(sock, peer)

    @pytest.mark.parametrize("connect", ["connect", "connect_ex"])
    def test_connect_is_refused(self, pki, connect):
        _, server = contexts(pki)
        with server.wrap_socket(gevent.socket.socket()) as sock, pytest.raises(ssl.SSLError, match="client socket"):
            getattr(sock, connect)(("127.0.0.1", 1))

    def test_accept_with_a_clients_context_is_refused(self, pki):
        client, _ = contexts(pki)
        client.check_hostname = False
        with client.wrap_socket(gevent.socket.create_server(("127.0.0.1", 0)), server_side=True) as listening:
            somebody = socket.create_connection(listening.getsockname())
            with somebody, pytest.raises(ssl.SSLError, match="server socket"):
                listening.accept()

    def test_what_is_connected_is_refused_at_once(self, pki):
        _, server = contexts(pki)
        here, there = socket.socketpair()
        with there, pytest.raises(ssl.SSLError, match="client socket"):
            server.wrap_socket(here)


@both_versions
class TestSendfile:
    DATA = os.urandom(500_000)

    @pytest.mark.parametrize(("offset", "count"), [(0, None), (1000, None), (1000, 300_000), (0, 1), (499_999, 5)])
    def test_a_file_arrives(self, pki, tmp_path, version, offset, count):
        path = tmp_path / "file"
        path.write_bytes(self.DATA)
        expected = self.DATA[offset:][:count]
        with connected(*contexts(pki, version)) as (here, there), path.open("rb") as file:
            job = gevent.spawn(here.sendfile, file, offset, count)
            got = bytearray()
            while len(got) < len(expected):
                got += there.recv(65536)
            assert got == expected
            assert job.get(timeout=PATIENCE) == len(expected)
            assert file.tell() == offset + len(expected)

    def test_a_file_in_text_and_a_socket_without_waiting_are_refused(self, pki, tmp_path, version):
        path = tmp_path / "file"
        path.write_bytes(b"text")
        with connected(*contexts(pki, version)) as (here, _):
            with path.open() as file, pytest.raises(ValueError, match="binary mode"):
                here.sendfile(file)
            here.setblocking(False)
            with path.open("rb") as file, pytest.raises(ValueError, match="non-blocking"):
                here.sendfile(file)


class TestDataBeforeTheHandshake:
    """CVE-2023-40217: what a peer sent in clear before it closed must not come out as if it had been through TLS."""

    @pytest.fixture
    def closed_early(self):
        """A socket whose peer reset the connection; what it sent lies in the receive buffer."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            sock, _ = listening.accept()
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN
        peer.close()
        wait_until(lambda: isinstance(outcome(sock.getpeername), OSError), "the reset to come")
        yield sock
        sock.close()

    @pytest.mark.parametrize("side", ["client", "server"])
    @pytest.mark.parametrize("handshake", [True, False])
    def test_it_is_refused(self, pki, closed_early, side, handshake):
        client, server = contexts(pki)
        wrap = {
            "client": functools.partial(client.wrap_socket, server_hostname="localhost"),
            "server": functools.partial(server.wrap_socket, server_side=True),
        }[side]
        with pytest.raises(ssl.SSLError) as caught:
            wrap(closed_early, do_handshake_on_connect=handshake)
        assert caught.value.errno == errno.ENOTCONN
        assert caught.value.reason == "Closed before TLS handshake with data in recv buffer."
        assert caught.value.library is None
        assert closed_early.fileno() == -1, "nobody reads it past TLS"

    def test_data_of_a_peer_that_is_still_there_is_no_tls(self, pki):
        _, server = contexts(pki)
        here, there = socket.socketpair()
        with there:
            there.sendall(b"in clear")
            with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record.layer.failure"):
                server.wrap_socket(here, server_side=True)


class TestWhatOthersReachFor:
    """Private attributes of the standard library's and gevent's sockets: the table in docs/dropin.rst."""

    def test_a_file_that_somebody_else_has_made(self, pki):
        """As urllib3's SSLTransport.makefile() counts it."""
        with connected(*contexts(pki)) as (here, there):
            here._io_refs += 1
            assert not here.closed
            here.close()
            assert here._closed
            assert here.closed
            assert here._sslobj is not None, "there is TLS still, for the file"
            there.sendall(b"data")
            assert here.read(100) == b"data"
            here._decref_socketios()
            assert here._sslobj is None
            assert here.fileno() == -1
            assert there.recv(1) == b""

    def test_whether_there_is_tls(self, pki):
        with unconnected(pki) as sock:
            assert (sock._sslobj, sock._connected, sock._closed) == (None, False, False)
        assert sock._closed
        with pytest.raises(ValueError, match="No SSL wrapper"):
            sock.verify_client_post_handshake()
        with connected(*contexts(pki)) as (here, _):
            assert (here._sslobj, here._connected, here._closed) == (here, True, False)
        assert (here._sslobj, here._connected, here._closed) == (None, True, True)

    def test_gevents_server_would_serve_in_clear_and_takes_no_wrapped_listener(self, listener):
        with pytest.raises(TypeError, match="Expected a regular socket"):
            StreamServer(listener(), print)


@pytest.mark.parametrize(
    ("method", "arguments"),
    {
        "recvfrom": (1,),
        "recvfrom_into": (bytearray(1),),
        "sendto": (b"x", ("127.0.0.1", 1)),
        "recvmsg": (1,),
        "recvmsg_into": ([bytearray(1)],),
        "sendmsg": ([b"x"],),
        "dup": (),
    }.items(),
)
def test_what_tls_does_not_have(pki, method, arguments):
    """hazard: what passes TLS by sends plaintext, or takes ciphertext out of the stream."""
    refused = []
    for module in (greentls.ssl, gevent.ssl):
        with connected(*contexts(pki, ssl=module)) as (sock, other):
            refused.append(outcome(getattr(sock, method), *arguments))
            sock.sendall(b"as before")
            assert other.recv(100) == b"as before"
    ours, theirs = refused
    assert isinstance(ours, ValueError | NotImplementedError)
    assert type(ours) is type(theirs)


def test_options_are_the_descriptors(pki):
    with connected(*contexts(pki)) as (sock, _):
        assert sock.getblocking()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 4) == (1).to_bytes(4, "little")
        sock.setblocking(False)
        assert not sock.getblocking()
        with pytest.raises(ValueError, match="out of range"):
            sock.settimeout(-1)
