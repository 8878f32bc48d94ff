from __future__ import annotations

import gc
import logging
import os
import signal
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest

from greentls.hub.asyncio import Task
from greentls.sessions.server import SessionCache
from greentls.sessions.stored import StoredSessions
from greentls.stores import SessionStore
from greentls.stores.memcached import MemcachedStore
from tests.support.helpers import PATIENCE, Memcached, Pki, SilentServer
from tests.support.hubs import LOOPS, references_put_right, run_under
from tests.support.ocsp_authority import Authority, FakeResponder
from tests.support.softhsm import SoftHSM

os.umask(0o077)  # files with keys in them are written by many tests, and read by nobody else


def pytest_configure(config):
    config.addinivalue_line("markers", "stderr: the test looks at standard error itself")
    config.addinivalue_line("markers", "programs: the test needs programs beside Python; make check leaves it out")
    config.addinivalue_line("markers", "long: the test takes long; make check leaves it out")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background or under nohup. A program inherits "ignored", so no test could end one by Ctrl-C; a
        # handler becomes the default in it. This one does nothing: pytest itself goes on ignoring Ctrl-C.
        signal.signal(signal.SIGINT, lambda signum, frame: None)


HERE = Path(__file__).parent

# Directories, files and fixtures whose tests have a mark; single tests have it by a decorator.
MARKED = {
    "programs": {
        *("benchmarks", "examples", "interop", "programs", "cli/test_resumption.py", "keys/test_key_files.py"),
        *("memcached", "memcacheds", "softhsm"),
    },
    "long": {
        *("adversary", "benchmarks", "cli", "cpython", "soak", "test_monkey.py", "test_monkey_select.py"),
        *("core/test_malice.py", "wire/test_fuzz.py"),
        *("ssl/test_collector.py", "ssl/hooks/test_every_hook.py", "ssl/test_oracle.py"),
        *("aio/test_cpython.py", "keys/test_agent.py", "openssl/test_library.py"),
    },
}


def pytest_collection_modifyitems(items):
    for item in items:
        path = item.path.relative_to(HERE)
        names = {*item.fixturenames, path.as_posix(), *(each.as_posix() for each in path.parents)}
        for mark, marked in MARKED.items():
            if names & marked:
                item.add_marker(mark)


def pytest_collection_finish(session):
    """Many tests run the garbage collector. What the collection has made costs it 100 ms each time: no more."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["gevent", *LOOPS])
def each_hub(request):
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """A test that has the fixture each_hub runs in a greenlet of that hub, where its stores are closed, too."""
    if "each_hub" not in pyfuncitem.funcargs:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    def test():
        try:
            pyfuncitem.obj(**arguments)
        finally:
            for argument in arguments.values():
                if isinstance(argument, SessionStore):
                    argument.close()

    run_under(pyfuncitem.funcargs["each_hub"], test)
    return True


@pytest.fixture(autouse=True)
def gevent_counts_right(request):
    """gevent's loop loses a reference now and then, where native threads wake it (docs/dropin, "Programs with native
    threads"). All tests behind that one would get LoopExit. So it is put right, and the summary says so."""
    yield
    if references_put_right():
        request.node.user_properties.append(("lost", request.node.nodeid))


def pytest_terminal_summary(terminalreporter):
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    lost = {test for report in reports for name, test in getattr(report, "user_properties", ()) if name == "lost"}
    for test in sorted(lost):
        terminalreporter.write_line(f"gevent had counted a reference too few, put right after {test}")


@pytest.fixture(autouse=True)
def stderr_is_empty(request, capfd):
    """cffi prints what a callback lets slip, gevent what a greenlet does: neither may pass unseen."""
    yield
    if "stderr" not in request.keywords:
        assert capfd.readouterr().err == ""


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine may hold up a hook or a store for longer than production waits for them: tests wait."""
    monkeypatch.setattr("greentls.ssl.context.CALLBACK_TIMEOUT", PATIENCE)
    monkeypatch.setattr("greentls.stores.memcached.CONNECT_TIMEOUT", PATIENCE)
    monkeypatch.setattr("greentls.stores.memcached.IO_TIMEOUT", PATIENCE)
    for name in ("connect_timeout", "timeout"):
        monkeypatch.setitem(MemcachedStore.__init__.__kwdefaults__, name, PATIENCE)
    for kind in (SessionCache, StoredSessions):
        monkeypatch.setattr(kind.__init__, "__defaults__", (PATIENCE,))


@pytest.fixture
def told(monkeypatch):
    """The events that greentls.events tells during the test."""
    events = []
    monkeypatch.setattr("greentls.events.handler", events.append)
    return events


@pytest.fixture
def new_greenlets():
    """new_greenlets(): those that the test has begun and that have not ended.

    Other tests have left others, asleep; and timers, by which ticket keys look at their store as long as they live.
    """

    def unfinished():
        gc.collect()
        greenlets = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet | Task)]
        found = [each for each in greenlets if not each.dead and each is not gevent.getcurrent()]
        return [each for each in found if getattr(getattr(each, "_run", None), "__name__", "") != "look"]

    before = weakref.WeakSet(unfinished())
    return lambda: [each for each in unfinished() if each not in before]


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory):
    return SoftHSM(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture
def memcached():
    server = Memcached()
    yield server
    server.close()


@pytest.fixture
def memcacheds():
    """memcacheds(2) starts two of them."""
    servers: list[Memcached] = []

    def start(count):
        servers.extend(Memcached() for _ in range(count))
        return servers

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def take_nodes_back():
    """A node of memcached that has failed stays down until take_nodes_back(), however long a busy machine needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("greentls.stores.memcached.time", SimpleNamespace(monotonic=lambda: 1.0, time=time.time))
        yield patch.undo


@pytest.fixture
def silent_server():
    server = SilentServer()
    yield server
    server.close()


@pytest.fixture
def responder():
    """An OCSP responder whose answer() the test sets."""
    made = FakeResponder()
    yield made
    made.stop(timeout=1)


@pytest.fixture
def authority(responder, tmp_path):
    """A CA whose OCSP responder answers the truth to whatever it is asked."""
    made = Authority(tmp_path, responder.url)
    responder.answer = lambda request: made.respond(
        next(each for each in made.issued if each.serial_number == request.serial_number)
    )
    return made


@pytest.fixture
def logged(caplog):
    """What the logger greentls.ocsp was told."""
    caplog.set_level(logging.INFO, "greentls.ocsp")
    return caplog
