"""Ticket keys of a fleet, for clients of others; and the key files of nginx and HAProxy, read as these read them."""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import shutil
import ssl
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import greentls
from greentls.tickets import ANNOUNCE, LIFETIME, TicketKeys
from tests.interop.foreign_programs import Program
from tests.support.clients import in_thread
from tests.support.helpers import free_port, wait_until

HERE = Path(__file__).parent
NOW = 1_800_000_000
ROTATION = LIFETIME / 4


class Lines:
    """A program that answers each line on its standard input with one of JSON, a list."""

    def __init__(self, *command):
        self._program = Program(*command)
        self._count = 0

    def next(self):
        self._count += 1
        self._program.wait_for(rf"\A(?:\[.*\]\n){{{self._count}}}")
        return json.loads(self._program.out.decode().splitlines()[self._count - 1])

    def ask(self, number):
        self._program.write(f"{number:.0f}\n".encode())
        return self.next()


class Worker:
    """A process with two machines, whose clocks differ."""

    SKEWS = 0, 25

    def __init__(self, pki, store):
        arguments = pki.cert_file, pki.key_file, store, *self.SKEWS
        self._lines = Lines(sys.executable, HERE / "ticket_worker.py", *arguments)
        self.ports = self._lines.next()

    def at(self, now):
        return self._lines.ask(now)


class OpenSSL:
    def __init__(self, pki, version, directory):
        self._command = ["openssl", "s_client", "-CAfile", pki.ca_file, "-servername", "localhost", "-ign_eof"]
        self._command += ["-verify_return_error", f"-tls{version.replace('.', '_')}"]
        self.session = directory / "session.pem"

    def visit(self, port):
        """(how, in the server's words; the name of the key that seals there)"""
        resume = ["-sess_in", self.session] if self.session.exists() else []
        program = Program(*self._command, "-connect", f"127.0.0.1:{port}", "-sess_out", self.session, *resume)
        assert program.finish() == 0, program.text
        how, sealing = re.search(r"^(full|resumed) ([0-9a-f]{32})$", program.text, re.MULTILINE).groups()
        assert ("Reused, TLSv" if how == "resumed" else "New, TLSv") in program.text
        return how, sealing


class Node:
    def __init__(self, pki, version, directory):
        self._lines = Lines("node", HERE / "ticket_client.js", f"TLSv{version}", pki.ca_file)

    def visit(self, port):
        how, said = self._lines.ask(port)
        assert said.startswith(how), said
        return tuple(said.split())


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "fleet.key"
    path.write_bytes(os.urandom(32))
    return path


@pytest.mark.parametrize("foreign", [OpenSSL, Node])
def test_a_client_resumes_at_every_machine_while_the_keys_rotate_and_memcached_dies(
    foreign, pki, version, memcached, secret_file, tmp_path
):
    workers = [Worker(pki, memcached.url(secret_file=secret_file)) for _ in range(2)]
    ports = [workers[number % 2].ports[number // 2] for number in range(4)]
    client = foreign(pki, version, tmp_path)

    def at(now):
        return [machine for worker in workers for machine in worker.at(now)]

    now = NOW
    at(now)
    assert client.visit(ports[0])[0] == "full"
    sealed = []
    for _ in range(3):
        (sealing,) = {sealing for _, _, sealing in at(now)}
        for port in ports:
            assert client.visit(port) == ("resumed", sealing)
        sealed.append(sealing)
        now += ROTATION - ANNOUNCE
        assert {outcome for outcome, _, _ in at(now)} == {"agreed"}
        assert client.visit(ports[1])[0] == "resumed"
        now += ANNOUNCE
        at(now)
    assert len(set(sealed)) == 3, "it rotated twice"
    memcached.kill()
    for turn in (1, 2):
        now += LIFETIME
        told = at(now)
        assert {outcome for outcome, _, _ in told} & {"ConnectionError", "MemcacheError"}
        assert {age for _, age, _ in told} == {turn * LIFETIME}
        for port in ports:
            assert client.visit(port)[0] == "resumed"


def test_a_ticket_whose_key_has_ended_is_a_full_handshake(pki, version, memcached, secret_file, tmp_path):
    worker = Worker(pki, memcached.url(secret_file=secret_file))
    client = OpenSSL(pki, version, tmp_path)
    worker.at(NOW)
    assert client.visit(worker.ports[0])[0] == "full"
    kept = shutil.copy(client.session, tmp_path / "kept.pem")
    for turn in range(1, 7):
        worker.at(NOW + turn * ROTATION)
        how = "resumed" if turn * ROTATION <= LIFETIME else "full"
        assert client.visit(worker.ports[1])[0] == how
        shutil.copy(kept, client.session)
    assert how == "full"


# -- the files of nginx and HAProxy: what they seal is opened with the keys that were read -----------------------------


def nginx_session(pki, directory, version, files):
    port = free_port()
    keys = "\n".join(f"ssl_session_ticket_key {path};" for path in files)
    (directory / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {directory}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
            server {{
                listen 127.0.0.1:{port} ssl; ssl_protocols TLSv{version};
                ssl_certificate {pki.cert_file}; ssl_certificate_key {pki.key_file};
                {keys}
                return 200 "hello";
            }}
        }}"""
    )
    program = Program("/usr/sbin/nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", "stderr")
    return session_of(pki, port, program)


def haproxy_session(pki, directory, version, files):
    port = free_port()
    both = directory / "both.pem"
    both.write_text(Path(pki.cert_file).read_text() + Path(pki.key_file).read_text())
    versions = f"ssl-min-ver TLSv{version} ssl-max-ver TLSv{version}"
    bind = f"127.0.0.1:{port} ssl crt {both} tls-ticket-keys {files[0]} {versions}"
    (directory / "haproxy.cfg").write_text(
        "defaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 30s\n"
        f"frontend here\n bind {bind}\n http-request return status 200\n"
    )
    program = Program("/usr/sbin/haproxy", "-db", "-f", directory / "haproxy.cfg")
    return session_of(pki, port, program)


def session_of(pki, port, program):
    """What our client would resume there."""
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.ca_file)

    def session():
        assert program.process.poll() is None, program.text
        try:
            sock = greentls.ssl.create_connection(("127.0.0.1", port))
        except OSError:
            return None
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while tls.recv(65536):
                pass
            return tls.session

    return bytes(wait_until(session, "the server to answer"))


def opened(key, blob):
    """The session in the ticket that is somewhere in the blob, by RFC 5077 section 4's recommended construction."""
    start = blob.index(key.name)
    size = int.from_bytes(blob[start - 2 : start], "big") if blob[start - 3] == 0x82 else blob[start - 1]
    ticket = blob[start : start + size]
    sealed, mac = ticket[:-32], ticket[-32:]
    assert hmac.compare_digest(hmac.digest(key.hmac, sealed, "sha256"), mac)
    decryptor = Cipher(algorithms.AES(key.aes), modes.CBC(sealed[16:32])).decryptor()
    padded = decryptor.update(sealed[32:]) + decryptor.finalize()
    return greentls.Session.from_bytes(padded[: -padded[-1]])


@pytest.mark.parametrize("size", [48, 80])
def test_the_keys_of_nginxs_files_open_nginxs_tickets(pki, version, tmp_path, size):
    files = [tmp_path / f"{number}.key" for number in range(2)]
    for path in files:
        path.write_bytes(os.urandom(size))
    sealing, _ = TicketKeys.file(*files).keys
    assert opened(sealing, in_thread(nginx_session, pki, tmp_path, version, files)).timeout > 0


@pytest.mark.parametrize("size", [48, 80])
def test_the_keys_of_haproxys_file_open_haproxys_tickets(pki, version, tmp_path, size):
    path = tmp_path / "tickets.keys"
    path.write_bytes(b"".join(base64.b64encode(os.urandom(size)) + b"\n" for _ in range(5)))
    sealing = TicketKeys.file(path).keys[0]
    assert opened(sealing, in_thread(haproxy_session, pki, tmp_path, version, [path])).timeout > 0
