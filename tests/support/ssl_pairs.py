"""Both ends of a connection, over a pair of sockets or over MemoryBIOs."""

from __future__ import annotations

import ssl
from contextlib import contextmanager

import gevent
import gevent.socket
import pytest

import greentls.ssl
from greentls.openssl.library import lib
from tests.support.helpers import PATIENCE
from tests.support.pairs import VERSIONS

both_versions = pytest.mark.parametrize("version", VERSIONS)
# (the client's, the server's); one of the two is ours
implementations = pytest.mark.parametrize(
    "modules",
    [(greentls.ssl, greentls.ssl), (greentls.ssl, ssl), (ssl, greentls.ssl)],
    ids=["both", "client", "server"],
)
TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def contexts(pki, version="1.3", ssl=greentls.ssl):
    """(client's, server's) of one version, by the ssl module given; the client trusts the test CA."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(pki.ca_file)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.cert_file, pki.key_file)
    for context in (client, server):
        context.minimum_version = context.maximum_version = TLS_VERSIONS[version]
    return client, server


def outcome(function, *arguments, **options):
    """What it returns or raises."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        return error


def handshakes(client, server, **options):
    """What wrap_socket() returns or raises to the client, and to the server. The one that fails ends the transport."""
    here, there = gevent.socket.socketpair()
    for sock in (here, there):
        sock.settimeout(PATIENCE)
    options.setdefault("server_hostname", "localhost")
    jobs = [
        gevent.spawn(outcome, client.wrap_socket, here, **options),
        gevent.spawn(outcome, server.wrap_socket, there, server_side=True),
    ]
    return [job.get(timeout=PATIENCE) for job in jobs]


def failure(client, server, **options):
    """What wrap_socket() raises to the client, and to the server; a side that does not fail is closed."""
    ends = handshakes(client, server, **options)
    for end in ends:
        if not isinstance(end, Exception):
            end.close()
    return ends


@contextmanager
def connected(client, server, **options):
    """(client's SSLSocket, server's), after their handshakes, and once the client has read the tickets."""
    ends = handshakes(client, server, **options)
    try:
        for end in ends:
            if isinstance(end, Exception):
                raise end
        talk(*ends)
        yield ends
    finally:
        for end in ends:
            if not isinstance(end, Exception):
                end.close()


def talk(client, server):
    """Both ways, so that each side has read what the other one sent until now."""
    for source, target in ((client, server), (server, client)):
        source.sendall(b"hello")
        assert target.recv(100) == b"hello"


# -- over MemoryBIOs ---------------------------------------------------------------------------------------------------


class Side:
    """An SSLObject between its two BIOs."""

    def __init__(self, context, **options):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)


def sides(client, server, **options):
    return Side(client, server_hostname="localhost", **options), Side(server, server_side=True)


def carry(source, target):
    target.incoming.write(source.outgoing.read())


def finished(operation, *arguments):
    """False if it wants to read."""
    try:
        operation(*arguments)
    except ssl.SSLWantReadError:
        return False
    return True


def handshake(client, server):
    """Until both are done; the client has read the tickets that came behind it."""
    done = [False, False]
    while not all(done):
        done[0] = finished(client.tls.do_handshake)
        carry(client, server)
        done[1] = finished(server.tls.do_handshake)
        carry(server, client)
    assert not finished(client.tls.read)


def pair(pki, version="1.3", modules=(greentls.ssl, greentls.ssl), **options):
    """(client, server) after their handshake."""
    client, server = (contexts(pki, version, module)[side] for side, module in enumerate(modules))
    ends = sides(client, server, **options)
    handshake(*ends)
    return ends


def record(sock, data):
    """A record with this data, from the socket to its peer, that was not sent."""
    connection = sock._connection
    operation = connection
    assert operation.run("write", lib.SSL_write, (operation.ssl, data, len(data))) == len(data)
    return connection.data_to_send()
