"""The ClientHello, read before OpenSSL has seen a byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import gevent
import pytest
from gevent.event import Event

import greentls
import greentls.ssl.client_hello
from greentls.errors import ConcurrentUseError, UnsupportedOpenSSL
from greentls.openssl import client_hello
from greentls.ssl.context import PLAIN_HTTP_ANSWER
from greentls.ssl.plain_socket import PlainSocket
from greentls.wire import ProxyReader, WireError, ja3, ja4
from tests.support.clients import exchange, in_thread, stdlib_context
from tests.support.helpers import DATA, PATIENCE
from tests.support.hubs import wait_for
from tests.support.ssl_pairs import both_versions
from tests.support.ssl_servers import server_context

HELLOS = sorted((DATA / "hellos").glob("*.bin"))


def talk(address, *pieces, answer=None):
    """What a server says to these bytes, until it closes (or has said so much)."""
    with socket.create_connection(address, PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
        said = b""
        try:
            while (answer is None or len(said) < answer) and (data := sock.recv(65536)):
                said += data
        except ConnectionResetError:
            pass
        return said


@both_versions
class TestCallback:
    def test_sees_the_hello_and_the_socket_keeps_it(self, pki, serve, version):
        seen = []

        def look(sock, hello):
            seen.append((hello.server_name, hello.alpn_protocols, sock.client_hello is hello))

        def handle(sock, address):
            seen.append((sock.ja3 == ja3(sock.client_hello), sock.ja4 == ja4(sock.client_hello), sock.version()))
            sock.sendall(sock.recv(100))

        client = stdlib_context(pki, version)
        client.set_alpn_protocols(["h2", "http/1.1"])
        answer = in_thread(exchange, serve(server_context(pki, client_hello_callback=look), handle), client)
        assert answer.data == b"hello"
        assert seen == [("localhost", ("h2", "http/1.1"), True), (True, True, f"TLSv{version}")]

    def test_may_wait_while_others_go_on(self, pki, serve, version):
        inside, together = [], Event()

        def wait(sock, hello):
            inside.append(sock)
            if len(inside) == 5:
                together.set()
            together.wait()

        address = serve(server_context(pki, client_hello_callback=wait, callback_timeout=PATIENCE))
        jobs = [gevent.spawn(in_thread, exchange, address, stdlib_context(pki, version)) for _ in range(5)]
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
        assert [job.value.data for job in jobs] == [b"hello"] * 5

    def test_may_go_on_with_another_context_and_all_of_its_settings(self, pki, serve, version):
        other = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other.load_cert_chain(*pki.issue("other.test", "localhost"))
        other.maximum_version = ssl.TLSVersion.TLSv1_2
        context = server_context(pki, client_hello_callback=lambda sock, hello: other)
        client = stdlib_context(pki, version)
        if version == "1.3":
            client.minimum_version = ssl.TLSVersion.TLSv1_2
        answer = in_thread(exchange, serve(context), client)
        assert ("DNS", "other.test") in answer.certificate["subjectAltName"]
        assert answer.version == "TLSv1.2"

    def test_needs_no_certificate_of_its_own(self, pki, serve, version):
        first = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        first.client_hello_callback = lambda sock, hello: second
        second = server_context(pki)
        assert in_thread(exchange, serve(first), stdlib_context(pki, version)).data == b"hello"

    def test_may_refuse_with_an_alert(self, pki, serve, servers, version):
        context = server_context(pki, client_hello_callback=lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            in_thread(exchange, serve(context), stdlib_context(pki, version))
        (error,) = servers[0].errors
        assert isinstance(error, ssl.SSLError)
        assert "refused with alert 112" in str(error)

    @pytest.mark.parametrize("failure", [KeyError("a name"), gevent.Timeout(5), ValueError()])
    def test_what_it_raises_comes_out_and_the_client_gets_an_alert(self, pki, serve, servers, version, failure):
        def fail(*_):
            raise failure

        server = server_context(pki, client_hello_callback=fail)
        with pytest.raises(ssl.SSLError, match=r"(?i)internal.error"):
            in_thread(exchange, serve(server), stdlib_context(pki, version))
        assert servers[0].errors == [failure]

    def test_one_that_is_late_is_an_alert(self, pki, serve, servers, version):
        context = server_context(pki, client_hello_callback=lambda *_: gevent.sleep(PATIENCE), callback_timeout=0.05)
        with pytest.raises(ssl.SSLError, match=r"(?i)internal.error"):
            in_thread(exchange, serve(context), stdlib_context(pki, version))
        assert str(servers[0].errors[0]) == "client_hello_callback gave no answer in 0.05 s"

    def test_an_answer_of_another_kind_is_an_alert(self, pki, serve, servers, version):
        context = server_context(pki, client_hello_callback=lambda *_: "yes")
        with pytest.raises(ssl.SSLError, match=r"(?i)internal.error"):
            in_thread(exchange, serve(context), stdlib_context(pki, version))
        assert isinstance(servers[0].errors[0], TypeError)

    def test_resumption_works_behind_it(self, pki, serve, version):
        context = server_context(
            pki, client_hello_callback=lambda *_: None, session_store=greentls.open_store("memory://")
        )
        address, client = serve(context), stdlib_context(pki, version)
        session = in_thread(exchange, address, client).session
        assert context.drain_sessions(PATIENCE)
        assert in_thread(exchange, address, client, session=session).reused

    def test_it_cannot_use_its_own_connection(self, pki, serve, version):
        caught = []

        def enter(sock, hello):
            for function in (sock.do_handshake, lambda: sock.recv(1)):
                with pytest.raises(ConcurrentUseError):
                    caught.append(function())

        context = server_context(pki, client_hello_callback=enter)
        assert in_thread(exchange, serve(context), stdlib_context(pki, version)).data == b"hello"
        assert caught == []
        assert context.counters["failed"] == 0

    def test_nothing_is_parsed_when_nobody_asks(self, pki, serve, version, monkeypatch):
        monkeypatch.setattr(greentls.ssl.client_hello, "RecordReader", None)
        assert in_thread(exchange, serve(server_context(pki)), stdlib_context(pki, version)).data == b"hello"


@both_versions
class TestPassThrough:
    def test_another_server_gets_the_connection_to_the_byte(self, pki, serve, version):
        """SNI routing without termination: the client talks TLS with the backend, we carry bytes."""
        backend = serve(server_context(pki))

        def carry(source, target):
            with contextlib.suppress(OSError):  # the client need not wait for the backend's end
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def route(sock, address):
            names.append(sock.client_hello.server_name)
            with gevent.socket.create_connection(backend) as there:
                jobs = [gevent.spawn(carry, sock, there), gevent.spawn(carry, there, sock)]
                gevent.joinall(jobs, timeout=PATIENCE)

        names = []
        front = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        front.client_hello_callback = lambda sock, hello: sock.pass_through()
        address = serve(front, route)
        answer = in_thread(exchange, address, stdlib_context(pki, version), bytes(100_000))
        assert answer.data == bytes(100_000)
        assert answer.version == f"TLSv{version}"
        assert names == ["localhost"]

    def test_the_bytes_come_first_and_the_socket_is_the_users(self, pki, version):
        here, there = socket.socketpair()
        hello = HELLOS[0].read_bytes()
        here.sendall(hello + b"and more")
        front = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        front.client_hello_callback = lambda sock, hello: sock.pass_through()
        plain = front.wrap_socket(there, server_side=True)
        with here, plain:
            assert isinstance(plain, PlainSocket)
            assert plain.recv(3, socket.MSG_PEEK) == hello[:3]
            data = b""
            while len(data) < len(hello) + 8:
                data += plain.recv(7)
            assert data == hello + b"and more"
            here.sendall(b"later")
            assert plain.recv(100) == b"later"
            plain.sendall(b"back")
            assert here.recv(100) == b"back"


class TestWhatIsNoHello:
    REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    @pytest.fixture(params=[False, True], ids=["no callback", "callback"])
    def context(self, request, pki):
        context = server_context(pki)
        if request.param:
            context.client_hello_callback = lambda *_: None
        return context

    def test_plain_http_is_told_so(self, context, serve, servers):
        answer = in_thread(talk, serve(context), self.REQUEST)
        assert answer == PLAIN_HTTP_ANSWER
        head, body = answer.split(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert isinstance(servers[0].errors[0], ssl.SSLError)

    def test_unless_that_is_turned_off(self, context, serve):
        context.plain_http_answer = None
        assert b"HTTP" not in in_thread(talk, serve(context), self.REQUEST)

    @pytest.mark.parametrize(
        "data",
        [
            b"SSH-2.0-OpenSSH_9.9\r\n",
            bytes.fromhex("802b0100020012000000180700c0") + bytes(31),
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
            b"\x15\x03\x01\x00\x02\x02\x28" + bytes(20),
            b"\x16\x03\x01\xff\xff" + bytes(100),
            bytes(100),
        ],
        ids=["ssh", "sslv2", "a hello of one byte", "an alert", "a record too long", "zeros"],
    )
    def test_anything_else_ends_with_an_ssl_error(self, context, serve, servers, data):
        said = in_thread(talk, serve(context), data)
        assert said == b"" or said[0] == 21
        assert isinstance(servers[0].errors[0], ssl.SSLError)

    def test_a_client_that_leaves_in_the_middle(self, context, serve, servers):
        address = serve(context)

        def leave():
            with socket.create_connection(address, PATIENCE) as sock:
                sock.sendall(HELLOS[0].read_bytes()[:50])

        in_thread(leave)
        wait_for(lambda: servers[0].errors, "the server to refuse")
        assert isinstance(servers[0].errors[0], ssl.SSLEOFError | ConnectionError)

    def test_a_client_that_stops_in_the_middle_ends_at_the_handshake_timeout(self, context, serve, servers):
        context.handshake_timeout = 0.05
        assert in_thread(talk, serve(context), HELLOS[0].read_bytes()[:50]) == b""
        assert str(servers[0].errors[0]) == "The handshake operation timed out"

    def test_a_malformed_extension_is_the_callbacks_to_meet(self, pki, serve, servers):
        """Lazy parsing: a field nobody looks at refuses nobody; who looks gets the WireError, the client an alert."""
        context = server_context(pki, client_hello_callback=lambda sock, hello: hello.server_name and None)
        extension = b"\x00\x00\x00\x05\x00\x09\x00\x00\x01"  # server_name: a list that is longer than its extension
        body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + len(extension).to_bytes(2, "big")
        message = b"\x01" + (len(body) + len(extension)).to_bytes(3, "big") + body + extension
        said = in_thread(talk, serve(context), b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
        assert said[:1] == b"\x15"
        assert isinstance(servers[0].errors[0], WireError)


def until_it_ends(function, *arguments, **options):
    with contextlib.suppress(OSError):  # what follows the hello, OpenSSL may refuse
        function(*arguments, **options)


@pytest.mark.parametrize("path", HELLOS, ids=lambda path: path.stem)
def test_no_real_client_is_refused_for_its_hello(pki, path):
    """Whatever its size and its extensions, and if it comes byte by byte."""
    seen = []
    context = server_context(pki, client_hello_callback=lambda sock, hello: seen.append(hello))
    hello = path.read_bytes()
    for pieces in ([hello], [hello[index : index + 1] for index in range(len(hello))]):
        here, there = gevent.socket.socketpair()
        with here, there, gevent.Timeout(PATIENCE):
            job = gevent.spawn(until_it_ends, context.wrap_socket, there, server_side=True)
            for piece in pieces:
                until_it_ends(here.sendall, piece)
            wait_for(lambda: seen, "the callback")
            job.kill()
            assert seen.pop().to_bytes()


@both_versions
def test_a_proxy_header_before_tls(pki, version):
    """What stands before TLS is read with a part of what follows: wrap_socket() takes it from there."""
    here, there = socket.socketpair()

    def client():
        with here:
            here.settimeout(PATIENCE)
            here.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 443\r\n")
            with stdlib_context(pki, version).wrap_socket(here, server_hostname="localhost") as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"

    thread = threading.Thread(target=client)
    thread.start()
    plain = PlainSocket(there.family, there.type, there.proto, fileno=there.detach())
    reader, header = ProxyReader(), None
    while header is None:
        header = reader.feed(plain.recv(65536))
    plain.ahead = bytes(reader.rest)
    assert str(header.source) == "192.0.2.1" or "192.0.2.1" in str(header)
    for callback in (lambda *_: None,):
        context = server_context(pki, client_hello_callback=callback)
        with context.wrap_socket(plain, server_side=True) as sock:
            assert sock.client_hello.server_name == "localhost"
            sock.sendall(sock.recv(100))
            assert sock.recv(100) == b""
    in_thread(thread.join, PATIENCE)


def test_where_a_second_hello_could_not_be_compared_the_callback_is_refused_by_name(pki, monkeypatch):
    """hazard: a gate that a client passes by its second hello is none."""

    def unreachable():
        raise UnsupportedOpenSSL("SSL_client_hello_get0_ciphers", "a test", "", "none")

    monkeypatch.setattr(client_hello, "need", unreachable)
    asked = []
    context = server_context(pki, client_hello_callback=lambda *_: asked.append(1))
    here, there = socket.socketpair()
    with here, there:
        here.sendall(HELLOS[0].read_bytes())
        with pytest.raises(UnsupportedOpenSSL, match="SSL_client_hello_get0_ciphers"):
            context.wrap_socket(there, server_side=True)
        assert here.recv(100)[0] == 21
    assert asked == []


class TestByHand:
    def test_a_socket_that_does_not_block_goes_on_where_it_was(self, pki):
        """hazard: what had come by the first try was lost to the second."""
        here, there = socket.socketpair()
        there.setblocking(False)
        hello = HELLOS[0].read_bytes()
        with here, server_context(pki).wrap_socket(there, server_side=True, do_handshake_on_connect=False) as sock:
            for index in range(len(hello)):
                with pytest.raises(ssl.SSLWantReadError):
                    sock.read_client_hello()
                here.sendall(hello[index : index + 1])
            assert sock.read_client_hello().to_bytes() == hello[5:]

    def test_read_client_hello_before_the_handshake(self, pki):
        here, there = socket.socketpair()
        with here:
            here.sendall(HELLOS[0].read_bytes())
            with server_context(pki).wrap_socket(there, server_side=True, do_handshake_on_connect=False) as sock:
                assert sock.client_hello is sock.ja3 is sock.ja4 is None
                hello = sock.read_client_hello()
                assert sock.read_client_hello() is hello
                second = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                second.load_cert_chain(pki.cert_file, pki.key_file)
                sock.context = second
                assert sock.context is second

    def test_it_is_a_servers_and_goes_before_the_handshake(self, pki):
        here, there = socket.socketpair()
        with here:
            context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            with context.wrap_socket(there, server_hostname="localhost", do_handshake_on_connect=False) as sock:
                with pytest.raises(ValueError, match=r"a server's"):
                    sock.read_client_hello()
                sock.settimeout(0.01)
                with pytest.raises(TimeoutError):
                    sock.do_handshake()
                with pytest.raises(ValueError, match=r"before the handshake"):
                    sock.pass_through()
