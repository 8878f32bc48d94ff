"""Callbacks that are coroutine functions: they wait, and other connections go on; whatever they raise refuses."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref

import pytest

from greentls import aio, keys
from greentls.certificates import Callback, CertificateChain
from greentls.errors import ConcurrentUseError
from greentls.hub import here
from greentls.hub.asyncio import hub_of
from greentls.ssl import SSLContext
from greentls.stores import open_store
from greentls.stores.memory import MemoryStore
from tests.aio.streams import connected, echo, exchange, happened, serving
from tests.support.pairs import attempt, client
from tests.support.pairs import client_context as config


class Question:
    """A coroutine function's body: how many ask at once, and what becomes of them."""

    def __init__(self, failure=None):
        self.failure = failure
        self.asked = self.waiting = self.most = 0
        self.ended = []

    async def ask(self):
        self.asked += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            if self.failure == "waits for ever":
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0.001)
            if isinstance(self.failure, BaseException):
                raise self.failure
        except BaseException as error:
            self.ended.append(type(error))
            raise
        finally:
            self.waiting -= 1


def sni(server, client, question, pki):
    async def callback(sock, name, context):
        await question.ask()

    server.sni_callback = callback


def client_hello(server, client, question, pki):
    async def callback(sock, hello):
        await question.ask()

    server.client_hello_callback = callback


def alpn(server, client, question, pki):
    async def callback(sock, offered):
        await question.ask()
        return offered[-1]

    client.set_alpn_protocols(["h2", "http/1.1"])
    server.alpn_callback = callback


def certificates(server, client, question, pki):
    chain = CertificateChain.load(pki.cert_file, pki.key_file)

    async def callback(name):
        await question.ask()
        return chain

    server.certificates = Callback(callback, calls=1000)


def verify_at_client(server, client, question, pki):
    class Verify:
        async def __call__(self, sock, chain, resumed):
            await question.ask()

    client.verify_callback = Verify()


def verify_at_server(server, client, question, pki):
    async def callback(sock, chain, resumed):
        await question.ask()

    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(pki.ca_file)
    client.load_cert_chain(*pki.issue("client", client=True))
    server.verify_callback = callback


def keylog(server, client, question, pki):
    async def callback(sock, line):
        await question.ask()

    server.keylog_callback = callback


def sign(server, client, question, pki):
    chain = CertificateChain.load(pki.cert_file, pki.key_file)

    async def callback(data, algorithm):
        await question.ask()
        return keys_of(chain, data, algorithm)

    server._chains.clear()
    server.load_cert_chain(pki.cert_file, keys.Callback(chain.key.public_key(), callback))


def keys_of(chain, data, algorithm):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    assert algorithm == "ecdsa_secp256r1_sha256"
    return chain.key.sign(data, ec.ECDSA(hashes.SHA256()))


HOOKS = [sni, client_hello, alpn, certificates, verify_at_client, verify_at_server, keylog, sign]


# A call for a certificate is for all that want this name: it goes on when one of them is gone.
OWN = [each for each in HOOKS if each is not certificates]


@pytest.fixture(params=HOOKS, ids=lambda hook: hook.__name__)
def asked(request, server_context, client_context, pki):
    """asked(failure): the Question that this hook asks from now on."""

    def install(failure=None):
        question = Question(failure)
        request.param(server_context, client_context, question, pki)
        question.at_client = request.param is verify_at_client
        return question

    return install


def test_it_waits_and_others_go_on(run, asked, server_context, client_context):
    question = asked()

    async def main():
        async with serving(server_context) as port:
            done = await asyncio.gather(*(exchange(port, client_context) for _ in range(20)))
        assert [answer for answer, _ in done] == [b"hello"] * 20

    run(main())
    assert question.asked
    assert question.most > 10 or question.asked == 1  # certificates: one flight for all of one name


def test_what_it_raises_refuses(run, asked, server_context, client_context):
    question = asked(LookupError("the database is gone"))

    async def main():
        async with serving(server_context) as port:
            with pytest.raises((LookupError, OSError)) as raised:
                # the client of TLS 1.3 is finished before the server
                answer, _ = await exchange(port, client_context)
                assert not answer
        return raised.value

    error = run(main())
    assert question.ended == [LookupError] * question.asked != []
    at_server = [each["exception"] for each in run.reported]
    if isinstance(error, LookupError):
        assert at_server == []
    else:
        assert [str(each) for each in at_server] == ["the database is gone"]
    run.reported.clear()


@pytest.mark.parametrize("asked", OWN, ids=lambda hook: hook.__name__, indirect=True)
def test_one_that_is_late_refuses(run, asked, server_context, client_context):
    question = asked("waits for ever")
    server_context.callback_timeout = client_context.callback_timeout = 0.05

    async def main():
        async with serving(server_context) as port:
            with pytest.raises((TimeoutError, OSError, asyncio.IncompleteReadError)):
                await exchange(port, client_context)

    run(main())
    assert question.ended == [asyncio.CancelledError] * question.asked != []
    late = [] if question.at_client else [TimeoutError]  # with its traceback: it is not the peer's fault
    assert [type(each["exception"]) for each in run.reported] == late
    run.reported.clear()


def test_a_connection_that_is_cancelled_cancels_what_it_waits_for(run, pki, client_context, version):
    client_context.maximum_version = version
    server = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.cert_file, pki.key_file)
    question = Question("waits for ever")
    verify_at_client(server, client_context, question, pki)
    client_context.callback_timeout = None

    async def main():
        async with serving(server) as port:
            task = asyncio.create_task(exchange(port, client_context))
            await happened(lambda: question.waiting, "the question")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())
    assert question.ended == [asyncio.CancelledError]


@pytest.mark.parametrize("asked", OWN, ids=lambda hook: hook.__name__, indirect=True)
def test_a_server_that_aborts_its_clients_cancels_what_they_wait_for(run, asked, server_context, client_context):
    question = asked("waits for ever")
    server_context.callback_timeout = client_context.callback_timeout = None

    async def main():
        server = await aio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        task = asyncio.create_task(exchange(server.sockets[0].getsockname()[1], client_context))
        await happened(lambda: question.waiting, "the question")
        server.close()
        server.abort_clients()
        await server.wait_closed()
        task.cancel()
        with pytest.raises((asyncio.CancelledError, OSError, asyncio.IncompleteReadError)):
            await task
        await happened(lambda: not question.waiting, "the question to end")

    run(main())


@pytest.mark.parametrize("where", ["a callback", "hub.run()"])
def test_a_function_that_waits_may_use_another_connection(run, server_context, client_context, where):
    """hazard: a step of the other connection ends in the loop, and the function never goes on."""
    used = []

    async def patient(sock, chain, resumed):  # so that each step of the connection may wait
        await asyncio.sleep(0)

    client_context.verify_callback = patient

    def use(writer):
        for _ in range(3):
            writer.write(b"news")
            here().sleep(0)
        used.append(writer)

    async def main():
        async with serving(server_context) as port, connected(port, client_context) as (reader, writer):
            if where == "a callback":
                server_context.sni_callback = lambda sock, name, context: use(writer)
                assert (await exchange(port, client_context))[0] == b"hello"
            else:
                await hub_of(asyncio.get_running_loop()).run(use, writer)
            assert await reader.readexactly(12) == b"news" * 3
        assert used == [writer]

    run(main())


def test_context_variables_are_those_of_whoever_connects(run, server_context, client_context):
    from contextvars import ContextVar

    name = ContextVar("name")
    seen = []

    async def callback(sock, chain, resumed):
        seen.append(name.get())

    client_context.verify_callback = callback

    async def connect(port, who):
        name.set(who)
        await exchange(port, client_context)

    async def main():
        async with serving(server_context) as port:
            await asyncio.gather(*(connect(port, who) for who in "abc"))

    run(main())
    assert sorted(seen) == ["a", "b", "c"]


class Guard(MemoryStore):
    """Says that it is shared."""

    shared = True


def test_early_data_are_rejected_and_the_handshake_goes_on(run, pki, server_context, client_context):
    """hazard: data that may be a replay reach a protocol, which cannot tell. Others of the fleet may accept them."""
    server_context.session_store = open_store("memory://")
    server_context.replay_guard, server_context.max_early_data = Guard(), 1000

    async def main():
        async with serving(server_context) as port:
            _, tls = await exchange(port, client_context)
            here = client(config(pki), tls.session)
            offered = bool(here.early_data_limit)
            here.offer_early_data(b"replayed" if offered else b"")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writes = []
            while True:
                done = attempt(here.do_handshake)
                if done and not writes:
                    writes.append(here.write(b"hello"))
                writer.write(here.data_to_send())
                if done and (said := attempt(here.read)):
                    break
                here.receive_data(await reader.read(65536))
            writer.close()
            await writer.wait_closed()
        return said, here.session_reused, here.early_data_accepted if offered else False

    assert run(main()) == (b"hello", True, False)


def test_nothing_is_left_behind(run, server_context, client_context):
    async def main():
        async with serving(server_context) as port:
            for _ in range(3):
                await exchange(port, client_context)
        await asyncio.sleep(0)
        gc.collect()
        return [each for each in gc.get_objects() if type(each) in (aio.TLSTransport, aio.SSLObject)]

    assert run(main()) == []


def test_a_loop_that_is_closed_is_garbage_with_its_workers(run, asked, server_context, client_context):
    """hazard: the collector does not see what the frame of a greenlet refers to, such as the loop's free workers."""
    asked()

    async def main():
        async with serving(server_context) as port:
            await asyncio.gather(*(exchange(port, client_context) for _ in range(3)))
        return weakref.ref(asyncio.get_running_loop())

    loop = run(main())
    gc.collect()
    assert loop() is None


def test_under_gevent_a_coroutine_function_is_refused_and_says_why(pki):
    import socket

    import gevent

    from tests.support.ssl_pairs import outcome

    server, client = SSLContext(ssl.PROTOCOL_TLS_SERVER), SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(pki.cert_file, pki.key_file)
    client.load_verify_locations(pki.ca_file)

    async def callback(sock, name, context):
        raise AssertionError("nobody runs this")

    server.sni_callback = callback
    ours, theirs = socket.socketpair()
    wrapped = gevent.spawn(outcome, lambda: server.wrap_socket(ours, server_side=True))
    gevent.spawn(outcome, lambda: client.wrap_socket(theirs, server_hostname="localhost"))
    assert "cannot run a coroutine function" in str(wrapped.get())


@pytest.fixture
def other_context(pki):
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.issue("localhost", "other.test"))
    return context


@pytest.mark.parametrize("where", ["itself", "a task of its own"])
def test_a_coroutine_chooses_another_context(run, server_context, client_context, other_context, where):
    async def choose(sock):
        await asyncio.sleep(0.001)
        sock.context = other_context

    async def callback(sock, name, context):
        await (choose(sock) if where == "itself" else asyncio.create_task(choose(sock)))

    server_context.sni_callback = callback

    async def main():
        async with serving(server_context) as port:
            answers = await asyncio.gather(*(exchange(port, client_context) for _ in range(10)))
            return {tls.getpeercert()["subjectAltName"] for _, tls in answers}

    assert run(main()) == {(("DNS", "localhost"), ("DNS", "other.test"))}


def test_nobody_else_chooses_meanwhile(run, server_context, client_context, other_context):
    sockets, events = [], []

    async def callback(sock, name, context):
        sockets.append(sock)
        events.append(asyncio.Event())
        await events[0].wait()

    server_context.sni_callback = callback

    async def main():
        async with serving(server_context) as port:
            task = asyncio.create_task(exchange(port, client_context))
            await happened(lambda: sockets, "the callback")
            with pytest.raises(ConcurrentUseError):
                sockets[0].context = other_context
            events[0].set()
            return await task

    assert run(main())[0] == b"hello"
