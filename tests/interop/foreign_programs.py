"""Programs of others, run beside the hub: what they print is kept, and waited for."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import ClassVar

import gevent

from tests.support.clients import in_thread
from tests.support.helpers import PATIENCE, tethered


class Program:
    """A process; its standard input stays open until finish()."""

    running: ClassVar[list[Program]] = []

    def __init__(self, *command: object, **environment: object) -> None:
        self.name = str(command[0])
        assert shutil.which(self.name), f"the tests run a real {self.name}, which is not here: make tools installs it"
        inherited = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        self.process = subprocess.Popen(
            tethered(*command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=inherited | {key: str(value) for key, value in environment.items()},
        )
        self.out, self.err = bytearray(), bytearray()
        self._changed = threading.Condition()
        self._open = 2
        self._readers = [
            threading.Thread(target=self._read, args=each, daemon=True)
            for each in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()
        self.running.append(self)

    def _read(self, pipe, kept: bytearray) -> None:
        with pipe:
            while chunk := pipe.read1(65536):
                with self._changed:
                    kept += chunk
                    self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    @property
    def text(self) -> str:
        """What it has printed, errors last."""
        return (self.out + b"\n" + self.err).decode("utf-8", "replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The pattern's first match, as soon as it is printed."""

        def printed():
            with self._changed:
                self._changed.wait_for(lambda: not self._open or re.search(pattern, self.text, re.M), PATIENCE)
            return re.search(pattern, self.text, re.M)

        found = in_thread(printed)
        assert found, f"{self.name} never said {pattern}, but:\n{self.text}"
        return found

    def write(self, data: bytes) -> Program:
        def write():
            with contextlib.suppress(BrokenPipeError):  # it has ended, and says why
                self.process.stdin.write(data)
                self.process.stdin.flush()

        with self._in_time("read"):  # a pipe takes 64 KiB and then waits
            in_thread(write)
        return self

    def finish(self) -> int:
        """Closes its standard input and waits for its end. Returns its status."""

        def wait():
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait()

        with self._in_time("end"):
            in_thread(wait)
        for reader in self._readers:
            in_thread(reader.join, PATIENCE)  # a child of its own may still have the pipe
        return self.process.returncode

    @contextlib.contextmanager
    def _in_time(self, what: str) -> Iterator[None]:
        """Kills it after a while, so that a test which waits for it fails, with what it has said."""
        late = gevent.Timeout(PATIENCE)
        try:
            with late:
                yield
        except gevent.Timeout as timeout:
            self.process.kill()
            if timeout is not late:
                raise
            raise AssertionError(f"{self.name} did not {what} in {PATIENCE} s, but said:\n{self.text}") from None

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.finish()


def checked(*command: object) -> None:
    program = Program(*command)
    assert program.finish() == 0, program.text
