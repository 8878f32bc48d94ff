"""SSLSocket as a socket: connect() and accept() before there is TLS, sendfile(), the peer that closed too early."""

from __future__ import annotations

import errno
import functools
import os
import socket
import ssl
import struct

import gevent
import gevent.socket
import pytest
from helpers import PATIENCE, free_port, wait_until
from ssl_pairs import both_versions, connected, contexts, outcome, talk

import greentls.ssl


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
            with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number"):
                server.wrap_socket(here, server_side=True)
