from __future__ import annotations

import gevent
import pytest

from greentls.ocsp import Stapler
from tests.support.ocsp_authority import Authority, OpenSSLResponder


@pytest.fixture
def staplers():
    """staplers(**settings) makes a Stapler that ends with the test."""
    made = []

    def make(**settings):
        made.append(Stapler(**settings))
        return made[-1]

    yield make
    for each in made:
        each.close()
    gevent.sleep(0)


@pytest.fixture
def openssl(tmp_path):
    made = OpenSSLResponder()
    made.authority = Authority(tmp_path, made.url)
    yield made
    made.stop()
