from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.programs.processes import Peer, Process, clean_environment
from tests.support.helpers import PATIENCE, ROOT, Pki


@pytest.fixture(scope="session")
def strange_pki(tmp_path_factory):
    """A CA that has issued none of the servers' certificates."""
    return Pki(tmp_path_factory.mktemp("strange"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """start(command, ...): a Process until the module's last test; start.peer(name, ...): a Peer."""
    running = []
    logs = tmp_path_factory.mktemp("logs")

    def begin(kind, *command, **options):
        running.append(kind(logs / f"{len(running)}.log", *command, **options))
        return running[-1]

    class Start:
        def __call__(self, *command, **options):
            return begin(Process, *command, **options)

        def peer(self, *command):
            return begin(Peer, *command)

    yield Start()
    for process in reversed(running):
        process.stop()


@pytest.fixture
def program(pki, strange_pki):
    """program(how, function, port): what function(context, ca, port) finds, see program.py; how: as there."""

    def run(how, function, port):
        command = [
            sys.executable,
            "-m",
            "tests.programs.program",
            how,
            function.__module__,
            function.__name__,
            str(port),
        ]
        done = subprocess.run(
            [*command, pki.ca_file, strange_pki.ca_file],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            env=clean_environment(),
            cwd=ROOT,
        )
        assert (done.stderr, done.returncode) == ("", 0)
        told = json.loads(done.stdout)
        assert "CERTIFICATE_VERIFY_FAILED" in (told["refusal"] or "it took a certificate of a strange CA")
        return told["found"]

    return run


@pytest.fixture
def is_ours():
    def check(facts, socket="greentls.ssl.socket.SSLSocket", version="TLSv1.3"):
        assert (facts["socket"], facts["version"]) == (socket, version)
        assert facts["cipher"].startswith("TLS_" if version == "TLSv1.3" else "ECDHE")

    return check
