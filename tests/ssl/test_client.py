"""SSLContext as a client, against the standard library's server and openssl's."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading

import gevent
import pytest
from gevent import select
from gevent.socket import create_connection

import greentls
from tests.ssl.peers import StdlibServer, client_context, connect
from tests.support.helpers import PATIENCE, free_port, tethered, wait_until
from tests.support.ssl_pairs import both_versions, connected, contexts


@pytest.fixture
def server(pki):
    server = StdlibServer(pki)
    yield server
    server.close()


@both_versions
class TestClient:
    def test_talks_and_tells(self, pki, server, version):
        with connect(server.address, client_context(pki, version)) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            assert sock.version() == f"TLSv{version}"
            assert sock.cipher()[1] == f"TLSv{version}"
            assert sock.session_reused is False
            with open(pki.cert_file) as file:
                assert sock.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(file.read())
            assert sock.getpeercert() == ssl._ssl._test_decode_cert(pki.cert_file)
            assert sock.getpeername() == server.address
            assert f"TLSv{version}" in repr(sock)

    def test_resumes_with_its_session(self, pki, server, version):
        context = client_context(pki, version)
        with connect(server.address, context) as sock:
            sock.sendall(b"hello")
            sock.recv(100)
            session = sock.session
        with connect(server.address, context, session=session) as sock:
            sock.sendall(b"again")
            assert sock.recv(100) == b"again"
            assert sock.session_reused is True

    def test_a_certificate_of_nobody_we_trust_is_refused(self, pki, server, version):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed") as caught:
            connect(server.address, context)
        assert caught.value.verify_code in (19, 20)
        assert caught.value.verify_message
        assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"

    def test_a_certificate_for_another_name_is_refused(self, pki, server, version):
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed") as caught:
            connect(server.address, client_context(pki, version), server_hostname="elsewhere.test")
        assert caught.value.verify_code == 62

    def test_an_address_is_checked_as_one(self, pki, server, version):
        with connect(server.address, client_context(pki, version), server_hostname="127.0.0.1") as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(server.address, client_context(pki, version), server_hostname="127.0.0.2")

    def test_without_verification_anything_goes(self, pki, server, version):
        context = client_context(pki, version, check_hostname=False)
        context.verify_mode = ssl.CERT_NONE
        with connect(server.address, context, server_hostname="elsewhere.test") as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            assert sock.getpeercert() == {}, "nobody vouches for it"

    def test_trust_from_memory(self, pki, server, version):
        with open(pki.ca_file) as file:
            pem = file.read()
        for data in (pem, ssl.PEM_cert_to_DER_cert(pem)):
            context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=data)
            connect(server.address, context).close()

    def test_a_client_certificate(self, pki, version):
        server = StdlibServer(pki)
        server.context.load_verify_locations(pki.ca_file)
        server.context.verify_mode = ssl.CERT_REQUIRED
        try:
            context = client_context(pki, version)
            context.load_cert_chain(*pki.client)
            with connect(server.address, context) as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
            with (
                pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|handshake.failure"),
                connect(server.address, client_context(pki, version)) as sock,
            ):
                sock.recv(100)  # with TLS 1.3 the client's part of the handshake is over before the server looks
        finally:
            server.close()

    def test_no_common_version_is_an_ssl_error(self, pki, version):
        server = StdlibServer(pki)
        if version == "1.2":
            server.context.minimum_version = ssl.TLSVersion.TLSv1_3
        else:
            server.context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
                connect(server.address, client_context(pki, version))
        finally:
            server.close()

    def test_something_that_is_no_tls_is_an_ssl_error(self, pki, version):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def speak():
                sock, _ = listener.accept()
                with sock:
                    sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                    sock.recv(4096)

            thread = threading.Thread(target=speak, daemon=True)
            thread.start()
            with pytest.raises(ssl.SSLError, match=NO_TLS):
                connect(listener.getsockname(), client_context(pki, version))
            thread.join(PATIENCE)

    def test_unwrap_gives_the_plain_socket(self, pki, version):
        here, there = socket.socketpair()
        stdlib = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        stdlib.load_cert_chain(pki.cert_file, pki.key_file)

        def serve():
            there.settimeout(PATIENCE)
            with stdlib.wrap_socket(there, server_side=True) as sock:
                assert sock.recv(100) == b"bye"
                with sock.unwrap() as plain:
                    plain.sendall(b"in clear, and more")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        sock = client_context(pki, version).wrap_socket(here, server_hostname="localhost")
        sock.sendall(b"bye")
        with gevent.Timeout(PATIENCE), sock.unwrap() as plain:
            buffer = bytearray(3)
            assert plain.recv(2) == b"in"
            assert plain.recv_into(buffer) == 3
            assert buffer + plain.makefile("rb").read() == b" clear, and more"
        assert sock.fileno() == -1
        thread.join(PATIENCE)

    def test_makefile(self, pki, server, version):
        sock = connect(server.address, client_context(pki, version))
        with sock.makefile("rwb") as file:
            sock.close()
            file.write(b"one\ntwo\n")
            file.flush()
            assert [file.readline(), file.readline()] == [b"one\n", b"two\n"]
            assert sock.fileno() != -1
        assert sock.fileno() == -1


@both_versions
class TestBuffers:
    """hazard: a traceback keeps a buffer exported, and its release raises BufferError in place of what happened."""

    def test_what_ends_a_recv_into_comes_out_as_itself_and_the_buffer_is_free(self, pki, server, version):
        storage = bytearray(100)
        failures = []
        with connect(server.address, client_context(pki, version)) as sock:

            def receive():
                try:
                    sock.recv_into(storage)
                except BaseException as failure:
                    failures.append(failure)  # and with it its traceback
                storage.append(1)  # BufferError if it were still exported

            with gevent.Timeout(0.01) as late:
                receive()
            job = gevent.spawn(receive)
            gevent.sleep(0)
            job.kill(timeout=PATIENCE)
            sock.settimeout(0.01)
            receive()
            sock._connection.die("for the test")
            receive()
        assert failures[0] is late
        assert [type(each) for each in failures[1:]] == [gevent.GreenletExit, TimeoutError, ssl.SSLError]

    def test_what_ends_a_send_comes_out_as_itself_and_the_buffer_is_free(self, pki, server, version):
        storage = bytearray(20_000_000)
        failures = []
        with connect(server.address, client_context(pki, version)) as sock:

            def send():
                try:
                    sock.sendall(storage)
                except BaseException as failure:
                    failures.append(failure)
                storage.append(1)

            with gevent.Timeout(0.01) as late:
                send()
            sock._connection.die("for the test")
            send()
        assert failures[0] is late
        assert type(failures[1]) is ssl.SSLError


def test_a_connection_that_is_still_open_when_the_interpreter_ends_is_silent(pki, server):
    """hazard: a finalizer closes it when greenlets are no more (seen on 3.13)."""
    program = f"""if True:
        import gc, ssl, gevent, greentls
        from gevent.socket import create_connection
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations({pki.ca_file!r})
        sock = context.wrap_socket(create_connection({server.address!r}), server_hostname="localhost")
        file = sock.makefile("rb")
        sock.close()
        job = gevent.spawn(file.readline)
        gevent.sleep(0.01)
        job.kill()
        cycle = [job, file]
        cycle.append(cycle)
        gc.disable()
        del file, sock, job, cycle
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@both_versions
class TestNonBlocking:
    def test_a_whole_conversation_driven_by_want_read_and_want_write(self, pki, server, version):
        raw = create_connection(server.address, timeout=PATIENCE)
        sock = client_context(pki, version).wrap_socket(raw, server_hostname="localhost", do_handshake_on_connect=False)

        def until_done(function, *arguments):
            while True:
                try:
                    return function(*arguments)
                except ssl.SSLWantReadError as want:
                    assert want.args == (2, "The operation did not complete (read)")
                    select.select([sock], [], [], PATIENCE)
                except ssl.SSLWantWriteError as want:
                    assert want.args == (3, "The operation did not complete (write)")
                    select.select([], [sock], [], PATIENCE)

        with sock:
            sock.setblocking(False)
            until_done(sock.do_handshake)
            with pytest.raises(ssl.SSLWantReadError):
                sock.recv(1)
            until_done(sock.send, b"hello")
            assert until_done(sock.recv, 100) == b"hello"

    def test_send_takes_nothing_that_it_does_not_send(self, pki, version):
        """hazard: a send() that raised is repeated, and the peer gets the data twice."""
        data = bytes(range(256)) * 20_000
        sent = refused = 0
        got = bytearray()
        with connected(*contexts(pki, version)) as (sock, peer), gevent.Timeout(PATIENCE):
            sock.settimeout(0.0)
            while sent < len(data):
                try:
                    sent += sock.send(data[sent:])
                except ssl.SSLWantWriteError:
                    refused += 1
                    got += peer.recv(100_000)
            sock.settimeout(PATIENCE)
            rest = gevent.spawn(sock.sendall, b".")  # what was taken goes first
            while len(got) < len(data) + 1:
                got += peer.recv(100_000)
            rest.get()
        assert refused
        assert got.pop() == ord(".")
        assert got == data

    def test_a_send_that_is_late_takes_nothing(self, pki, version):
        data = bytes(range(256)) * 20_000
        sent = 0
        with connected(*contexts(pki, version)) as (sock, peer), gevent.Timeout(PATIENCE):
            sock.settimeout(0.01)
            with pytest.raises(TimeoutError, match="The write operation timed out"):
                while True:
                    sent += sock.send(data[sent:])
            sock.settimeout(PATIENCE)
            rest = gevent.spawn(sock.sendall, data[sent:])
            got = bytearray()
            while len(got) < len(data):
                got += peer.recv(100_000)
            rest.get()
        assert got == data


# The last one is what OpenSSL 3.2 to 3.4 say, and the standard library with them.
NO_TLS = r"(?i)wrong.version.number|http.request|packet length|record.layer.failure"


class TestArguments:
    def test_it_is_an_ssl_socket_to_those_who_ask(self, pki, server):
        with connect(server.address, client_context(pki)) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert isinstance(sock, greentls.SSLSocket)
            assert type(sock) is greentls.SSLSocket

    def test_a_context_checks_what_it_is_given(self, pki, tmp_path):
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        nonsense = tmp_path / "nonsense.pem"
        nonsense.write_text("no certificate")
        key_of_another = pki.issue("another")[1]
        for arguments, said in [
            ((nonsense,), f"certificate file {nonsense}: not a PEM certificate"),
            ((pki.cert_file, nonsense), f"key file {nonsense}: no PEM private key in it"),
            ((pki.cert_file, key_of_another), "the key does not fit"),
            ((pki.cert_file,), "no PEM private key in it"),
        ]:
            with pytest.raises(ssl.SSLError) as caught:
                context.load_cert_chain(*arguments)
            assert said in str(caught.value)
        with pytest.raises(FileNotFoundError):
            context.load_cert_chain(tmp_path / "none.pem")

    def test_a_server_without_a_certificate_is_told_so(self):
        here, there = socket.socketpair()
        with there, here, pytest.raises(ssl.SSLError, match="load_cert_chain"):
            greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(here, server_side=True)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"server_side": True, "server_hostname": "x"}, "client mode"),
            ({}, "check_hostname requires server_hostname"),
        ],
    )
    def test_wrap_socket_refuses_as_the_standard_library_does(self, pki, options, said):
        here, there = socket.socketpair()
        with here, there, pytest.raises(ValueError, match=said):
            client_context(pki).wrap_socket(here, **options)
        assert here.fileno() == -1 or there.fileno() == -1

    def test_flags_and_datagrams_are_refused(self, pki, server):
        with connect(server.address, client_context(pki)) as sock:
            for call in (lambda: sock.recv(1, socket.MSG_PEEK), lambda: sock.send(b"x", socket.MSG_OOB)):
                with pytest.raises(ValueError, match="non-zero flags"):
                    call()
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams, pytest.raises(NotImplementedError):
            client_context(pki).wrap_socket(datagrams, server_hostname="x")

    def test_timeouts_are_the_sockets(self, pki, server):
        with connect(server.address, client_context(pki)) as sock:
            assert sock.gettimeout() == PATIENCE
            sock.settimeout(0.01)
            with pytest.raises(TimeoutError, match="The read operation timed out"):
                sock.recv(1)
            with pytest.raises(ValueError, match="out of range"):
                sock.settimeout(-1)
            sock.setblocking(True)
            assert (sock.gettimeout(), sock.getblocking()) == (None, True)


@pytest.mark.programs
def test_resumes_against_openssl_s_server(pki):
    """A server of another make, whose TLS 1.3 tickets come after the handshake."""
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki.cert_file, "-key", pki.key_file]
    command = tethered(*command, "-www", "-quiet")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    try:
        wait_until(listens, "openssl s_server")
        context, session = client_context(pki), None
        reused = []
        for _ in range(3):
            with connect(("127.0.0.1", port), context, session=session) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                page = b""
                while chunk := sock.recv(65536):
                    page += chunk
                assert b"s_server" in page
                reused.append(sock.session_reused)
                session = sock.session
        assert reused == [False, True, True]
    finally:
        process.kill()
        process.wait()
