"""The transport over the pump: bounded turns, hooks that wait after the handshake, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from itertools import pairwise

import pytest

from greentls import aio
from greentls.openssl.pump import DONE, TURN, WANT_READ
from greentls.ssl import TLSVersion
from tests.aio.streams import Recorder, exchange, happened, serving
from tests.aio.test_transport import BULK, two

BLOCK = bytes(65536)


class Endless(Recorder):
    """Writes for as long as nobody stops it."""

    written = 0

    def connection_made(self, transport):
        super().connection_made(transport)
        self.stopped = False
        asyncio.get_running_loop().call_soon(self.resume_writing)

    def pause_writing(self):
        super().pause_writing()
        self.stopped = True

    def resume_writing(self):
        super().resume_writing()
        self.stopped = False
        while not (self.stopped or self.transport.is_closing()):
            self.transport.write(BLOCK)
            self.written += 1
            assert self.written < 2_000, "it goes on for ever"


def test_a_program_that_writes_without_end_notices_that_its_peer_is_gone(run, server_context, client_context):
    async def main():
        server, client, listening = await two(server_context, client_context, Endless)
        client.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )  # RST
        client.transport.abort()
        assert isinstance(await server.lost, (OSError, type(None)))
        listening.close()
        await listening.wait_closed()

    run(main())


class Busy:
    """A pump whose peer is always faster: the socket takes everything, and there is always more to read."""

    def __init__(self, pump):
        self.pump, self.done = pump, 0

    def step_write(self, data):
        if self.pump.budget <= 0:
            return self.pump.step_write(data)
        self.pump.budget -= 1
        self.done += 1
        return DONE

    def step_read(self, size):
        if self.pump.budget <= 0:
            return self.pump.step_read(size)
        self.pump.budget -= 1
        self.done += 1
        assert self.done < 100 * TURN, "others never run"
        return b"x"


def test_a_turn_of_writing_is_bounded_however_fast_the_peer(run, server_context, client_context):
    async def main():
        server, client, listening = await two(server_context, client_context)
        busy = server.transport._verbs = Busy(server.transport._connection)
        for _ in range(3):
            before = busy.done
            while not server.transport.get_write_buffer_size():
                assert busy.done - before <= TURN
                server.transport.write(BLOCK)
            await happened(lambda: not server.transport.get_write_buffer_size(), "all to be sent")
        for each in (server, client):
            each.transport.abort()
        listening.close()
        await listening.wait_closed()

    run(main())


def test_a_turn_of_reading_is_bounded_however_fast_the_peer(run, server_context, client_context):
    async def main():
        server, client, listening = await two(server_context, client_context)
        busy = server.transport._verbs = Busy(server.transport._connection)
        client.transport.write(b"once")
        turns = [0]
        while turns[-1] < 5 * TURN:
            await asyncio.sleep(0)
            turns.append(busy.done)
        assert max(after - before for before, after in pairwise(turns)) <= 2 * TURN  # an event and what is due
        for each in (server, client):
            each.transport.abort()
        listening.close()
        await listening.wait_closed()

    run(main())


@pytest.fixture
def later(server_context, client_context, pki):
    """Contexts of which the server may ask for a certificate after the handshake."""
    server_context.maximum_version = TLSVersion.TLSv1_3
    client_context.post_handshake_auth = server_context.post_handshake_auth = True
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(pki.ca_file)
    client_context.load_cert_chain(*pki.issue("client", client=True))
    return server_context, client_context


@pytest.mark.parametrize("version", ["TLSv1_3"], indirect=True)
@pytest.mark.parametrize("refuses", [False, True])
def test_a_hook_may_wait_after_the_handshake(run, later, refuses):
    server_context, client_context = later
    asked = []

    async def main():
        answer = asyncio.get_running_loop().create_future()

        async def verify(sock, chain, resumed):
            asked.append(sock)
            await answer

        server_context.verify_callback = verify
        server, client, listening = await two(server_context, client_context)
        server.transport.get_extra_info("ssl_object").verify_client_post_handshake()
        server.transport.write(b"your certificate, please")
        assert await client.has(24)
        client.transport.write(b"here it is")
        await happened(lambda: asked, "the hook")
        # The hook waits, and the loop goes on. What is written meanwhile is kept, and so is what has come.
        server.transport.write(b"kept")
        server.transport.write(b" in order")
        await asyncio.sleep(0)
        assert (server.data, client.data) == (b"", b"your certificate, please")
        assert server.transport.get_write_buffer_size() == 13
        if refuses:
            answer.set_exception(LookupError("nobody"))
            error = await server.lost
            assert isinstance(error, LookupError)
            assert isinstance(await client.lost, ssl.SSLError)  # the alert
            assert (server.data, client.data) == (b"", b"your certificate, please")
        else:
            answer.set_result(None)
            assert await server.has(10) == b"here it is"
            assert await client.has(37) == b"your certificate, pleasekept in order"
            assert server.transport.get_extra_info("peercert")
            client.transport.close()
            await server.lost
        listening.close()
        await listening.wait_closed()

    run(main())
    assert len(asked) == 1


@pytest.mark.parametrize("version", ["TLSv1_3"], indirect=True)
def test_the_end_of_a_transport_cancels_a_hook_that_waits_after_the_handshake(run, later):
    server_context, client_context = later
    ended = []

    async def verify(sock, chain, resumed):
        ended.append("asked")
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            ended.append(type(error))
            raise

    server_context.verify_callback = verify
    server_context.callback_timeout = None

    async def main():
        server, client, listening = await two(server_context, client_context)
        server.transport.get_extra_info("ssl_object").verify_client_post_handshake()
        server.transport.write(b"?")
        assert await client.has(1)
        await happened(lambda: ended, "the hook")
        server.transport.abort()
        assert await server.lost is None
        await client.lost
        await happened(lambda: len(ended) == 2, "the hook to end")
        listening.close()
        await listening.wait_closed()

    run(main())
    assert ended == ["asked", asyncio.CancelledError]


def test_data_come_when_the_caller_has_the_transport(run, server_context, client_context):
    """A protocol that needs its new transport as soon as data come, as a StreamReader does."""

    class Greeting(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(BULK[:60_000])

    class Client(Recorder):
        early = over = None

        def data_received(self, data):
            self.early = self.early or self.over is None
            super().data_received(data)

    async def main():
        server = await aio.create_server(Greeting, "127.0.0.1", 0, ssl=server_context)
        transport, client = await aio.create_connection(
            Client, "127.0.0.1", server.sockets[0].getsockname()[1], ssl=client_context, server_hostname="localhost"
        )
        client.over = transport
        assert await client.has(60_000) == BULK[:60_000]
        assert not client.early
        transport.close()
        await client.lost
        server.close()
        await server.wait_closed()

    run(main())


def test_connections_leave_nothing_to_the_collector(run, server_context, client_context):
    kinds = (aio.TLSTransport, aio.SSLObject)

    async def main():
        async with serving(server_context) as port:
            await exchange(port, client_context)
            await asyncio.sleep(0)
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await exchange(port, client_context)
                for _ in range(20):
                    await asyncio.sleep(0)
                return [each for each in gc.get_objects() if type(each) in kinds]
            finally:
                gc.enable()

    assert run(main()) == []


def test_a_write_that_waits_for_the_rest_of_a_message_goes_on_though_reading_is_paused(
    run, server_context, client_context
):
    """The rest of a post-handshake message comes when the program does not read. Its writes need it."""

    async def main():
        server, client, listening = await two(server_context, client_context)
        transport = server.transport
        transport.pause_reading()
        verbs = transport._verbs = Starved(transport._connection)
        transport.write(b"data")
        assert transport.get_write_buffer_size() == 4
        verbs.starved = False
        client.transport.write(b"the rest")
        assert await client.has(4) == b"data"
        assert server.data == b""
        transport.resume_reading()
        assert await server.has(8) == b"the rest"
        client.transport.close()
        await server.lost
        listening.close()
        await listening.wait_closed()

    run(main())


class Starved:
    """A pump to which a part of a post-handshake message has come."""

    starved = True

    def __init__(self, pump):
        self.pump = pump
        self.step_read = pump.step_read

    def step_write(self, data):
        return WANT_READ if self.starved else self.pump.step_write(data)


def test_a_buffered_protocol_without_room_is_an_error(run, server_context, client_context):
    class Full(asyncio.BufferedProtocol):
        def __init__(self):
            self.told, self.lost = [], asyncio.get_running_loop().create_future()

        connection_made = Recorder.connection_made
        connection_lost = Recorder.connection_lost

        def get_buffer(self, size):
            return bytearray()

    async def main():
        server, client, listening = await two(server_context, client_context, Full)
        server.transport.write(b"x")
        assert "empty buffer" in str(await client.lost)
        await server.lost
        listening.close()
        await listening.wait_closed()

    run(main())
    assert ["empty buffer" in str(each["exception"]) for each in run.reported] == [True]
    run.reported.clear()
