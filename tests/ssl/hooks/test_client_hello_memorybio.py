"""client_hello_callback over wrap_bio(): the same gate, for asyncio and whoever else carries the ciphertext himself."""

from __future__ import annotations

import asyncio
import ssl

import gevent
import gevent.event
import gevent.exceptions
import pytest

import greentls.ssl
from greentls.errors import ConcurrentUseError, WireError
from greentls.ssl.plain_socket import PlainSocket
from greentls.strategy import STRATEGIES
from greentls.wire import RecordReader
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import (
    TLS_VERSIONS,
    Side,
    both_versions,
    carry,
    contexts,
    finished,
    handshake,
    outcome,
    sides,
)

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def server_side(pki, callback, version="1.3", strategy="coroutine", **settings):
    """(the client, the server), each an SSLObject between its BIOs, the client's hello on its way."""
    client, server = contexts(pki, version)
    server.client_hello_callback, server.strategy = callback, strategy
    for name, value in settings.items():
        setattr(server, name, value)
    here, there = sides(client, server)
    assert not finished(here.tls.do_handshake)
    carry(here, there)
    return here, there


def refused(here, there, error, alert):
    """The server raises just this, again and again something, and the client gets the alert."""
    raised = None
    try:
        there.tls.do_handshake()
    except BaseException as caught:
        raised = caught
    assert raised is error or isinstance(raised, error), raised
    carry(there, here)
    with pytest.raises(ssl.SSLError, match=alert):
        here.tls.do_handshake()
    with pytest.raises(ssl.SSLError):
        there.tls.do_handshake()
    assert there.outgoing.read() == b""
    assert there.tls.version() is None


@both_versions
@every_strategy
class TestAnswers:
    def test_none_goes_on(self, pki, version, strategy):
        asked = []

        def look(sock, hello):
            asked.append((sock, hello.server_name))

        here, there = server_side(pki, look, version, strategy)
        handshake(here, there)
        assert asked == [(there.tls, "localhost")]
        assert there.tls.version() == f"TLSv{version}"

    def test_another_context_with_all_of_its_settings(self, pki, version, strategy):
        client, other = contexts(pki, version)
        other.load_cert_chain(*pki.issue("other.test", "localhost"))
        other.maximum_version = TLS_VERSIONS["1.2"]
        other.minimum_version = TLS_VERSIONS["1.2"]
        client.minimum_version = TLS_VERSIONS["1.2"]
        first = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        first.client_hello_callback, first.strategy = (lambda sock, hello: other), strategy
        here, there = sides(client, first)
        handshake(here, there)
        assert here.tls.version() == "TLSv1.2"
        assert ("DNS", "other.test") in here.tls.getpeercert()["subjectAltName"]
        assert there.tls.context is other

    def test_an_alert_refuses_and_nobody_else_is_asked(self, pki, version, strategy):
        names = []
        here, there = server_side(
            pki,
            lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME,
            version,
            strategy,
            sni_callback=lambda sock, name, context: names.append(name),
        )
        refused(here, there, ssl.SSLError, r"(?i)unrecognized.name")
        assert names == []

    @pytest.mark.parametrize("failure", [ValueError(), SystemExit(), gevent.GreenletExit(), gevent.Timeout(5)])
    def test_what_it_raises_comes_out(self, pki, version, strategy, failure):
        def fail(*_):
            raise failure

        refused(*server_side(pki, fail, version, strategy), failure, r"(?i)internal.error")

    def test_another_kind_of_answer_is_a_type_error(self, pki, version, strategy):
        refused(*server_side(pki, lambda *_: True, version, strategy), TypeError, r"(?i)internal.error")

    def test_it_may_wait_and_is_late_after_its_timeout(self, pki, version, strategy):
        here, there = server_side(pki, lambda *_: gevent.sleep(0.001), version, strategy)
        handshake(here, there)
        late = server_side(pki, lambda *_: gevent.sleep(PATIENCE), version, strategy, callback_timeout=0.02)
        refused(*late, TimeoutError, r"(?i)internal.error")


class TestHello:
    @every_strategy
    def test_it_may_come_in_pieces(self, pki, strategy):
        asked = []
        here, there = server_side(pki, lambda sock, hello: asked.append(hello), strategy=strategy)
        hello = there.incoming.read()
        for index in range(len(hello)):
            assert not finished(there.tls.do_handshake)
            assert not asked
            there.incoming.write(hello[index : index + 1])
        handshake(here, there)
        assert len(asked) == 1
        assert asked[0].to_bytes() == next(RecordReader().feed(hello))

    def test_its_end_in_the_middle(self, pki):
        _, there = server_side(pki, lambda *_: None)
        hello = there.incoming.read()
        there.incoming.write(hello[:50])
        there.incoming.write_eof()
        with pytest.raises(ssl.SSLEOFError):
            there.tls.do_handshake()

    def test_what_is_none(self, pki):
        _, there = server_side(pki, lambda *_: None)
        there.incoming.read()
        there.incoming.write(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLError, match="an HTTP request"):
            there.tls.do_handshake()
        assert there.outgoing.read() == b"\x15\x03\x03\x00\x02\x02\x0a"

    def test_a_malformed_extension_is_the_callbacks_to_meet(self, pki):
        _, there = server_side(pki, lambda sock, hello: hello.server_name and None)
        hello = there.incoming.read()
        there.incoming.write(hello.replace(b"\x00\x09localhost", b"\x00\xffevil-host"))
        with pytest.raises(WireError):
            there.tls.do_handshake()

    def test_nothing_is_parsed_when_nobody_asks(self, pki, monkeypatch):
        monkeypatch.setattr("greentls.ssl.client_hello.RecordReader", None)
        handshake(*server_side(pki, None))


def test_there_is_nothing_to_pass_through(pki):
    with PlainSocket() as plain:
        refused(*server_side(pki, lambda *_: plain), TypeError, r"(?i)internal.error")


def test_the_callback_cannot_use_its_own_connection(pki):
    caught = []

    def enter(sock, hello):
        caught.extend(outcome(function) for function in (sock.do_handshake, sock.read))

    here, there = server_side(pki, enter)
    handshake(here, there)
    assert [type(each) for each in caught] == [ConcurrentUseError] * 2
    assert there.tls._sslobj.context.counters["failed"] == 0


def test_another_greenlet_does_not_begin_it_again(pki):
    inside, go_on = gevent.event.Event(), gevent.event.Event()
    asked = []

    def wait(sock, hello):
        asked.append(hello)
        inside.set()
        assert go_on.wait(PATIENCE)

    here, there = server_side(pki, wait, callback_timeout=PATIENCE)
    job = gevent.spawn(finished, there.tls.do_handshake)
    assert inside.wait(PATIENCE)
    with pytest.raises(ConcurrentUseError):
        there.tls.do_handshake()
    go_on.set()
    assert job.get(timeout=PATIENCE) is False
    carry(there, here)
    handshake(here, there)
    assert len(asked) == 1


def test_in_the_hub_it_must_not_wait_and_is_refused_if_it_does(pki):
    """hazard: the hub's own greenlet has nobody to switch to."""
    for wait, done in ((lambda: None, False), (lambda: gevent.sleep(0.001), gevent.exceptions.BlockingSwitchOutError)):
        here, there = server_side(pki, lambda *_, wait=wait: wait())
        results, over = [], gevent.event.Event()

        def step(there=there, results=results, over=over):
            try:
                results.append(finished(there.tls.do_handshake))
            except BaseException as error:
                results.append(type(error))
            over.set()

        gevent.get_hub().loop.run_callback(step)
        assert over.wait(PATIENCE)
        assert results == [done]
        carry(there, here)
        if done:
            with pytest.raises(ssl.SSLError, match=r"(?i)internal.error"):
                here.tls.do_handshake()


@every_strategy
@both_versions
def test_an_asyncio_server_asks(pki, strategy, version):
    """Where there is a loop, and no hub."""
    client, server = contexts(pki, version)
    server.strategy = strategy
    names = []

    def gate(sock, hello):
        gevent.sleep(0)
        names.append(hello.server_name)
        return None if hello.server_name == "localhost" else ssl.ALERT_DESCRIPTION_ACCESS_DENIED

    server.client_hello_callback = gate

    async def echo(reader, writer):
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    async def run():
        listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
        port = listening.sockets[0].getsockname()[1]
        async with listening:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
            writer.write(b"hello")
            assert await reader.read(100) == b"hello"
            writer.close()
            client.check_hostname = False
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="elsewhere.test")

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    assert names == ["localhost", "elsewhere.test"]


def test_prefetch_reads_the_hello_and_asks_in_advance(pki):
    order = []
    client, server = contexts(pki)
    client.set_alpn_protocols(["h2"])
    server.strategy = "prefetch"
    server.alpn_callback = lambda sock, offered: order.append("alpn") or "h2"
    here, there = Side(client, server_hostname="localhost"), Side(server, server_side=True)
    foretell = there.tls._sslobj._begin

    def begin():
        passed = foretell()
        order.append("OpenSSL")
        return passed

    there.tls._sslobj._begin = begin
    handshake(here, there)
    assert here.tls.selected_alpn_protocol() == "h2"
    assert order[-2:] == ["alpn", "OpenSSL"]
