"""The examples run, as their docstrings say."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from tests.keys.processes import KeyProcess
from tests.support.clients import exchange, stdlib_context
from tests.support.helpers import PATIENCE, ROOT, free_port, interrupted, tethered, wait_until
from tests.support.ocsp_authority import Authority, OpenSSLResponder
from tests.support.openssl import late

EXAMPLES = ROOT / "examples"

# Runs an example as it is, but for its hooks' deadline: a busy machine may hold up whom they ask for a second.
PATIENT = f"""
import runpy, sys
import greentls.ssl.context

greentls.ssl.context.CALLBACK_TIMEOUT = {PATIENCE}
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def example(name, *arguments):
    return [sys.executable, "-c", PATIENT, str(EXAMPLES / name), *map(str, arguments)]


@contextlib.contextmanager
def running(name, *arguments):
    """A server of examples/, once it has said that it listens; Ctrl-C ends it. Gives its process."""
    process = subprocess.Popen(
        tethered(*example(name, *arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline().startswith("listening on ")
        yield process
    finally:
        wait_until(lambda: interrupted(process), "the server to end")
        process.communicate()


def run(name, *arguments):
    done = subprocess.run(example(name, *arguments), capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_named_in_a_test(path):
    assert len(path.read_text("utf-8").splitlines()) <= 60
    assert path.name in Path(__file__).read_text("utf-8")


def test_echo_servers_share_sessions_and_the_client_resumes(pki, memcached, tmp_path):
    (tmp_path / "fleet.key").write_bytes(os.urandom(32))
    store = memcached.url(secret_file=tmp_path / "fleet.key")
    ports = free_port(), free_port()
    client = stdlib_context(pki)
    with (
        running("echo_server.py", pki.cert_file, pki.key_file, store, f"127.0.0.1:{ports[0]}") as first,
        running("echo_server.py", pki.cert_file, pki.key_file, store, f"127.0.0.1:{ports[1]}") as second,
    ):
        session = exchange(("127.0.0.1", ports[0]), client).session
        assert "full handshake" in first.stdout.readline()
        memcached.wait_for(2)
        assert exchange(("127.0.0.1", ports[1]), client, session=session).reused
        assert "resumed from memcached" in second.stdout.readline()
        for arguments, first in (([], "False"), ([store], "False"), ([store], "True")):  # the last finds what is stored
            lines = run("client_sessions.py", "localhost", ports[0], pki.ca_file, *arguments).splitlines()
            assert [line.split()[:2] for line in lines] == [
                ["TLSv1.3", f"resumed={first}"],
                ["TLSv1.3", "resumed=True"],
            ]


def test_ticket_keys_come_from_memcached_or_a_file(pki, memcached, tmp_path):
    (tmp_path / "fleet.key").write_bytes(os.urandom(32))
    (tmp_path / "ticket.key").write_bytes(os.urandom(80))
    for where in (memcached.url(secret_file=tmp_path / "fleet.key"), tmp_path / "ticket.key"):
        addresses = [("127.0.0.1", free_port()) for _ in range(2)]
        client, session = stdlib_context(pki), None
        with (
            running("ticket_keys.py", pki.cert_file, pki.key_file, where, "{}:{}".format(*addresses[0])),
            running("ticket_keys.py", pki.cert_file, pki.key_file, where, "{}:{}".format(*addresses[1])) as second,
        ):
            for address, how in zip(addresses, (b"full handshake\n", b"resumed from its ticket\n"), strict=True):
                visit = exchange(address, client, b"", session=session, answer=len(how))
                assert visit.data == how
                session = visit.session
            said = second.stdout.readline()
            assert re.search(r"resumed from its ticket; 1 keys, agreed on \d+ s ago", said)


@pytest.mark.parametrize("example", ["waiting_sni.py", "asyncio_sni.py"])
def test_the_database_is_asked_for_a_certificate(example, pki, tmp_path):
    with sqlite3.connect(tmp_path / "names.sqlite") as database:
        database.execute("create table names (name, certificate, key)")
        database.execute("insert into names values (?, ?, ?)", ("localhost", pki.cert_file, pki.key_file))
    database.close()
    address = "127.0.0.1", free_port()
    with running(example, tmp_path / "names.sqlite", "{}:{}".format(*address)):
        assert exchange(address, stdlib_context(pki), b"", answer=21).data == b"hello from localhost\n"
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            exchange(address, stdlib_context(pki), server_hostname="elsewhere.test")


class SigningService(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        digest = self.rfile.read(int(self.headers["Content-Length"]))
        algorithm = {32: hashes.SHA256()}[len(digest)]
        signature = self.server.key.sign(digest, ec.ECDSA(Prehashed(algorithm)))
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(signature)

    def log_message(self, *_):
        pass


def test_remote_key_asks_the_service(pki):
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SigningService)
    service.key = serialization.load_pem_private_key(Path(pki.key_file).read_bytes(), None)
    service.asked = []
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    try:
        address = "127.0.0.1", free_port()
        url = f"http://127.0.0.1:{service.server_port}/sign"
        with running("remote_key.py", pki.cert_file, url, "{}:{}".format(*address)):
            answer = exchange(address, stdlib_context(pki), b"", answer=26).data
            assert re.fullmatch(rb"\d+\.\d{3} s for the signature\n", answer)
    finally:
        service.shutdown()
        thread.join()
        service.server_close()
    assert service.asked == ["/sign?algorithm=ecdsa_secp256r1_sha256"]


def test_key_elsewhere_signs_by_a_key_process_and_by_a_token(pki, tmp_path, softhsm):
    process = KeyProcess(tmp_path / "keys.sock", pki.key_file)
    softhsm.add(pki.key_file, "example")
    try:
        for where in (process.path, softhsm.uri(object="example")):
            address = "127.0.0.1", free_port()
            with running("key_elsewhere.py", pki.cert_file, where, "{}:{}".format(*address)):
                assert exchange(address, stdlib_context(pki), b"", answer=17).data == b"signed elsewhere\n"
    finally:
        process.close()


def test_wsgi_server_tells_how_the_connection_came_about(pki):
    address = "127.0.0.1", free_port()
    with running("wsgi_server.py", pki.cert_file, pki.key_file, "{}:{}".format(*address)):
        client, session = stdlib_context(pki), None
        for how in (b"full", b"resumed"):
            with (
                socket.create_connection(address, PATIENCE) as raw,
                client.wrap_socket(raw, server_hostname="localhost", session=session) as sock,
            ):
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                page = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
                session = sock.session
            assert page.endswith(how + b"\n")


def test_metrics_counts_handshakes_and_how_they_were_resumed(pki):
    address, metrics = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    with running("metrics.py", pki.cert_file, pki.key_file, "{}:{}".format(*address), "{}:{}".format(*metrics)):
        request, client = b"GET / HTTP/1.0\r\n\r\n", stdlib_context(pki)
        session = exchange(address, client, request, answer=1000).session
        assert exchange(address, client, request, session=session, answer=1000).reused
        with urllib.request.urlopen("http://{}:{}/metrics".format(*metrics), timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
    for how in ("full", "stateful"):
        assert f'greentls_handshakes_total{{resumption="{how}",side="server",version="TLSv1.3"}} 1.0' in lines


def test_early_data_answers_a_get_at_once_and_a_post_later(pki, memcached, tmp_path):
    (tmp_path / "fleet.key").write_bytes(os.urandom(32))
    address = "127.0.0.1:" + str(free_port())
    store = memcached.url(secret_file=tmp_path / "fleet.key")
    s_client = ["openssl", "s_client", "-connect", address, "-CAfile", pki.ca_file, "-quiet", "-verify_return_error"]
    session = tmp_path / "session.pem"

    def ask(request, *options):
        done = subprocess.run([*s_client, *options], input=request, capture_output=True, timeout=PATIENCE)
        return done.stdout.partition(b"\r\n\r\n")

    with running("early_data.py", pki.cert_file, pki.key_file, store, address):
        head, _, body = ask(b"GET / HTTP/1.0\r\n\r\n", "-sess_out", session)
        assert (head.split()[1], body) == (b"200", b"not early, finished\n")
        memcached.wait_for(2)  # s_client has kept the last of its two
        for request, status, said in (
            (b"GET / HTTP/1.0\r\n\r\n", b"200", b"early, unfinished\n"),
            (b"GET /wait HTTP/1.0\r\n\r\n", b"200", b"early, finished\n"),
            (b"DELETE / HTTP/1.0\r\n\r\n", b"425", b"again, after the handshake\n"),
        ):
            (tmp_path / "request").write_bytes(request)
            head, _, body = ask(b"", "-sess_in", session, "-early_data", tmp_path / "request", "-ign_eof")
            assert (head.split()[1], body) == (status, said)
        port = address.partition(":")[2]
        said = ["not early, finished early_data_accepted=None", "early, unfinished early_data_accepted=True"]
        # The first session is put into the store behind the client's back, which may come back sooner.
        wait_until(
            lambda: run("early_client.py", "localhost", port, pki.ca_file).splitlines() == said,
            "a second connection that finds the session of the first",
        )


def test_sni_router_passes_through_and_refuses_unknown_names(pki):
    backend, front = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    route = "localhost={}:{}".format(*backend)
    with (
        running("echo_server.py", pki.cert_file, pki.key_file, "memory://", "{}:{}".format(*backend)),
        running("sni_router.py", "{}:{}".format(*front), route),
    ):
        assert exchange(front, stdlib_context(pki), bytes(200_000)).data == bytes(200_000)
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            exchange(front, stdlib_context(pki), server_hostname="elsewhere.test")


def test_hello_logger_knows_its_clients(pki):
    address = "127.0.0.1", free_port()
    with running("hello_logger.py", pki.cert_file, pki.key_file, "{}:{}".format(*address)) as server:
        client = stdlib_context(pki)
        client.set_alpn_protocols(["http/1.1"])
        ja4 = exchange(address, client, b"", answer=37).data.decode().strip()
        assert ja4.startswith("t13d")
        assert server.stdout.readline() == f"127.0.0.1 'localhost' alpn='http/1.1' 0x0304 {ja4}\n"


def test_certificate_by_hello_serves_old_clients_too(pki):
    address = "127.0.0.1", free_port()
    rsa = pki.issue("localhost", kind="rsa")
    with running("certificate_by_hello.py", pki.cert_file, pki.key_file, *rsa, "{}:{}".format(*address)):
        for options, said in (([], b"TLSv1.3"), (["-sigalgs", "RSA+SHA256"], b"TLSv1.2 ECDHE-RSA")):
            command = ["openssl", "s_client", "-connect", "{}:{}".format(*address), "-CAfile", pki.ca_file, "-quiet"]
            done = subprocess.run([*command, *options], capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
            assert done.stdout.startswith(said)


def test_verify_peer_asks_the_database_and_asks_again_on_a_resumption(pki, tmp_path):
    certificate, key = pki.issue("a client", client=True)
    client = stdlib_context(pki)
    client.load_cert_chain(certificate, key)
    fingerprint = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).fingerprint(hashes.SHA256()).hex()
    database = sqlite3.connect(tmp_path / "clients.sqlite", isolation_level=None)
    with contextlib.closing(database):
        database.execute("create table clients (fingerprint)")
        database.execute("insert into clients values (?)", (fingerprint,))
        address = "127.0.0.1", free_port()
        arguments = pki.cert_file, pki.key_file, pki.ca_file, tmp_path / "clients.sqlite"
        with running("verify_peer.py", *arguments, "{}:{}".format(*address)):
            first = exchange(address, client, b"", answer=31)
            assert first.data == b"hello a client, full handshake\n"
            again = exchange(address, client, b"", first.session, answer=24)
            assert again.data == b"hello a client, resumed\n"
            database.execute("delete from clients")
            for session, alert in ((None, "bad certificate"), (first.session, late("bad certificate"))):
                with pytest.raises(ssl.SSLError, match="(?i)" + alert.replace(" ", ".")):
                    exchange(address, client, b"", session, answer=24)


def test_external_psk_knows_its_devices(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "keys.sqlite", isolation_level=None)) as database:
        database.execute("create table keys (identity, key)")
        database.execute("insert into keys values (?, ?)", ("sensor-17", b"key of sensor 17"))
    address = "127.0.0.1", free_port()
    command = ["openssl", "s_client", "-connect", "{}:{}".format(*address), "-quiet", "-psk", b"key of sensor 17".hex()]
    with running("external_psk.py", tmp_path / "keys.sqlite", "{}:{}".format(*address)):
        for version, dots in (("-tls1_2", b"1.2"), ("-tls1_3", b"1.3")):
            for identity, said in (("sensor-17", b"hello over TLSv" + dots + b"\n"), ("sensor-18", b"")):
                done = subprocess.run(
                    [*command, "-psk_identity", identity, version],
                    capture_output=True,
                    timeout=PATIENCE,
                    stdin=subprocess.DEVNULL,
                )
                assert done.stdout == said


def test_post_handshake_auth_asks_when_it_is_needed(pki, tmp_path):
    (tmp_path / "names.txt").write_text("alice bob\n")
    address = "127.0.0.1", free_port()
    arguments = pki.cert_file, pki.key_file, pki.ca_file, tmp_path / "names.txt"
    with running("post_handshake_auth.py", *arguments, "{}:{}".format(*address)):
        for name, welcome in (("alice", True), ("mallory", False)):
            client = stdlib_context(pki, post_handshake_auth=True)
            client.load_cert_chain(*pki.issue(name, client=True))
            with (
                socket.create_connection(address, PATIENCE) as raw,
                client.wrap_socket(raw, server_hostname="localhost") as sock,
            ):
                for ask, answer in ((b"public", b"here you are: public\n"), (b"private", b"show a certificate")):
                    sock.sendall(ask + b"\n")
                    assert sock.recv(100).startswith(answer)
                sock.sendall(b"private\n")
                if welcome:
                    assert sock.recv(100) == b"here you are: private\n"
                else:
                    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                        sock.recv(100)


def test_a_server_staples_and_a_client_refuses_who_was_revoked(tmp_path):
    responder = OpenSSLResponder()
    authority = Authority(tmp_path, responder.url)
    good, revoked = authority.issue(), authority.issue()
    authority.revoke(revoked.certificate)
    responder.start(authority)
    try:
        for issued in good, revoked:
            address = "127.0.0.1", free_port()
            arguments = issued.cert_file, issued.key_file, tmp_path / "responses", "{}:{}".format(*address)
            with running("stapling_server.py", *arguments) as server:
                for mode in ("require", "check"):
                    client = example("revocation_client.py", "localhost", address[1], authority.ca_file, mode)
                    done = subprocess.run(client, capture_output=True, text=True, timeout=PATIENCE)
                    if issued is good:
                        assert re.fullmatch(r"localhost: good, good for \d+ min\n", done.stdout)
                    else:
                        assert "alert internal error" in done.stderr  # policy="strict"
                if issued is revoked:
                    assert "REVOKED since" in server.stdout.readline()
        # another server, which does not care
        address = "127.0.0.1", free_port()
        with running("echo_server.py", revoked.cert_file, revoked.key_file, "memory://", "{}:{}".format(*address)):
            for mode, said in (("require", "has sent no OCSP response"), ("check", "certificate revoked at")):
                assert said in run("revocation_client.py", "localhost", address[1], authority.ca_file, mode)
    finally:
        responder.stop()


def test_memory_handshake_needs_no_socket(pki):
    lines = run("memory_handshake.py", pki.cert_file, pki.key_file, pki.ca_file).splitlines()
    assert lines[0].startswith("client -> ")
    assert lines[-1] == "TLSv1.3 b'no socket anywhere'"


def test_http2_server_speaks_both(pki):
    address = "127.0.0.1", free_port()
    with running("http2_server.py", pki.cert_file, pki.key_file, "{}:{}".format(*address)):
        for options, version, said in (
            (["--http2"], "2", "hello over HTTP/2"),
            (["--http1.1"], "1.1", "hello over HTTP/1.1"),
            (["--http2", "--tls-max", "1.2"], "1.1", "hello over HTTP/1.1"),
        ):
            command = ["curl", "-sS", *options, "--cacert", pki.ca_file, "-w", "%{http_version}"]
            command.append(f"https://localhost:{address[1]}/")
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert (done.stdout, done.stderr) == (f"{said}\n{version}", "")


def test_certificates_directory_takes_what_is_there_when_it_is_told(pki, tmp_path):
    def put(name):
        pair = pki.issue(name)
        for source, suffix in zip(pair, (".pem", ".key"), strict=True):
            shutil.copy(source, tmp_path / f"{name}{suffix}")

    def visit(name):
        return exchange(
            address, stdlib_context(pki), b"", server_hostname=name, answer=len("hello from \n") + len(name)
        )

    put("a.example")
    address = "127.0.0.1", free_port()
    with running("certificates_directory.py", tmp_path, "{}:{}".format(*address)) as server:
        assert visit("a.example").data == b"hello from a.example\n"
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            visit("b.example")
        put("b.example")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: outcome(visit, "b.example"), "the new name to be served")


def outcome(function, *arguments):
    with contextlib.suppress(ssl.SSLError):
        return function(*arguments)


def test_certificates_on_demand_are_asked_for_once(pki):
    asked = []

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            pem = [Path(file).read_bytes() for file in pki.issue(self.path[1:])]
            self.send_response(200 if self.path.endswith(".ours.example") else 404)
            self.end_headers()
            self.wfile.write(b"".join(pem))

        def log_message(self, *_):
            pass

    address = "127.0.0.1", free_port()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{service.server_address[1]}"
        try:
            with running("certificates_on_demand.py", url, "{}:{}".format(*address)):
                for _ in range(3):
                    answer = exchange(address, stdlib_context(pki), b"", server_hostname="new.ours.example", answer=28)
                    assert answer.data == b"hello from new.ours.example\n"
                    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
                        exchange(address, stdlib_context(pki), server_hostname="strange.example")
        finally:
            service.shutdown()
            thread.join(PATIENCE)
    assert asked == ["/new.ours.example", "/strange.example"]
