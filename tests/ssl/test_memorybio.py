"""SSLContext.wrap_bio(): the standard library's SSLObject, with greentls inside."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

import greentls.ssl
from greentls.ssl.memorybio import BIOConnection
from tests.support.clients import in_thread
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import (
    Side,
    both_versions,
    carry,
    contexts,
    finished,
    handshake,
    implementations,
    outcome,
    pair,
    sides,
)

LARGE = bytes(range(256)) * 4096  # a MiB: 64 records


@both_versions
@implementations
class TestWithEither:
    def test_a_conversation(self, pki, version, modules):
        client, server = pair(pki, version, modules)
        for source, target in ((client, server), (server, client)):
            assert source.tls.write(b"hello") == 5
            carry(source, target)
            assert target.tls.read(2) == b"he"
            assert target.tls.pending() == 3
            assert target.tls.read() == b"llo"
            assert source.tls.version() == f"TLSv{version}"
            assert source.tls.cipher() == target.tls.cipher()

    def test_large_data_in_one_write(self, pki, version, modules):
        client, server = pair(pki, version, modules)
        for source, target in ((client, server), (server, client)):
            assert source.tls.write(memoryview(LARGE)) == len(LARGE)
            carry(source, target)
            got = bytearray()
            while len(got) < len(LARGE):
                buffer = bytearray(8192)  # half a record, and the other half
                assert target.tls.read(8192, buffer) == 8192
                got += buffer + target.tls.read(8192)
            assert got == LARGE
            assert target.tls.pending() == 0
            assert not finished(target.tls.read)

    @pytest.mark.parametrize("ended", [False, True], ids=["goes on", "ends"])
    @pytest.mark.parametrize("read", [False, True], ids=["unwrapped", "read and unwrapped"])
    def test_what_comes_behind_close_notify_stays_where_it_is(self, pki, version, modules, read, ended):
        client, server = pair(pki, version, modules)
        for source, target in ((client, server), (server, client)):
            assert finished(source.tls.unwrap) is (source is server)
            carry(source, target)
            target.incoming.write(b"in clear")
            if ended:
                target.incoming.write_eof()
            if read and source is client:  # who has said close_notify too gets an SSLZeroReturnError from Python
                assert target.tls.read() == b""
                assert target.tls.pending() == 0
            target.tls.unwrap()
            assert target.incoming.read() == b"in clear"

    def test_what_the_peer_said_before_close_notify_can_be_read(self, pki, version, modules):
        client, server = pair(pki, version, modules)
        server.tls.write(b"the last word")
        assert not finished(server.tls.unwrap)
        carry(server, client)
        client.incoming.write_eof()
        assert [client.tls.read(), client.tls.read()] == [b"the last word", b""]


@both_versions
class TestSSLObject:
    def test_it_is_the_standard_librarys_with_ours_inside(self, pki, version):
        client, server = contexts(pki, version)
        ends = sides(client, server)
        for end, context, server_side in zip(ends, (client, server), (False, True), strict=True):
            assert type(end.tls) is ssl.SSLObject
            assert type(end.tls._sslobj) is BIOConnection
            assert end.tls.context is context
            assert end.tls.server_side is server_side
        assert [end.tls.server_hostname for end in ends] == ["localhost", None]

    def test_it_wants_to_read_until_the_last_byte_of_a_flight(self, pki, version):
        client, server = sides(*contexts(pki, version))
        with pytest.raises(ssl.SSLWantReadError) as want:
            client.tls.do_handshake()
        assert want.value.args == (2, "The operation did not complete (read)")
        ends = [client, server]
        while not client.tls.version():
            source, target = ends
            *most, last = source.outgoing.read()
            for octet in most:
                target.incoming.write(bytes([octet]))
                assert not finished(target.tls.do_handshake)
                assert not target.outgoing.pending
            target.incoming.write(bytes([last]))
            assert finished(target.tls.do_handshake) or target.outgoing.pending
            ends.reverse()
        assert client.tls.getpeercert()["subject"] == ((("commonName", "localhost"),),)

    def test_before_the_handshake_it_knows_nothing(self, pki, version):
        client, _ = sides(*contexts(pki, version))
        assert client.tls.version() is client.tls.cipher() is client.tls.session is None
        assert client.tls.pending() == 0
        with pytest.raises(ValueError, match="handshake not done yet"):
            client.tls.getpeercert()
        with pytest.raises(ssl.SSLError):
            client.tls.unwrap()

    def test_reading_and_writing_begin_with_the_handshake(self, pki, version):
        client, server = sides(*contexts(pki, version))
        while not finished(client.tls.write, b"hello"):
            carry(client, server)
            assert not finished(server.tls.read)
            carry(server, client)
        carry(client, server)
        assert server.tls.read() == b"hello"

    def test_it_takes_no_more_ciphertext_than_it_needs(self, pki, version):
        client, server = pair(pki, version)
        lengths = []
        for message in (b"one", b"two", b"three"):
            server.tls.write(message)
            lengths.append(server.outgoing.pending)
        records = server.outgoing.read()
        client.incoming.write(records[:-1])
        assert client.tls.read() == b"one"
        assert client.tls.pending() == 0
        assert client.incoming.pending == lengths[2] - lengths[0] - 1
        assert client.tls.read() == b"two"
        assert not finished(client.tls.read)
        client.incoming.write(records[-1:])
        assert client.tls.read() == b"three"
        assert client.incoming.pending == 0

    def test_sizes(self, pki, version):
        client, _ = pair(pki, version)
        assert client.tls.read(0) == b""
        assert client.tls.write(b"") == 0
        assert client.tls.read(1, bytearray()) == 0
        with pytest.raises(ValueError, match="negative"):
            client.tls.read(-1)

    @pytest.mark.parametrize("received", [0, 1, 20], ids=["between records", "in a header", "in a record"])
    def test_an_end_in_the_middle_is_an_eof_error(self, pki, version, received):
        client, server = pair(pki, version)
        server.tls.write(b"x" * 100)
        client.incoming.write(server.outgoing.read(received))
        client.incoming.write_eof()
        with pytest.raises(ssl.SSLEOFError) as caught:
            client.tls.read()
        assert caught.value.errno == ssl.SSL_ERROR_EOF

    @pytest.mark.parametrize("received", [0, 100])
    def test_an_end_in_the_handshake_is_an_eof_error(self, pki, version, received):
        client, server = sides(*contexts(pki, version))
        assert not finished(client.tls.do_handshake)
        carry(client, server)
        assert not finished(server.tls.do_handshake)
        client.incoming.write(server.outgoing.read(received))
        client.incoming.write_eof()
        with pytest.raises(ssl.SSLEOFError) as caught:
            client.tls.do_handshake()
        assert caught.value.errno == ssl.SSL_ERROR_EOF

    @pytest.mark.parametrize(
        ("trusting", "name", "code", "said"),
        [
            (False, "localhost", 20, "unable to get local issuer certificate"),
            (True, "elsewhere.test", 62, "ostname mismatch"),
            (True, "127.0.0.2", 64, "IP address mismatch"),
        ],
    )
    def test_a_certificate_that_is_refused(self, pki, version, trusting, name, code, said):
        trust, server = contexts(pki, version)
        distrust = greentls.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client = Side(trust if trusting else distrust, server_hostname=name)
        server = Side(server, server_side=True)
        with pytest.raises(ssl.SSLCertVerificationError, match=said) as caught:
            handshake(client, server)
        assert caught.value.verify_code == code
        assert said in caught.value.verify_message
        carry(client, server)
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            server.tls.do_handshake()

    def test_chains(self, pki, version):
        client, server = pair(pki, version)
        leaf, ca = (ssl.PEM_cert_to_DER_cert(Path(file).read_text()) for file in (pki.cert_file, pki.ca_file))
        if hasattr(ssl.SSLObject, "get_verified_chain"):  # Python 3.13
            assert client.tls.get_verified_chain() == [leaf, ca]
            assert client.tls.get_unverified_chain() == [leaf]
            assert server.tls.get_verified_chain() == server.tls.get_unverified_chain() == []
        assert client.tls.getpeercert(binary_form=True) == leaf

    def test_a_session_resumes_whatever_context_it_is_given_to(self, pki, version):
        client, server = contexts(pki, version)
        first = sides(client, server)
        handshake(*first)
        session = first[0].tls.session
        assert isinstance(session, greentls.ssl.SSLSession)
        for context in (client, contexts(pki, version)[0]):
            ends = sides(context, server, session=session)
            handshake(*ends)
            assert [end.tls.session_reused for end in (*first, *ends)] == [False, False, True, True]

    def test_what_is_no_session_is_refused(self, pki, version):
        client, server = contexts(pki, version)
        for context, options in ((client, {"server_hostname": "localhost"}), (server, {"server_side": True})):
            with pytest.raises(TypeError, match="not a SSLSession"):
                Side(context, session="a session", **options)


@both_versions
class TestCallbacks:
    def test_sni_callback_gets_the_object_and_may_set_its_context(self, pki, version):
        client, server = contexts(pki, version)
        _, other = contexts(pki, version)
        other.load_cert_chain(*pki.issue("other.test"))
        asked = []

        def choose(tls, name, context):
            asked.append((tls, name, context))
            tls.context = other

        server.sni_callback = choose
        there = Side(server, server_side=True)
        here = Side(client, server_hostname="other.test")
        handshake(here, there)
        assert asked == [(there.tls, "other.test", server)]
        assert there.tls.context is other
        assert here.tls.getpeercert()["subjectAltName"] == (("DNS", "other.test"),)

    def test_sni_callback_may_wait_while_another_handshake_finishes(self, pki, version):
        client, server = contexts(pki, version)
        waits, go_on = Event(), Event()
        order = []

        def choose(tls, name, context):
            if tls is slow[1].tls:
                waits.set()
                go_on.wait()
            order.append(tls)

        server.sni_callback = choose
        server.callback_timeout = PATIENCE
        slow, quick = sides(client, server), sides(client, server)
        job = gevent.spawn(handshake, *slow)
        assert waits.wait(PATIENCE)
        handshake(*quick)
        assert slow[1].tls.version() is None
        go_on.set()
        job.get(timeout=PATIENCE)
        assert order == [quick[1].tls, slow[1].tls]
        assert slow[0].tls.version() == slow[1].tls.version() == f"TLSv{version}"

    @pytest.mark.parametrize("callback", ["sni_callback", "alpn_callback"])
    @pytest.mark.parametrize("failure", [LookupError("no such name"), OSError(5, "no disk"), gevent.GreenletExit()])
    def test_what_a_callback_raises_comes_out_as_itself_behind_an_alert(self, pki, version, callback, failure):
        def fail(*_):
            raise failure

        client, server = contexts(pki, version)
        client.set_alpn_protocols(["h2"])
        setattr(server, callback, fail)
        here, there = sides(client, server)
        with pytest.raises(type(failure)) as caught:
            handshake(here, there)
        assert caught.value is failure
        assert there.outgoing.pending
        carry(there, here)
        with pytest.raises(ssl.SSLError, match=r"(?i)alert (internal error|no application protocol)"):
            here.tls.do_handshake()

    def test_a_callback_that_is_late_is_a_timeout(self, pki, version):
        client, server = contexts(pki, version)
        server.sni_callback = lambda *_: gevent.sleep(PATIENCE)
        server.callback_timeout = 0.01
        with pytest.raises(TimeoutError, match=r"sni_callback gave no answer in 0.01 s"):
            handshake(*sides(client, server))


@both_versions
class TestTLSInTLS:
    def test_one_object_through_another(self, pki, version):
        outer = pair(pki, version)
        inner = sides(*contexts(pki, version))

        def through(source, target):
            """The inner one's ciphertext is the outer one's data."""
            if data := inner[source].outgoing.read():
                outer[source].tls.write(data)
                carry(outer[source], outer[target])
                while finished(lambda: inner[target].incoming.write(outer[target].tls.read(1000))):
                    pass

        done = [False, False]
        while not all(done):
            for side in (0, 1):
                done[side] = done[side] or finished(inner[side].tls.do_handshake)
                through(side, 1 - side)
        for source, target in ((0, 1), (1, 0)):
            inner[source].tls.write(b"hidden twice")
            through(source, target)
            assert inner[target].tls.read() == b"hidden twice"
        assert outer[1].tls.version() == inner[1].tls.version() == f"TLSv{version}"


async def converse(server, client, **options):
    """What an asyncio client reads to the end from an asyncio server, and the two SSLObjects."""
    objects = []

    async def echo(reader, writer):
        objects.append(writer.get_extra_info("ssl_object"))
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
    async with listener:
        reader, writer = await asyncio.open_connection(
            *listener.sockets[0].getsockname(), ssl=client, server_hostname="localhost"
        )
        objects.append(writer.get_extra_info("ssl_object"))
        writer.write(LARGE)
        got = await reader.readexactly(len(LARGE))
        writer.close()
        await writer.wait_closed()
    return got, objects


@both_versions
@implementations
class TestAsyncio:
    def test_a_megabyte_there_and_back(self, pki, version, modules):
        client, server = (contexts(pki, version, module)[side] for side, module in enumerate(modules))
        for context in (client, server):
            context.set_alpn_protocols(["of the test"])
        got, objects = in_thread(asyncio.run, converse(server, client))
        assert got == LARGE
        assert {type(each) for each in objects} == {ssl.SSLObject}
        assert [each.selected_alpn_protocol() for each in objects] == ["of the test"] * 2
        ours = Counter(isinstance(each._sslobj, BIOConnection) for each in objects)
        assert ours[True] == modules.count(greentls.ssl)

    def test_a_certificate_that_is_refused(self, pki, version, modules):
        client, server = (contexts(pki, version, module)[side] for side, module in enumerate(modules))
        client = modules[0].create_default_context()
        refused = in_thread(outcome, asyncio.run, converse(server, client))
        assert isinstance(refused, ssl.SSLCertVerificationError)
        assert refused.verify_code in (19, 20)
