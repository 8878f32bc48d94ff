"""Ways to run both ends of a connection: over gevent's sockets, and over greentls.aio, by functions that wait.

A test that takes its way from here says nothing of a loop: it connects, gets Jobs that end with an end or with an
exception, and reads and writes by recv() and sendall() as with sockets. Its hooks are what Way.style makes of a
function: the function, or a coroutine function.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from dataclasses import dataclass

import gevent
import gevent.socket

from greentls import aio
from greentls.hub import here
from greentls.hub.asyncio import Task, hub_of
from greentls.strategy import STRATEGIES
from tests.support.helpers import PATIENCE
from tests.support.hubs import run_under


def as_coroutine(function):
    """A coroutine function that awaits what the function does. The function may wait."""

    async def hook(*arguments, **options):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        return await hub_of(loop).run(functools.partial(function, *arguments, **options))

    return hook


class Exit(BaseException):
    pass


@dataclass(frozen=True)
class Way:
    """hub: "gevent", "asyncio" or "uvloop". style: what makes a hook of a function."""

    name: str
    hub: str
    strategy: str
    style: Callable = lambda function: function

    @property
    def exit(self):
        """A BaseException that ends no program: SystemExit ends a program of asyncio's, whatever task raises it."""
        return SystemExit if self.hub == "gevent" else Exit

    def run(self, function):
        """Calls it in a greenlet of the hub, whose exception handler must be told nothing."""
        if self.hub == "gevent":
            function()
            return
        reported = []

        def test():
            here().loop.set_exception_handler(lambda _, context: reported.append(context))
            function()

        run_under(self.hub, test)
        assert reported == []

    def connect(self, client, server, session=None, early_data=b""):
        """(the client's Job, the server's), over a pair of sockets."""
        return (_sockets if self.hub == "gevent" else _transports)(client, server, session, early_data)


WAYS = [
    *(Way(name, "gevent", name) for name in STRATEGIES),
    Way("asyncio", "asyncio", "coroutine"),
    Way("uvloop-async-def", "uvloop", "coroutine", as_coroutine),
    Way("asyncio-async-def-prefetch", "asyncio", "prefetch", as_coroutine),
]


def is_free(greenlet):
    """Whether it is a worker of greentls.aio's that has nothing to do. A thread keeps some."""
    return type(greenlet) is Task and not hasattr(greenlet, "hub")


# -- gevent ------------------------------------------------------------------------------------------------------------


def _sockets(client, server, session, early_data):
    here, there = gevent.socket.socketpair()
    for sock in (here, there):
        sock.settimeout(PATIENCE)
    options = {"server_hostname": "localhost", "session": session, "do_handshake_on_connect": False}
    sock = client.wrap_socket(here, **options)
    sock.early_data = early_data
    return SocketJob(sock, lambda: sock.do_handshake() or sock), SocketJob(
        there, lambda: server.wrap_socket(there, server_side=True)
    )


class SocketJob:
    """A handshake in a greenlet."""

    INTERRUPTIONS = {"kill": gevent.GreenletExit, "timeout": gevent.Timeout}  # noqa: RUF012

    def __init__(self, sock, handshake):
        self._sock = sock
        self._greenlet = gevent.spawn(_outcome, handshake)

    def get(self):
        """The end, or what the handshake raised."""
        return self._greenlet.get(timeout=PATIENCE)

    def ready(self):
        return self._greenlet.ready()

    def interrupt(self, how):
        """Whether get() returns what this has raised in the handshake, is to be asked of its answer."""
        expected = self.INTERRUPTIONS[how]()
        self._greenlet.kill(expected, block=False)
        return lambda raised: raised is expected

    def leave(self):
        """Ends the handshake and the connection, however far they are."""
        self._greenlet.kill()
        self._sock.close()


def _outcome(function):
    try:
        return function()
    except BaseException as error:  # GreenletExit and Timeout too
        return error


# -- asyncio -----------------------------------------------------------------------------------------------------------


def _transports(client, server, session, early_data):
    assert not early_data, "greentls.aio has no early data"
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    options = {"ssl": client, "server_hostname": "localhost", "session": session}
    return TransportJob(aio.create_connection, sock=ours, **options), TransportJob(
        aio.connect_accepted_socket, theirs, ssl=server
    )


class TransportJob:
    """A handshake in an asyncio task."""

    def __init__(self, connect, *arguments, **options):
        self._hub = here()
        self._task = self._hub.loop.create_task(self._end(connect, *arguments, **options))

    async def _end(self, connect, *arguments, **options):
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await connect(lambda: protocol, *arguments, **options)
        return TransportEnd(transport, reader, asyncio.StreamWriter(transport, protocol, reader, self._hub.loop))

    def get(self):
        self._hub.result(asyncio.wait([self._task], timeout=PATIENCE))
        assert self._task.done()
        if self._task.cancelled():
            return asyncio.CancelledError()
        return self._task.exception() or self._task.result()

    def ready(self):
        return self._task.done()

    def interrupt(self, how):
        if how == "kill":
            self._task.cancel()
            return lambda raised: type(raised) is asyncio.CancelledError
        with contextlib.suppress(asyncio.TimeoutError):
            self._hub.result(asyncio.wait_for(self._task, 0.001))
            raise AssertionError("it was in time")
        return lambda raised: type(raised) is asyncio.CancelledError  # of the task; asyncio made its error of that

    def leave(self):
        self._task.cancel()
        end = self.get()
        if not isinstance(end, BaseException):
            end.close()


class TransportEnd:
    """A stream of asyncio's with a socket's methods, and the facts of its SSLObject."""

    def __init__(self, transport, reader, writer):
        self._transport, self._reader, self._writer = transport, reader, writer
        self._tls = transport.get_extra_info("ssl_object")

    def __getattr__(self, name):
        return getattr(self._tls, name)

    def recv(self, size):
        return here().result(self._reader.read(size))

    def sendall(self, data):
        self._writer.write(data)
        here().result(self._writer.drain())

    def close(self):
        self._transport.abort()
        with contextlib.suppress(OSError):
            here().result(self._writer.wait_closed())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
