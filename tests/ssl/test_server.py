"""SSLContext under gevent's servers, with the standard library's ssl as the client."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import textwrap
import urllib.request

import gevent
import gevent.socket
import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer

import greentls
from greentls.stores.memory import MemoryStore
from tests.support.clients import exchange, in_thread, stdlib_context
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.support.pairs import VERSIONS
from tests.support.ssl_pairs import both_versions
from tests.support.ssl_servers import server_context


class TestStreamServer:
    @both_versions
    def test_serves_an_ordinary_client(self, pki, serve, version):
        address = serve(server_context(pki))
        answer = in_thread(exchange, address, stdlib_context(pki, version), b"x" * 200_000)
        assert answer.data == b"x" * 200_000
        assert answer.version == f"TLSv{version}"

    @both_versions
    def test_resumes_from_its_store(self, pki, serve, version):
        store = MemoryStore()
        seen = []

        def handle(sock, address):
            seen.append((sock.session_reused, sock.session_lookup))
            sock.sendall(sock.recv(100))

        context = server_context(pki, session_store=store)
        address = serve(context, handle)
        client = stdlib_context(pki, version)
        first = in_thread(exchange, address, client)
        assert context.drain_sessions(PATIENCE)
        second = in_thread(exchange, address, client, session=first.session)
        assert (first.reused, second.reused) == (False, True)
        assert (seen[0][0], seen[1][0]) == (False, True)
        assert seen[1][1][:2] == ("memory", "hit")

    @both_versions
    def test_two_contexts_share_sessions_by_one_store(self, pki, serve, version):
        store = MemoryStore()
        contexts = [server_context(pki, session_store=store) for _ in range(2)]
        first, second = (serve(context) for context in contexts)
        client = stdlib_context(pki, version)
        session = in_thread(exchange, first, client).session
        assert contexts[0].drain_sessions(PATIENCE)
        assert in_thread(exchange, second, client, session=session).reused

    @both_versions
    def test_handshakes_overlap_while_the_store_answers_slowly(self, pki, serve, version):
        """The whole point: lookups of many connections wait at the same time."""
        inside, most = 0, 0
        all_in = Event()

        class Slow(MemoryStore):
            def get(self, session_id):
                nonlocal inside, most
                inside += 1
                most = max(most, inside)
                if inside == 8:
                    all_in.set()
                all_in.wait()
                inside -= 1
                return super().get(session_id)

        context = server_context(pki, session_store=Slow(), callback_timeout=PATIENCE)
        address = serve(context)
        client = stdlib_context(pki, version)
        session = in_thread(exchange, address, client).session
        assert context.drain_sessions(PATIENCE)
        jobs = [gevent.spawn(in_thread, exchange, address, client, session=session) for _ in range(8)]
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
        assert [job.value.reused for job in jobs] == [True] * 8
        assert most == 8

    @both_versions
    def test_sni_callback_may_wait_and_switch_the_context(self, pki, serve, version):
        other = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other.load_cert_chain(*pki.issue("other.test"))
        asked = []

        def choose(sock, name, context):
            asked.append((name, context is first, sock.context is first))
            gevent.sleep(0.01)
            if name == "other.test":
                sock.context = other

        first = server_context(pki, sni_callback=choose)
        address = serve(first)
        client = stdlib_context(pki, version)
        plain = in_thread(exchange, address, client)
        switched = in_thread(exchange, address, client, server_hostname="other.test")
        assert asked == [("localhost", True, True), ("other.test", True, True)]
        assert ("DNS", "localhost") in plain.certificate["subjectAltName"]
        assert switched.certificate["subjectAltName"] == (("DNS", "other.test"),)

    @both_versions
    @pytest.mark.parametrize("alert", [ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME, ssl.ALERT_DESCRIPTION_ACCESS_DENIED])
    def test_sni_callback_may_refuse_with_an_alert(self, pki, serve, version, alert):
        address = serve(server_context(pki, sni_callback=lambda *_: alert))
        with pytest.raises(ssl.SSLError, match=alert.name.removeprefix("ALERT_DESCRIPTION_")):
            in_thread(exchange, address, stdlib_context(pki, version))

    @both_versions
    def test_alpn_by_list_and_by_a_callback_that_waits(self, pki, serve, version):
        def choose(sock, offered):
            gevent.sleep(0.01)
            return offered[-1]

        listed, asked = server_context(pki), server_context(pki, alpn_callback=choose)
        listed.set_alpn_protocols(["spdy/3", "http/1.1"])
        client = stdlib_context(pki, version)
        client.set_alpn_protocols(["h2", "http/1.1", "last"])
        assert in_thread(exchange, serve(listed), client).alpn == "http/1.1"
        assert in_thread(exchange, serve(asked), client).alpn == "last"

    @both_versions
    @pytest.mark.parametrize("hook", ["sni_callback", "alpn_callback"])
    def test_a_callback_that_is_late_refuses_and_says_so(self, pki, serve, servers, version, hook):
        context = server_context(pki, **{hook: lambda *_: gevent.sleep(PATIENCE)}, callback_timeout=0.05)
        client = stdlib_context(pki, version)
        client.set_alpn_protocols(["h2"])
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            in_thread(exchange, serve(context), client)
        (error,) = servers[0].errors
        assert type(error) is TimeoutError
        assert str(error) == f"{hook} gave no answer in 0.05 s"

    @both_versions
    @pytest.mark.parametrize("failure", [KeyError("a name"), ConnectionRefusedError(111, "no database")])
    def test_what_a_callback_raises_is_what_wrap_socket_raises(self, pki, serve, servers, version, failure):
        def fail(*_):
            raise failure

        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            in_thread(exchange, serve(server_context(pki, sni_callback=fail)), stdlib_context(pki, version))
        assert servers[0].errors == [failure]

    def test_a_client_that_never_says_hello_ends_at_the_handshake_timeout(self, pki, serve, servers):
        address = serve(server_context(pki, handshake_timeout=0.05))

        def wait_for_the_end():
            with socket.create_connection(address, PATIENCE) as sock:
                return sock.recv(100)

        assert in_thread(wait_for_the_end) == b""
        (error,) = servers[0].errors
        assert (type(error), str(error)) == (TimeoutError, "The handshake operation timed out")

    @both_versions
    def test_the_handshake_timeout_holds_while_the_store_is_asked(self, pki, serve, servers, version):
        """hazard: who asks the store takes the deadline for the store's failure, and goes on without one."""
        store = MemoryStore()
        context = server_context(pki, session_store=store)
        address, client = serve(context), stdlib_context(pki, version)
        session = in_thread(exchange, address, client).session
        assert context.drain_sessions(PATIENCE)
        store.get = lambda session_id: gevent.sleep(PATIENCE)
        context.callback_timeout, context.handshake_timeout = None, 0.05
        with pytest.raises(OSError):
            in_thread(exchange, address, client, session=session)
        (error,) = servers[0].errors
        assert (type(error), str(error)) == (TimeoutError, "The handshake operation timed out")

    @both_versions
    def test_a_context_that_sni_callback_switched_to_may_have_no_store(self, pki, serve, version):
        """hazard: OpenSSL asks the second context whether a TLS 1.2 connection may have a session id."""
        other = server_context(pki)

        def switch(sock, name, context):
            sock.context = other

        first = server_context(pki, session_store=MemoryStore(), sni_callback=switch)
        address, client = serve(first), stdlib_context(pki, version)
        session = in_thread(exchange, address, client).session
        assert first.drain_sessions(PATIENCE)
        assert in_thread(exchange, address, client, session=session).reused

    @both_versions
    @pytest.mark.parametrize("answer", [0, 300, -1, True, "unrecognized_name"])
    @pytest.mark.parametrize("hook", ["sni_callback", "client_hello_callback"])
    def test_an_answer_that_is_no_alert_is_refused_with_one(self, pki, serve, servers, version, answer, hook):
        address = serve(server_context(pki, **{hook: lambda *_: answer}))
        with pytest.raises(ssl.SSLError, match=r"(?i)internal.error"):
            in_thread(exchange, address, stdlib_context(pki, version))
        assert isinstance(servers[0].errors[0], TypeError)

    @pytest.mark.parametrize("seconds", [0, 0.0])
    def test_a_timeout_of_zero_is_no_time(self, pki, serve, servers, seconds):
        context = server_context(pki, sni_callback=lambda *_: gevent.sleep(PATIENCE), callback_timeout=seconds)
        with pytest.raises(ssl.SSLError):
            in_thread(exchange, serve(context), stdlib_context(pki))
        assert type(servers[0].errors[0]) is TimeoutError

    def test_versions_are_what_the_context_says_and_may_change(self, pki, serve):
        old, new = VERSIONS
        context = server_context(pki, minimum_version=ssl.TLSVersion.TLSv1_3)
        address = serve(context)
        assert in_thread(exchange, address, stdlib_context(pki, new)).version == "TLSv1.3"
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            in_thread(exchange, address, stdlib_context(pki, old))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        assert in_thread(exchange, address, stdlib_context(pki, old)).version == "TLSv1.2"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            in_thread(exchange, address, stdlib_context(pki, new))


class TestStoreOutage:
    """An outage of the store costs full handshakes, never connections."""

    @both_versions
    def test_one_that_never_answers(self, pki, serve, silent_server, version, caplog):
        context = server_context(pki, callback_timeout=0.1)
        context.session_store = greentls.open_store(f"memcached://{silent_server.address}?insecure=1")
        seen = []

        def handle(sock, address):
            seen.append(sock.session_lookup)
            sock.sendall(sock.recv(100))

        address = serve(context, handle)
        client = stdlib_context(pki, version)
        first = in_thread(exchange, address, client)
        assert context.drain_sessions(PATIENCE)  # what is on its way to the store can be resumed
        second = in_thread(exchange, address, client, session=first.session)
        assert (second.data, second.reused) == (b"hello", False)
        assert seen[1].outcome == "timeout"
        assert "no answer in 0.1 s" in caplog.text
        context.drain_sessions(PATIENCE)

    def test_killed_and_restarted_under_load(self, pki, serve, memcached, caplog):
        context = server_context(pki)
        context.session_store = greentls.open_store(memcached.url(insecure=1))
        address = serve(context)
        answers, stop = [], Event()

        def client(version):
            tls = stdlib_context(pki, version)
            session = None
            while not stop.is_set():
                answer = in_thread(exchange, address, tls, session=session)
                assert answer.data == b"hello"
                answers.append(answer.reused)
                session = answer.session

        clients = [gevent.spawn(client, version) for version in ("1.2", "1.3") * 3]
        wait_for(lambda: sum(answers) > 30, "resumptions at first")
        memcached.kill()
        fulls = answers.count(False)
        wait_for(lambda: answers.count(False) > fulls + 30, "full handshakes during the outage")
        memcached.restart()
        resumed = answers.count(True)
        wait_for(lambda: answers.count(True) > resumed + 30, "resumptions after it")
        stop.set()
        gevent.joinall(clients, timeout=PATIENCE, raise_error=True)
        assert "session store memcached" in caplog.text
        assert len([each for each in caplog.records if each.name == "greentls.sessions"]) < 20
        context.drain_sessions(PATIENCE)
        context.session_store.close()


class TestPywsgi:
    @both_versions
    def test_serves_https(self, pki, version):
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["wsgi.url_scheme"].encode(), b" ", environ["PATH_INFO"].encode()]

        server = WSGIServer(("127.0.0.1", 0), app, log=None, ssl_context=server_context(pki))
        server.start()
        try:

            def get():
                url = f"https://localhost:{server.address[1]}/path"
                with urllib.request.urlopen(url, context=stdlib_context(pki, version), timeout=PATIENCE) as response:
                    return response.read()

            assert in_thread(get) == b"https /path"
        finally:
            server.stop(timeout=1)

    @pytest.mark.parametrize("patched", [False, True], ids=["unpatched", "monkeypatched"])
    def test_in_a_program_of_its_own_patched_or_not(self, pki, patched):
        program = f"""
            {"from gevent import monkey; monkey.patch_all()" if patched else ""}
            import ssl, gevent, greentls
            from gevent.pywsgi import WSGIServer
            context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain({pki.cert_file!r}, {pki.key_file!r})
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
            context.session_store = greentls.open_store("memory://")
            def app(environ, start_response):
                start_response("200 OK", [("Connection", "close")])
                return [b"a page"]
            server = WSGIServer(("127.0.0.1", 0), app, log=None, ssl_context=context)
            server.start()
            def get():
                import socket
                client = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                client.load_verify_locations({pki.ca_file!r})
                from gevent.socket import create_connection
                sock = client.wrap_socket(create_connection(server.address), server_hostname="localhost")
                sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                page = sock.makefile("rb").read()
                print(page.splitlines()[-1].decode(), sock.version())
                sock.close()
            job = gevent.spawn(get)
            job.join(200)
            job.get(block=False)
            server.stop(1)
        """
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300
        )
        assert (done.stdout, done.stderr) == ("a page TLSv1.3\n", "")


def test_what_a_socket_is_given_is_looked_at_however_many_were_before_it(pki):
    """hazard: the next ones take a quicker way, where nobody looks."""
    context = server_context(pki)
    refusals = []
    for _ in range(2):
        for name in (None, ""):
            ours, theirs = gevent.socket.socketpair()
            with theirs:
                try:
                    context.wrap_socket(
                        ours, server_side=True, server_hostname=name, do_handshake_on_connect=False
                    ).close()
                except ValueError as error:
                    refusals.append(str(error))
                    ours.close()
    assert refusals == ["server_hostname cannot be an empty string or start with a leading dot."] * 2
