"""A refused handshake that nobody catches is one line in the log: scanners must not fill it with tracebacks."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import sys

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

import greentls
from tests.support.clients import in_thread, stdlib_context
from tests.support.helpers import DATA, PATIENCE, wait_until
from tests.support.ssl_servers import server_context

HELLO = (DATA / "hellos" / "openssl-3.0-tls10.bin").read_bytes()
TIMES = 5


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


def answer(sock, address):
    sock.recv(100)  # what is left unread makes a reset of the end
    sock.sendall(b"hello")


@pytest.fixture(params=["StreamServer", "pywsgi"])
def listen(request):
    """listen(context): the address of a server of gevent's own, which catches nothing."""
    servers = []

    def start(context):
        if request.param == "pywsgi":
            server = WSGIServer(("127.0.0.1", 0), app, ssl_context=context, log=None)
        else:
            server = StreamServer(("127.0.0.1", 0), answer, ssl_context=context)
        server.start()
        servers.append(server)
        return server.address

    yield start
    for server in servers:
        server.stop(timeout=1)


def say(data):
    def scan(address):
        with socket.create_connection(address, PATIENCE) as sock:
            sock.sendall(data)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass

    return scan


def distrust(address):
    with socket.create_connection(address, PATIENCE) as sock, contextlib.suppress(ssl.SSLError):
        ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")


def leave(address):
    with socket.create_connection(address, PATIENCE) as sock:
        sock.sendall(HELLO[:20])


def reset(data):
    def scan(address):
        with socket.create_connection(address, PATIENCE) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(data)

    return scan


SCANS = {
    "no TLS": say(b"SSH-2.0-scanner\r\n"),
    "HTTP": say(b"GET / HTTP/1.0\r\n\r\n"),
    "TLS 1.0": say(HELLO),
    "half a record and silence": say(HELLO[:20]),
    "distrust": distrust,
    "leave": leave,
    "reset": reset(HELLO[:20]),
}


def told(caplog):
    """Another test's greenlets may have something to say in the meantime."""
    return [each for each in caplog.records if each.name == "greentls.handshake"]


@pytest.mark.parametrize("listen", ["StreamServer"], indirect=True)  # pywsgi passes over such a connection
def test_so_is_one_that_is_gone_before_it_is_accepted(pki, listen, caplog):
    address = listen(server_context(pki))
    for _ in range(TIMES):
        in_thread(reset(b""), address)
    wait_until(lambda: len(told(caplog)) >= TIMES or gevent.sleep(0.001), "the handshakes to fail")
    assert len(told(caplog)) == TIMES


@pytest.mark.parametrize("gate", [None, lambda sock, hello: None], ids=["no callback", "callback"])
@pytest.mark.parametrize("scan", SCANS)
def test_each_is_one_line(pki, listen, caplog, scan, gate):
    context = server_context(pki, client_hello_callback=gate)
    if "silence" in scan:
        context.handshake_timeout = 0.05
    address = listen(context)
    for _ in range(TIMES):
        in_thread(SCANS[scan], address)
    wait_until(lambda: len(told(caplog)) >= TIMES or gevent.sleep(0.001), "the handshakes to fail")
    lines = [each.getMessage() for each in told(caplog)]
    assert len(lines) == TIMES
    for line in lines:
        assert ": no handshake: " in line
        assert "\n" not in line
    assert {each.exc_info for each in told(caplog)} == {None}
    # and standard error is empty, says the fixture


def test_who_goes_on_is_served(pki, listen):
    address = listen(server_context(pki))
    in_thread(SCANS["HTTP"], address)

    def ask():
        with (
            socket.create_connection(address, PATIENCE) as sock,
            stdlib_context(pki).wrap_socket(sock, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: tls.recv(65536), b""))

    assert in_thread(ask).endswith(b"hello")


@pytest.mark.stderr
@pytest.mark.parametrize("hook", ["client_hello_callback", "sni_callback"])
@pytest.mark.parametrize("failure", [ValueError("a bug in the hook"), ConnectionRefusedError("a bug in the hook")])
def test_what_a_hook_raises_is_no_refusal_and_keeps_its_traceback(pki, listen, capfd, caplog, hook, failure):
    def with_a_bug(*_):
        raise failure

    address = listen(server_context(pki, **{hook: with_a_bug}))
    in_thread(distrust, address)
    in_thread(SCANS["HTTP"], address)
    wait_until(lambda: told(caplog) or gevent.sleep(0.001), "the second one to fail")
    assert len(told(caplog)) == 1
    printed = capfd.readouterr().err
    assert "in with_a_bug" in printed
    assert f"{type(failure).__name__}: a bug in the hook" in printed


@pytest.mark.stderr
def test_a_hook_that_is_late_keeps_its_traceback(pki, listen, capfd, caplog):
    context = server_context(pki, sni_callback=lambda *_: gevent.sleep(PATIENCE), callback_timeout=0.02)
    in_thread(distrust, listen(context))
    said = []
    late = "TimeoutError: sni_callback gave no answer in 0.02 s"
    wait_until(
        lambda: said.append(capfd.readouterr().err) or late in "".join(said) or gevent.sleep(0.001), "it to fail"
    )
    assert told(caplog) == []
    assert context.counters["failed"]


def test_what_somebody_catches_is_not_said(pki, caplog):
    here, there = gevent.socket.socketpair()
    with here, there:
        here.sendall(b"SSH-2.0-scanner\r\n")
        with pytest.raises(ssl.SSLError):
            server_context(pki).wrap_socket(there, server_side=True)
    assert told(caplog) == []


def test_what_the_hub_was_told_to_do_with_errors_it_does(pki, caplog):
    """hub.handle_error is the application's, too."""
    hub = gevent.get_hub()
    seen = []
    before = hub.__dict__.pop("handle_error", None)
    hub.handle_error = lambda context, kind, error, traceback: seen.append(error)
    try:
        here, there = gevent.socket.socketpair()
        with here, there:
            here.sendall(b"SSH-2.0-scanner\r\n")
            gevent.spawn(server_context(pki).wrap_socket, there, server_side=True).join()
        bug = ValueError()

        def fail():
            raise bug

        gevent.spawn(fail).join()
        assert seen == [bug]
        assert len(told(caplog)) == 1
    finally:
        del hub.handle_error
        if before is not None:
            hub.handle_error = before


PROGRAM = """
import socket, sys, gevent, greentls, ssl
from gevent.server import StreamServer
context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
server = StreamServer(("127.0.0.1", 0), lambda *_: None, ssl_context=context)
server.start()
for _ in range(20):
    sock = gevent.socket.create_connection(server.address)
    sock.sendall(b"SSH-2.0-scanner\\r\\n")
    while sock.recv(100):
        pass
"""


def test_a_program_that_has_not_set_up_logging_gets_the_lines(pki):
    done = subprocess.run([sys.executable, "-c", PROGRAM, pki.cert_file, pki.key_file], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and len(lines) == 20, done.stderr
    assert all(line.startswith("127.0.0.1:") and ": no handshake: [SSL: " in line for line in lines)


def test_the_cause_is_told_and_its_traceback_is_not(pki):
    """Those who catch it and log it get one traceback, not two."""
    here, there = gevent.socket.socketpair()
    with here, there:
        here.sendall(b"SSH-2.0-scanner\r\n")
        with pytest.raises(ssl.SSLError) as caught:
            server_context(pki).wrap_socket(there, server_side=True)
    assert isinstance(caught.value.__cause__, greentls.errors.TLSError)
    assert caught.value.__cause__.__traceback__ is None
