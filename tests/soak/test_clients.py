"""Runs clients.py, shortly: two hundred connections of most clients to each kind of server."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys

import pytest

from tests.soak.clients import CLIENTS, SERVERS, Server, Wrong
from tests.support.helpers import DATA, PATIENCE, ROOT, wait_until


@pytest.mark.parametrize("server", SERVERS)
def test_ordinary_clients_come_again_and_again(server):
    command = [sys.executable, "-m", "tests.soak.clients", "--server", server]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    (answered,) = json.loads(done.stdout).values()
    assert answered.keys() == CLIENTS.keys()
    assert answered.pop("openssl s_time") > 0  # as many as it could within its time
    assert min(answered.values()) >= 20


@pytest.mark.parametrize("name", SERVERS)
def test_a_client_may_reset_its_connection_anywhere_in_the_handshake(name, pki, tmp_path):
    """As a browser does with those that it has opened in advance."""
    hello = (DATA / "hellos" / "chromium.bin").read_bytes()
    with Server(name, pki, tmp_path) as server:
        for sent in (b"", hello[:50], hello):
            for met in (False, True):
                with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
                    sock.sendall(sent)
                    assert not met or server.answers()  # another client, so the server has met this one
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert server.answers()
        server.check()


@pytest.mark.parametrize("name", ["pywsgi", "gunicorn"])
def test_a_server_or_worker_that_dies_is_seen_and_its_signal_named(name, pki, tmp_path):
    with Server(name, pki, tmp_path) as server:
        parent = server._process.pid
        os.kill(max(server.processes - {parent}, default=parent), signal.SIGSEGV)
        with pytest.raises(Wrong, match=r"SIGSEGV|Segmentation fault"):
            wait_until(server.check, "the end to be seen")
