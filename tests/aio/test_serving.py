"""aio.Server: asyncio.Server's methods, and what it does if accept() or the protocol's factory fails."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl

import pytest

from greentls import aio
from greentls.ssl.context import PassedThrough
from tests.aio.streams import Recorder, connected, echo, exchange, happened, serving
from tests.support.hubs import in_loop


def port_of(server):
    return server.sockets[0].getsockname()[1]


def test_it_serves_when_it_is_told_to_and_ends_once(run, server_context, client_context):
    async def main():
        server = await aio.start_server(echo, "127.0.0.1", 0, ssl=server_context, start_serving=False)
        assert server.get_loop() is asyncio.get_running_loop()
        async with server:
            assert not server.is_serving()
            for _ in range(2):
                await server.start_serving()
            assert server.is_serving()
            assert (await exchange(port_of(server), client_context))[0] == b"hello"
        assert (server.sockets, server.is_serving()) == ((), False)
        server.close()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.start_serving()

    run(main())


@pytest.mark.parametrize("how", ["the task is cancelled", "the server is closed"])
def test_serve_forever(run, server_context, client_context, how):
    async def main():
        server = await aio.start_server(echo, "127.0.0.1", 0, ssl=server_context, start_serving=False)
        task = asyncio.create_task(server.serve_forever())
        await happened(server.is_serving, "it to serve")
        with pytest.raises(RuntimeError, match="already being awaited"):
            await server.serve_forever()
        assert (await exchange(port_of(server), client_context))[0] == b"hello"
        if how == "the server is closed":
            server.close()
        else:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving()
        await server.wait_closed()

    run(main())


def test_close_clients_ends_their_connections_well(run, server_context, client_context):
    async def main():
        server = await aio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        async with server, connected(port_of(server), client_context) as (reader, _):
            server.close_clients()
            assert await reader.read() == b""  # close_notify came: without it, ssl.SSLEOFError

    run(main())


class Full:
    """A listener whose first accept() finds no descriptor left."""

    def __init__(self, listener):
        self._listener, self.failed = listener, False

    def __getattr__(self, name):
        return getattr(self._listener, name)

    def _accept(self):
        if self.failed:
            return self._listener._accept()
        self.failed = True
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_it_accepts_again_after_it_had_no_descriptors(run, server_context, client_context, monkeypatch):
    monkeypatch.setattr("greentls.aio.serving.PAUSE", 0.001)

    async def main():
        server = await aio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        async with server:
            server._accept(Full(server.sockets[0]))
            assert (await exchange(port_of(server), client_context))[0] == b"hello"

    run(main())
    assert [each["exception"].errno for each in run.reported] == [errno.EMFILE]
    run.reported.clear()


def test_a_factory_that_raises_costs_one_connection(run, server_context, client_context):
    made = []

    def factory():
        made.append(Recorder())
        if len(made) == 1:
            raise LookupError("no protocol")
        return made[-1]

    async def main():
        server = await aio.create_server(factory, "127.0.0.1", 0, ssl=server_context)
        async with server:
            with pytest.raises(OSError):
                await exchange(port_of(server), client_context)
            async with connected(port_of(server), client_context) as (_, writer):
                writer.write(b"hello")
                await happened(lambda: len(made) == 2 and made[1].told, "the connection to be made")
                assert await made[1].has(5) == b"hello"

    run(main())
    assert [type(each["exception"]) for each in run.reported] == [LookupError]
    run.reported.clear()


def test_what_cannot_be_served(run, server_context, client_context):
    async def main():
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            with pytest.raises(ValueError, match="host/port and sock"):
                await aio.create_server(Recorder, "127.0.0.1", sock=stream, ssl=server_context)
            with pytest.raises(ValueError, match="A Stream Socket was expected"):
                await aio.create_server(Recorder, sock=datagrams, ssl=server_context)
            with pytest.raises(ValueError, match="A Stream Socket was expected"):
                await aio.connect_accepted_socket(Recorder, datagrams, ssl=server_context)
        with pytest.raises(ValueError, match="You must set server_hostname"):
            await aio.create_connection(Recorder, sock=None, ssl=client_context)

    run(main())


@pytest.mark.parametrize("version", ["TLSv1_3"], indirect=True)
def test_a_client_that_speaks_plain_http_is_told_so(run, server_context, caplog):
    server_context.plain_http_answer = b"HTTP/1.0 400 Bad Request\r\n\r\nTLS, please"

    async def main():
        async with serving(server_context) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert await reader.read() == server_context.plain_http_answer
            writer.close()

    run(main())
    assert "no handshake" in caplog.text


@pytest.mark.parametrize("version", ["TLSv1_3"], indirect=True)
def test_a_connection_cannot_be_passed_through(run, server_context, client_context):
    server_context.client_hello_callback = lambda sock, hello: PassedThrough()

    async def main():
        async with serving(server_context) as port:
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await exchange(port, client_context)

    run(main())
    assert ["cannot be passed on" in str(each["exception"]) for each in run.reported] == [True]
    run.reported.clear()


@pytest.mark.parametrize("version", ["TLSv1_3"], indirect=True)
def test_what_the_transport_does_the_object_does_not(run, server_context, client_context):
    async def main():
        async with serving(server_context) as port:
            _, tls = await exchange(port, client_context)
        assert repr(tls) == "<greentls.aio.SSLObject client TLSv1.3>"
        assert tls.do_handshake() is None
        for forbidden in (tls.read, tls.write, tls.unwrap):
            with pytest.raises(ValueError, match="transport"):
                forbidden()

    run(main())


@pytest.mark.parametrize("version", ["TLSv1_3"], indirect=True)
@pytest.mark.parametrize("make", [aio.new_event_loop, aio.new_uvloop])
def test_the_loops_take_our_contexts_and_the_standard_librarys(make, server_context, client_context, pki, tmp_path):
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context(cafile=pki.ca_file)
    theirs[0].load_cert_chain(pki.cert_file, pki.key_file)

    async def main():
        left = []
        for number, (server_side, client_side) in enumerate([(server_context, client_context), theirs]):
            path = str(tmp_path / str(number))
            async with await asyncio.start_unix_server(echo, path, ssl=server_side):
                reader, writer = await asyncio.open_unix_connection(path, ssl=client_side, server_hostname="localhost")
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                ours = isinstance(writer.get_extra_info("ssl_object"), aio.SSLObject)
                assert ours == (client_side is client_context)
                writer.close()
                await writer.wait_closed()
            left.append(os.path.exists(path))
        return left

    ours, theirs = in_loop(make, main())
    assert ours == theirs  # Python 3.13 removes the socket's file when the server is closed
