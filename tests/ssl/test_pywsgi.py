"""gevent.pywsgi over an SSLSocket: it ends its connections although the application keeps what it has of them."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import re
import socket
import ssl
import termios

import gevent
import gevent.event
import gevent.socket
import gevent.ssl
import gevent.subprocess
import pytest
from gevent.pywsgi import WSGIHandler, WSGIServer

from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.support.ssl_pairs import connected, contexts
from tests.support.ssl_servers import server_context


class Server(WSGIServer):
    def wrap_socket_and_handle(self, sock, address):
        with contextlib.suppress(OSError):  # wrk leaves in the middle of a handshake
            super().wrap_socket_and_handle(sock, address)


class Site:
    """A WSGIServer that remembers the sockets of its connections, none of which is collected."""

    def __init__(self, pki):
        self.sockets = sockets = []
        self.application = lambda environ: None

        class Handler(WSGIHandler):
            def __init__(self, sock, *arguments):
                sockets.append(sock)
                super().__init__(sock, *arguments)

        def application(environ, start_response):
            environ["itself"] = environ  # a cycle, and nobody collects it
            self.application(environ)
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]

        self.server = Server(
            ("127.0.0.1", 0), application, log=None, ssl_context=server_context(pki), handler_class=Handler
        )
        self.server.start()
        self.url = f"https://127.0.0.1:{self.server.server_port}/"

    def closed(self):
        """How many connections there were; asserts that each is closed, files or not."""
        wait_for(lambda: all(sock.fileno() == -1 for sock in self.sockets), "the connections to close")
        return len(self.sockets)

    def connect(self):
        context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = gevent.socket.create_connection(self.server.address, PATIENCE)
        return context.wrap_socket(raw, suppress_ragged_eofs=False)


@pytest.fixture
def site(pki):
    gc.collect()
    gc.disable()
    site = Site(pki)
    yield site
    site.server.stop(timeout=1)
    gc.enable()


class TestTheClientThatReadsToTheEnd:
    """Raises ssl.SSLEOFError for FIN without close_notify, and waits in vain if there is neither."""

    @pytest.fixture(params=["environ in a cycle", "environ kept", "wsgi.input kept", "exception kept"])
    def kept(self, request):
        """A list, and what puts into it what an application may keep."""
        kept = []

        def keep_exception(environ):
            try:
                raise ValueError(environ)
            except ValueError as error:
                kept.append(error)

        return {
            "environ in a cycle": lambda environ: None,
            "environ kept": kept.append,
            "wsgi.input kept": lambda environ: kept.append(environ["wsgi.input"]),
            "exception kept": keep_exception,
        }[request.param]

    def test_has_close_notify_and_the_end(self, site, kept):
        site.application = kept
        with site.connect() as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
            assert answer.endswith(b"\r\n\r\nok")
            with socket.socket(fileno=sock.detach()) as raw:
                raw.settimeout(PATIENCE)
                assert raw.recv(1) == b"", "FIN behind close_notify"
        assert site.closed() == 1


def test_what_came_behind_the_request_does_not_turn_the_end_into_a_reset(site):
    more = gevent.event.Event()

    def wait_for_more(environ):
        more.set()
        descriptor = site.sockets[0].fileno()
        wait_for(lambda: fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)) != bytes(4), "the second request")

    site.application = wait_for_more
    with site.connect() as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert more.wait(PATIENCE)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"".join(iter(lambda: sock.recv(65536), b"")).endswith(b"ok")
        with socket.socket(fileno=sock.detach()) as raw:
            raw.settimeout(PATIENCE)
            assert raw.recv(1) == b"", "FIN, not RST"


def run(*command):
    return gevent.subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout


class TestUnderLoad:
    @pytest.mark.programs
    @pytest.mark.parametrize(("options", "least"), [((), 200), (("-k",), 8)], ids=["closing", "keep-alive"])
    def test_ab(self, site, options, least):
        report = run("ab", *options, "-q", "-n", "200", "-c", "8", site.url)
        assert re.search(r"Complete requests: +200\n", report), report
        assert re.search(r"Failed requests: +0\n", report), report
        assert site.closed() >= least

    @pytest.mark.programs
    def test_wrk(self, site):
        report = run("wrk", "-c", "8", "-t", "1", "-d", "1s", "--timeout", f"{PATIENCE:.0f}s", site.url)
        assert int(re.search(r"(\d+) requests in", report).group(1)) > 8, report
        assert "Socket errors" not in report
        assert site.closed() >= 8


class TestUnderneath:
    """What _sock has, and has not."""

    @pytest.fixture
    def ends(self, pki):
        with connected(*contexts(pki)) as ends:
            yield ends

    def test_it_neither_reads_nor_writes(self, ends):
        here, there = ends
        there.sendall(b"for TLS")
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                here._sock.recv(16384)
        assert here.recv(100) == b"for TLS"
        for method in ("send", "sendall", "recv_into", "recvmsg", "sendmsg", "makefile", "detach", "dup"):
            assert not hasattr(here._sock, method)

    def test_it_closes_with_files_open_and_once(self, ends):
        here, there = ends
        file = here.makefile("rwb")
        descriptor = here.fileno()
        assert here._sock
        assert here._sock.fileno() == descriptor
        here._sock.close()
        assert here.fileno() == here._sock.fileno() == -1
        with socket.socket() as other:  # has the number now
            here._sock.close()
            here.close()
            file.close()
            assert other.fileno() == descriptor
            other.getsockname()
        assert there.recv(1) == b""
