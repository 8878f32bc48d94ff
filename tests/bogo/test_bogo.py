"""The shim by flights of our own: a runner with one test at a time, whose peer is a Connection."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from greentls.core.connection import Connection
from greentls.errors import TLSError, UnexpectedEOF, WantRead
from tests.bogo import bogo, flags
from tests.support.helpers import PATIENCE, ROOT, tethered
from tests.support.pairs import client_context, server_context

INVERTED = bytes(octet ^ 0xFF for octet in b"hello, shim")


class Runner:
    """One test: starts the shim, and is the peer of its connections."""

    def __init__(self, pki, environment):
        self.pki, self.environment = pki, environment
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)

    def start(self, *arguments):
        port = self.listener.getsockname()[1]
        command = tethered(sys.executable, "-m", "tests.bogo.shim", "-port", port, "-shim-id", "77", *arguments)
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def code(self):
        """The shim's exit code; what it said is in said."""
        _, self.said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def meet(self, connection, early=b""):
        """Handshake with the next connection of the shim."""
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(PATIENCE)
        assert self.sock.recv(8) == (77).to_bytes(8, "little")
        self.tls = connection
        self.do(connection.do_handshake)

    def do(self, operation, *arguments):
        try:
            while True:
                try:
                    return operation(*arguments)
                except WantRead:
                    self.send()
                    self.tls.receive_data(self.sock.recv(65536))
        finally:
            self.send()

    def send(self):
        if data := self.tls.data_to_send():
            self.sock.sendall(data)

    def talk(self):
        """What it inverts; then the end of both."""
        self.tls.write(b"hello, shim")
        answer = b""
        while len(answer) < len(INVERTED):
            answer += self.do(self.tls.read)
        assert answer == INVERTED
        self.leave()

    def leave(self):
        self.do(self.tls.shutdown)
        try:
            while self.do(self.tls.read):
                pass
        except UnexpectedEOF:
            pass
        self.sock.close()

    def client(self, session=None, **settings):
        return Connection(client_context(self.pki, **settings), server_hostname="localhost", session=session)

    def server(self, **settings):
        return Connection(server_context(self.pki, **settings))


@pytest.fixture(scope="module")
def forking(tmp_path_factory):
    with bogo.shims(tmp_path_factory.mktemp("bogo")) as environment:
        yield environment


@pytest.fixture(params=["alone", "forked"])
def runner(request, pki, forking):
    runner = Runner(pki, dict(os.environ) if request.param == "alone" else forking)
    yield runner
    runner.listener.close()


@pytest.fixture
def fast(pki, forking):
    runner = Runner(pki, forking)
    yield runner
    runner.listener.close()


def credentials(pki):
    return "-cert-file", pki.cert_file, "-key-file", pki.key_file


def test_a_client_and_its_echo(runner, pki):
    runner.start("-trust-cert", pki.ca_file, "-verify-peer", "-host-name", "localhost")
    runner.meet(runner.server())
    assert runner.tls.server_name == "localhost"
    runner.talk()
    assert (runner.code(), runner.said) == (0, b"")


def test_a_server_that_resumes(fast, pki):
    fast.start("-server", *credentials(pki), "-resume-count", "1", "-expect-server-name", "localhost")
    fast.meet(fast.client())
    fast.talk()
    fast.meet(fast.client(fast.tls.session))
    assert fast.tls.session_reused
    fast.talk()
    assert (fast.code(), fast.said) == (0, b"")


def test_a_resumption_that_does_not_come_is_a_failure(fast, pki):
    fast.start("-server", *credentials(pki), "-resume-count", "1")
    fast.meet(fast.client())
    fast.talk()
    fast.meet(fast.client())
    with pytest.raises(UnexpectedEOF):
        fast.talk()
    fast.sock.close()
    assert fast.code() == 1
    assert b"session reused" in fast.said


def test_bytes_that_come_one_by_one(fast, pki):
    fast.start("-server", *credentials(pki), "-async", "-implicit-handshake")
    fast.meet(fast.client())
    fast.talk()
    assert fast.code() == 0


def test_flags_of_one_stage(fast, pki):
    fast.start(
        "-server", *credentials(pki), "-select-alpn", "foo", "-on-resume-select-alpn", "bar", "-resume-count", "1"
    )
    for protocol in (b"foo", b"bar"):
        session = fast.tls.session if protocol == b"bar" else None
        fast.meet(fast.client(session, alpn_protocols=(b"foo", b"bar")))
        assert fast.tls.alpn_protocol == protocol
        fast.talk()
    assert fast.code() == 0


def test_keying_material_and_the_first_word(fast, pki):
    fast.start("-trust-cert", pki.ca_file, "-export-keying-material", "16", "-export-label", "x", "-shim-writes-first")
    fast.meet(fast.server())
    assert fast.do(fast.tls.read) == fast.tls.export_keying_material(b"x", 16, None)
    assert fast.do(fast.tls.read) == b"hello"
    fast.talk()
    assert fast.code() == 0


def test_a_shim_that_ends_it(fast, pki):
    fast.start("-trust-cert", pki.ca_file, "-shim-shuts-down", "-check-close-notify")
    fast.meet(fast.server())
    assert fast.do(fast.tls.read) == b""
    fast.do(fast.tls.shutdown)
    fast.sock.close()
    assert fast.code() == 0


def test_a_refusal_is_told_to_both(fast, pki):
    fast.start("-server", *credentials(pki), "-max-version", str(0x0303))
    with pytest.raises(TLSError, match="protocol version"):
        fast.meet(fast.client(version=0x0304))
    fast.sock.close()
    assert fast.code() == 1
    assert b":UNSUPPORTED_PROTOCOL:" in fast.said


def test_a_feature_that_is_not_there(runner):
    runner.start("-dtls")
    assert (runner.code(), runner.said) == (89, b"unimplemented: dtls\n")


def test_no_handshaker(fast):
    fast.start("-is-handshaker-supported")
    said, _ = fast.process.communicate(timeout=PATIENCE)
    assert said == b"No\n"


def test_what_is_disabled_has_its_reason():
    config = json.loads(bogo.CONFIG.read_text())
    assert all(reason.endswith(".") and len(reason) > 15 for reason in config["DisabledTests"].values())
    assert bogo.EXPECTED["FAIL"] == 0


def test_each_flag_is_of_one_kind():
    tables = flags.IGNORED, flags.BOOLEANS, flags.NUMBERS, flags.LISTS, flags.TEXTS, flags.BYTES
    assert len(set.union(*tables)) == sum(map(len, tables))
