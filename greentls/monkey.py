"""patch() gives programs that import ssl the classes of greentls.ssl. unpatch() restores the standard library's.

    python -m greentls.monkey server.py --port 8443        runs a program like python -m gevent.monkey, with greentls

patch() replaces the names of ``ssl`` for which greentls.ssl has its own, in ``ssl`` and in every module that has
imported one of them (urllib3, requests, http.client, ...). It may be called before or after gevent.monkey.patch_all(),
before or after an import, and together with truststore. Importing this module patches nothing.

patch() also replaces select.select(), select.poll(), gevent's functions of the same names, and the select() of
selectors. The replacements see what a greentls socket has read ahead (greentls.ssl.polling).

Two kinds of programs are out of reach: those that do TLS in C (psycopg's libpq, pycurl, grpc), and those that import
names from gevent.ssl after patch(). geventhttpclient is one: import it before, or pass it
ssl_context_factory=greentls.ssl.create_default_context.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import signal
import ssl as _stdlib_ssl
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import gevent.monkey
import gevent.ssl
from gevent import events

import greentls.ssl
from greentls.sessions.client import ClientSessions
from greentls.ssl import polling
from greentls.ssl.context import SSLContext
from greentls.ssl.replacement import STDLIB_CONTEXT, STDLIB_SOCKET, with_globals
from greentls.ssl.socket import SSLSocket

__all__ = ["patch", "unpatch"]


class _Place(NamedTuple):
    module: types.ModuleType | type
    name: str
    was: object
    now: object

    def __str__(self) -> str:
        return f"{self.module.__name__}.{self.name}"


_NAMES = [
    name for name in dir(_stdlib_ssl) if getattr(getattr(greentls.ssl, name), "__module__", "").startswith("greentls.")
]
_places: list[_Place] = []
_defaults: list[_Place] = []  # changes by patch()'s arguments, which stay while gevent patches

# If gevent patches after us, it warns that ssl was imported before. The warning is false if it names only greentls.
_FALSE_ALARM = (
    r"Monkey-patching ssl after ssl .*Modules that had direct imports \(NOT patched\): \[('greentls\.[^']*'(, )?)*\]\. "
    r"Subclasses \(NOT patched\): \[(\"<class 'greentls\.[^\"]*\"(, )?)*\]"
)


def patch(client_sessions: bool | ClientSessions = False) -> tuple[str, ...]:
    """Replaces ssl's names by greentls.ssl's.

    client_sessions: True or a ClientSessions, which becomes SSLContext.client_sessions until unpatch().
    Returns the replaced names, such as "urllib3.util.ssl_.SSLContext"; a second call returns those that are new. Raises
    RuntimeError if eventlet has patched sockets, because its hub is a different one.
    """
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("socket"):
        raise RuntimeError("greentls.monkey.patch(): eventlet has patched socket, and greentls waits in gevent's hub")
    if client_sessions is not False:
        new = ClientSessions() if client_sessions is True else client_sessions
        _defaults.append(_Place(SSLContext, "client_sessions", SSLContext.client_sessions, new))
        SSLContext.client_sessions = new
    if _beside_gevent not in events.subscribers:
        events.subscribers.append(_beside_gevent)
    warnings.filterwarnings("ignore", _FALSE_ALARM, gevent.monkey.MonkeyPatchWarning)
    if not _places:
        _places.extend(_guard())
        _places.extend(_watch())
    found = list(_found())
    for place in found:
        setattr(place.module, place.name, place.now)
    _places.extend(found)
    return tuple(map(str, found))


def unpatch() -> tuple[str, ...]:
    """Restores what patch() has replaced, except names that were replaced again since. Returns the restored names.

    A module that was imported meanwhile keeps what it imported.
    """
    if _beside_gevent in events.subscribers:
        events.subscribers.remove(_beside_gevent)
    _put_back(_defaults)
    return tuple(str(place) for place in _put_back(_places) if isinstance(place.module, types.ModuleType))


def _put_back(places: list[_Place]) -> list[_Place]:
    done = []
    for place in reversed(places):
        if vars(place.module).get(place.name) is place.now:
            setattr(place.module, place.name, place.was)
            done.append(place)
    places.clear()
    return done


def _watch() -> Iterator[_Place]:
    """Makes selectors see what a socket has read ahead. _found() finds select() and poll()."""
    yield _put(SSLSocket, "by_descriptor", polling.KNOWN)
    for kind in polling.selector_classes():
        yield _put(kind, "select", polling.seeing(vars(kind)["select"]))


def _put(owner: type, name: str, now: object) -> _Place:
    place = _Place(owner, name, vars(owner)[name], now)
    setattr(owner, name, now)
    return place


def _found() -> Iterator[_Place]:
    """Yields each name of an object of the standard library's, or of its replacement by gevent or truststore."""
    ours: dict[int, object] = {id(old): new for old, new in polling.replacements()}
    for name in _NAMES:
        new = getattr(greentls.ssl, name)
        for old in (
            gevent.monkey.get_original("ssl", name),
            getattr(_stdlib_ssl, name, new),
            getattr(gevent.ssl, name, new),
        ):
            if old is not new:
                ours[id(old)] = new
    for key, module in list(sys.modules.items()):
        if not isinstance(module, types.ModuleType):  # None, or a lazy importer's object
            continue
        if key.partition(".")[0] in ("greentls", "gevent", "truststore", "_ssl") and key != "gevent.select":
            continue
        for name, value in list(vars(module).items()):
            if id(value) in ours and "orig" not in name.lower():  # a name like that is meant to keep the original
                yield _Place(module, name, value, ours[id(value)])


def _beside_gevent(event: object) -> None:
    """Puts the originals back while gevent.monkey patches, so that it saves those, and patches again afterwards."""
    if getattr(event, "module_name", None) not in ("select", "selectors", "ssl"):
        return
    if isinstance(event, events.GeventWillPatchModuleEvent):
        _put_back(_places)
    elif isinstance(event, events.GeventDidPatchModuleEvent):
        patch()


def _guard() -> Iterator[_Place]:
    """Lets methods of the standard library's classes see ssl as it was.

    They name their own classes by ssl's globals, in super(SSLContext, SSLContext), and would recurse once these are
    replaced. With this, existing contexts keep working.
    """
    originals = {**vars(_stdlib_ssl), "SSLContext": STDLIB_CONTEXT, "SSLSocket": STDLIB_SOCKET}
    # One of gevent's setters puts its class into ssl and leaves it there. It gets another ssl from now on.
    gevents = {**vars(gevent.ssl), "__ssl__": types.SimpleNamespace(**originals)}
    for kind, names in ((STDLIB_CONTEXT, originals), (STDLIB_SOCKET, originals), (gevent.ssl.SSLContext, gevents)):
        for name, was in list(vars(kind).items()):
            now = _over(was, names)
            if now is not was:
                yield _put(kind, name, now)


def _over(member: Any, names: dict[str, object]) -> Any:  # Any: members of every type
    """Returns a member of a class with other globals."""
    if isinstance(member, types.FunctionType):
        return with_globals(member, names)
    if isinstance(member, classmethod):
        return classmethod(_over(member.__func__, names))
    if isinstance(member, property):
        return property(_over(member.fget, names), _over(member.fset, names), None, member.__doc__)
    return member


def _wake_for_signals() -> None:
    """Wakes gevent's loop for each signal.

    gevent checks for signals, then sleeps until the next event. It would see a signal that arrives in between, or in
    another thread, only at that event. So Python writes a byte for each signal, which is an event.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = gevent.get_hub().loop.io(reading, 1, ref=False)
    watcher.start(os.read, reading, 4096)  # in C: a KeyboardInterrupt in a Python function would end the watcher


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m greentls.monkey",
        description="Runs a program under gevent.monkey.patch_all() and greentls.monkey.patch().",
        epilog="example: python -m greentls.monkey -m http.server 8000",
        usage="%(prog)s [-h] [--client-sessions] (SCRIPT | -m MODULE) [ARGUMENT ...]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--client-sessions", action="store_true", help="let its TLS clients resume (SSLContext.client_sessions)"
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("program", metavar="SCRIPT", help="a Python file, or with -m a module")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="arguments of the program")
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():  # ssl has been imported already, which patch() handles
        warnings.simplefilter("ignore", gevent.monkey.MonkeyPatchWarning)
        gevent.monkey.patch_all()
    patch(options.client_sessions)
    gevent.get_hub().NOT_ERROR += (KeyboardInterrupt,)  # the program gets it, so the hub need not print it
    _wake_for_signals()
    sys.argv[:] = [options.program, *options.arguments]
    try:
        if options.module:
            sys.path[0] = os.getcwd()
            if importlib.util.find_spec(options.program) is None:
                parser.error(f"no module named {options.program}")
            runpy.run_module(options.program, run_name="__main__", alter_sys=True)
        else:
            with open(options.program, "rb"):
                pass
            sys.path[0] = os.path.dirname(os.path.abspath(options.program))  # as python SCRIPT does
            runpy.run_path(options.program, run_name="__main__")
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.filename != options.program:
            raise
        parser.error(f"{options.program}: {error.strerror}")
    return 0


if __name__ == "__main__":
    from greentls import monkey  # the module that others import, not this copy

    sys.exit(monkey.main(sys.argv[1:]))
