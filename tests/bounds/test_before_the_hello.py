"""What a server keeps for a peer that has not said its ClientHello, where it reads that itself."""

from __future__ import annotations

import socket
import ssl

import gevent
import pytest

import greentls
from greentls.openssl.pump import RECEIVE_SIZE
from greentls.wire.handshake import HEADER_SIZE, MAX_HELLO_BYTES
from greentls.wire.record import MAX_HELLO_RECORDS, RECORD_HEADER_SIZE
from greentls.wire.registry import ContentType
from tests.support.helpers import PATIENCE

MOST_KEPT = HEADER_SIZE + MAX_HELLO_BYTES + MAX_HELLO_RECORDS * RECORD_HEADER_SIZE + RECEIVE_SIZE


def record(content_type, fragment):
    return bytes((content_type, 3, 1)) + len(fragment).to_bytes(2, "big") + fragment


ENDLESS_HELLO = b"\1\0\xff\xff" + bytes(0xFFFF - 1)  # its last byte does not come

OPENINGS = {
    "application data": record(ContentType.application_data, bytes(16384)) * 64,
    "small application data": record(ContentType.application_data, b"x") * 30000,
    "empty application data": record(ContentType.application_data, b"") * 30000,
    "alerts": record(ContentType.alert, b"\1\0") * 30000,
    "ChangeCipherSpecs": record(ContentType.change_cipher_spec, b"\1") * 30000,
    "heartbeats": record(ContentType.heartbeat, bytes(16384)) * 64,
    "empty handshake records": record(ContentType.handshake, b"") * 30000,
    "a hello in crumbs": b"".join(record(ContentType.handshake, ENDLESS_HELLO[n : n + 1]) for n in range(30000)),
    "a hello, then data in the middle of it": record(ContentType.handshake, ENDLESS_HELLO[:5000])
    + record(ContentType.application_data, bytes(16384)) * 64,
    "a longer one than is taken": record(ContentType.handshake, b"\1\2\0\0" + bytes(16380)) * 64,
    "another message": record(ContentType.handshake, b"\x0b\0\xff\xff" + bytes(16380)) * 64,
    "another message, empty": record(ContentType.handshake, bytes(4)) * 30000,
}


def outcome(function):
    try:
        return function()
    except Exception as error:
        return error


@pytest.fixture(params=["client_hello_callback", "prefetch"])
def context(request, pki):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    if request.param == "prefetch":
        context.strategy = "prefetch"
        context.sni_callback = lambda *_: None
    else:
        context.client_hello_callback = lambda *_: None
    return context


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS.keys())
def test_it_keeps_little(context, opening):
    """hazard: 72 MiB, since records of other types were passed over and kept for OpenSSL."""
    one, other = socket.socketpair()
    one = gevent.socket.socket(one.family, one.type, one.proto, fileno=one.detach())
    one.settimeout(PATIENCE)
    sock = context.wrap_socket(one, server_side=True, do_handshake_on_connect=False)
    connection = sock._connection
    other.setblocking(False)
    job = gevent.spawn(outcome, sock.do_handshake)
    kept = 0
    try:
        while opening and not job.ready():
            try:
                opening = opening[other.send(opening[:30000]) :]
            except (BlockingIOError, ConnectionError):
                pass
            gevent.sleep(0)
            kept = max(kept, connection.unread)
        if not opening:
            other.shutdown(socket.SHUT_WR)  # so that who waits for more is not waited for
        assert "BAD_CLIENT_HELLO" in str(job.get(timeout=PATIENCE))
        assert kept <= MOST_KEPT
        alert = other.recv(100)
        assert alert[0] == ContentType.alert
    finally:
        job.kill()
        sock.close()
        other.close()


def test_an_alert_before_the_hello_ends_the_connection(context):
    one, other = socket.socketpair()
    with context.wrap_socket(
        gevent.socket.socket(one.family, one.type, one.proto, fileno=one.detach()),
        server_side=True,
        do_handshake_on_connect=False,
    ) as sock:
        other.send(record(ContentType.alert, b"\1\0"))
        other.shutdown(socket.SHUT_WR)
        with pytest.raises(ssl.SSLError, match="alert"):
            sock.do_handshake()
    other.close()
