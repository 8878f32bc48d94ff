from __future__ import annotations

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
