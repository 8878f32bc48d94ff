"""OpenSSL's callbacks, and what answers them, wait in whatever hub they are under."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import shutil
import socket
import subprocess
import sys
import threading
import weakref

import gevent
import pytest
from greenlet import GreenletExit, getcurrent

from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import ResponderUnavailable, WrongThreadError
from greentls.hub import Deadline, PerHub, here
from greentls.hub.asyncio import hub_of
from greentls.ocsp import Stapler
from greentls.ocsp.fetch import fetch
from greentls.sessions.server import SessionCache
from greentls.stores import open_store
from greentls.stores.memory import MemoryStore
from tests.ocsp.staplers import ask, chain_of, verdict
from tests.support.helpers import PATIENCE
from tests.support.hubs import LOOPS, Job, run_under, together, under_each_hub, wait_for
from tests.support.pairs import both_versions, client, client_context, handshake, server_context


@under_each_hub
@both_versions
class TestBridge:
    """A step of a Connection is suspended inside OpenSSL while others run."""

    def test_a_hundred_hooks_wait_at_once(self, pki, version):
        inside, all_in = [], here().event()

        def servername(connection, name):
            inside.append(name)
            if len(inside) == 100:
                all_in.set()
            assert all_in.wait(PATIENCE)

        contexts = client_context(pki, version), server_context(pki, version, hooks=Hooks(servername=servername))

        def connect(_):
            there = Connection(contexts[1])
            handshake(client(contexts[0]), there)
            return there.established

        assert together(connect, *range(100)) == [True] * 100

    def test_a_kill_comes_out_of_the_handshake_as_itself(self, pki, version):
        asked = here().event()
        hooks = Hooks(servername=lambda *_: asked.set() or here().sleep(PATIENCE))
        there = Connection(server_context(pki, version, hooks=hooks))
        job = Job(handshake, client(client_context(pki, version)), there)
        assert asked.wait(PATIENCE)
        job.kill()
        assert isinstance(job.join().value, GreenletExit)
        assert not there.established

    def test_a_session_that_the_store_has_is_resumed(self, pki, version, memcached, tmp_path):
        secret = tmp_path / "fleet.key"
        secret.write_bytes(bytes(range(32)))
        store = open_store(memcached.url(secret_file=secret))
        workers = [SessionCache(store, PATIENCE) for _ in range(2)]
        servers = [server_context(pki, version, hooks=each.hooks) for each in workers]
        contexts = client_context(pki, version)

        def connect(server, session=None):
            here, there = client(contexts, session), Connection(server)
            handshake(here, there)
            return here, there

        first, _ = connect(servers[0])
        assert workers[0].drain(PATIENCE)
        again, there = connect(servers[1], first.session)
        assert again.session_reused
        assert there.handshake.session_lookup[:2] == ("memcached", "hit")
        for each in workers:
            each.close()


@under_each_hub
class TestOCSP:
    def test_a_first_handshake_waits_for_the_fetch(self, threaded):
        chain = chain_of(threaded.authority.issue())
        stapler = Stapler(wait_for_first=True)
        staples = set(together(lambda _: ask(stapler, chain), *range(20)))
        assert len(staples) == len(threaded.requests) == 1
        assert verdict(staples.pop(), chain) == "good"
        stapler.close()

    def test_a_fetch_that_is_slow_is_nobodys_wait_but_its_own(self, threaded):
        chain = chain_of(threaded.authority.issue())
        go_on = here().event()

        def slow(*arguments):
            assert go_on.wait(PATIENCE)
            return fetch(*arguments)

        stapler = Stapler(fetch=slow)
        assert ask(stapler, chain) is None
        go_on.set()
        wait_for(lambda: ask(stapler, chain), "a staple")
        stapler.close()

    def test_no_answer_in_time(self, silent_server):
        with pytest.raises(ResponderUnavailable, match=r"no answer in 0\.05 s|timed out"):
            fetch(f"http://{silent_server.host}:{silent_server.port}/", b"request", 0.05)

    def test_a_store_that_hangs_is_left(self, threaded, monkeypatch, caplog):
        monkeypatch.setattr("greentls.ocsp.stapler.STORE_TIMEOUT", 0.05)
        store = MemoryStore()
        store.get = lambda _: here().sleep(PATIENCE)
        chain = chain_of(threaded.authority.issue())
        stapler = Stapler(store=store, wait_for_first=True)
        assert ask(stapler, chain)
        assert "memory: get: no answer in 0.05 s" in caplog.text
        stapler.close()


PROGRAM = """
import asyncio, os, sys
from greentls.certificates import Callback, CertificateChain, Directory
from greentls.core.config import Config
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import WantRead
from greentls.hub import here
from greentls.hub.asyncio import hub_of
from greentls.ocsp import Stapler
from greentls.sessions.client import ClientSessions
from greentls.sessions.server import SessionCache
from greentls.stores import open_store
from greentls.tickets import TicketKeys

url, certificate, key = sys.argv[1:]


def everything():
    store = open_store(url)
    keys = TicketKeys.shared(store)
    keys.ready(None)
    keys.refresh()
    assert keys.age < 60
    assert Callback(lambda name: here().sleep(0.01) or (certificate, key)).get("localhost")
    directory = Directory(os.path.dirname(certificate))
    directory.get("localhost")
    directory.reload()
    stapler = Stapler(store=store)
    stapler.add(CertificateChain.load(certificate, key))
    cache, sessions = SessionCache(store), ClientSessions(store=store)
    asked = []
    hooks = Hooks(servername=lambda connection, name: asked.append(name) or here().sleep(0.01))
    here_ = Connection(Config(server_side=False), server_hostname="localhost", verify_hostname=False)
    there = Connection(Config(server_side=True, certificates=(CertificateChain.load(certificate, key),), hooks=hooks))
    for _ in range(3):
        for one, other in ((here_, there), (there, here_)):
            try:
                one.do_handshake()
            except WantRead:
                pass
            other.receive_data(one.data_to_send())
    assert there.established and asked == ["localhost"]
    assert cache.drain(120) and sessions.drain(120)
    stapler.close()
    store.close()


async def main():
    await hub_of(asyncio.get_running_loop()).run(everything)


asyncio.run(main())
assert "gevent" not in sys.modules, "gevent was imported"
"""


def test_a_program_of_asyncio_alone_imports_no_gevent(memcached, pki, tmp_path):
    secret = tmp_path / "fleet.key"
    secret.write_bytes(bytes(range(32)))
    live = tmp_path / "live"
    live.mkdir()
    pair = [
        shutil.copy(file, live / f"localhost.{kind}") for file, kind in ((pki.cert_file, "pem"), (pki.key_file, "key"))
    ]
    command = [sys.executable, "-c", PROGRAM, memcached.url(secret_file=secret), *pair]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


class TestBothInOneProcess:
    def test_each_thread_has_its_own(self):
        """hazard: gevent's greenlets find an event loop, or an event loop's find gevent."""
        things = PerHub(lambda: (here(), object()))
        under = {"gevent": things.get()}

        def run(name):
            under[name] = run_under(name, lambda: Job(things.get).result())

        threads = [threading.Thread(target=run, args=(name,)) for name in LOOPS]
        for thread in threads:
            thread.start()
        gevent.get_hub().threadpool.apply(threads[0].join)
        gevent.get_hub().threadpool.apply(threads[1].join)
        assert things.get() == under["gevent"]
        assert len({hub for hub, _ in under.values()}) == 3
        assert [type(hub).__name__ for hub, _ in under.values()] == ["GeventHub", "AsyncioHub", "AsyncioHub"]

    def test_a_loop_in_a_greenlet_of_gevents_leaves_gevent_to_the_others(self):
        """hazard: a patched program runs asyncio in one greenlet, and all its other greenlets wait for that loop."""
        found = []

        async def main():
            found.append(here())  # the loop itself is gevent's here
            found.append(await hub_of(asyncio.get_running_loop()).run(here))
            found.append(gevent.spawn(here).get())

        gevents = here()
        gevent.spawn(asyncio.run, main()).get()
        assert found[0] is found[2] is gevents
        assert found[1] is not gevents


class TestCoroutines:
    """AsyncioHub.run() and result(): the ways between coroutines and greenlets."""

    @pytest.fixture(params=LOOPS)
    def run(self, request):
        """run(coroutine function): in an event loop, with its hub."""

        def run(function):
            loop = LOOPS[request.param]()
            try:
                return loop.run_until_complete(function(hub_of(loop)))
            finally:
                loop.close()

        return run

    def test_what_is_returned_and_raised_comes_out(self, run):
        async def value():
            await asyncio.sleep(0)
            return "value"

        async def failure():
            await asyncio.sleep(0)
            raise ValueError("mine")

        async def main(hub):
            assert await hub.run(hub.result, value()) == "value"
            with pytest.raises(ValueError, match="mine"):
                await hub.run(hub.result, failure())
            assert await hub.run(int, "7") == 7
            with pytest.raises(ValueError, match="invalid literal"):
                await hub.run(int, "seven")

        run(main)

    def test_the_stack_of_the_loop_stays_where_it_is(self, run):
        """hazard: uvloop looks into an array on it, and would find, and write to, the stack of a greenlet."""
        elsewhere = []

        def wait(_):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                for _ in range(3):
                    theirs.send(b"x")
                    here().readable(ours.fileno(), PATIENCE).wait()
                    ours.recv(1)
                    elsewhere.append(getcurrent().parent._stack_saved)
                    here().sleep(0)
                    elsewhere.append(getcurrent().parent._stack_saved)

        async def main(hub):
            await hub.run(together, wait, *range(3))
            assert len(elsewhere) == 18
            assert max(elsewhere) < 1024

        run(main)

    def test_the_loop_itself_must_not_wait(self, run):
        async def main(hub):
            for wait in (lambda: here().sleep(0), here().event().wait, lambda: hub.result(asyncio.sleep(0))):
                with pytest.raises(WrongThreadError, match=r"await hub\.run"):
                    wait()

        run(main)

    def test_cancellation_is_raised_where_the_function_waits(self, run):
        """hazard: the task ends, and what it did goes on in its greenlet."""
        raised = []

        async def main(hub):
            def wait():
                try:
                    here().sleep(PATIENCE)
                except BaseException as error:
                    raised.append(type(error))
                    here().sleep(0)  # what is left to do may wait
                    raised.append("done")
                    raise

            task = asyncio.ensure_future(hub.run(wait))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert raised == [asyncio.CancelledError, "done"]

        run(main)

    def test_a_coroutine_that_nobody_waits_for_any_more_is_cancelled(self, run):
        ended = []

        async def hook():
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                ended.append(1)
                raise

        async def main(hub):
            def wait():
                with Deadline(0.01, "late"):
                    hub.result(hook())

            with pytest.raises(TimeoutError, match="late"):
                await hub.run(wait)
            await asyncio.sleep(0)
            assert ended == [1]

        run(main)

    def test_a_context_variable_is_the_callers(self, run):
        variable = contextvars.ContextVar("variable", default=0)

        async def hook():
            return variable.get()

        async def main(hub):
            variable.set(1)
            assert await hub.run(variable.get) == 1
            assert await hub.run(lambda: hub.result(hook())) == 1
            await hub.run(lambda: (here().sleep(0), variable.set(2)))
            assert variable.get() == 1

        run(main)

    def test_nothing_is_left_of_a_run_that_raised(self, run):
        """hazard: a cycle of traceback and frame keeps a connection until the collector comes."""

        class Thing:
            pass

        gone = []

        async def main(hub):
            def fail():
                thing = Thing()
                gone.append(weakref.ref(thing))
                here().sleep(0)
                raise ValueError

            gc.disable()
            try:
                with pytest.raises(ValueError):
                    await hub.run(fail)
                await asyncio.sleep(0)
                assert gone[0]() is None
            finally:
                gc.enable()

        run(main)
