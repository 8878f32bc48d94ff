"""greentls.wsgi: what an application learns of early data (RFC 8470)."""

from __future__ import annotations

import ssl

import pytest
from gevent.pywsgi import WSGIServer
from gevent.socket import create_connection

import greentls
from greentls.stores.memory import MemoryStore
from greentls.wsgi import WSGIHandler
from tests.support.helpers import PATIENCE


class Store(MemoryStore):
    shared = True


@pytest.fixture
def seen():
    return []


@pytest.fixture
def server(pki, seen):
    def application(environ, start_response):
        sock = environ["greentls.socket"]
        if "/wait" in environ["PATH_INFO"]:
            sock.do_handshake()
        seen.append((environ["PATH_INFO"], environ.get("HTTP_EARLY_DATA"), sock.handshake_finished))
        sock.context.drain_sessions()
        start_response("200 OK", [("Content-Length", "4")])
        return [b"body"]

    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    context.session_store = Store()
    context.max_early_data = 4096
    server = WSGIServer(("127.0.0.1", 0), application, log=None, handler_class=WSGIHandler, ssl_context=context)
    server.start()
    yield server
    server.stop(timeout=1)


@pytest.fixture
def visit(pki, server):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.ca_file)

    def visit(early=b"", late=b"", session=None):
        """All that is answered until the server closes, and a session."""
        raw = create_connection(server.address, PATIENCE)
        with context.wrap_socket(
            raw, server_hostname="localhost", session=session, do_handshake_on_connect=False
        ) as sock:
            sock.early_data = early
            sock.do_handshake()
            assert bool(early) == bool(sock.early_data_accepted)
            sock.sendall(late)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
            return answer.count(b"body"), sock.session

    return visit


def request(path, *fields):
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


CLOSE = "Connection: close"


def test_a_request_before_the_finish_is_marked_and_the_next_one_is_not(visit, seen):
    count, session = visit(late=request("/full", CLOSE))
    assert count == 1
    count, _ = visit(request("/early"), request("/late", CLOSE), session)
    assert count == 2
    assert seen == [("/full", None, True), ("/early", "1", False), ("/late", None, True)]


def test_of_two_requests_in_early_data_the_second_waits_for_the_finish(visit, seen):
    _, session = visit(late=request("/full", CLOSE))
    count, _ = visit(request("/early") + request("/second", CLOSE), b"", session)
    assert count == 2
    assert seen[1:] == [("/early", "1", False), ("/second", None, True)]


def test_an_application_may_wait_until_it_is_no_replay(visit, seen):
    _, session = visit(late=request("/full", CLOSE))
    count, _ = visit(request("/wait", CLOSE), b"", session)
    assert count == 1
    assert seen[1:] == [("/wait", "1", True)]


def test_the_answer_comes_whole_though_the_server_closes(visit, seen):
    _, session = visit(late=request("/full", CLOSE))
    for _ in range(20):
        count, _ = visit(request("/early", CLOSE), b"", session)
        assert count == 1
    assert seen[1:] == [("/early", "1", False)] * 20


@pytest.mark.parametrize("field", ["Early-Data: 1", "Early-Data: 0", "Early-Data: 1\r\nEarly-Data: 1"])
def test_a_gateways_own_field_stays(visit, seen, field):
    visit(late=request("/full", field, CLOSE))
    assert seen == [("/full", "1", True)]


def test_without_tls_there_is_nothing_to_mark(seen):
    def application(environ, start_response):
        seen.append(environ.get("HTTP_EARLY_DATA"))
        start_response("204 No Content", [])
        return []

    server = WSGIServer(("127.0.0.1", 0), application, log=None, handler_class=WSGIHandler)
    server.start()
    with create_connection(server.address, PATIENCE) as sock:
        sock.sendall(request("/", CLOSE))
        assert sock.recv(12) == b"HTTP/1.1 204"
    assert seen == [None]
    server.stop(timeout=1)
