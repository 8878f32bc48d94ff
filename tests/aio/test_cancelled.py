"""A task that connects is cancelled at one turn of the event loop after the other: what it leaves behind is nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections import Counter

import pytest

from greentls import aio
from greentls.core import bridge
from tests.aio.streams import Recorder

MOST = 1000  # turns: a limit for broken code


class Site:
    """Contexts with hooks on both sides, and how many of them have begun and ended."""

    def __init__(self, server, client):
        self.begun, self.ended = Counter(), Counter()
        server.sni_callback, client.verify_callback = self.hook("sni"), self.hook("verify")
        server.client_hello_callback = self.hook("hello")
        self.contexts = {"client": client, "server": server}

    def hook(self, name):
        async def hook(*_, **__):
            self.begun[name] += 1
            try:
                for _ in range(2):
                    await asyncio.sleep(0)
            finally:
                self.ended[name] += 1

        return hook

    def connect(self):
        """{side: (its task, its protocol)}"""
        here, there = socket.socketpair()
        for sock in (here, there):
            sock.setblocking(False)
        protocols = {side: Recorder() for side in self.contexts}
        options = {"sock": here, "ssl": self.contexts["client"], "server_hostname": "localhost"}
        client = aio.create_connection(lambda: protocols["client"], **options)
        server = aio.connect_accepted_socket(lambda: protocols["server"], there, ssl=self.contexts["server"])
        return {
            side: (asyncio.create_task(task), protocols[side])
            for side, task in (("client", client), ("server", server))
        }


async def cancelled_after(site, side, turns):
    """Whether the side was connected by then."""
    ends = site.connect()
    victim, protocol = ends.pop(side)
    (other, others) = next(iter(ends.values()))
    for _ in range(turns):
        await asyncio.sleep(0)
    connected = victim.done()
    victim.cancel()
    (raised,) = await asyncio.gather(victim, return_exceptions=True)
    if connected:
        protocol.transport.abort()
        await protocol.lost
    else:
        assert isinstance(raised, asyncio.CancelledError)
        assert protocol.told in ([], ["made", "lost"], ["made", "eof", "lost"])
    (said,) = await asyncio.gather(other, return_exceptions=True)
    if isinstance(said, BaseException):
        assert isinstance(said, (ssl.SSLError, OSError)), said
    else:  # it was finished first, or TLS 1.3's client: it has the alert, or the end, now
        await others.lost
    return connected


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_task_that_is_cancelled_leaves_nothing(run, server_context, client_context, side):
    """hazard: a handshake that goes on, a hook that waits, a peer that hears nothing, a socket that stays open."""
    site = Site(server_context, client_context)

    async def main():
        turns = 1  # a task that was cancelled before that has not begun, and closes nothing
        while not await cancelled_after(site, side, turns):
            turns += 1
            assert turns < MOST
            assert not bridge.occupants()
        for _ in range(5):
            await asyncio.sleep(0)
        return turns

    assert run(main()) > 5
    assert site.begun == site.ended
    assert set(site.begun) == {"sni", "verify", "hello"}
    gc.collect()
    assert [each for each in gc.get_objects() if type(each) in (aio.TLSTransport, aio.SSLObject)] == []
