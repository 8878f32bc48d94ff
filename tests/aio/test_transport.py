"""TLSTransport is an asyncio.Transport: flow control, half close, the ends, what it tells about itself."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

import pytest

from greentls import aio
from tests.aio.streams import Recorder, connected, echo, exchange, happened, serving

BULK = os.urandom(3_000_000)


async def two(server_context, client_context, protocol=Recorder):
    """(the server's protocol, the client's) of one connection; and what closes the server."""
    made = []

    def factory():
        made.append(protocol())
        return made[-1]

    server = await aio.create_server(factory, "127.0.0.1", 0, ssl=server_context)
    _, client = await aio.create_connection(
        protocol, "127.0.0.1", server.sockets[0].getsockname()[1], ssl=client_context, server_hostname="localhost"
    )
    await happened(lambda: made and made[0].told, "the connection to be made")
    return made[0], client, server


def test_data_go_both_ways_at_once(run, server_context, client_context):
    async def main():
        async with serving(server_context) as port, connected(port, client_context) as (reader, writer):
            writer.write(BULK)
            return await reader.readexactly(len(BULK))

    assert run(main()) == BULK


def test_the_standard_librarys_client_and_server_understand_it(run, server_context, client_context, pki):
    stdlib_client = ssl.create_default_context(cafile=pki.ca_file)
    stdlib_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stdlib_server.load_cert_chain(pki.cert_file, pki.key_file)

    async def main():
        async with serving(server_context) as port:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=stdlib_client, server_hostname="localhost"
            )
            writer.write(BULK[:100_000])
            assert await reader.readexactly(100_000) == BULK[:100_000]
            writer.close()
            await writer.wait_closed()
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=stdlib_server)
        async with server:
            answer, _ = await exchange(server.sockets[0].getsockname()[1], client_context, BULK[:100_000])
            assert answer == BULK[:100_000]

    run(main())


def test_a_reader_that_pauses_stops_the_writer(run, server_context, client_context):
    async def main():
        ours, theirs, server = await two(server_context, client_context)
        theirs.transport.pause_reading()
        ours.transport.write(BULK * 5)
        assert ours.told[-1] == "pause"
        assert not theirs.transport.is_reading()
        await asyncio.sleep(0)
        assert theirs.data == b""
        theirs.transport.resume_reading()
        assert await theirs.has(len(BULK) * 5) == BULK * 5
        while ours.told[-1] != "resume":
            await ours.arrived.wait()
        assert ours.transport.get_write_buffer_size() == 0
        ours.transport.close()
        assert await theirs.lost is None
        assert await ours.lost is None
        server.close()
        await server.wait_closed()

    run(main())


def test_close_sends_what_was_written_and_ends_both_sides(run, server_context, client_context):
    async def main():
        ours, theirs, server = await two(server_context, client_context)
        ours.transport.write(BULK)
        ours.transport.close()
        ours.transport.write(b"too late")
        assert ours.transport.is_closing()
        assert await theirs.has(len(BULK)) == BULK
        assert (await ours.lost, await theirs.lost) == (None, None)
        assert theirs.told == ["made", "eof", "lost"]
        server.close()
        await server.wait_closed()

    run(main())


def test_half_close(run, server_context, client_context):
    async def main():
        ours, theirs, server = await two(server_context, client_context)
        ours.keep_open = theirs.keep_open = True
        assert theirs.transport.can_write_eof()
        theirs.transport.write(b"question")
        theirs.transport.write_eof()
        assert await ours.has(8) == b"question"
        while "eof" not in ours.told:
            ours.arrived.clear()
            await ours.arrived.wait()
        ours.transport.write(b"answer")
        assert await theirs.has(6) == b"answer"
        ours.transport.close()
        theirs.transport.close()
        assert (await ours.lost, await theirs.lost) == (None, None)
        server.close()
        await server.wait_closed()

    run(main())


def test_abort_ends_at_once(run, server_context, client_context):
    async def main():
        ours, theirs, server = await two(server_context, client_context)
        ours.transport.abort()
        assert await ours.lost is None
        await theirs.lost
        server.close()
        await server.wait_closed()

    run(main())


def test_a_peer_that_never_ends_has_the_shutdown_timeout(run, server_context, client_context):
    """A client that neither says close_notify nor ends TCP."""

    async def main():
        loop = asyncio.get_running_loop()
        server = await aio.create_server(Recorder, "127.0.0.1", 0, ssl=server_context, ssl_shutdown_timeout=0.05)
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, server.sockets[0].getsockname())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                await loop.sock_sendall(sock, outgoing.read())
                incoming.write(await loop.sock_recv(sock, 65536))
        await loop.sock_sendall(sock, outgoing.read())

        def told():
            return [each for each in server._transports if each._told]

        await happened(told, "the server to end its handshake")
        [transport] = told()
        transport.close()
        while await loop.sock_recv(sock, 65536):  # until FIN
            pass
        await transport.get_protocol().lost
        sock.close()
        server.close()
        await server.wait_closed()

    run(main())


def test_what_a_protocol_raises_ends_its_connection(run, server_context, client_context):
    class Bad(Recorder):
        def data_received(self, data):
            raise ValueError("not this")

    async def main():
        ours, theirs, server = await two(server_context, client_context, Bad)
        theirs.transport.write(b"x")
        assert str(await ours.lost) == "not this"
        await theirs.lost
        server.close()
        await server.wait_closed()

    run(main())
    assert [str(each["exception"]) for each in run.reported] == ["not this"]
    run.reported.clear()


def test_a_buffered_protocol(run, server_context, client_context):
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.told, self.data, self.buffer = [], b"", bytearray(1000)
            self.lost = asyncio.get_running_loop().create_future()
            self.arrived = asyncio.Event()

        connection_made = Recorder.connection_made
        eof_received = Recorder.eof_received
        connection_lost = Recorder.connection_lost
        has = Recorder.has
        keep_open = False

        def get_buffer(self, size):
            return self.buffer

        def buffer_updated(self, length):
            Recorder.data_received(self, bytes(self.buffer[:length]))

        def pause_writing(self):
            pass

        resume_writing = pause_writing

    async def main():
        ours, theirs, server = await two(server_context, client_context, Buffered)
        ours.transport.write(BULK[:50_000])
        assert await theirs.has(50_000) == BULK[:50_000]
        theirs.transport.close()
        await ours.lost
        server.close()
        await server.wait_closed()

    run(main())


def test_what_it_tells_about_itself(run, server_context, client_context, version):
    async def main():
        ours, theirs, server = await two(server_context, client_context)
        info = theirs.transport.get_extra_info
        assert info("peername") == server.sockets[0].getsockname()
        assert info("sockname") == ours.transport.get_extra_info("peername")
        assert info("socket").fileno() == theirs.transport.get_extra_info("socket").fileno()
        assert info("sslcontext") is client_context
        assert info("peercert")["subjectAltName"][0] == ("DNS", "localhost")
        assert info("cipher") == info("ssl_object").cipher()
        assert info("ssl_object").version() == {0x303: "TLSv1.2", 0x304: "TLSv1.3"}[version]
        assert info("compression") is None
        assert info("nothing", "default") == "default"
        assert "open" in repr(theirs.transport)
        assert ours.transport.get_extra_info("ssl_object").server_side
        low, high = theirs.transport.get_write_buffer_limits()
        assert low < high
        theirs.transport.set_write_buffer_limits(high=10)
        assert theirs.transport.get_write_buffer_limits() == (2, 10)
        with pytest.raises(TypeError, match="bytes-like"):
            theirs.transport.write("text")
        theirs.transport.close()
        await ours.lost
        assert "closed" in repr(ours.transport)
        server.close()
        await server.wait_closed()

    run(main())


def test_sendfile_falls_back_to_write(run, server_context, client_context, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(BULK)

    async def main():
        ours, theirs, server = await two(server_context, client_context)
        with path.open("rb") as file:
            try:
                sent = await asyncio.get_running_loop().sendfile(ours.transport, file)
            except NotImplementedError:  # uvloop's, over any transport
                sent = len(BULK)
                ours.transport.write(BULK)
        assert sent == len(BULK)
        assert await theirs.has(len(BULK)) == BULK
        theirs.transport.close()
        await ours.lost
        server.close()
        await server.wait_closed()

    run(main())


def test_tls_in_tls(run, server_context, client_context):
    made = []

    async def inner(reader, writer):
        transport = await aio.start_tls(
            writer.transport, writer.transport.get_protocol(), server_context, server_side=True
        )
        made.extend([writer.transport, transport])
        writer._transport = reader._transport = transport
        await echo(reader, writer)

    async def main():
        async with serving(server_context, inner) as port:
            reader, writer = await aio.open_connection(
                "127.0.0.1", port, ssl=client_context, server_hostname="localhost"
            )
            transport = await aio.start_tls(
                writer.transport, writer.transport.get_protocol(), client_context, server_hostname="localhost"
            )
            made.extend([writer.transport, transport])
            writer._transport = reader._transport = transport
            writer.write(BULK[:200_000])
            assert await reader.readexactly(200_000) == BULK[:200_000]
            transport.close()
            await happened(lambda: all(each._sock.fileno() == -1 for each in made), "both to close")
        for _ in range(10):  # the loop closes its ends of the pairs of sockets in turns of its own
            await asyncio.sleep(0)

    run(main())


def test_a_peer_that_never_says_hello_ends_at_the_handshake_timeout(run, server_context, client_context):
    """Whichever side waits for it. A client's error is the standard library's."""

    async def main(port):
        for module, context in ((asyncio, ssl.create_default_context()), (aio, client_context)):
            with pytest.raises(ConnectionAbortedError):
                await module.open_connection(
                    "127.0.0.1", port, ssl=context, server_hostname="localhost", ssl_handshake_timeout=0.05
                )
        server = await aio.start_server(echo, "127.0.0.1", 0, ssl=server_context, ssl_handshake_timeout=0.05)
        async with server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(main(silent.getsockname()[1]))
