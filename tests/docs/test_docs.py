"""The documentation against the code: what it includes exists, what it shows runs, what it names is there.

Needs no Sphinx. `make docs` builds the pages and takes warnings for errors.
"""

from __future__ import annotations

import argparse
import ast
import csv
import doctest
import importlib
import io
import os
import re
import shlex
import shutil
import socket
import ssl

import gevent
import pytest
from gevent.server import StreamServer

import benchmarks.__main__
import greentls
import greentls.cli.keys
import greentls.events
from benchmarks.suites import SUITES
from greentls.cli import doctor, hello, serve
from greentls.errors import ConfigurationError
from greentls.stores.memory import MemoryStore
from greentls.stores.sealed import SealedStore
from greentls.wire import Parser
from tests.docs.sources import is_there
from tests.support.clients import exchange, in_thread, stdlib_context
from tests.support.helpers import PATIENCE, ROOT

DOCS = ROOT / "docs"
PAGES = {path.stem: path.read_text("utf-8") for path in sorted(DOCS.glob("*.rst"))}
LOGGERS = {
    *("greentls.certificates", "greentls.events", "greentls.handshake", "greentls.ocsp", "greentls.sessions"),
    "greentls.tickets",
}
EVERYTHING = "\n".join(PAGES.values())


def directives(name, only=None):
    """(page, argument, options, content without its indentation) of each of them, or of one page's."""
    found = []
    for page, text in PAGES.items():
        if only not in (None, page):
            continue
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if match := re.fullmatch(rf"\.\. {name}::\s*(.*)", line):
                block = []
                for each in lines[number + 1 :]:
                    if each and not each.startswith("   "):
                        break
                    block.append(each[3:])
                options = {}
                while block and (option := re.fullmatch(r":([a-z-]+):\s*(.*)", block[0])):
                    options[option[1]] = option[2]
                    block.pop(0)
                found.append((page, match[1], options, "\n".join(block).strip("\n") + "\n"))
    return found


def blocks(language):
    return [(page, content) for page, argument, _, content in directives("code-block") if argument == language]


def rows(page, heading):
    """The cells of the csv-table or list-table whose first header is heading."""
    found = []
    for _, _, options, content in directives("csv-table", page):
        if options["header"].startswith(f"{heading},"):
            found.append(list(csv.reader(io.StringIO(content), skipinitialspace=True)))
    for _, _, _, content in directives("list-table", page):
        if content.startswith(f"* - {heading}\n"):
            _, _, *lines = re.split(r"^\* - ", content, flags=re.MULTILINE)
            found.append([re.split(r"^  -", line, flags=re.MULTILINE) for line in lines])
    (table,) = found
    return [[" ".join(cell.split()) for cell in row] for row in table]


def literals(text):
    return re.findall(r"``(.+?)``", text)


def by_path(name):
    """What a dotted path from greentls on leads to."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[split:]:
            thing = getattr(thing, attribute)
        return thing
    raise AssertionError(f"{name}: no such module")


# -- pages -------------------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_table_of_contents():
    ((_, _, _, content),) = directives("toctree")
    assert sorted([*content.split(), "index"]) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_short_and_links_lead_somewhere(page):
    assert [line for line in PAGES[page].splitlines() if len(line) > 120 or line != line.rstrip()] == []
    assert set(re.findall(r":doc:`([^`]+)`", PAGES[page])) <= set(PAGES)
    assert set(re.findall(r":ref:`([^`]+)`", PAGES[page])) <= set(
        re.findall(r"^\.\. _(.+):$", EVERYTHING, re.MULTILINE)
    )


def test_what_is_included_exists():
    included = directives("literalinclude")
    assert len(included) >= 4
    for page, path, options, _ in included:
        file = (DOCS / path).resolve()
        assert file.is_relative_to(ROOT / "examples"), f"{page}: {path} is not among what tests/examples runs"
        start = options.get("start-at", "")
        assert start in file.read_text("utf-8"), f"{page}: {start!r} is not in {path}"


def test_every_code_block_is_of_a_kind_that_is_tested():
    kinds = {argument for _, argument, _, _ in directives("code-block")}
    assert kinds <= {"python", "sh", "json", "text"}
    assert not re.search(r"::\n\n {2,}", re.sub(r"^\.\. .*(\n   .*)*", "", EVERYTHING, flags=re.MULTILINE)), (
        "a literal block that no test looks at"
    )


# -- what the pages show -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if ">>> " in text])
def test_doctests(page):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    results = doctest.testfile(str(DOCS / f"{page}.rst"), module_relative=False, optionflags=flags)
    assert results.attempted > 0
    assert results.failed == 0


def run_python(page, pki, directory):
    """Runs a page's Python blocks, in their order, where the files are that they name. Gives their names."""
    for name, file in (("cert.pem", pki.cert_file), ("key.pem", pki.key_file), ("ca.pem", pki.ca_file)):
        shutil.copy(file, directory / name)
    names = {"__name__": "docs"}
    before = os.getcwd()
    os.chdir(directory)
    try:
        for where, source in blocks("python"):
            if where == page:
                exec(compile(source, f"{page}.rst", "exec"), names)
    finally:
        os.chdir(before)
    return names


def test_python_blocks_are_those_that_the_tests_below_run():
    assert {page for page, _ in blocks("python")} == {"asyncio", "hooks", "observing", "stores"}


def test_the_recipes_of_the_asyncio_page_are_what_the_tests_run_with_real_programs():
    programs = "".join((ROOT / "tests" / "programs" / name).read_text("utf-8") for name in ("asgi.py", "test_redis.py"))
    recipes = [source for page, source in blocks("python") if page == "asyncio"]
    for source in recipes:
        ast.parse(source)
    interfaces = re.findall(r"\bdef \w+|\w+_factory=|\w+\.\w+ = context$", "".join(recipes[1:]), re.MULTILINE)
    assert {"ssl_context_factory=", "def create_ssl_context", "ssl_context.context = context"} <= set(interfaces)
    assert [each for each in interfaces if each not in programs] == []


def test_the_handler_of_the_observing_page_and_the_events_that_it_names(pki, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(greentls.events, "handler", None)
    run_python("observing", pki, tmp_path)
    greentls.events.emit("handshake", side="server", error=None, resumption="full", hooks={})
    assert capfd.readouterr().out == "server full {}\n"
    assert {literals(name)[0]: tuple(literals(facts)) for name, facts in rows("observing", "event")} == (
        greentls.events.EVENTS
    )
    for names, _ in rows("observing", "property of the socket"):
        assert isinstance(getattr(greentls.SSLSocket, *literals(names)), property)


def test_the_context_of_the_hooks_page_does_what_the_page_says(pki, tmp_path):
    context = run_python("hooks", pki, tmp_path)["context"]
    seen = []

    def echo(sock, address):
        seen.append(sock.session_lookup)
        while data := sock.recv(100):
            sock.sendall(data)

    server = StreamServer(("127.0.0.1", 0), echo, ssl_context=context)
    server.start()
    try:
        client = stdlib_context(pki)
        client.set_alpn_protocols(["http/1.1", "h2"])
        first = in_thread(exchange, server.address, client)
        assert first.alpn == "h2"
        assert context.drain_sessions(PATIENCE)
        assert in_thread(exchange, server.address, client, session=first.session).reused
        assert [lookup and lookup.outcome for lookup in seen] == [None, "hit"]
    finally:
        server.stop()
    with pytest.raises(ssl.SSLError, match="callback failed"):
        refuse(context, pki, "unrecognized.name", server_hostname="elsewhere.test")


def refuse(context, pki, alert, server_hostname="localhost"):
    """Raises what wrap_socket() raises to the server, once a client has seen that alert."""
    here, there = gevent.socket.socketpair()
    client = stdlib_context(pki)
    client.set_alpn_protocols(["h2"])

    def connect():
        with socket.socket(fileno=here.detach()) as raw:
            raw.settimeout(PATIENCE)
            with pytest.raises(ssl.SSLError, match=f"(?i){alert.replace('_', '.')}"):
                client.wrap_socket(raw, server_hostname=server_hostname)

    job = gevent.spawn(in_thread, connect)
    try:
        context.wrap_socket(there, server_side=True)
    finally:
        job.get(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("callback", "alert"),
    [
        (literals(name)[0], literals(failure)[-1])
        for name, _, _, failure in rows("hooks", "callback")
        if "refused: alert" in failure
    ],
)
def test_a_callback_that_fails_refuses_with_the_alert_of_the_hooks_page(pki, callback, alert):
    def fail(*_):
        raise failure

    failure = LookupError("no answer")
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert_file, pki.key_file)
    fail.get = fail  # certificates are a source
    setattr(context, callback, fail)
    with pytest.raises(LookupError) as caught:
        refuse(context, pki, alert)
    assert caught.value is failure


def test_the_store_of_the_stores_page_keeps_the_contract(pki, tmp_path):
    store = run_python("stores", pki, tmp_path)["DictStore"]()
    assert isinstance(store, greentls.SessionStore)
    store.put(b"id", b"session", 60)
    assert store.get(b"id") == b"session"
    store.put(b"id", b"session", 0)
    assert store.get(b"id") is None
    store.remove(b"id")
    store.remove(b"id")
    store.close()
    assert store.get(b"id") is None


def commands():
    return [
        (page, line)
        for page, content in blocks("sh")
        for line in content.splitlines()
        if line and not line.startswith("#")
    ]


def command_line():
    parser = argparse.ArgumentParser(prog="greentls")
    subparsers = parser.add_subparsers()
    serve.add_parser(subparsers)
    greentls.cli.keys.add_parser(subparsers)
    hello.add_parser(subparsers)
    doctor.add_parser(subparsers)
    return parser, subparsers.choices


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_exists_and_takes_its_arguments(page, line):
    program, *arguments = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    elif program == "greentls":
        command_line()[0].parse_args(arguments)
    else:
        assert program == "python"
        path, *options = arguments
        if path == "-m":
            assert options.pop(0) == "benchmarks"
            benchmarks.__main__.command_line().parse_args(options)
            return
        help_options = {
            constant.value
            for constant in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
            if isinstance(constant, ast.Constant)
        }
        assert {option for option in options if option.startswith("--")} <= help_options


# -- what the pages name -----------------------------------------------------------------------------------------------


def test_the_hooks_page_names_attributes_of_the_context():
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tables = rows("hooks", "callback") + rows("hooks", "setting")
    attributes = {name: value for names, value, *_ in tables for name in literals(names)}
    for name, value in attributes.items():
        assert hasattr(context, name)
        if default := re.search(r"(?:; |^)([0-9.]+)$", value.split("seconds")[-1]):
            assert getattr(context, name) == float(default[1]), name
    sections = re.findall(r"^(\w+)\n-+$", PAGES["hooks"], re.MULTILINE)
    assert {section for section in sections if "_" in section} <= set(attributes)
    # Everything that the standard library's context does not have is on the page.
    ours = {name for name in {*vars(context), *vars(greentls.SSLContext)} if not name.startswith("_")}
    ours -= set(dir(ssl.SSLContext))
    assert {name for name in ours if not callable(getattr(context, name))} <= set(attributes)


def url_options(scheme):
    """option: (default, meaning) by the table of the stores page."""
    (part,) = re.findall(rf"^``{scheme}://.*?``\n((?:   .*\n|\n)+)", PAGES["stores"], re.MULTILINE)
    table = re.findall(r"^   ``(\w+)``  +(\S*?)  +(\S.*)$", part, re.MULTILINE)
    return {option: (default, meaning) for option, default, meaning in table}


@pytest.mark.parametrize("scheme", ["memory", "memcached"])
def test_the_stores_page_has_the_options_that_open_store_takes(scheme, tmp_path):
    place = {"memory": "memory://", "memcached": "memcached://localhost"}[scheme]
    known = {"memory": "", "memcached": "insecure=1&"}[scheme]
    with pytest.raises(ConfigurationError) as refused:
        greentls.open_store(f"{place}?{known}no_such_option=1")
    taken = set(refused.value.remedy.removeprefix("known are ").split(", "))
    documented = url_options(scheme)
    assert set(documented) == taken
    secret = tmp_path / "fleet.key"
    secret.write_bytes(os.urandom(32))
    for option, (default, _) in documented.items():
        value = {"secret_file": str(secret), "insecure": "1"}.get(option, default)
        more = "" if option in ("secret_file", "insecure") else f"&{known}"
        greentls.open_store(f"{place}?{option}={value}{more.rstrip('&')}").close()


def test_the_defaults_of_the_stores_page_are_the_codes():
    from greentls.stores import memcached, memory

    memory_options, memcached_options = url_options("memory"), url_options("memcached")
    assert memory_options["entries"][0] == str(memory.MAX_ENTRIES)
    assert memory_options["bytes"][0] == str(memory.MAX_BYTES)
    assert f"{memory.ENTRY_OVERHEAD} more" in memory_options["bytes"][1]
    assert memcached_options["connect_timeout"][0] == str(memcached.CONNECT_TIMEOUT)
    assert memcached_options["timeout"][0] == str(memcached.IO_TIMEOUT)
    assert memcached_options["pool"][0] == str(memcached.POOL)


def test_the_schemes_of_the_stores_page_are_those_of_open_store():
    with pytest.raises(ConfigurationError) as refused:
        greentls.open_store("nonsense://")
    known = refused.value.remedy.removeprefix("known are ").split(", ")
    assert sorted(re.findall(r"^``(\w+://)", PAGES["stores"], re.MULTILINE)) == sorted(known)


def test_a_sealed_session_has_the_layout_of_the_stores_page():
    (layout,) = [content for page, content in blocks("text") if page == "stores"]
    sizes = [int(size) for size in re.findall(r"^(\d+) octets? ", layout, re.MULTILINE)]
    tag = int(re.search(r"tag of (\d+) octets", layout)[1])
    inner = MemoryStore()
    SealedStore(inner, [os.urandom(32)]).put(b"id", b"session", 60)
    assert len(inner.get(b"id")) == sum(sizes) + len(b"session") + tag
    assert inner.get(b"id")[0] == 1


@pytest.mark.parametrize("command", ["serve", "hello"])
def test_a_commands_page_has_its_options(command):
    documented = {literals(option)[0].split()[0]: default for option, default, _ in rows(command, "option")}
    (_, commands) = command_line()
    actions = {action.option_strings[-1]: action for action in commands[command]._actions if action.option_strings}
    assert set(documented) == set(actions) - {"--help"}
    for option, default in documented.items():
        assert default == (
            ""
            if actions[option].default in (None, False)
            else f"{actions[option].default:g}"
            if isinstance(actions[option].default, float)
            else str(actions[option].default)
        ), option


def test_the_limits_of_the_security_page_are_the_codes():
    limits = rows("security", "constant")
    assert len(limits) > 15
    for name, value, _ in limits:
        assert by_path(literals(name)[0]) == ast.literal_eval(value), name


@pytest.mark.parametrize("page", PAGES)
def test_names_in_the_text_exist(page):
    for name in re.findall(r":class:`~?([\w.]+)`", PAGES[page]):
        assert isinstance(by_path(name), type)
    for name in re.findall(r"``((?:greentls|gevent|ssl)\.[\w.]+)(?:\(.*?\))?``", PAGES[page]):
        assert name in LOGGERS or by_path(name) is not None, name


def test_the_parsers_events_are_those_of_the_wire_page():
    documented = [literals(event)[0] for event, _ in rows("wire", "event")]
    assert sorted(documented) == sorted(event for event in vars(Parser) if event.startswith("on_"))


def test_the_tests_that_are_named_exist():
    named = set(re.findall(r":test:`(\w+)`", EVERYTHING))
    assert len(named) > 20
    assert {name for name in named if not is_there(name)} == set()


def documented_names():
    return [
        name.split("(")[0].rstrip("\\ ")
        for kind in ("autoclass", "autoexception", "autofunction")
        for _, name, _, _ in directives(kind)
    ]


@pytest.mark.parametrize("name", documented_names())
def test_a_name_of_the_api_page_exists_and_says_what_it_is(name):
    assert by_path(name).__doc__


@pytest.mark.parametrize("module", ["greentls", "greentls.errors", "greentls.wire"])
def test_every_public_name_is_on_the_api_page(module):
    documented = [by_path(name) for name in documented_names()]
    public = {name: by_path(f"{module}.{name}") for name in by_path(module).__all__ if not name.startswith("__")}
    assert [name for name, thing in public.items() if thing not in documented] == []


def test_members_of_the_api_page_exist():
    for kind in ("autoclass", "autoexception"):
        for _, name, options, _ in directives(kind):
            for member in filter(None, options.get("members", "").split(", ")):
                assert hasattr(by_path(name.split("(")[0]), member), f"{name}.{member}"


def test_the_error_tree_is_the_codes():
    """The page takes it from the docstring. Each class stands below one of its bases, and none is left out."""
    errors = by_path("greentls.errors")
    branches = re.findall(r"^    ([|+ -]*)(\w+)(?:  .*)?$", errors.__doc__, re.MULTILINE)
    above = {0: errors.GreenTLSError}
    for indent, name in branches:
        kind, depth = getattr(errors, name), len(indent) // 4
        above[depth] = kind
        assert depth == 0 or above[depth - 1] in kind.__bases__, name
    assert sorted(name for _, name in branches) == sorted(errors.__all__)


def test_every_suite_of_the_benchmarks_is_on_one_page():
    included = [path for page in ("benchmarks", "strategies") for _, path, _, _ in directives("include", page)]
    assert sorted(included) == sorted(f"benchmarks/{name}.inc" for name in (*SUITES, "conditions", "targets"))
    for path in included:
        written = (DOCS / path).read_text("utf-8")
        for image in re.findall(r"^\.\. image:: (.+)$", written, re.MULTILINE):
            assert (DOCS / image).exists()
            assert (DOCS / image).with_suffix(".png").exists()
