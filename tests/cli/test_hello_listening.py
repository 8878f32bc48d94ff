"""`greentls hello --listen`: clients that connect to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
from datetime import datetime, timezone

import pytest

from tests.cli.hellos import BAD_NAME, EXPECTED, NAME_FAULT, PLAIN, STREAMS, record
from tests.cli.packets import packet, pcap
from tests.support.helpers import PATIENCE, tethered, wait_until, whole_lines


class Listening:
    """A running `greentls hello --listen`."""

    def __init__(self, directory, *arguments, host="localhost"):
        self._out, self._err = directory / "out", directory / "err"
        command = [sys.executable, "-W", "default", "-m", "greentls", "hello", "--listen", f"{host}:0", *arguments]
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(tethered(*command), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        wait_until(lambda: self._lines() or self.process.poll() is not None, "the first line")
        self.port = int(re.fullmatch(r"greentls hello: listening on (?:127.0.0.1|\[::1\]):(\d+)", self._lines()[0])[1])

    def _lines(self):
        return whole_lines(self._err)

    @property
    def errors(self):
        """The lines after the one that it listens, without the client's port."""
        return [re.sub(r":\d+ -> ", ":CLIENT -> ", line) for line in self._lines()[1:]]

    @property
    def out(self):
        return self._out.read_text()

    @property
    def documents(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def connect(self):
        return socket.create_connection(("localhost", self.port), PATIENCE)

    def wait(self):
        return self.process.wait(PATIENCE)


@pytest.fixture
def listening(tmp_path):
    started = []

    def start(*arguments, **keywords):
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Listening(directory, *map(str, arguments), **keywords))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()


def ended(*command, **keywords):
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, **keywords)
    return done.returncode, done.stdout + done.stderr


def test_python(listening):
    server = listening("--json")
    before = datetime.now(timezone.utc)
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "spdy"])
    with server.connect() as sock:
        here = sock.getsockname()
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            context.wrap_socket(sock, server_hostname="python.example")
    assert server.wait() == 0
    [document] = server.documents
    assert document["source"] == f"127.0.0.1:{here[1]}"
    assert document["destination"] == f"127.0.0.1:{server.port}"
    assert before <= datetime.fromisoformat(document["time"]) <= datetime.now(timezone.utc)
    assert document["server_name"] == "python.example"
    assert document["application_layer_protocol_negotiation"] == ["h2", "spdy"]
    assert server.errors == []


@pytest.mark.programs
@pytest.mark.parametrize("version", ["-tls1", "-tls1_2", "-tls1_3"])
def test_s_client(listening, version):
    server = listening("--json")
    status, said = ended(
        *("openssl", "s_client", "-connect", f"localhost:{server.port}", "-servername", "openssl.example"),
        *(version, "-cipher", "DEFAULT:@SECLEVEL=0"),
        stdin=subprocess.DEVNULL,
    )
    assert status == 1
    assert "alert handshake failure" in said
    assert server.wait() == 0
    [document] = server.documents
    assert document["server_name"] == "openssl.example"
    assert document["legacy_version"]["name"] == {"-tls1": "TLSv1_0"}.get(version, "TLSv1_2")


@pytest.mark.programs
def test_curl(listening):
    server = listening()
    status, said = ended("curl", "--silent", "--show-error", f"https://localhost:{server.port}/")
    assert status == 35
    assert "alert handshake failure" in said
    assert server.wait() == 0
    assert re.match(r"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+  20\d\d-", server.out)
    assert re.search(r"^server_name +localhost$", server.out, re.MULTILINE)
    assert re.search(r"^ALPN +h2, http/1.1$", server.out, re.MULTILINE)


def test_ipv6(listening):
    server = listening("--json", host="[::1]")
    with socket.create_connection(("::1", server.port), PATIENCE) as sock:
        sock.sendall(PLAIN)
        assert sock.recv(100) == b"\x15\3\3\0\2\2\x28"
    assert server.wait() == 0
    assert server.documents[0]["source"].startswith("[::1]:")


def test_byte_by_byte_and_the_rest_of_what_the_client_sends(listening):
    """The alert is there although more came than was read: a reset would have destroyed it."""
    server = listening("--json")
    with server.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(PLAIN)):
            sock.sendall(PLAIN[at : at + 1])
        sock.sendall(record(bytes(10000), 23) * 10)
        assert sock.recv(100) == b"\x15\3\3\0\2\2\x28"
        assert sock.recv(100) == b""
    assert server.wait() == 0
    assert len(server.documents) == 1


def test_count(listening):
    server = listening("--json", "--count", 3)
    for name in ("curl", "node", "gnutls"):
        with server.connect() as sock:
            sock.sendall(STREAMS[name])
            assert sock.recv(100) == b"\x15\3\3\0\2\2\x28"
    assert server.wait() == 0
    assert [each["random"] for each in server.documents] == [
        EXPECTED[name]["tshark"]["random"][0] for name in ("curl", "node", "gnutls")
    ]


CLIENT = "greentls hello: 127.0.0.1:CLIENT -> 127.0.0.1:PORT: "


BAD_CLIENTS = {
    "leaves": (b"", True, b"", "no ClientHello: closed by the client"),
    "leaves in the middle": (
        PLAIN[:50],
        True,
        b"\x15\3\3\0\2\2\x32",
        "TLSPlaintext: the stream ends inside it, the",
    ),
    "says nothing": (b"", False, b"", "no ClientHello: timed out"),
    "stops in the middle": (PLAIN[:50], False, b"", "no ClientHello: timed out"),
    "speaks HTTP": (b"GET / HTTP/1.1\r\n\r\n", False, b"", "no ClientHello: not TLS: an HTTP request"),
    "malformed": (record(b"\1\0\0\2\3\3"), False, b"\x15\3\3\0\2\2\x32", "ClientHello: 0 bytes left, random needs 32"),
    "too long": (record(b"\1\xff\xff\xff"), False, b"\x15\3\3\0\2\2\x2f", "length: 16777215 bytes, at most 65536"),
    "is a server": (record(b"\2\0\0\0"), False, b"", "no ClientHello: not a client"),
}


@pytest.mark.parametrize("case", BAD_CLIENTS)
def test_bad_clients_are_reported_and_the_next_one_is_read(listening, case):
    sent, leaves, alert, told = BAD_CLIENTS[case]
    server = listening("--json", "--count", 2, "--timeout", 0.2 if "timed out" in told else PATIENCE)
    server.process.send_signal(signal.SIGSTOP)  # so the good one's bytes are there when it is accepted
    with server.connect() as bad, server.connect() as good:
        good.sendall(PLAIN)
        server.process.send_signal(signal.SIGCONT)
        bad.sendall(sent)
        if leaves:
            bad.shutdown(socket.SHUT_WR)
        assert bad.recv(100) == alert
        bad.close()
        assert good.recv(100) == b"\x15\3\3\0\2\2\x28"
    assert server.wait() == 1
    [line] = server.errors
    assert line.startswith(CLIENT.replace("PORT", str(server.port)) + told)
    assert len(server.documents) == 1


def test_a_client_that_resets_its_connection(listening):
    server = listening()
    with server.connect() as sock:
        sock.sendall(PLAIN[:50])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.wait() == 1
    [line] = server.errors
    assert line.endswith(": no ClientHello: Connection reset by peer")


def test_a_malformed_extension_of_a_client(listening):
    server = listening("--json")
    with server.connect() as sock:
        sock.sendall(BAD_NAME)
        assert sock.recv(100) == b"\x15\3\3\0\2\2\x28"
    assert server.wait() == 1
    assert server.documents[0]["malformed"] == [NAME_FAULT]
    assert server.errors == [CLIENT.replace("PORT", str(server.port)) + NAME_FAULT]


def test_an_address_in_use(hello):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        told = f"--listen {place}: Address already in use; choose another port, or stop what listens there"
        assert hello("--listen", place) == (2, "", f"greentls hello: {told}\n")


def test_ctrl_c(listening):
    server = listening("--count", 2)
    with server.connect() as sock:
        sock.sendall(PLAIN)
        assert sock.recv(100)
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 130
    assert server.errors == []


def test_ctrl_c_while_a_client_is_silent(listening):
    server = listening("--timeout", 3600)
    with server.connect():
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 130
    # Between accept() and with, nobody closes the socket: Python warns of it.
    assert [line for line in server.errors if "Traceback" in line] == []


def test_ctrl_c_while_standard_input_is_awaited():
    command = tethered(sys.executable, "-m", "greentls", "hello", "--json")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(pcap([packet(PLAIN)]))
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""
