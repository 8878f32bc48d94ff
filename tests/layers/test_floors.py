"""The floors of the house: a module imports only what lies below it. Read from the source with ast."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.support.helpers import ROOT

PACKAGE = ROOT / "greentls"

# The longest matching prefix tells a module's floor. A package's own modules may import each other.
FLOORS = {
    "greentls": 8,  # the public names
    "greentls.__main__": 8,
    "greentls.cli": 7,
    "greentls.monkey": 7,
    "greentls.prometheus": 7,
    "greentls.wsgi": 7,
    "greentls.ssl": 6,
    "greentls.stream": 5,
    "greentls.sessions": 4,
    "greentls.strategy": 4,
    "greentls.core": 3,
    "greentls.certificates": 2,
    "greentls.keys": 2,
    "greentls.ocsp": 2,
    "greentls.tickets": 2,
    "greentls.events": 1,
    "greentls.hub": 1,
    "greentls.hub.gevent": 1,
    "greentls.openssl": 1,
    "greentls.stores": 1,
    "greentls.wire": 1,
    "greentls._version": 0,
    "greentls.errors": 0,
    "greentls.lazy": 0,
    "greentls.log_limit": 0,
    "greentls.secret_file": 0,
}
# "never above or beside, except where said": beside, these
BESIDE = {
    ("greentls.hub", "greentls.hub.gevent"),
    ("greentls.hub.gevent", "greentls.hub"),
    ("greentls.certificates", "greentls.keys"),
    ("greentls.ocsp", "greentls.certificates"),
    ("greentls.secret_file", "greentls.errors"),
    ("greentls.stores", "greentls.hub"),
}
GEVENT = {"hub.gevent", "stream", "strategy", "ssl", "monkey", "wsgi", "cli"}
WITHOUT_SOCKETS = {"greentls.core", "greentls.openssl"}  # two Connections talk in memory in a test
TOUCHES_C = ("greentls.openssl", "greentls.core.bridge", "greentls.core.callbacks")
C_NAMES = {"ffi", "lib", "_ssl"}
# They name their SSL_* functions to Operation.run(); the first reads three facts, too.
C_USERS = {"greentls.core.connection": {"lib"}, "greentls.core.early_data": {"lib"}}


def part_of(module):
    return max((each for each in FLOORS if module == each or module.startswith(each + ".")), key=len)


def imports(tree, module, is_package):
    """(line, what, whether only for types) of every import."""
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, alias.asname, node in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                yield node.lineno, submodule if submodule in FLOORS else origin, None, node in typing_only


def broken_rules(source, module, is_package=False):
    """The lines of a module that break a rule, each as a sentence."""
    tree = ast.parse(source)
    me = part_of(module)
    floor = FLOORS[me]
    for line, imported, alias, for_types in imports(tree, module, is_package):
        where = f"{module}:{line}"
        if imported == "ssl" and alias != "_stdlib_ssl":
            yield f"{where} imports ssl bare: write import ssl as _stdlib_ssl"
        top = imported.split(".")[0]
        if top == "gevent" and me != "greentls.wire" and me.removeprefix("greentls.") not in GEVENT:
            yield f"{where} imports {imported}: {me} knows no loop"
        if top in ("socket", "_socket") and me in WITHOUT_SOCKETS:
            yield f"{where} imports {imported}: {me} knows no sockets"
        if me == "greentls.wire" and imported.split(".")[0] not in {*sys.stdlib_module_names, "greentls"}:
            yield f"{where} imports {imported}: wire/ has the standard library only"
        if me == "greentls.stores" and imported.split(".")[0] == "OpenSSL":
            yield f"{where} imports {imported}: stores know nothing of TLS"
        if imported.split(".")[0] != "greentls" or for_types:
            continue
        other = part_of(imported)
        if other != me and FLOORS[other] >= floor and (me, other) not in BESIDE:
            yield f"{where} imports {imported}: floor {FLOORS[other]} from floor {floor}"
    if not module.startswith(TOUCHES_C):
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
            if name in C_NAMES - C_USERS.get(module, set()) and not own:
                yield f"{module}:{node.lineno} touches {name}"


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["greentls", *path.relative_to(PACKAGE).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        yield path, ".".join(parts[:-1] if is_package else parts), is_package


def test_every_module_keeps_to_its_floor():
    found = [rule for path, name, pack in modules() for rule in broken_rules(path.read_text("utf-8"), name, pack)]
    assert found == []


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
        ("greentls.hub.deadline", "from gevent import get_hub", "knows no loop"),
        ("greentls.core.config", "import socket", "knows no sockets"),
        ("greentls.core.config", "from greentls.stream import TLSStream", "floor 5 from floor 3"),
        ("greentls.core.config", "library.lib.SSL_new()", "touches lib"),
        ("greentls.ssl.socket", "connection._ssl", "touches _ssl"),
        ("greentls.ssl.socket", "import ssl", "import ssl as _stdlib_ssl"),
        ("greentls.errors", "from greentls.cli import main", "floor 7 from floor 0"),
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
        ("greentls.hub.gevent", "import gevent\nfrom greentls.hub.protocol import Hub"),
        ("greentls.core.bridge", "from greentls.core.session import Session\nffi.new('int *')"),
        ("greentls.ssl.context", "import ssl as _stdlib_ssl\nfrom greentls.stream import TLSStream"),
        ("greentls.ssl.context", "if TYPE_CHECKING:\n    from greentls.cli import main"),
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("good\n", "")
