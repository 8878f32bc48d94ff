"""TLSTransport: an asyncio.Transport made of a non-blocking socket and a Connection.

OpenSSL's callbacks may wait, but the loop's own greenlet must not. So the handshake runs in a worker. Data are read and
written in the loop's greenlet (greentls.aio.flow).

How a transport ends:

- close() sends what was written, then close_notify, then FIN. The peer has shutdown_timeout seconds to end its side.
  What it sends meanwhile is dropped. connection_lost(None) is called.
- write_eof() sends close_notify. Reading continues (RFC 8446 6.1).
- If the peer ends, protocol.eof_received() is called, and close() unless that returns True. An end of TCP without
  close_notify counts as an end, as in asyncio's own transport over TLS.
- After an error or abort() nothing more is sent. connection_lost(error) is called.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import constants
from asyncio.trsock import TransportSocket
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from greenlet import getcurrent

from greentls.aio.flow import Flow
from greentls.aio.ssl_object import SSLObject
from greentls.aio.workers import Job, PatientVerbs, workers_of
from greentls.errors import ConcurrentUseError
from greentls.openssl.pump import WANT_WRITE

if TYPE_CHECKING:
    from greentls.core.connection import Connection
    from greentls.core.session import Session
    from greentls.ssl.context import SSLContext

__all__ = ["Closed", "TLSTransport", "Timeouts", "checked"]

SHUTDOWN_TIMEOUT = 30.0  # seconds for the peer's close_notify; asyncio's

Done: TypeAlias = "Callable[[TLSTransport, BaseException | None], object]"
Timeouts = tuple[float | None, float | None]  # seconds for the handshake and for the peer's close_notify, or defaults


def checked(handshake: float | None, shutdown: float | None) -> Timeouts:
    """Returns the two timeouts. Raises ValueError for one that is not positive."""
    for name, seconds in (("handshake", handshake), ("shutdown", shutdown)):
        if seconds is not None and seconds <= 0:
            raise ValueError(f"ssl_{name}_timeout should be a positive number, got {seconds}")
    return handshake, shutdown


class Closed(ConnectionAbortedError):
    """This side has closed or aborted the transport during the handshake."""


class TLSTransport(Flow):
    """TLS over a connected socket, for one protocol. create_connection(), create_server() and start_tls() make them.

    The transport owns the socket from now on.
    """

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    _job: Job | None = None  # the handshake, if it waits
    _done: Done | None = None  # to be called when the handshake has ended
    _timer: asyncio.TimerHandle | None = None
    _addresses: dict[str, object] | None = None  # "peername", "sockname": those that were asked for

    def __init__(
        self,
        sock: socket.socket,
        context: SSLContext,
        protocol: asyncio.BaseProtocol,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: Session | None = None,
        timeouts: Timeouts = (None, None),
        under: asyncio.BaseTransport | None = None,
        announced: bool = False,
        ended: Callable[[TLSTransport], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock, self._under, self._ended = sock, under, ended
        self._announced = announced  # the protocol's connection_made() was called before
        self._fd = sock.fileno()
        self._kept = deque()
        self.set_protocol(protocol)
        self._object = SSLObject(context, server_side, server_hostname, session)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # not a TCP socket
            pass
        handshake, shutdown = timeouts
        self._handshake_timeout = context.handshake_timeout if handshake is None else handshake
        self._shutdown_timeout = SHUTDOWN_TIMEOUT if shutdown is None else shutdown

    def use(self, connection: Connection) -> None:
        """Uses this connection. The handshake may later put another one in its place."""
        self._connection = connection
        connection.attach(self._sock)

    # -- the handshake -------------------------------------------------------------------------------------------------

    def begin(self, done: Done) -> None:
        """Begins the handshake.

        done(self, error) is called at its end. error: None if the handshake is finished and connection_made() was
        called; the caller must then call start(). Otherwise the reason why it has failed.
        """
        self._done = done
        job = workers_of(self._loop).run(self._shake, self._shaken, copy_context())
        if job.done:
            self._shaken(job)
        else:
            self._job = job

    async def handshake(self) -> None:
        """Does the handshake; the task waits. Raises the reason if the handshake fails. A cancellation ends it."""
        connected = self._loop.create_future()
        self.begin(partial(_settle, connected))
        try:
            await connected
        except asyncio.CancelledError as cancelled:
            self.kill(cancelled)
            self._end(None)  # at once, because the loop may end with the task
            raise
        self._loop.call_soon(self.start)  # later: the protocol may need the transport for the data

    def _shake(self) -> None:
        """The handshake's job, in a worker."""
        self._object.handshake(self, self._handshake_timeout)

    def _shaken(self, job: Job) -> None:
        """Continues after the handshake's job."""
        self._job = None
        if self._lost:
            return
        if job.error is not None:
            self._end(job.error)
            return
        self._told = True
        if self._connection.may_ask:
            self._patient = PatientVerbs(self._connection, workers_of(self._loop), self._advance)
        self._verbs = self._patient or self._connection
        self._held = self._attending
        if not self._announced:
            self._call("connection_made", self)
        self._settle(None)

    def start(self) -> None:
        """Begins to read. Called after the handshake."""
        if not self._lost:
            self._open = True
            self._poll(True)
            if not self._paused:
                # Without waiting for an event: a receive that empties the socket is not followed by another one,
                # because the loop will report new data. But uvloop does not report a reset twice.
                self._read()

    def _settle(self, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self, error)

    # For the SSLObject, in a worker.

    def wait(self, said: int) -> None:
        """Waits until the pump can continue."""
        self._waiting = me = getcurrent()
        try:
            if said == WANT_WRITE:
                self._attend(True)
            else:
                self._poll(True)
            me.parent.switch()
        finally:
            self._waiting = None
            if self._attending:
                self._attend(False)
        self._connection.rest()

    def flush(self) -> None:
        """Sends what OpenSSL has for the peer. What the socket does not take is kept."""
        try:
            if self._connection.send_or_forget() == WANT_WRITE and not self._lost:
                self._attend(True)
        except (OSError, ConcurrentUseError) as error:
            self._loop.call_soon(self._end, error)

    def refuse_in_clear(self, answer: bytes) -> None:
        """Answers a peer that does not speak TLS."""
        try:
            self._sock.send(answer)
        except OSError:
            pass

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the connection (see the module's docstring). During the handshake this is abort()."""
        if self._closing:
            return
        self._closing = self._mute = True
        if not self._told:
            self._loop.call_soon(self._end, None)
            return
        self._notify = not self._notified
        if not self._held:
            self._held = True
            self._write_out()
        if self._lost:
            return
        self._timer = self._loop.call_later(self._shutdown_timeout, self._end, None)
        if self._paused:
            self._paused = False
            self._soon()

    def abort(self) -> None:
        self._closing = self._mute = True
        self._loop.call_soon(self._end, None)

    def kill(self, error: BaseException) -> None:
        """Raises the error where the handshake, or a verb, waits. The peer gets an alert."""
        if self._waiting is not None:
            self._waiting.throw(error)
        elif self._job is not None:
            self._job.throw(error)
        elif self._patient is not None:
            self._patient.throw(error)

    def _end(self, error: BaseException | None) -> None:
        """Ends the transport: nothing is sent or received any more."""
        if self._lost:
            return
        self._closing = self._mute = True
        if self._patient is not None or not self._told:
            self.kill(Closed("the transport was closed"))  # this leaves an alert for the peer
        if self._polling:
            self._poll(False)
        if self._attending:
            self._attend(False)
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._kept:
            self._kept.clear()
        self._connection.detach()
        if self._done is not None:
            self._settle(error or Closed("the transport was closed"))
        if self._under is not None:
            self._under.abort()  # type: ignore[attr-defined]  # a Transport has it
        self._loop.call_soon(self._close, error)

    def _close(self, error: BaseException | None) -> None:
        try:
            if self._told:
                self._protocol.connection_lost(error if isinstance(error, Exception) else None)
        finally:
            self._sock.close()
            # Leaves no cycle for the collector.
            self._protocol = self._patient = None
            del self._data_received
            if self._told:
                self._verbs = self._connection
            if self._ended is not None:
                self._ended(self)

    # -- other methods of transports -----------------------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        """Whether TLS has failed, because of what the peer has sent or what a callback has raised."""
        return bool(self._connection.dead)

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: object = None) -> Any:  # Any: of each name another type
        """Like asyncio's own transports over TLS. "ssl_object" is a greentls.aio.SSLObject."""
        if name in ("peername", "sockname"):
            if self._addresses is None:
                self._addresses = {}
            if name not in self._addresses:
                self._addresses[name] = self._address(name)
            return self._addresses[name] or default
        return _EXTRA[name](self) if name in _EXTRA else default

    def _address(self, name: str) -> object:
        try:
            return self._sock.getpeername() if name == "peername" else self._sock.getsockname()
        except OSError:
            return None

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open" if self._told else "handshake"
        return f"<greentls.aio.TLSTransport {state} fd={self._sock.fileno()} {self._object!r}>"


def _settle(connected: asyncio.Future[None], _: TLSTransport, error: BaseException | None) -> None:
    if connected.done():
        return
    if error is None:
        connected.set_result(None)
    else:
        connected.set_exception(error)


_EXTRA: dict[str, Callable[[TLSTransport], object]] = {
    "socket": lambda transport: TransportSocket(transport._sock),
    "ssl_object": lambda transport: transport._object,
    "sslcontext": lambda transport: transport._object.context,
    "peercert": lambda transport: transport._object.getpeercert() if transport._told else None,
    "cipher": lambda transport: transport._object.cipher(),
    "compression": lambda transport: None,
}
