"""The floors of the house: a module imports only what lies below it, and no import leads in a circle.

Read from the source with ast: imports of functions and of ``if TYPE_CHECKING`` count as any other.
"""

from __future__ import annotations

import ast
import sys

from tests.support.helpers import ROOT

PACKAGE = ROOT / "greentls"

# The longest matching prefix tells a module's floor. A package's own modules may import each other.
FLOORS = {
    "greentls": 8,  # the public names
    "greentls.__main__": 8,
    "greentls.aio": 7,
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
    "greentls.hub.asyncio": 1,
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
    ("greentls.hub.asyncio", "greentls.hub"),
    ("greentls.hub.gevent", "greentls.hub"),
    ("greentls.certificates", "greentls.keys"),
    ("greentls.ocsp", "greentls.certificates"),
    ("greentls.secret_file", "greentls.errors"),
    ("greentls.stores", "greentls.hub"),
}
LOOPS = {
    "gevent": {"hub.gevent", "stream", "strategy", "ssl", "monkey", "wsgi", "cli"},
    "asyncio": {"hub.asyncio", "aio"},
}
WITHOUT_SOCKETS = {"greentls.core", "greentls.openssl"}  # two Connections talk in memory in a test
TOUCHES_C = ("greentls.openssl", "greentls.core.callbacks")
C_NAMES = {"ffi", "lib", "_ssl"}


def part_of(module):
    return max((each for each in FLOORS if module == each or module.startswith(each + ".")), key=len)


def imports(tree, module, is_package):
    """(line, module or package, its alias, the names taken from it) of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, alias.asname, []
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            yield node.lineno, ".".join([*base, *filter(None, [node.module])]), None, [each.name for each in node.names]


def among(known, imported, names):
    """What an import brings, each as far as it is one of the known: a module, or the package that has the name."""
    return {f"{imported}.{name}" if f"{imported}.{name}" in known else imported for name in names} or {imported}


def broken_rules(source, module, is_package=False):
    """The lines of a module that break a rule, each as a sentence."""
    tree = ast.parse(source)
    me = part_of(module)
    floor = FLOORS[me]
    for line, imported, alias, names in imports(tree, module, is_package):
        where = f"{module}:{line}"
        if imported == "ssl" and alias != "_stdlib_ssl":
            yield f"{where} imports ssl bare: write import ssl as _stdlib_ssl"
        top = imported.split(".")[0]
        if me != "greentls.wire" and me.removeprefix("greentls.") not in LOOPS.get(top, {me.removeprefix("greentls.")}):
            yield f"{where} imports {imported}: {me} knows no loop"
        if top in ("socket", "_socket") and me in WITHOUT_SOCKETS:
            yield f"{where} imports {imported}: {me} knows no sockets"
        if me == "greentls.wire" and top not in {*sys.stdlib_module_names, "greentls"}:
            yield f"{where} imports {imported}: wire/ has the standard library only"
        if me == "greentls.stores" and top == "OpenSSL":
            yield f"{where} imports {imported}: stores know nothing of TLS"
        if top != "greentls":
            continue
        for found in sorted(among(FLOORS, imported, names)):
            other = part_of(found)
            if other != me and FLOORS[other] >= floor and (me, other) not in BESIDE:
                yield f"{where} imports {found}: floor {FLOORS[other]} from floor {floor}"
    if not module.startswith(TOUCHES_C):
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
            if name in C_NAMES and not own:
                yield f"{module}:{node.lineno} touches {name}"


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["greentls", *path.relative_to(PACKAGE).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        yield path, ".".join(parts[:-1] if is_package else parts), is_package


def house():
    """The modules of greentls, each with those that it imports."""
    sources = {name: (path, is_package) for path, name, is_package in modules()}
    return {
        name: {
            found
            for _, imported, _, names in imports(ast.parse(path.read_text("utf-8")), name, is_package)
            for found in among(sources, imported, names)
            if found in sources and found != name
        }
        for name, (path, is_package) in sources.items()
    }


def circles(imported):
    """The modules that reach themselves by their imports, each group sorted. imported: as house() answers."""

    def reached(start):
        found, todo = set(), [start]
        while todo:
            new = imported[todo.pop()] - found
            found |= new
            todo += new
        return found

    everywhere = {name: reached(name) for name in imported}
    groups = {
        tuple(sorted(other for other in beyond if name in everywhere[other]))
        for name, beyond in everywhere.items()
        if name in beyond
    }
    return sorted(groups)


def picture():
    """The floors as docs/architecture.rst draws them."""
    lines = []
    for floor in sorted(set(FLOORS.values()), reverse=True):
        parts = sorted(part.removeprefix("greentls.") for part, its in FLOORS.items() if its == floor)
        marked = [
            part
            + "*" * (part in LOOPS["gevent"])
            + "+" * any(each.startswith(f"greentls.{part}") for each in TOUCHES_C)
            for part in parts
        ]
        lines += [RULE, f"{floor}  | {'   '.join(marked):<{len(RULE) - 7}} |"]
    return "\n".join([*lines, RULE]) + "\n"


RULE = f"   +{'-' * 88}+"
