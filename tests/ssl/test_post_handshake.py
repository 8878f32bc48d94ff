"""Post-handshake authentication (RFC 8446 4.6.2) with a verify_callback that waits: it does so inside of recv().

The client is the standard library's, in a native thread.
"""

from __future__ import annotations

import socket
import ssl

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

import greentls
from tests.support.clients import in_thread, stdlib_context
from tests.support.helpers import PATIENCE, Pki

REQUEST, ASKED, ANSWER = b"what is private", b"who are you?", b"here it is"


class Service:
    """Asks for a certificate on the first request, and answers the second. results: what became of its connections."""

    def __init__(self):
        self.results = Queue()
        self.received = []

    def __call__(self, sock, address):
        try:
            assert sock.recv(100) == REQUEST
            assert not sock.getpeercert()
            sock.verify_client_post_handshake()
            sock.sendall(ASKED)
            self.received.append(sock.recv(100))
            sock.sendall(ANSWER)
            self.results.put(sock.getpeercert()["subject"][0][0][1])
        except BaseException as error:
            self.results.put(error)
            if isinstance(error, gevent.GreenletExit):
                raise


def ask_twice(address, context):
    """What the second request gets: bytes, or what it raises. The certificate goes out as the first answer is read."""
    with (
        socket.create_connection(address, PATIENCE) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        sock.sendall(REQUEST)
        assert sock.recv(100) == ASKED
        sock.sendall(REQUEST)
        try:
            return sock.recv(100)
        except OSError as error:
            return error


@pytest.fixture
def service(serve, pki):
    """service(verify_callback): the Service and its address."""

    def start(callback, **settings):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.cert_file, pki.key_file)
        context.load_verify_locations(pki.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        context.post_handshake_auth = True
        context.verify_callback = callback
        for name, value in settings.items():
            setattr(context, name, value)
        service = Service()
        return service, serve(context, service)

    return start


@pytest.fixture
def client(pki):
    context = stdlib_context(pki, post_handshake_auth=True)
    context.load_cert_chain(*pki.client)
    return context


def test_the_callback_waits_in_recv_while_others_are_served(service, client):
    inside, go_on, asked = Event(), Event(), []

    def verify(sock, chain, *, resumed):
        asked.append((chain[0].subject.rfc4514_string(), resumed))
        if len(asked) == 1:
            inside.set()
            assert go_on.wait(PATIENCE)

    served, address = service(verify)
    first = gevent.spawn(in_thread, ask_twice, address, client)
    assert inside.wait(PATIENCE)
    assert served.received == []
    assert in_thread(ask_twice, address, client) == ANSWER
    assert served.results.get(timeout=PATIENCE) == "a client"
    assert not first.ready()
    go_on.set()
    assert first.get(timeout=PATIENCE) == ANSWER
    assert served.results.get(timeout=PATIENCE) == "a client"
    assert asked == [("CN=a client", False)] * 2


@pytest.mark.parametrize("how", ["exception", "Timeout", "deadline", "False", "kill"])
def test_a_refusal_ends_the_connection_and_the_request_reaches_nobody(service, client, how):
    """hazard: SSL_read() has the request behind the certificate at hand when the callback has failed."""
    expected = {"exception": LookupError("not enrolled"), "Timeout": gevent.Timeout(None)}.get(how)
    inside = Queue()

    def verify(sock, chain, *, resumed):
        inside.put(gevent.getcurrent())
        if expected is not None:
            raise expected
        return how != "False" and Event().wait()

    served, address = service(verify, callback_timeout=0.05 if how == "deadline" else None)
    job = gevent.spawn(in_thread, ask_twice, address, client)
    reader = inside.get(timeout=PATIENCE)
    if how == "kill":
        reader.kill(block=False)
    ended = served.results.get(timeout=PATIENCE)
    if expected is not None:
        assert ended is expected
    else:
        kind = {"deadline": TimeoutError, "False": TypeError, "kill": gevent.GreenletExit}[how]
        assert type(ended) is kind
    assert served.received == []
    told = job.get(timeout=PATIENCE)
    assert isinstance(told, ssl.SSLError) and "BAD_CERTIFICATE" in told.reason


def test_openssls_own_no_comes_first(service, client, pki, strange_certificate):
    asked = []
    served, address = service(lambda sock, chain, *, resumed: asked.append(chain))
    stranger = stdlib_context(pki, post_handshake_auth=True)
    stranger.load_cert_chain(*strange_certificate)
    told = in_thread(ask_twice, address, stranger)
    assert isinstance(served.results.get(timeout=PATIENCE), ssl.SSLCertVerificationError)
    assert isinstance(told, ssl.SSLError) and "UNKNOWN_CA" in told.reason
    assert asked == []


@pytest.fixture
def strange_certificate(tmp_path):
    return Pki(tmp_path).issue("a stranger", client=True)
