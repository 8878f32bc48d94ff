"""`greentls hello` run in here; `greentls serve` as a user starts it, a process of its own, told to end by its pid."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from greentls.cli import main
from tests.support.helpers import PATIENCE, tethered, wait_until, whole_lines

DRAINING = "greentls serve [pid]: draining; a second Ctrl-C or SIGTERM ends it at once"


class Served:
    """A running `greentls serve`, listening on a free port. What it prints is in out and err."""

    def __init__(self, directory: Path, number: int, *options: object, stdout: int | None = None) -> None:
        self._out, self._err = directory / f"out-{number}", directory / f"err-{number}"
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                tethered(
                    *(sys.executable, "-W", "default", "-m", "greentls", "serve", "--bind", "localhost:0"), *options
                ),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=stdout or out,
                stderr=err,
                start_new_session=True,  # a process group, as a terminal gives one to each command
            )
        self.expected_errors: list[str] = []

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def errors(self) -> list[str]:
        """The lines of err without what differs each time (pids, ports, times) and without the one that says that it
        ends, since every server does. While it runs only whole ones, and the next look may find more."""
        ended = self.process.poll() is not None
        lines = re.sub(r"\[\d+\]", "[pid]", self.err if ended else "\n".join(whole_lines(self._err)))
        lines = re.sub(r"worker \d+", "worker N", lines)
        lines = re.sub(r"ended after [\d.]+ s", "ended after T s", lines)
        lines = re.sub(r"(127\.0\.0\.1|\[::1\]):\d+", "CLIENT", lines)
        return [line for line in lines.splitlines() if line != DRAINING]

    def listening(self) -> Served:
        """Waits for the line that says so."""
        wait_until(lambda: self.process.poll() is not None or whole_lines(self._out), "the server to listen")
        found = re.search(r"listening on https://\S+:(\d+)/ ", self.out)
        assert found, self.err
        self.port = int(found[1])
        return self

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def ctrl_c(self) -> None:
        """SIGINT to the whole group, as the terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()


@pytest.fixture
def start(tmp_path):
    """start(*options) runs `greentls serve` in tmp_path. At the end each has to stop well: SIGTERM, status 0, and
    nothing on standard error but what the test has put into expected_errors."""
    started: list[Served] = []

    def start(*options: object, **keywords: int) -> Served:
        started.append(Served(tmp_path, len(started), *options, **keywords))
        return started[-1]

    yield start
    try:
        for server in started:
            if server.process.poll() is None:
                assert server.stop() == 0
    finally:
        for server in started:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
    for server in started:
        assert server.errors == server.expected_errors


@pytest.fixture
def serve(start):
    """start(), and waits until it listens."""
    return lambda *options: start(*options).listening()


PATIENT_APP = f"""
import greentls.cli.worker
import greentls.ssl.context
from greentls.cli.page import page

greentls.ssl.context.CALLBACK_TIMEOUT = greentls.cli.worker.SESSIONS_SECONDS = {PATIENCE}
"""


@pytest.fixture
def patient_app(tmp_path):
    """--app's value for the usual page, in workers that wait for their store as long as a busy machine may need."""
    (tmp_path / "patient_app.py").write_text(PATIENT_APP)
    return "patient_app:page"


# -- greentls hello ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hello(tmp_path, capfd):
    """hello(*arguments) runs the command in here, and gives (status, standard output, standard error). Bytes among the
    arguments become a file, which standard error calls FILE."""

    def hello(*arguments):
        path = tmp_path / "input"
        for argument in arguments:
            if isinstance(argument, bytes):
                path.write_bytes(argument)
        status = main(["hello", *(str(path) if isinstance(each, bytes) else str(each) for each in arguments)])
        out, err = capfd.readouterr()
        return status, out, err.replace(str(path), "FILE")

    return hello


@pytest.fixture
def documents(hello):
    """The JSON documents of what is all well."""

    def documents(*arguments):
        status, out, err = hello("--json", *arguments)
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    return documents


@pytest.fixture
def placed(documents):
    """The documents of a capture, which have to be those of a stream, and their sources, destinations and times."""

    def placed(capture, *streams):
        found, expected = documents(capture), [each for stream in streams for each in documents(stream)]
        places = [(each.pop("source"), each.pop("destination"), each.pop("time")) for each in found]
        assert found == expected
        return places

    return placed
