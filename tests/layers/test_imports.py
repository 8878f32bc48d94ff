"""What an import brings along, told by the modules and not by the clock: what is not needed yet is not there yet."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import greentls
import greentls.ocsp
import greentls.wire
from tests.support.helpers import PATIENCE

# By what is imported, the packages and modules that must not come along.
ABSENT = {
    "greentls": ["cryptography", "gevent", "OpenSSL", "ssl", "greentls.errors", "greentls.ssl", "greentls.wire"],
    "greentls.wire": ["cryptography", "gevent", "OpenSSL", "ssl", "greentls.wire.hello", "greentls.wire.registry"],
    "greentls.ocsp": ["cryptography", "gevent", "http.client", "greentls.ocsp.fetch", "greentls.ocsp.response"],
    "greentls.aio": ["gevent", "uvloop", "greentls.stream", "greentls.ssl.socket", "greentls.strategy.thread"],
    "greentls.ssl": [
        "gevent.select",
        "gevent.selectors",
        "gevent.threadpool",
        "greentls.cli",
        "greentls.certificates.directory",
        "greentls.monkey",
        "greentls.ocsp",
        "greentls.ssl.memorybio",
        "greentls.ssl.hooks.revocation",
        "greentls.ssl.polling",
        "greentls.stores.memcached",
        "greentls.stores.sealed",
        "greentls.wire.fingerprint",
        "greentls.wire.messages",
        "greentls.wire.parser",
        "greentls.wire.proxy",
        "http.client",
        "pymemcache",
        "urllib.request",
    ],
}


@pytest.mark.parametrize("module", ABSENT)
def test_what_is_not_needed_at_import_is_not_imported(module):
    program = f"""
import json, sys
before = set(sys.modules)  # an editable installation has its own
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.returncode) == ("", 0)
    loaded = json.loads(done.stdout)
    assert module in loaded
    for absent in ABSENT[module]:
        assert [each for each in loaded if each == absent or each.startswith(absent + ".")] == []


@pytest.mark.parametrize("package", [greentls, greentls.ocsp, greentls.wire], ids=lambda package: package.__name__)
def test_every_public_name_comes_at_its_first_use(package):
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018  # it is the access that raises
