"""Strategies: ways for a handshake to wait for the answer to one of OpenSSL's questions.

**Coroutine** waits in place: the callback switches to the hub with OpenSSL's frames on its stack. It needs no code
here or in the stream, and is the standard that the others are compared with. **Thread** does each step of a handshake
in a native thread, by gevent. **Prefetch** asks the questions before OpenSSL does. Their modules say how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from greentls.core.connection import Connection
from greentls.wire import ClientHello

__all__ = ["STRATEGIES", "Strategy"]


class Strategy(NamedTuple):
    """How a stream does the steps of its handshake."""

    name: str
    #: (connection, step): does the step, with its result and exceptions. None: the stream does the step itself.
    call: Callable[[Connection, Callable[[], int]], int] | None = None
    #: (connection, hello), called before a server's OpenSSL sees the hello. It may wait. Exceptions from hooks are
    #: raised when OpenSSL asks. None: the hello need not be read.
    client_hello: Callable[[Connection, ClientHello], None] | None = None


def _thread(connection: Connection, step: Callable[[], int]) -> int:
    from greentls.strategy import thread

    return thread.call(connection, step)


def _prefetch(connection: Connection, hello: ClientHello) -> None:
    from greentls.strategy import prefetch

    prefetch.client_hello(connection, hello)


STRATEGIES = {
    each.name: each
    for each in (Strategy("coroutine"), Strategy("thread", call=_thread), Strategy("prefetch", client_hello=_prefetch))
}
