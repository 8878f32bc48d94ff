"""Clients that others wrote, and the balancer between them and the servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from tests.support.helpers import PATIENCE

GET_JSON = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def documents(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a client's output."""
    return [json.loads(found) for found in re.findall(r"^\{$.*?^\}$", text, re.DOTALL | re.MULTILINE)]


def client_context(ca_file: str, version: str = "1.3") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


def connect(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    sock = socket.create_connection(("localhost", port), PATIENCE)
    return context.wrap_socket(sock, server_hostname="localhost", session=session)


def answer(tls: ssl.SSLSocket) -> str:
    """All until the server closes."""
    received = b""
    while data := tls.recv(65536):
        received += data
    return received.decode()


def fetch(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[dict, ssl.SSLSession]:
    """The page's facts of a new connection, and the session that it may be resumed with."""
    with connect(port, context, session) as tls:
        tls.sendall(GET_JSON)
        [facts] = documents(answer(tls).replace("\r\n", "\n"))
        return facts, tls.session


def run(*command: object, input: bytes = b"") -> str:
    """What a client prints on either channel, with plain newlines."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        [part if isinstance(part, bytes) else str(part) for part in command],
        input=input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        env=environment,
    )
    output = done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
    assert done.returncode == 0, output
    return output


def s_client(port: int, ca_file: str, *options: object, request: bytes = GET_JSON) -> str:
    trust = ["-CAfile", ca_file, "-verify_return_error"]
    return run("openssl", "s_client", "-connect", f"localhost:{port}", *trust, "-ign_eof", *options, input=request)


def handshakes(output: str) -> list[str]:
    """s_client's words for each of its connections: "New" or "Reused"."""
    return re.findall(r"^(New|Reused), TLSv", output, re.MULTILINE)


class Balancer:
    """A TCP port whose first connection goes to one server and every later one to another.

    before_next: called before the second and each later one goes on; it may wait.
    """

    def __init__(self, first: int, others: int, before_next: Callable[[int], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._first, self._others, self._before_next = first, others, before_next
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self) -> None:
        count = 0
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            if count:
                self._before_next(count)
            server = socket.create_connection(("localhost", self._others if count else self._first), PATIENCE)
            count += 1
            self._sockets += client, server
            for source, sink in (client, server), (server, client):
                thread = threading.Thread(target=self._pump, args=(source, sink))
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side is gone: let the other direction end, too
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in self._sockets:
            sock.close()
