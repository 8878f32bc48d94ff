"""Starts servers, memcached and the load generator, each on its core, and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks import machine

HERE = Path(__file__).parent
LOAD = HERE / "load"
BLOCK = 65536  # bytes that uploads and downloads write at a time
PATIENCE = 60.0  # seconds for a server to listen, to answer or to end
LONGEST = 150.0  # seconds for the load generator, which needs at most 20 to begin and 60 to measure


class BenchmarkError(Exception):
    """A measurement failed. The message includes the program's output."""


class Server:
    """A running server. ports: the port of each service."""

    def __init__(self, process: subprocess.Popen[str], said: IO[bytes], words: Sequence[str]) -> None:
        self._process, self._said, self._words = process, said, words
        line = _line_of(process, PATIENCE)
        if not line:
            raise self.failure("did not listen")
        self.ports: dict[str, int] = json.loads(line)
        for port in self.ports.values():
            self._wait_for(port)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _wait_for(self, port: int) -> None:
        """Waits until a port accepts, because a program that is given its port prints it before it listens."""
        end = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
                return
            except OSError:
                time.sleep(0.01)
        raise self.failure("did not listen")

    def ask(self, question: str) -> Any:
        """Writes a line to its standard input, and returns the JSON that it answers."""
        assert self._process.stdin
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            return json.loads(_line_of(self._process, PATIENCE))
        except (OSError, ValueError) as error:
            raise self.failure(f"gave no answer to {question!r}") from error

    def failure(self, what: str) -> BenchmarkError:
        self._said.seek(0)
        tail = self._said.read().decode(errors="replace")[-2000:]
        return BenchmarkError(f"{' '.join(self._words)}: {what}\n{tail}".rstrip())


@contextlib.contextmanager
def server(words: Sequence[str], core: set[int], directory: str) -> Iterator[Server]:
    """Runs a server during a with block. directory: its TMPDIR."""
    environment = {
        **os.environ,
        "TMPDIR": directory,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *_python_path()]),
    }
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            list(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
            start_new_session=True,  # so that Ctrl-C reaches only this program, which ends it
            preexec_fn=machine.on(core),
        )
        try:
            yield Server(process, said, words)
        finally:
            _end(process)


def _python_path() -> list[str]:
    return [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]


def _line_of(process: subprocess.Popen[str], patience: float) -> str:
    """Returns a line of its output, or "" if none comes within patience seconds."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], patience)
    return process.stdout.readline() if ready else ""


def _end(process: subprocess.Popen[Any]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Load:
    """The running load generator. In the mode idle, its connections stay until the with block ends."""

    def __init__(self, process: subprocess.Popen[str], words: Sequence[str]) -> None:
        self._process, self._words = process, words

    def result(self) -> dict[str, Any]:
        """Waits for the result and returns it."""
        line = _line_of(self._process, LONGEST)
        if not line:
            self._process.kill()
            said = self._process.stderr.read() if self._process.stderr else ""
            raise BenchmarkError(f"{said or 'load: no result'}\n{' '.join(self._words)}")
        counts: dict[str, Any] = json.loads(line)
        return counts


@contextlib.contextmanager
def load(mode: str, port: int, pids: Sequence[int], core: set[int], **options: Any) -> Iterator[Load]:
    """Runs the load generator during a with block. options: its letters. pids: the server's processes."""
    words = [str(LOAD), "-p", ",".join(map(str, pids))]
    for letter, value in options.items():
        words += [f"-{letter}"] if value is True else [f"-{letter}", str(value)]
    words += [mode, "127.0.0.1", str(port)]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=machine.on(core),
    )
    try:
        yield Load(process, words)
    finally:
        if process.stderr:
            process.stderr.close()
        _end(process)


def probe(name: str, core: set[int], *words: str) -> dict[str, Any]:
    """Runs a program in probes/ and returns its result."""
    command = [sys.executable, str(HERE / "probes" / name), *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *_python_path()])}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=machine.on(core),
    )
    try:
        out, said = process.communicate(timeout=LONGEST)
        if process.returncode:
            raise BenchmarkError(f"{' '.join(command)}\n{said[-2000:]}")
        result: dict[str, Any] = json.loads(out)
        return result
    finally:
        _end(process)
