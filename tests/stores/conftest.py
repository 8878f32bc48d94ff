from __future__ import annotations

import pytest

from greentls.stores import open_store
from tests.stores.samples import SECRET, URLS


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "fleet.key"
    path.write_bytes(SECRET)
    return path


ALL = [pytest.param(each, marks=[pytest.mark.programs] if "memcached" in URLS[each] else []) for each in URLS]


@pytest.fixture(params=ALL)
def store(request, secret_file):
    nodes = []
    if "memcached" in URLS[request.param]:
        nodes = [each.address for each in request.getfixturevalue("memcacheds")(2)]
    store = open_store(URLS[request.param].format(*nodes, secret=secret_file))
    yield store
    store.close()
