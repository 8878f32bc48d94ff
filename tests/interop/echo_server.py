"""The server under test: HTTP over greentls. It answers a request with its body, and tells what it saw."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
from typing import NamedTuple

import gevent
from gevent.queue import Queue
from gevent.server import StreamServer

from tests.support.helpers import PATIENCE

PAGE = b"""<!DOCTYPE html><title>greentls</title><p>waiting</p><script>
const payload = Array.from({length: 6400}, (_, i) => `line ${String(i).padStart(10, "0")}\\n`).join("");
const echo = () => {
  const request = new XMLHttpRequest();
  request.open("POST", location, false);
  request.send(payload);
  return request.responseText;
};
const same = [echo(), echo(), echo()].every((answer) => answer === payload);
document.querySelector("p").textContent = same ? "the same" : "not the same";
</script>"""


class Seen(NamedTuple):
    """What the server knows of a connection that has ended. closed: by the client's close_notify."""

    version: str
    alpn: str | None
    reused: bool
    client: dict | None
    received: bytes
    closed: bool


class EchoServer(StreamServer):
    """It lets the client close first, unless that asks for "Connection: close" or the page /close."""

    def __init__(self, context) -> None:
        super().__init__(("127.0.0.1", 0), self._tell, ssl_context=context, suppress_ragged_eofs=False)
        self._ended: Queue[Seen | Exception] = Queue()

    @property
    def port(self) -> int:
        return self.address[1]

    def next(self) -> Seen:
        """The next connection that has ended. Raises what ended its handshake."""
        ended = self._ended.get(timeout=PATIENCE)
        if isinstance(ended, Exception):
            raise ended
        return ended

    def next_finished(self) -> Seen:
        """The next one whose handshake was not broken off: a browser does that to what it has opened in advance."""
        while True:
            try:
                return self.next()
            except OSError as error:
                if not isinstance(error, ssl.SSLEOFError | ConnectionError) and error.errno != errno.ENOTCONN:
                    raise

    def next_with_data(self) -> Seen:
        """The same, without the connections that were opened in advance for nothing."""
        while not (seen := self.next_finished()).received:
            pass
        return seen

    def wrap_socket_and_handle(self, sock, address):
        try:
            super().wrap_socket_and_handle(sock, address)
        except (Exception, gevent.Timeout) as error:
            self._ended.put(error)

    def _tell(self, sock, address) -> None:
        received, closed = bytearray(), True
        try:
            with sock.makefile("rb") as reader:
                while line := reader.readline():  # b"" is the client's close_notify
                    received += self._answer(sock, reader, *line.decode().split())
        except (ssl.SSLEOFError, ConnectionError):
            closed = False
        alpn = sock.selected_alpn_protocol()
        self._ended.put(Seen(sock.version(), alpn, sock.session_reused, sock.getpeercert(), bytes(received), closed))

    @staticmethod
    def _answer(sock, reader, method: str, path: str, _: str) -> bytes:
        """Answers one request. Returns its body."""
        fields = http.client.parse_headers(reader)
        body = reader.read(int(fields.get("Content-Length", 0)))
        answer = body if method == "POST" else PAGE
        close = fields.get("Connection") == "close" or path == "/close"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(answer)}\r\n"
        sock.context.drain_sessions(PATIENCE)  # a client that is quick finds its session in the store
        sock.sendall(f"{head}Connection: {'close' if close else 'keep-alive'}\r\n\r\n".encode() + answer)
        if close:
            with contextlib.suppress(OSError):  # the client knew where the answer ends, and is gone
                sock.shutdown(socket.SHUT_WR)
        return body
