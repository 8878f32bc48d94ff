"""A gate that looked at the first ClientHello is not passed by a second one, under any strategy, over wrap_bio()."""

from __future__ import annotations

import ssl

import gevent
import pytest

from greentls.core.connection import Connection
from greentls.openssl import connections
from greentls.strategy import STRATEGIES
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import Side, carry, contexts, finished, outcome

PUBLIC, ADMIN = "localhost", "admin.example"


@pytest.fixture(params=["client_hello_callback", "sni_callback"])
def gate(request, pki):
    """(the client's context, the server's, what was asked): "admin" wants a client certificate, "public" does not."""
    client, public = contexts(pki)
    _, admin = contexts(pki)
    admin.load_verify_locations(pki.ca_file)
    admin.verify_mode = ssl.CERT_REQUIRED
    public.set_ecdh_curve("prime256v1")
    admin.set_ecdh_curve("prime256v1")
    asked = []

    def choose(sock, hello_or_name, *_):
        name = getattr(hello_or_name, "server_name", hello_or_name)
        asked.append(name)
        if name == ADMIN:
            sock.context = admin

    setattr(public, request.param, choose)
    return client, public, asked


def first_flight(client):
    """(the client, its first hello): the client offers X25519 first, so it is asked for another."""
    here = Side(client, server_hostname=PUBLIC)
    assert not finished(here.tls.do_handshake)
    return here, here.outgoing.read()


def rename(here):
    """As no honest client does, and with a transcript that is right."""
    connection = here.tls._sslobj._connection
    assert isinstance(connection, Connection)
    connections.set_server_name(connection.ssl, ADMIN)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_over_sockets(gate, strategy):
    client, server, asked = gate
    server.strategy = strategy
    here, hello = first_flight(client)
    ours, theirs = gevent.socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        job = gevent.spawn(outcome, server.wrap_socket, theirs, server_side=True)
        ours.sendall(hello)
        here.incoming.write(ours.recv(65536))
        rename(here)
        assert not finished(here.tls.do_handshake)
        ours.sendall(here.outgoing.read())
        refused = job.get(timeout=PATIENCE)
        assert isinstance(refused, ssl.SSLError)
        assert "another server_name" in str(refused)
        here.incoming.write(ours.recv(65536))
        with pytest.raises(ssl.SSLError, match=r"(?i)illegal.parameter"):
            here.tls.do_handshake()
    assert asked == [PUBLIC]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_over_wrap_bio(gate, strategy):
    client, server, asked = gate
    server.strategy = strategy
    here, hello = first_flight(client)
    there = Side(server, server_side=True)
    there.incoming.write(hello)
    assert not finished(there.tls.do_handshake)
    carry(there, here)
    rename(here)
    assert not finished(here.tls.do_handshake)
    carry(here, there)
    with pytest.raises(ssl.SSLError, match=r"another server_name"):
        there.tls.do_handshake()
    carry(there, here)
    with pytest.raises(ssl.SSLError, match=r"(?i)illegal.parameter"):
        here.tls.do_handshake()
    assert asked == [PUBLIC]
