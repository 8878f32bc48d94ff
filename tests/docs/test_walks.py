"""The three paths of the architecture page: which modules each passes, in the order of their first call."""

from __future__ import annotations

import os
import shutil
import ssl
import sys
from contextlib import contextmanager
from pathlib import Path

import gevent
import gevent.socket
import gevent.ssl
import pytest

import greentls
from greentls.certificates import Directory
from tests.support.helpers import ROOT

PACKAGE = ROOT / "greentls"

# What every path uses, but does not lead through: waiting, OpenSSL's functions, and what a connection knows.
BESIDE = ("hub/", "openssl/", "core/bridge", "core/connection", "core/handshake", "core/session", "ssl/hooks/deadline")


@contextmanager
def walk():
    """A with block that fills a list with the modules and functions that it calls."""
    calls = []

    def called(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            calls.append((path.relative_to(PACKAGE).with_suffix("").as_posix(), frame.f_code.co_name))

    sys.setprofile(called)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def modules(calls, first="", last=""):
    """In order, from the first call of one function on, until one is called whose name begins as last says."""
    names = [name for _, name in calls]
    begin = names.index(first) if first else 0
    end = next((at for at in range(begin + 1, len(names)) if last and names[at].startswith(last)), len(names))
    return [
        module for module in dict.fromkeys(module for module, _ in calls[begin:end]) if not module.startswith(BESIDE)
    ]


class Client:
    """gevent.ssl's, under TLS 1.2, so that what is called in greentls is the server's."""

    def __init__(self, pki):
        self._context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(pki.ca_file)
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._ends = []

    def meet(self, server, session=None):
        """(this end, the server's), after the handshake."""
        ours, theirs = gevent.socket.socketpair()
        job = gevent.spawn(self._context.wrap_socket, ours, server_hostname="localhost", session=session)
        ends = server.wrap_socket(theirs, server_side=True), job.get()
        self._ends += ends
        return ends[::-1]

    def close(self):
        for each in self._ends:
            each.close()


@pytest.fixture
def client(pki):
    made = Client(pki)
    yield made
    made.close()


@pytest.fixture
def server(pki):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    return context


def test_ciphertext_from_the_socket_to_recv(client, server):
    """Between the stream and the socket is the pump, which is C or openssl/pump."""
    ours, theirs = client.meet(server)
    gevent.spawn_later(0, ours.sendall, b"hello")
    with walk() as calls:
        assert theirs.recv(10) == b"hello"
    assert modules(calls) == ["ssl/socket", "stream"]


def test_a_session_lookup_to_memcached_and_back(client, server, memcached, tmp_path):
    secret_file = tmp_path / "secret"
    secret_file.write_bytes(os.urandom(32))
    server.session_store = greentls.open_store(memcached.url(secret_file=secret_file))
    try:
        ours, _ = client.meet(server)
        assert server.drain_sessions()
        client.meet(server, ours.session)  # by a connection that there is already
        with walk() as calls:
            _, theirs = client.meet(server, ours.session)
        assert theirs.session_reused
        path = ["core/callbacks", "sessions/server", "sessions/stored", "stores/sealed", "stores/memcached"]
        assert modules(calls, "_look_up", "_tell") == path
    finally:
        server.session_store.close()


def test_a_certificate_chosen_by_sni(client, server, pki, tmp_path):
    for file in (pki.cert_file, pki.key_file):
        shutil.copy(file, tmp_path / f"site{Path(file).suffix}")
    server.certificates = Directory(tmp_path)
    client.meet(server)
    with walk() as calls:
        client.meet(server)
    path = ["core/callbacks", "ssl/hooks/callbacks", "ssl/common", "certificates/directory", "certificates/names"]
    assert modules(calls, "_on_client_hello", "_on_") == [*path, "ssl/compiled"]
