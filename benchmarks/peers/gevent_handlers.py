"""Echo, upload and download under gevent's StreamServer: the same code for gevent.ssl and for greentls."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from common import BACKLOG
from gevent.server import StreamServer


def handlers(block: int) -> dict[str, Any]:
    data = bytes(block)

    def echo(sock: Any, address: Any) -> None:
        while message := sock.recv(block):
            sock.sendall(message)

    def upload(sock: Any, address: Any) -> None:
        while sock.recv(block):
            pass

    def download(sock: Any, address: Any) -> None:
        while True:
            sock.sendall(data)

    return {"echo": echo, "upload": upload, "download": download}


class Server(StreamServer):
    """Ignores errors of clients that close when their time is over."""

    nodelay = False

    def wrap_socket_and_handle(self, sock: Any, address: Any) -> None:
        if self.nodelay:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            super().wrap_socket_and_handle(sock, address)


def listen(handle: Any, context: Any, nodelay: bool = False) -> int:
    """Starts a server and returns its port."""
    server = Server(("127.0.0.1", 0), handle, ssl_context=context, backlog=BACKLOG)
    server.nodelay = nodelay
    server.start()
    return server.server_port
