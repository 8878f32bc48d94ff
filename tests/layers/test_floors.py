"""The floors hold, and what would break them is found."""

from __future__ import annotations

import sys

import pytest

from tests.layers.floors import broken_rules, circles, house, modules


def test_every_module_keeps_to_its_floor():
    found = [rule for path, name, pack in modules() for rule in broken_rules(path.read_text("utf-8"), name, pack)]
    assert found == []


def test_no_import_leads_in_a_circle():
    assert circles(house()) == []


def test_circles_are_found():
    imported = {"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": set(), "f": {"g"}, "g": {"f", "a"}}
    assert circles(imported) == [("a", "b", "c"), ("f", "g")]


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("greentls.wire.record", "import gevent", "standard library only"),
        ("greentls.wire.record", "from greentls.core.hooks import Hooks", "floor 3 from floor 1"),
        ("greentls.wire.record", "from ..core.hooks import Hooks", "floor 3 from floor 1"),
        ("greentls.stores.memory", "from OpenSSL import SSL", "know nothing of TLS"),
        ("greentls.stores.memory", "from greentls.core.session import Session", "floor 3 from floor 1"),
        ("greentls.certificates", "import greentls.ocsp", "floor 2 from floor 2"),
        ("greentls.certificates", "from greentls import core", "floor 3 from floor 2"),
        ("greentls.core.connection", "import gevent.event", "knows no loop"),
        ("greentls.stores.memcached", "import gevent", "knows no loop"),
        ("greentls.ocsp.fetch", "import asyncio", "knows no loop"),
        ("greentls.hub.gevent", "import asyncio", "knows no loop"),
        ("greentls.hub.deadline", "from gevent import get_hub", "knows no loop"),
        ("greentls.core.connection", "from asyncio import sleep", "knows no loop"),
        ("greentls.core.config", "import socket", "knows no sockets"),
        ("greentls.core.config", "from greentls.stream import TLSStream", "floor 5 from floor 3"),
        ("greentls.core.config", "library.lib.SSL_new()", "touches lib"),
        ("greentls.core.bridge", "ffi.new('int *')", "touches ffi"),
        ("greentls.ssl.socket", "connection._ssl", "touches _ssl"),
        ("greentls.ssl.socket", "import ssl", "import ssl as _stdlib_ssl"),
        ("greentls.errors", "from greentls.cli import main", "floor 7 from floor 0"),
        ("greentls.ssl.context", "if TYPE_CHECKING: from greentls.cli import main", "floor 7 from floor 6"),
        ("greentls.core.config", "def late(): from greentls.ssl import SSLContext", "floor 6 from floor 3"),
    ],
)
def test_a_broken_rule_is_found_with_its_line(module, source, said):
    (sentence,) = broken_rules("\n\n" + source, module)
    assert said in sentence
    assert sentence.startswith(f"{module}:3 ")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("greentls.wire.hello", "from greentls.errors import WireError\nfrom greentls.wire.reader import Reader"),
        ("greentls.stores.memcached", "import pymemcache\nfrom greentls.hub import here"),
        ("greentls.hub.asyncio", "import asyncio"),
        ("greentls.hub.gevent", "import gevent\nfrom greentls.hub.protocol import Hub"),
        ("greentls.core.callbacks", "from greentls.core.session import Session\nffi.new('int *')"),
        ("greentls.ssl.context", "import ssl as _stdlib_ssl\nfrom greentls.stream import TLSStream"),
    ],
)
def test_what_is_allowed_is_not_found(module, source):
    assert list(broken_rules(source, module)) == []


def test_importing_greentls_patches_nothing_and_wire_needs_neither_gevent_nor_openssl():
    import subprocess

    program = (
        "import sys, ssl, socket\n"
        "before = ssl.SSLContext, ssl.SSLSocket, socket.socket\n"
        "import greentls, greentls.wire, greentls.errors\n"
        "assert not {'gevent', 'OpenSSL', 'cryptography'} & set(sys.modules), 'too much is imported'\n"
        "greentls.SSLContext, greentls.open_store\n"
        "assert (ssl.SSLContext, ssl.SSLSocket, socket.socket) == before\n"
        "print('good')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("good\n", "")
