"""The examples of the standard library's documentation of ssl, where nothing changes but which module is called ssl.

Each runs in a thread of its own, blocking and unpatched, by the standard library's module too, which tells whether the
example is one. A server of the test's stands for www.python.org.
"""

from __future__ import annotations

import contextlib
import select
import smtplib
import socket
import ssl as stdlib_ssl
import sys
import time

import gevent
import gevent.event
import pytest

import greentls.ssl
from tests.support.clients import in_thread, stdlib_context
from tests.support.helpers import PATIENCE, free_port, wait_until
from tests.support.ssl_pairs import contexts, outcome

HOSTNAME = "localhost"


@pytest.fixture(params=[stdlib_ssl, greentls.ssl], ids=["ssl", "greentls.ssl"])
def ssl(request):
    return request.param


@pytest.fixture
def trusted(pki, monkeypatch):
    """The test CA is the system's only one."""
    monkeypatch.setenv("SSL_CERT_FILE", pki.ca_file)
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")


@pytest.fixture
def port(pki, serve):
    """Of a web server that knows one page."""

    def handle(sock, address):
        with contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (data := sock.recv(4096)):
                    return
                head += data
            sock.sendall(b"HTTP/1.1 200 OK\r\nServer: of the test\r\nContent-Length: 0\r\n\r\n")

    return serve(contexts(pki)[1], handle)[1]


class TestSocketCreation:
    def test_client_with_the_default_context_and_either_ip(self, ssl, trusted, port):
        def example():
            context = ssl.create_default_context()
            with (
                socket.create_connection((HOSTNAME, port)) as sock,
                context.wrap_socket(sock, server_hostname=HOSTNAME) as ssock,
            ):
                return ssock.version()

        assert in_thread(example) == "TLSv1.3"

    def test_client_with_a_context_of_its_own_and_ipv4(self, ssl, pki, port):
        def example():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(pki.ca_file)
            with (
                socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0) as sock,
                context.wrap_socket(sock, server_hostname=HOSTNAME) as ssock,
            ):
                before = ssock.version()
                ssock.connect((HOSTNAME, port))
                return before, ssock.version()

        assert in_thread(example) == (None, "TLSv1.3")

    def test_server_that_listens_on_localhost(self, ssl, pki):
        address = ("127.0.0.1", free_port(held=False))

        def example():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pki.cert_file, pki.key_file)
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0) as sock:
                sock.bind(address)
                sock.listen(5)
                with context.wrap_socket(sock, server_side=True) as ssock:
                    conn, addr = ssock.accept()
                    with conn:
                        conn.sendall(conn.recv(100))
                        return addr

        server = gevent.spawn(in_thread, example)
        there, answer = in_thread(converse, address, stdlib_context(pki))
        assert server.get(timeout=PATIENCE) == there
        assert answer == b"hello"


def converse(address, context, data=b"hello"):
    """(the own address, what a server answers), as soon as it listens."""
    with (
        wait_until(lambda: connection(address), "a server") as raw,
        context.wrap_socket(raw, server_hostname=HOSTNAME) as sock,
    ):
        sock.sendall(data)
        answer = b""
        while len(answer) < len(data):
            answer += sock.recv(65536)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(100):  # until the server is gone, too
            pass
        return sock.getsockname(), answer


def connection(address):
    try:
        return socket.create_connection(address, PATIENCE)
    except ConnectionRefusedError:
        return None


class TestFunctions:
    def test_cert_time_to_seconds(self, ssl):
        seconds = ssl.cert_time_to_seconds("Jan  5 09:34:43 2018 GMT")
        assert seconds == 1515144883
        assert time.gmtime(seconds)[:6] == (2018, 1, 5, 9, 34, 43)

    def test_random_bytes(self, ssl):
        assert ssl.RAND_status()
        assert len(ssl.RAND_bytes(16)) == 16 != ssl.RAND_bytes(16)
        ssl.RAND_add(b"some more", 1.0)

    def test_der_and_pem(self, ssl, pki):
        with open(pki.cert_file) as file:
            pem = file.read()
        der = ssl.PEM_cert_to_DER_cert(pem)
        assert ssl.DER_cert_to_PEM_cert(der).split() == pem.split()

    def test_where_trust_comes_from(self, ssl, pki, trusted):
        paths = ssl.get_default_verify_paths()
        assert (paths.cafile, paths.capath) == (pki.ca_file, None)

    def test_purposes(self, ssl):
        assert ssl.Purpose.SERVER_AUTH.oid == "1.3.6.1.5.5.7.3.1"
        assert ssl.Purpose.CLIENT_AUTH.shortname == "clientAuth"

    def test_version_of_openssl(self, ssl):
        assert ssl.OPENSSL_VERSION.startswith("OpenSSL ")
        assert ssl.OPENSSL_VERSION_INFO >= (1, 1, 1)
        assert ssl.HAS_SNI and ssl.HAS_ALPN and ssl.HAS_TLSv1_3

    def test_an_exceptions_family(self, ssl):
        assert issubclass(ssl.SSLError, OSError)
        assert ssl.CertificateError is ssl.SSLCertVerificationError
        assert issubclass(ssl.SSLCertVerificationError, ValueError)
        for kind in (ssl.SSLZeroReturnError, ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
            assert issubclass(kind, ssl.SSLError)

    def test_a_servers_certificate(self, ssl, pki, port):
        pem = in_thread(ssl.get_server_certificate, ("localhost", port), ca_certs=pki.ca_file)
        with open(pki.cert_file) as file:
            assert pem.split() == file.read().split()


class TestContexts:
    def test_protocols_that_are_too_old_are_turned_off(self, ssl, trusted):
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.maximum_version is ssl.TLSVersion.MAXIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning) if sys.version_info < (3, 14) else contextlib.nullcontext():
            context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
        assert ssl.OP_NO_TLSv1 in ssl.Options(context.options)

    def test_only_tls_1_3(self, ssl, pki, serve):
        """A server of TLS 1.2 is refused, one of TLS 1.3 is not."""

        def example(port):
            context = ssl.create_default_context(cafile=pki.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.maximum_version = ssl.TLSVersion.TLSv1_3
            with (
                socket.create_connection((HOSTNAME, port)) as sock,
                context.wrap_socket(sock, server_hostname=HOSTNAME) as ssock,
            ):
                return ssock.version()

        ports = [serve(contexts(pki, version)[1], lambda sock, _: sock.recv(1))[1] for version in ("1.2", "1.3")]
        refused, version = [in_thread(outcome, example, port) for port in ports]
        assert isinstance(refused, ssl.SSLError)
        assert version == "TLSv1.3"

    def test_default_contexts_verify(self, ssl, pki):
        client = ssl.create_default_context()
        assert (client.verify_mode, client.check_hostname) == (ssl.CERT_REQUIRED, True)
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.ca_file)
        assert (server.verify_mode, server.check_hostname) == (ssl.CERT_NONE, False)
        with pytest.raises(ValueError, match="check_hostname"):
            client.verify_mode = ssl.CERT_NONE

    def test_strictness_may_be_turned_off(self, ssl):
        context = ssl.create_default_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_flags & ssl.VERIFY_X509_TRUSTED_FIRST

    def test_what_is_in_the_store(self, ssl, pki):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        assert context.cert_store_stats() == {"crl": 0, "x509_ca": 0, "x509": 0}
        context.load_verify_locations(pki.ca_file)
        assert context.cert_store_stats() == {"crl": 0, "x509_ca": 1, "x509": 1}
        assert [each["subject"] for each in context.get_ca_certs()] == [((("commonName", "greentls test CA"),),)]

    def test_which_ciphers_there_are(self, ssl):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ECDHE+AESGCM:!ECDSA")
        old = [each for each in context.get_ciphers() if each["protocol"] == "TLSv1.2"]
        assert {each["name"] for each in old} == {"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"}
        with pytest.raises(ssl.SSLError, match="No cipher can be selected"):
            context.set_ciphers("of my own")

    def test_a_servers_name_tells_the_context(self, ssl, pki):
        address = ("127.0.0.1", free_port(held=False))

        def example():
            def server_name_callback(ssock, name, initial):
                ssock.context = others[name]

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pki.issue("nobody.test"))
            others = {HOSTNAME: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}
            others[HOSTNAME].load_cert_chain(pki.cert_file, pki.key_file)
            context.sni_callback = server_name_callback
            with (
                socket.create_server(address) as listener,
                listener.accept()[0] as raw,
                context.wrap_socket(raw, server_side=True) as conn,
            ):
                conn.sendall(conn.recv(100))
                return conn.context is others[HOSTNAME]

        server = gevent.spawn(in_thread, example)
        assert in_thread(converse, address, stdlib_context(pki))[1] == b"hello"
        assert server.get(timeout=PATIENCE)


class TestExamples:
    def test_whether_there_is_ssl(self, ssl):
        try:
            context = ssl.create_default_context()
        except NameError:
            context = None
        assert isinstance(context, ssl.SSLContext)

    def test_client_side_operation(self, ssl, trusted, port):
        def example():
            context = ssl.create_default_context()
            conn = context.wrap_socket(socket.socket(socket.AF_INET), server_hostname=HOSTNAME)
            conn.connect((HOSTNAME, port))
            cert = conn.getpeercert()
            conn.sendall(b"HEAD / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = conn.recv(1024).split(b"\r\n")
            conn.close()
            return cert, answer

        cert, answer = in_thread(example)
        assert cert["subject"] == ((("commonName", "localhost"),),)
        assert ("DNS", "localhost") in cert["subjectAltName"]
        assert ssl.cert_time_to_seconds(cert["notBefore"]) < ssl.cert_time_to_seconds(cert["notAfter"])
        assert answer == [b"HTTP/1.1 200 OK", b"Server: of the test", b"Content-Length: 0", b"", b""]

    @pytest.mark.parametrize(
        ("trust", "name", "said"),
        [(False, HOSTNAME, "CERTIFICATE_VERIFY_FAILED"), (True, "elsewhere.test", "ostname mismatch")],
        ids=["who", "what"],
    )
    def test_the_certificate_is_checked(self, ssl, pki, port, trust, name, said):
        def example():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if trust:
                context.load_verify_locations(pki.ca_file)
            conn = context.wrap_socket(socket.socket(socket.AF_INET), server_hostname=name)
            try:
                conn.connect((HOSTNAME, port))
            finally:
                conn.close()

        refused = in_thread(outcome, example)
        assert isinstance(refused, ssl.SSLCertVerificationError)
        assert isinstance(refused, ssl.CertificateError)
        assert said in str(refused)
        assert refused.reason == "CERTIFICATE_VERIFY_FAILED"

    def test_server_side_operation(self, ssl, pki):
        address = ("127.0.0.1", free_port(held=False))

        def deal_with_client(connstream):
            got = b""
            data = connstream.recv(1024)
            while data:  # nothing means that the client is finished
                got += data
                connstream.sendall(data)
                data = connstream.recv(1024)
            return got

        def example():
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certfile=pki.cert_file, keyfile=pki.key_file)
            served = []
            with socket.socket() as bindsocket:
                bindsocket.bind(address)
                bindsocket.listen(5)
                for _ in range(3):
                    newsocket, _ = bindsocket.accept()
                    connstream = context.wrap_socket(newsocket, server_side=True)
                    try:
                        served.append(deal_with_client(connstream))
                    finally:
                        connstream.shutdown(socket.SHUT_RDWR)
                        connstream.close()
            return served

        server = gevent.spawn(in_thread, example)
        context = stdlib_context(pki)
        sent = [b"hello", b"x" * 5000, b"bye"]
        assert [in_thread(converse, address, context, data)[1] for data in sent] == sent
        assert server.get(timeout=PATIENCE) == sent

    def test_a_client_must_have_a_certificate(self, ssl, pki):
        address = ("127.0.0.1", free_port(held=False))

        def example():
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(pki.cert_file, pki.key_file)
            with (
                socket.create_server(address) as listener,
                listener.accept()[0] as raw,
                context.wrap_socket(raw, server_side=True) as conn,
            ):
                conn.sendall(conn.recv(100))
                return conn.getpeercert()["subject"]

        server = gevent.spawn(in_thread, example)
        client = stdlib_context(pki)
        client.load_cert_chain(*pki.client)
        assert in_thread(converse, address, client)[1] == b"hello"
        assert server.get(timeout=PATIENCE) == ((("commonName", "a client"),),)

    def test_non_blocking_handshake(self, ssl, trusted, port):
        def example():
            context = ssl.create_default_context()
            raw = socket.create_connection((HOSTNAME, port))
            raw.setblocking(False)
            sock = context.wrap_socket(raw, server_hostname=HOSTNAME, do_handshake_on_connect=False)
            while True:
                try:
                    sock.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    select.select([sock], [], [])
                except ssl.SSLWantWriteError:
                    select.select([], [sock], [])
            with sock:
                with pytest.raises(ssl.SSLWantReadError):
                    sock.recv(1)
                return sock.version()

        assert in_thread(example) == "TLSv1.3"

    def test_memory_bios(self, ssl, pki, port):
        """An SSLObject does no input and output: that is the caller's."""

        def example():
            context = ssl.create_default_context(cafile=pki.ca_file)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname=HOSTNAME)
            with socket.create_connection((HOSTNAME, port)) as sock:

                def until_done(function, *arguments):
                    while True:
                        try:
                            return function(*arguments)
                        except ssl.SSLWantReadError:
                            sock.sendall(outgoing.read())
                            if data := sock.recv(4096):
                                incoming.write(data)
                            else:
                                incoming.write_eof()
                        finally:
                            if outgoing.pending:
                                sock.sendall(outgoing.read())

                until_done(tls.do_handshake)
                until_done(tls.write, b"HEAD / HTTP/1.0\r\n\r\n")
                return until_done(tls.read), until_done(tls.read)

        answer, end = in_thread(example)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert end == b""

    def test_smtp_starttls(self, ssl, pki, trusted):
        def mail_server():
            context = contexts(pki, ssl=stdlib_ssl)[1]
            with listener, listener.accept()[0] as raw:
                raw.settimeout(PATIENCE)
                with raw.makefile("rwb", buffering=0) as file:
                    file.write(b"220 of the test\r\n")
                    assert file.readline().startswith(b"ehlo")
                    file.write(b"250-localhost\r\n250 STARTTLS\r\n")
                    assert file.readline() == b"STARTTLS\r\n"
                    file.write(b"220 2.0.0 Ready to start TLS\r\n")
                with context.wrap_socket(raw, server_side=True) as sock, sock.makefile("rwb", buffering=0) as file:
                    assert file.readline() == b"quit\r\n"
                    file.write(b"221 bye\r\n")

        def example():
            smtp = smtplib.SMTP("localhost", port=port)
            context = ssl.create_default_context()
            started = smtp.starttls(context=context)
            return started, type(smtp.sock), smtp.quit()

        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = gevent.spawn(in_thread, mail_server)
        started, kind, ended = in_thread(example)
        server.get(timeout=PATIENCE)
        assert started == (220, b"2.0.0 Ready to start TLS")
        assert kind is ssl.SSLSocket
        assert ended == (221, b"bye")


class TestPreSharedKeys:
    """Python 3.13's; greentls has them on each."""

    @pytest.mark.parametrize("table", [False, True], ids=["one key for all", "a table"])
    def test_psk(self, table):
        ssl = greentls.ssl
        keys = {"ClientId_1": bytes.fromhex("c0ffee"), "ClientId_2": bytes.fromhex("facade")}

        def context(protocol):
            made = ssl.SSLContext(protocol)
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
            made.maximum_version = ssl.TLSVersion.TLSv1_2
            made.set_ciphers("PSK")
            return made

        def example():
            psk = bytes.fromhex("c0ffee")
            client, server = context(ssl.PROTOCOL_TLS_CLIENT), context(ssl.PROTOCOL_TLS_SERVER)
            if table:
                client.set_psk_client_callback(lambda hint: ("ClientId_2", keys.get("ClientId_2", b"")))
                server.set_psk_server_callback(lambda identity: keys.get(identity, b""), "ServerId_1")
            else:
                client.set_psk_client_callback(lambda hint: (None, psk))
                server.set_psk_server_callback(lambda identity: psk)
            here, there = gevent.socket.socketpair()
            accepting = gevent.spawn(server.wrap_socket, there, server_side=True)
            with client.wrap_socket(here) as sock, accepting.get() as peer:
                sock.sendall(b"hello")
                return peer.recv(100), sock.cipher()[0]

        said, cipher = in_thread(example)
        assert said == b"hello"
        assert "PSK" in cipher
