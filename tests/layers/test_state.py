"""A connection's state is written in core/ only: nothing above assigns to an attribute of a Connection, of its
Operation or of its Handshake. Read from the source with ast."""

from __future__ import annotations

import ast

import pytest

from tests.layers.floors import modules

# What such an object is called, by its name or as somebody's attribute; and what a parameter of it is annotated with.
NAMES = {"connection", "_connection", "_tls", "operation", "_operation", "handshake"}
TYPES = {"Connection", "EarlyConnection", "HookConnection", "Operation", "Handshake"}


def outside_writes(source, module):
    """The lines that write an attribute of such an object, each as a sentence."""
    tree = ast.parse(source)
    known = NAMES | {
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if argument.annotation is not None and TYPES & set(ast.unparse(argument.annotation).replace("|", " ").split())
    }

    def is_one(node):
        return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) in known

    def value_is_one(node):
        return is_one(node) or (isinstance(node, ast.Call) and getattr(node.func, "id", "") in TYPES)

    for node in ast.walk(tree):  # names for one, in the order of the source
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                known |= {to.id for to, what in pairs if isinstance(to, ast.Name) and value_is_one(what)}
    for node in ast.walk(tree):
        written = ""
        if isinstance(node, ast.Attribute) and is_one(node.value):
            if node.attr == "__dict__" or not isinstance(node.ctx, ast.Load):
                written = ast.unparse(node)
        elif isinstance(node, ast.Call) and node.args and is_one(node.args[0]):
            function = ast.unparse(node.func)
            if function in ("setattr", "delattr", "vars") or function.endswith(("__setattr__", "__delattr__")):
                written = ast.unparse(node)
        if written:
            yield f"{module}:{node.lineno} writes {written}"


def test_nobody_outside_core_writes_to_a_connection():
    found = [
        sentence
        for path, name, _ in modules()
        if not name.startswith("greentls.core")
        for sentence in outside_writes(path.read_text("utf-8"), name)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "connection.eof = True",
        "self._connection.received += 1",
        "self.connection.hub = None",
        "connection.handshake.server_name: str = 'localhost'",
        "kept, connection.handshake.session_lookup = None, None",
        "del self._connection.early_data",
        "for connection.eof in (): pass",
        "stream.connection.__dict__.setdefault('left', None)",
        "setattr(connection, 'eof', True)",
        "object.__setattr__(connection, 'eof', True)",
        "vars(connection).update(eof=True)",
        "tls = self.connection; tls.eof = True",
        "tls, other = self.connection, None; tls.eof = True",
        "tls = Connection(config); tls.eof = True",
        "def hook(asks: HookConnection | None): asks.owner = None",
    ],
)
def test_such_a_write_is_found_with_its_line(line):
    (sentence,) = outside_writes("\n" + line, "greentls.ssl.socket")
    assert sentence.startswith("greentls.ssl.socket:2 writes ")


@pytest.mark.parametrize(
    "line",
    [
        "self.connection = connection",
        "eof = connection.eof",
        "connection.handshake.took('sni_callback', 1.0)",
        "self._stream.timeout = connection.timeout",
        "connection.handshake.answers['a question'] = None",
    ],
)
def test_what_is_allowed_is_not_found(line):
    assert list(outside_writes(line, "greentls.ssl.socket")) == []
