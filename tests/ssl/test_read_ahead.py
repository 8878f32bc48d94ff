"""SSLContext.read_ahead = False: what the kernel keeps, programs find there by select()."""

from __future__ import annotations

import fcntl
import select
import ssl
import struct
import termios

import gevent
import gevent.socket
import pytest

import greentls.ssl
from greentls.errors import WantRead
from greentls.ssl.plain_socket import PlainSocket
from tests.support.helpers import PATIENCE
from tests.support.pairs import Connection, client_context, server_context
from tests.support.pairs import client as client_connection
from tests.support.ssl_pairs import both_versions, connected, contexts, outcome, record, talk


def in_kernel(sock):
    """Bytes that can be received."""
    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))[0]


def selected(sock):
    return bool(select.select([sock], [], [], 0)[0])


def careful(pki, version="1.3"):
    """(client's context, server's), neither of which reads ahead."""
    pair = contexts(pki, version)
    for context in pair:
        context.read_ahead = False
    return pair


def together(source, *messages):
    """A record for each message, sent at once."""
    records = [record(source, message) for message in messages]
    source._raw.send(b"".join(records))
    return [len(each) for each in records]


@both_versions
def test_the_second_of_two_records_stays_in_the_kernel(pki, version):
    with connected(*careful(pki, version)) as pair:
        for source, target in (pair, reversed(pair)):
            _, second = together(source, b"first", b"second")
            assert target.recv(100) == b"first"
            assert in_kernel(target) == second and selected(target) and not target.pending()
            assert target.recv(100) == b"second"
            assert in_kernel(target) == 0 and not selected(target)


@both_versions
def test_by_default_it_does_not(pki, version):
    with connected(*contexts(pki, version)) as (client, server):
        together(server, b"first", b"second")
        assert client.recv(100) == b"first"
        assert in_kernel(client) == 0 and not selected(client) and client.pending()


def test_records_of_every_size(pki):
    with connected(*careful(pki)) as (client, server):
        messages = [bytes([length & 0xFF]) * length for length in (1, 2, 255, 256, 257, 4096, 16383, 16384)]
        together(server, *messages)
        for message in messages:
            assert client.recv(65536) == message
        assert not in_kernel(client)
        big = bytes(1 << 20)
        sender = gevent.spawn(server.sendall, big)
        received = bytearray()
        while len(received) < len(big):
            received += client.recv(65536)
        assert received == big and sender.get(timeout=PATIENCE) is None


class Trickle:
    """A TLS peer in memory, at the other end of a pair of sockets, whose ciphertext goes a few bytes at a time."""

    def __init__(self, pki, server_side, pieces):
        self.pieces = pieces
        self.tls = Connection(server_context(pki)) if server_side else client_connection(client_context(pki))
        self.sock, self.other = gevent.socket.socketpair()
        self.sock.settimeout(PATIENCE)

    def send(self):
        data = self.tls.data_to_send()
        for start in range(0, len(data), self.pieces):
            self.sock.sendall(data[start : start + self.pieces])
            gevent.sleep(0)  # whoever waits for the rest looks at these first

    def handshake(self):
        while not self.tls.established:
            try:
                self.tls.do_handshake()
            except WantRead:
                self.send()
                self.tls.receive_data(self.sock.recv(65536))
        self.send()

    def echo(self):
        try:
            self.handshake()
            while True:
                try:
                    data = self.tls.read()
                    if not data:
                        break
                    self.tls.write(data)
                    self.send()
                except WantRead:
                    self.tls.receive_data(self.sock.recv(65536))
        finally:
            self.sock.close()


@pytest.mark.parametrize("pieces", [1, 3, 5, 6, 100])
@pytest.mark.parametrize("side", ["client", "server"])
def test_records_in_pieces(pki, side, pieces):
    client, server = careful(pki)
    peer = Trickle(pki, side == "client", pieces)
    job = gevent.spawn(peer.echo)
    peer.other.settimeout(PATIENCE)
    if side == "client":
        sock = client.wrap_socket(peer.other, server_hostname="localhost")
    else:
        server.client_hello_callback = lambda sock, hello: None  # reads the hello first
        sock = server.wrap_socket(peer.other, server_side=True)
    for message in (b"a", b"b" * 300, b"c" * 5):
        sock.sendall(message)
        received = b""
        while len(received) < len(message):
            received += sock.recv(1000)
        assert received == message
    sock.close()
    job.get(timeout=PATIENCE)


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 20])
def test_half_a_record_after_a_timeout_a_kill_and_without_waiting(pki, cut):
    """However the wait for the rest ends, whoever comes next goes on from there."""
    with connected(*careful(pki)) as (client, server):
        whole = record(server, b"whole")
        server._raw.send(whole[:cut])
        client.settimeout(0.0)
        assert isinstance(outcome(client.recv, 100), ssl.SSLWantReadError)
        assert not in_kernel(client) and not selected(client) and not client.pending()
        client.settimeout(0.001)
        assert isinstance(outcome(client.recv, 100), TimeoutError)
        client.settimeout(None)
        waiting = gevent.spawn(client.recv, 100)
        gevent.sleep(0)
        waiting.kill()
        server._raw.send(whole[cut:])
        assert client.recv(100) == b"whole"
        talk(client, server)


@pytest.mark.parametrize("cut", [0, 1, 5, 20])
def test_the_end_inside_a_record(pki, cut):
    with connected(*careful(pki)) as (client, server):
        client.suppress_ragged_eofs = False
        server._raw.send(record(server, b"whole")[:cut])
        server._raw.shutdown(1)
        assert isinstance(outcome(client.recv, 100), ssl.SSLEOFError)


def test_what_is_behind_close_notify_stays_in_the_kernel(pki):
    with connected(*careful(pki)) as (client, server):
        server._connection.shutdown()
        server._raw.send(server._connection.data_to_send() + b"in clear")
        plain = client.unwrap()
        assert plain.ahead == b"" and in_kernel(plain) == len(b"in clear") and selected(plain)
        assert plain.recv(100) == b"in clear"
        plain.close()


@pytest.mark.parametrize("cut", [1, 4, 5, 100, None])
def test_ciphertext_that_came_with_the_socket_may_end_inside_a_record(pki, cut):
    client, server = careful(pki)
    here, there = gevent.socket.socketpair()
    job = gevent.spawn(client.wrap_socket, there, server_hostname="localhost")
    here.settimeout(PATIENCE)
    opening = PlainSocket(here.family, here.type, here.proto, fileno=here.detach())
    opening.ahead = opening.recv(65536 if cut is None else cut)
    with server.wrap_socket(opening, server_side=True) as sock, job.get(timeout=PATIENCE) as other:
        talk(other, sock)
        _, second = together(other, b"first", b"second")
        assert sock.recv(100) == b"first" and in_kernel(sock) == second
        assert sock.recv(100) == b"second"


def test_what_is_passed_through_has_its_hello_ahead_and_no_more(pki):
    _, server = careful(pki)
    one = client_connection(client_context(pki))
    with pytest.raises(WantRead):
        one.do_handshake()
    hello = one.data_to_send()
    here, there = gevent.socket.socketpair()
    there.sendall(hello + b"what follows")
    server.client_hello_callback = lambda sock, hello: sock.pass_through()
    plain = server.wrap_socket(here, server_side=True)
    assert plain.ahead == hello and in_kernel(plain) == len(b"what follows")
    assert plain.recv(65536) == hello and plain.recv(100) == b"what follows"
    plain.close()
    there.close()


def test_it_is_read_when_a_socket_is_wrapped(pki):
    client, server = contexts(pki)
    assert client.read_ahead is greentls.ssl.create_default_context().read_ahead is True
    with connected(client, server) as (sock, other):
        client.read_ahead = False
        together(other, b"first", b"second")
        assert sock.recv(100) == b"first" and in_kernel(sock) == 0
