"""Fixtures of the tests of pumps."""

from __future__ import annotations

import pytest

from greentls.openssl import pump
from tests.openssl.pumps import PUMPS, TLS13, established, opened, server_context


@pytest.fixture(autouse=True)
def close_sockets():
    yield
    while opened:
        opened.pop().close()


@pytest.fixture(params=PUMPS)
def base(request):
    return PUMPS[request.param]


@pytest.fixture
def compiled_ones():
    """None, where there was no compiler."""
    return [each for each in PUMPS.values() if each is not pump.PlainPump]


@pytest.fixture(scope="module")
def files(pki):
    return pki.cert_file, pki.key_file


@pytest.fixture
def ends(base, files):
    return established(base, files, TLS13)


@pytest.fixture
def own_context(files):
    """A server's, that no other test has."""
    return server_context.__wrapped__(files, TLS13)
