"""Servers of others, each a process of its own with its output in a file."""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.helpers import PATIENCE, tethered, wait_until

PEERS = Path(__file__).with_name("peers.py")


FOREIGN = ("_proxy", "_ca_bundle", "ssl_cert_file", "ssl_cert_dir")


def clean_environment():
    """Without the machine's proxies and trust anchors, which some of these libraries prefer to what they are told."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith(FOREIGN)}


class Process:
    def __init__(self, log: Path, *command: object, **options) -> None:
        self.log = log
        self.name = str(command[0])
        assert shutil.which(self.name), f"the tests run a real {self.name}, which is not here: make tools"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                tethered(*command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                **options,
            )

    def wait_for(self, condition, what):
        def or_dead():
            assert self._process.poll() is None, f"it ended with {self._process.returncode}: {self.log.read_text()}"
            return condition()

        return wait_until(or_dead, what)

    def wait_for_port(self, port, host="127.0.0.1"):
        def accepts():
            with contextlib.suppress(OSError), socket.create_connection((host, port), PATIENCE):
                return True

        self.wait_for(accepts, f"{self.name} to listen")

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Peer(Process):
    """One of peers.py's servers."""

    def __init__(self, log, name, *arguments):
        super().__init__(log, sys.executable, PEERS, name, *arguments)

    @functools.cached_property
    def port(self):
        """Its first line."""
        return int(self.wait_for(self._first_line, "a peer to tell its port"))

    def _first_line(self):
        line, newline, _ = self.log.read_text().partition("\n")
        return line if newline else None


# Servers that refuse to be root run as this one.
NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}


def user_and_group():
    """Whom a server is that was started with **NOBODY."""
    if NOBODY:
        return NOBODY["user"], NOBODY["group"]
    return pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


@contextlib.contextmanager
def directory_for_nobody(*files):
    """A directory of that user's own with copies of the files: nobody else may enter pytest's."""
    with tempfile.TemporaryDirectory(prefix="greentls-") as name:
        directory = Path(name)
        copies = [shutil.copy(file, directory) for file in files]
        for path in (directory, *copies):
            if NOBODY:
                shutil.chown(path, *user_and_group())
        yield directory, *map(str, copies)
