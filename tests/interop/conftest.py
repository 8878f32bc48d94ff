from __future__ import annotations

import ssl

import pytest

import greentls
from tests.interop.echo_server import EchoServer
from tests.interop.foreign_programs import Program
from tests.support.helpers import Pki
from tests.support.pairs import VERSIONS


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture(autouse=True)
def no_program_outlives_its_test():
    yield
    while Program.running:
        Program.running.pop().kill()


@pytest.fixture(scope="session")
def strange_pki(tmp_path_factory):
    """A CA that the other side does not know."""
    return Pki(tmp_path_factory.mktemp("strange"))


@pytest.fixture
def configure(pki, version):
    """configure(protocol): an SSLContext that speaks one version, and trusts the CA."""

    def configure(protocol):
        context = greentls.SSLContext(protocol)
        context.minimum_version = context.maximum_version = {
            "1.2": ssl.TLSVersion.TLSv1_2,
            "1.3": ssl.TLSVersion.TLSv1_3,
        }[version]
        context.load_verify_locations(pki.ca_file)
        return context

    return configure


@pytest.fixture
def serve():
    """serve(context) starts an EchoServer."""
    servers = []

    def serve(context):
        servers.append(EchoServer(context))
        servers[-1].start()
        return servers[-1]

    yield serve
    for server in servers:
        server.stop(timeout=1)
