"""Ports that record what goes through them, and the programs that use them."""

from __future__ import annotations

import socket
import subprocess
import threading

from tests.support.helpers import wait_until

NAME = "www.example.com"


ALPN = ["h2", "http/1.1"]


def records(stream: bytes):
    at = 0
    while at + 5 <= len(stream):
        end = at + 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        yield stream[at], at, end
        at = end


def in_clear(stream: bytes, messages: int) -> bytes | None:
    """The records of stream up to the one that ends its handshake message of this number, None if it is not there."""
    handshake = b""
    for content_type, start, end in records(stream):
        if content_type == 22 and end <= len(stream):
            handshake += stream[start + 5 : end]
            rest, count = handshake, 0
            while len(rest) >= 4 and len(rest) >= 4 + int.from_bytes(rest[1:4], "big"):
                rest, count = rest[4 + int.from_bytes(rest[1:4], "big") :], count + 1
            if count >= messages and not rest:
                return stream[:end]
    return None


class Tap:
    """A port that records what comes, and hands it on to another port if there is one."""

    def __init__(self, upstream: int | None = None) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections: list[tuple[bytearray, bytearray]] = []  # what the client, what the server sent
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            streams = bytearray(), bytearray()
            self.connections.append(streams)
            server = socket.create_connection(("127.0.0.1", self._upstream)) if self._upstream else None
            threading.Thread(target=self._pipe, args=(client, server, streams[0]), daemon=True).start()
            if server:
                threading.Thread(target=self._pipe, args=(server, client, streams[1]), daemon=True).start()

    def _pipe(self, source: socket.socket, sink: socket.socket | None, stream: bytearray) -> None:
        try:
            while data := source.recv(65536):
                stream += data
                if sink:
                    sink.sendall(data)
                elif in_clear(bytes(stream), 1):
                    break
        except OSError:
            pass
        for sock in (source, sink):
            if sock:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def hello(self, messages: int = 1, connection: int = 0) -> bytes:
        """The client's records, up to the one with its hello of this number."""
        return wait_until(lambda: self._look(messages, connection), "a hello")

    def _look(self, messages: int, connection: int) -> bytes | None:
        with_hello = [streams for streams in self.connections if in_clear(bytes(streams[0]), 1)]
        return in_clear(bytes(with_hello[connection][0]), messages) if len(with_hello) > connection else None

    def close(self) -> None:
        self._listener.close()


def run(*command: object, seconds: float = 20, stdin: bytes = b"") -> str:
    done = subprocess.run(
        [str(word) for word in command], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds
    )
    return done.stdout.decode(errors="replace")


def version_of(*command: str) -> str:
    """The first line that a program says about itself; on standard error only if it says nothing else (Java)."""
    done = subprocess.run(command, capture_output=True, text=True)
    return next(line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip())
