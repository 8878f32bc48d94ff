from __future__ import annotations

import contextlib
import select
import socket

import pytest

from tests.support.ssl_servers import Server


@pytest.fixture
def servers():
    started = []
    yield started
    for server in started:
        server.stop(timeout=1)


@pytest.fixture
def serve(servers):
    """serve(context, handle) starts a StreamServer, and gives its address."""

    def start(context, handle=None):
        def echo(sock, address):
            while data := sock.recv(65536):
                sock.sendall(data)

        server = Server(("127.0.0.1", 0), handle or echo, ssl_context=context)
        server.start()
        servers.append(server)
        return server.address

    return start


@pytest.fixture(scope="module")
def full():
    """The address of a listener whose queue is full: who connects waits."""
    with socket.socket() as listening, contextlib.ExitStack() as clients:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        while True:
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
            if not select.select([], [client], [], 0.1)[1]:
                break
        yield listening.getsockname()
