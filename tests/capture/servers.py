"""Servers of others, each a process of its own."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from pathlib import Path

from tests.capture.tap import NAME
from tests.support.helpers import Pki, free_port, tethered, wait_until


class Serving:
    """A server program on a port of its own."""

    def __init__(self, *command: object, port: int, **environment: str) -> None:
        self.port = port
        self._process = subprocess.Popen(
            tethered(*command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        wait_until(self._listens, f"{command[0]} to listen")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def s_server(pki: Pki, *options: object, kind: str = "ec") -> Serving:
    port = free_port()
    certificate, key = pki.issue(NAME, kind=kind)
    serving = Serving(
        "openssl",
        "s_server",
        "-accept",
        f"127.0.0.1:{port}",
        "-cert",
        certificate,
        "-key",
        key,
        "-www",
        *options,
        port=port,
    )
    serving.der = ssl.PEM_cert_to_DER_cert(Path(certificate).read_text())
    return serving
