from __future__ import annotations

import pytest
from helpers import Memcached, Pki, SilentServer


def pytest_configure(config):
    config.addinivalue_line("markers", "stderr: the test looks at standard error itself")


@pytest.fixture(autouse=True)
def stderr_is_empty(request, capfd):
    """cffi prints what a callback lets slip, gevent what a greenlet does: neither may pass unseen."""
    yield
    if "stderr" not in request.keywords:
        assert capfd.readouterr().err == ""


@pytest.fixture
def told(monkeypatch):
    """The events that greentls.events tells during the test."""
    events = []
    monkeypatch.setattr("greentls.events.handler", events.append)
    return events


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def memcached():
    server = Memcached()
    yield server
    server.close()


@pytest.fixture
def memcacheds():
    """memcacheds(2) starts two of them."""
    servers: list[Memcached] = []

    def start(count):
        servers.extend(Memcached() for _ in range(count))
        return servers

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def silent_server():
    server = SilentServer()
    yield server
    server.close()
