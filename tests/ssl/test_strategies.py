"""What one strategy does and the others do not. tests/ssl/hooks/test_every_hook.py has what they have in common."""

from __future__ import annotations

import gc
import os
import ssl
import subprocess
import sys
import threading
import weakref
from _thread import get_native_id

import gevent
import gevent.socket
import pytest
from gevent.event import Event

import greentls.ssl
import greentls.strategy.thread
from greentls.core.bridge import Operation
from greentls.errors import ConfigurationError
from greentls.hub import PerHub
from greentls.stores.memory import MemoryStore
from tests.support.helpers import PATIENCE, ROOT, wait_until
from tests.support.hubs import wait_for
from tests.support.ssl_pairs import both_versions, connected, contexts, failure, handshakes, outcome, talk


def test_a_strategy_that_is_none_is_refused_by_name(pki):
    _, server = contexts(pki)
    assert server.strategy == "coroutine"
    with pytest.raises(ConfigurationError, match=r"'magic'.*coroutine, thread, prefetch"):
        server.strategy = "magic"
    assert server.strategy == "coroutine"


class Together:
    """Hooks that wait until all of them are asked: they end only if they are asked side by side."""

    def __init__(self, count):
        self.count, self.asked, self.all = count, [], Event()

    def __call__(self, name):
        self.asked.append(name)
        if len(self.asked) >= self.count:
            self.all.set()
        assert self.all.wait(PATIENCE)


class Store(MemoryStore):
    def __init__(self):
        super().__init__()
        self.ask = lambda name: None

    def get(self, session_id):
        self.ask("store")
        return super().get(session_id)


@both_versions
class TestThread:
    def test_openssl_runs_in_another_thread_and_hooks_in_this_one(self, pki, version, monkeypatch):
        client, server = contexts(pki, version)
        server.strategy = "thread"
        server.session_store = MemoryStore()
        threads = {"hooks": set(), "openssl": set()}
        server.sni_callback = lambda *_: threads["hooks"].add(get_native_id())
        for name in ("continue_handshake", "step_read", "step_write"):
            monkeypatch.setattr(Operation, name, self.looking(name, threads["openssl"]))
        with connected(client, server):
            pass
        here = get_native_id()
        assert threads["hooks"] == {here}
        assert {name for name, thread in threads["openssl"] if thread != here} == {"continue_handshake"}
        assert {name for name, thread in threads["openssl"] if thread == here} >= {"step_read", "step_write"}

    @staticmethod
    def looking(name, threads):
        verb = getattr(Operation, name)

        def look(self, *arguments):
            if self.server_side:
                threads.add((name, get_native_id()))
            return verb(self, *arguments)

        return look

    def test_many_at_once_wait_for_their_answers(self, pki, version):
        client, server = contexts(pki, version)
        server.strategy = "thread"
        together = Together(20)
        server.sni_callback = lambda sock, name, context: together(name)
        server.callback_timeout = PATIENCE

        def one():
            with connected(client, server):
                pass

        jobs = [gevent.spawn(one) for _ in range(20)]
        gevent.joinall(jobs, PATIENCE, raise_error=True)
        assert len(together.asked) == 20

    def test_more_than_there_are_threads_have_their_turn(self, pki, version):
        client, server = contexts(pki, version)
        server.strategy = "thread"
        server.callback_timeout = PATIENCE
        server.sni_callback = lambda *_: gevent.sleep(0.01)
        done = []

        def one():
            with connected(client, server) as (_, there):
                done.append(there.version())

        jobs = [gevent.spawn(one) for _ in range(100)]
        gevent.joinall(jobs, PATIENCE, raise_error=True)
        assert done == [f"TLSv{version}"] * 100

    def test_one_that_stands_in_line_and_is_killed_leaves_it(self, pki, version, monkeypatch):
        """hazard: a deadline that passes in line is heeded when the line has moved on."""
        monkeypatch.setattr(greentls.strategy.thread, "THREADS", 1)
        monkeypatch.setattr(greentls.strategy.thread, "_pools", PerHub(greentls.strategy.thread._pool))
        client, server = contexts(pki, version)
        server.strategy = "thread"
        server.callback_timeout = PATIENCE
        inside, go_on, called = Event(), Event(), []

        def hook(*_):
            called.append(1)
            inside.set()
            assert go_on.wait(PATIENCE)

        server.sni_callback = hook
        first = gevent.spawn(handshakes, client, server)
        assert inside.wait(PATIENCE)
        pair = gevent.socket.socketpair()
        in_line = Event()
        spawn = greentls.strategy.thread._spawn
        monkeypatch.setattr(greentls.strategy.thread, "_spawn", lambda step: in_line.set() or spawn(step))
        second = gevent.spawn(outcome_of, server.wrap_socket, pair[1], server_side=True)
        second_client = gevent.spawn(outcome, client.wrap_socket, pair[0], server_hostname="localhost")
        assert in_line.wait(PATIENCE)
        second.kill(block=False)
        assert isinstance(second.get(timeout=PATIENCE), gevent.GreenletExit)
        assert isinstance(second_client.get(timeout=PATIENCE), OSError)
        go_on.set()
        ends = first.get(timeout=PATIENCE)
        talk(*ends)
        for end in ends:
            end.close()
        assert called == [1]
        with connected(client, server):
            pass
        assert called == [1, 1]

    def test_a_hook_that_uses_its_own_connection_is_refused(self, pki, version):
        """hazard: the thread is inside OpenSSL, and the hook's greenlet would wait for it for ever."""
        client, server = contexts(pki, version)
        server.strategy = "thread"
        server.sni_callback = lambda sock, *_: sock.sendall(b"x")
        _, there = failure(client, server)
        assert isinstance(there, greentls.errors.ConcurrentUseError)

    def test_another_greenlet_waits_until_the_thread_is_out(self, pki, version):
        """hazard: SSL_write() in one thread while another one is in SSL_do_handshake()."""
        client, server = contexts(pki, version)
        server.strategy = "thread"
        inside, go_on = Event(), Event()
        server.sni_callback = lambda *_: inside.set() or (go_on.wait(PATIENCE) and None)
        server.callback_timeout = PATIENCE
        pair = gevent.socket.socketpair()
        there = server.wrap_socket(pair[1], server_side=True, do_handshake_on_connect=False)
        jobs = [
            gevent.spawn(client.wrap_socket, pair[0], server_hostname="localhost"),
            gevent.spawn(there.do_handshake),
        ]
        assert inside.wait(PATIENCE)
        writer = gevent.spawn(there.sendall, b"hello")
        gevent.sleep(0), gevent.sleep(0)  # it has had its turn
        assert not writer.ready()
        go_on.set()
        gevent.joinall([*jobs, writer], PATIENCE, raise_error=True)
        with jobs[0].value as here, there:
            assert here.recv(10) == b"hello"

    def test_one_that_is_killed_before_its_hook_has_begun_ends(self, pki, version):
        """hazard: gevent runs nothing of a greenlet that is killed before its first turn, and the thread waits on."""
        client, server = contexts(pki, version)
        server.strategy = "thread"
        called = []
        server.sni_callback = lambda *_: called.append(1)
        pair = gevent.socket.socketpair()
        handshake = gevent.spawn(outcome_of, server.wrap_socket, pair[1], server_side=True)
        client_job = gevent.spawn(outcome, client.wrap_socket, pair[0], server_hostname="localhost")
        spawn, killed = gevent.spawn, []

        def spawn_and_kill(function, *arguments):
            if "_Question" in repr(getattr(function, "__self__", "")):
                killed.append(function)
                handshake.kill(block=False)  # which comes to pass before what is spawned here has its first turn
            return spawn(function, *arguments)

        greentls.strategy.thread.gevent.spawn = spawn_and_kill
        try:
            assert isinstance(handshake.get(timeout=PATIENCE), gevent.GreenletExit)
        finally:
            greentls.strategy.thread.gevent.spawn = spawn
        assert len(killed) == 1 and not called
        assert isinstance(client_job.get(timeout=PATIENCE), ssl.SSLError)


def native_threads():
    return set(os.listdir("/proc/self/task"))  # threading knows nothing of those that it has not begun


class TestTheThreadsOfThread:
    """hazard: a program whose threads come and go, each with a hub, keeps what each of them had: hub and threads."""

    @pytest.fixture(autouse=True)
    def soon_idle(self, monkeypatch):
        monkeypatch.setattr(greentls.strategy.thread, "IDLE", 0.05)

    def with_a_hub(self, pki):
        """Three handshakes at once, so by three native threads. Returns the hub, weakly."""
        client, server = contexts(pki)
        server.strategy = "thread"
        server.callback_timeout = PATIENCE
        together = Together(3)
        server.sni_callback = lambda sock, name, context: together(name)

        def one():
            with connected(client, server):
                pass

        gevent.joinall([gevent.spawn(one) for _ in range(3)], PATIENCE, raise_error=True)
        assert len(together.asked) == 3
        return weakref.ref(gevent.get_hub())

    def destroy_hub(self):
        hub = gevent.get_hub()
        hub.join()  # or gevent itself keeps a hub whose loop some greenlet has left for destroy()
        hub.destroy()

    def in_a_thread(self, function):
        done = []
        thread = threading.Thread(target=lambda: done.append(function()))
        thread.start()
        thread.join(PATIENCE)
        return done[0]

    def test_end_with_a_thread_that_destroys_its_hub(self, pki):
        before = native_threads()

        def one():
            hub = self.with_a_hub(pki)
            self.destroy_hub()
            return hub

        hubs = [self.in_a_thread(one) for _ in range(5)]
        wait_until(lambda: not native_threads() - before, "the native threads to end")
        gc.collect()
        assert [hub() for hub in hubs] == [None] * 5

    def test_end_with_a_thread_that_does_not(self, pki):
        before = native_threads()
        for _ in range(5):
            self.in_a_thread(lambda: self.with_a_hub(pki))
        wait_until(lambda: not native_threads() - before, "the native threads to end")

    def test_do_not_hold_the_hubs_of_a_thread_that_goes_on(self, pki):
        before = native_threads()

        def all_of_them():
            hubs = []
            for _ in range(5):
                hubs.append(self.with_a_hub(pki))
                self.destroy_hub()
            wait_until(lambda: len(native_threads() - before) <= 1, "the native threads to end")
            gc.collect()
            return [hub() for hub in hubs[:-1]]  # the last one's pool waits for the next

        assert self.in_a_thread(all_of_them) == [None] * 4

    @pytest.mark.stderr  # gevent says it
    def test_end_if_the_hub_is_destroyed_while_one_computes(self, pki, monkeypatch):
        """hazard: it comes back to a loop that is none any more."""
        inside, go_on, before = threading.Event(), threading.Event(), native_threads()
        do_handshake, hooks = Operation.continue_handshake, []

        def compute(self):
            if self.server_side and not inside.is_set():
                inside.set()
                assert go_on.wait(PATIENCE)
            return do_handshake(self)

        monkeypatch.setattr(Operation, "continue_handshake", compute)

        def one():
            client, server = contexts(pki)
            server.strategy = "thread"
            server.sni_callback = lambda *_: hooks.append(1)
            pair = gevent.socket.socketpair()
            gevent.spawn(client.wrap_socket, pair[0], server_hostname="localhost")
            gevent.spawn(server.wrap_socket, pair[1], server_side=True)
            wait_for(inside.is_set, "the handshake to begin")
            gevent.get_hub().destroy()

        self.in_a_thread(one)
        assert inside.is_set() and native_threads() - before
        go_on.set()
        wait_until(lambda: not native_threads() - before, "the native thread to end")
        assert not hooks

    def test_are_another_processs_own(self):
        """hazard: a forked worker's handshakes stand in line for threads that only its parent has."""
        program = [sys.executable, "-m", "tests.ssl.forked_threads"]
        done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
        assert (done.returncode, done.stdout) == (0, "parent\nchild\nparent\n"), done.stderr


def outcome_of(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except BaseException as error:
        return error


class TestPrefetch:
    def party(self, pki, version, ask):
        client, server = contexts(pki, version)
        client.set_alpn_protocols(["h2", "http/1.1"])
        server.strategy = "prefetch"
        server.callback_timeout = PATIENCE
        server.session_store = Store()
        with connected(client, server) as (here, _):
            session = here.session
        assert server.drain_sessions(PATIENCE)
        server.session_store.ask = ask
        server.sni_callback = lambda sock, name, _: ask("sni")
        server.alpn_callback = lambda sock, offered: ask("alpn") or offered[-1]
        return client, server, session

    @both_versions
    def test_what_the_hello_foretells_is_asked_side_by_side_and_once(self, pki, version):
        together = Together(3)
        client, server, session = self.party(pki, version, together)
        with connected(client, server, session=session) as (_, there):
            assert there.session_reused
            assert there.selected_alpn_protocol() == "http/1.1"
            assert there.session_lookup.outcome == "hit"
        assert sorted(together.asked) == ["alpn", "sni", "store"]

    @both_versions
    def test_the_staple_too(self, pki, version):
        client, server = contexts(pki, version)
        server.strategy = "prefetch"
        server.callback_timeout = PATIENCE
        together = Together(2)
        server.sni_callback = lambda *_: together("sni")
        server.ocsp_callback = lambda sock: together("ocsp")
        client.ocsp, client.callback_timeout = "check", PATIENCE  # asks for a staple; without one it has no responder
        with connected(client, server):
            pass
        assert sorted(together.asked) == ["ocsp", "sni"]

    @both_versions
    def test_another_context_is_asked_what_the_first_one_was(self, pki, version):
        """hazard: the answer that was right for one context is given to a client of another."""
        asked = []
        client, server, _ = self.party(pki, version, lambda name: None)
        _, other = contexts(pki, version)
        other.load_cert_chain(*pki.issue("localhost", "other.example"))
        other.alpn_callback = lambda sock, offered: asked.append("other") or "h2"
        server.alpn_callback = lambda sock, offered: asked.append("first") or "http/1.1"

        def choose(sock, name, context):
            sock.context = other

        server.sni_callback = choose
        session = None
        for reused in (False, True):
            asked.clear()
            with connected(client, server, session=session) as (here, there):
                assert there.selected_alpn_protocol() == "h2"
                assert there.session_reused is reused
                assert ("DNS", "other.example") in here.getpeercert()["subjectAltName"]
                session = here.session
            assert asked.count("other") == 1
            assert server.drain_sessions(PATIENCE)

    def test_what_it_raises_ends_the_handshake_as_itself(self, pki):
        expected = ValueError("from the hook")

        def ask(name):
            if name == "alpn":
                raise expected

        client, server, _ = self.party(pki, "1.3", ask)
        here, there = failure(client, server)
        assert there is expected
        assert "NO_APPLICATION_PROTOCOL" in here.reason

    def test_a_malformed_extension_is_openssls_to_refuse(self, pki):
        """hazard: the parser advises, OpenSSL decides, and sends the alert."""
        _, server, _ = self.party(pki, "1.3", lambda name: None)
        client = ssl.create_default_context(cafile=pki.ca_file)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = bytearray(outgoing.read())
        at = hello.index(b"localhost")
        hello[at - 3] = 7  # a NameType that is none
        here, there = gevent.socket.socketpair()
        job = gevent.spawn(outcome, server.wrap_socket, there, server_side=True)
        here.sendall(hello)
        with here:
            assert here.recv(1) == b"\x15"
        assert isinstance(job.get(timeout=PATIENCE), ssl.SSLError)

    def test_a_second_hello_is_answered_from_what_is_known(self, pki):
        together = Together(3)
        client, server, session = self.party(pki, "1.3", together)
        server.set_ecdh_curve("secp521r1")  # which clients know and do not guess
        with connected(client, server, session=session) as ends:
            talk(*ends)
        assert together.asked.count("sni") == 1
