"""TLSTransport: an asyncio.Transport that is a non-blocking socket and a Connection.

The loop says when the socket is readable or writable. The connection's pump then goes from the descriptor to OpenSSL
and back, as far as it can without waiting, and says what to wait for:

    socket readable -> step_read() -> protocol.data_received(), until the pump wants to read more
    write() -> step_write(); what is not taken is kept, and written when the socket is writable

OpenSSL's callbacks may wait, but the loop's own greenlet must not. So the handshake runs in a worker, and so do the
verbs of a connection whose hooks may be asked after the handshake (PatientVerbs). All others are called here. While a
hook waits, nothing is read, and what the program writes is kept.

The work between two looks at the loop is bounded by the pump's budget. When that is spent, the rest waits for the
loop's next turn (_soon), even if the peer is always faster, or the program writes without end.

How it ends:

- close(): what was written goes out, then close_notify, then FIN. The peer has shutdown_timeout seconds to end its
  side; what it still says is dropped. connection_lost(None).
- write_eof(): close_notify; reading goes on (RFC 8446 6.1).
- the peer ends: protocol.eof_received(), and close() unless that answers True. An end of TCP without close_notify is an
  end, too, as in asyncio's own transport over TLS.
- an error, or abort(): no more words. connection_lost(error).
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import constants, transports
from asyncio.trsock import TransportSocket
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from greentls.aio.ssl_object import SSLObject
from greentls.aio.workers import WAITS, Job, PatientVerbs, workers_of
from greentls.errors import TLSError, UnexpectedEOF
from greentls.openssl.pump import CLOSED, DONE, ENDED, RECORD_SIZE, SPENT, UNSENT, WANT_READ, WANT_WRITE

if TYPE_CHECKING:
    from greentls.core.connection import Connection
    from greentls.core.session import Session
    from greentls.ssl.context import SSLContext

__all__ = ["Closed", "TLSTransport"]

FLIGHT_SIZE = 131072  # bytes that are encrypted before they are sent
SHUTDOWN_TIMEOUT = 30.0  # seconds for the peer's close_notify; asyncio's

Timeouts = tuple[float | None, float | None]  # seconds for the handshake and for the peer's close_notify, or defaults


class Closed(ConnectionAbortedError):
    """This side has closed the transport, or aborted it, in the middle of the handshake."""


class TLSTransport(transports._FlowControlMixin, asyncio.Transport):
    """TLS over a connected socket, for one protocol. Made by create_connection(), create_server() and start_tls().

    The socket is the transport's from now on.
    """

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    # The mixin's, which its __init__() would set, through those of three classes.
    _protocol_paused = False
    _high_water, _low_water = 65536, 16384  # bytes; asyncio's

    _waiting: greenlet | None = None  # the worker that waits for the socket, during the handshake
    _job: Job | None = None  # the handshake, if it waits
    _done: Callable[[BaseException | None], None] | None = None  # to be called when the handshake has ended
    _patient: PatientVerbs | None = None
    _told = False  # connection_made() was called
    _open = False  # start() was
    _polling = False  # add_reader() is in force
    _attending = False  # add_writer() is
    _turning = False  # _read() is under way
    _due = False  # _advance() is called soon
    _paused = False  # by pause_reading()
    _eof = False  # the peer has ended
    _held = True  # what the program writes is kept, as something has to go out before it, or the handshake is not done
    _starved = False  # nothing can be encrypted until more has come
    _kept_size = 0
    _notify = _notified = False  # close_notify has to go out; it has
    _closing = False
    _mute = False  # what the program writes is dropped
    _lost = False  # nothing moves any more
    _timer: asyncio.TimerHandle | None = None
    _protocol: Any  # of one kind or the other; None at the end
    _data_received: Callable[[bytes], object]  # its method, or what does the same
    _connection: Connection
    _verbs: PatientVerbs | Connection

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
        self._announced = announced  # the protocol has been told of a connection
        self._fd = sock.fileno()
        self._addresses: dict[str, object] = {}
        self._kept: deque[bytes] = deque()  # written by the program, not encrypted yet
        self.set_protocol(protocol)
        self._object = SSLObject(context, server_side, server_hostname, session)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # it is none of TCP
            pass
        handshake, shutdown = timeouts
        for name, seconds in (("handshake", handshake), ("shutdown", shutdown)):
            if seconds is not None and seconds <= 0:
                raise ValueError(f"ssl_{name}_timeout should be a positive number, got {seconds}")
        self._handshake_timeout = context.handshake_timeout if handshake is None else handshake
        self._shutdown_timeout = SHUTDOWN_TIMEOUT if shutdown is None else shutdown

    def use(self, connection: Connection) -> None:
        """In the handshake: this connection, and later another one in its place."""
        self._connection = connection
        connection.attach(self._sock)

    # -- the handshake -------------------------------------------------------------------------------------------------

    def begin(self, done: Callable[[BaseException | None], None]) -> None:
        """Begins the handshake. done(error) is called once it is finished and the protocol has been told, with None, or
        with what has ended it. After None, start() is to be called."""
        self._done = done
        step = partial(self._object.handshake, self, self._handshake_timeout)
        job = workers_of(self._loop).run(step, self._shaken, copy_context())
        if job.done:
            self._shaken(job)
        else:
            self._job = job

    async def handshake(self) -> None:
        """The same for a task that waits. Raises what has ended the handshake. A cancellation ends it, too."""
        connected = self._loop.create_future()
        self.begin(partial(_settle, connected))
        try:
            await connected
        except asyncio.CancelledError as cancelled:
            self.kill(cancelled)
            self._end(None)  # now: the loop may end with the task
            raise
        self._loop.call_soon(self.start)  # when the caller has the transport: its protocol may need it for the data

    def _shaken(self, job: Job) -> None:
        """The handshake has ended."""
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
        """Begins to read, after the handshake."""
        if not self._lost:
            self._open = True
            self._poll(True)
            if not (self._paused or self._connection.drained):
                self._read()

    def _settle(self, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

    # For the SSLObject, in a worker.

    def wait(self, said: int) -> None:
        """Until the pump may go on."""
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
        """What OpenSSL has for the peer goes out, or is kept until the socket takes it."""
        try:
            if self._connection.send_or_forget() == WANT_WRITE and not self._lost:
                self._attend(True)
        except OSError as error:
            self._loop.call_soon(self._end, error)

    def refuse_in_clear(self, answer: bytes) -> None:
        """To a peer that does not speak TLS."""
        try:
            self._sock.send(answer)
        except OSError:
            pass

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _poll(self, on: bool) -> None:
        if on is not self._polling and not self._lost:
            self._polling = on
            if on:
                self._loop.add_reader(self._fd, self._on_readable)
            else:
                self._loop.remove_reader(self._fd)

    def _attend(self, on: bool) -> None:
        """Whether the socket's being writable is waited for."""
        if on is not self._attending and not self._lost:
            self._attending = on
            self._connection.attend(on)
            if on:
                self._loop.add_writer(self._fd, self._on_writable)
            else:
                self._loop.remove_writer(self._fd)

    def _on_readable(self) -> None:
        if self._open and not self._paused:
            self._read()
        elif self._waiting is not None:
            self._waiting.switch()
        elif self._starved:
            self._write_out()
        else:
            self._poll(False)  # until the handshake goes on, or resume_reading()

    def _on_writable(self) -> None:
        if self._waiting is not None:
            self._waiting.switch()
            return
        self._write_out()
        if not (self._polling or self._attending or self._paused):
            self._soon()  # a read had to wait as well

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        """In a turn of the loop of its own: all that can be done now."""
        self._due = False
        self._connection.rest()
        if self._told and self._held and not self._lost:
            self._write_out()
        if self._open and not (self._paused or self._eof or self._lost):
            self._poll(True)
            self._read()

    # -- from the peer -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """All that has come, as far as the budget goes."""
        read = self._verbs.step_read
        said: bytes | int = b""
        self._turning = True
        try:
            while not self._paused:
                try:
                    said = read(RECORD_SIZE)
                except BaseException as error:
                    self._failed(error)
                    return
                if said.__class__ is not bytes:
                    break
                if not self._closing:
                    try:
                        self._data_received(said)
                    except BaseException as error:
                        self._protocol_failed("data_received", error)
                if self._lost:
                    return
        finally:
            self._turning = False
        if said != WANT_READ:
            self._rest(said)
        if self._held and not (self._attending or self._due or self._lost):
            self._write_out()

    def _rest(self, said: bytes | int) -> None:
        """What else a read may come to."""
        if said == SPENT:
            self._soon()
        elif said in (CLOSED, ENDED):
            self._eof = True
            self._poll(False)
            if self._closing:
                self._write_out()
            elif not self._call("eof_received"):
                self.close()
        elif said in (WANT_WRITE, WAITS):
            self._poll(False)
            if said == WANT_WRITE:
                self._held = True
                self._attend(True)
        elif self._connection.unsent:  # it was paused: answers go out nevertheless
            self._held = True
            self._write_out()

    def _fill(self, data: bytes) -> None:
        """data_received() of a BufferedProtocol."""
        view = memoryview(data)
        while view and not self._lost:
            with memoryview(self._protocol.get_buffer(len(view))) as buffer:
                length = min(len(buffer), len(view))
                buffer[:length] = view[:length]
            view = view[length:]
            self._protocol.buffer_updated(length)

    def is_reading(self) -> bool:
        return not (self._paused or self._closing)

    def pause_reading(self) -> None:
        if not self._closing:
            self._paused = True  # _on_readable() sees it

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._soon()

    # -- to the peer ---------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As asyncio.Transport.write(): what cannot go out at once is kept."""
        if data.__class__ is not bytes:
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
            data = bytes(data)
        if self._mute or not data:
            return
        if not self._held and len(data) <= FLIGHT_SIZE:
            try:
                said = self._verbs.step_write(data)
            except BaseException as error:
                self._failed(error)
                return
            if said == DONE:
                if not self._turning and self._connection.received != self._connection.drained_at:
                    self._soon()  # the rest of a post-handshake message had to be received before, and maybe more
                return
            self._held = True
            if said != UNSENT:
                self._keep(data)
            self._stopped(said)
        else:
            held, self._held = self._held, True
            self._keep(data)
            if not held:
                self._write_out()
        self._maybe_pause_protocol()  # type: ignore[attr-defined]  # not in typeshed

    def _keep(self, data: bytes) -> None:
        self._kept_size += len(data)
        while len(data) > FLIGHT_SIZE:
            self._kept.append(data[:FLIGHT_SIZE])
            data = data[FLIGHT_SIZE:]
        self._kept.append(data)

    def _write_out(self) -> None:
        """All that is held, as far as the socket takes it and the budget goes. close_notify goes after all data."""
        kept = self._kept
        try:
            said = self._connection.send_or_forget()
            while said == DONE and (kept or self._notify):
                if kept:
                    if self._patient is None:  # which wants to see the same data again
                        _put_together(kept)
                    said = self._verbs.step_write(kept[0])
                    if said in (DONE, UNSENT):
                        self._kept_size -= len(kept.popleft())
                else:
                    said = self._say_close_notify()
        except BaseException as error:
            self._failed(error)
            return
        self._stopped(said)
        if not self._lost:
            self._maybe_resume_protocol()  # type: ignore[attr-defined]  # not in typeshed

    def _say_close_notify(self) -> int:
        said = self._verbs.shutdown()
        if self._connection.writable:  # it has to wait for a hook, or for the rest of a post-handshake message
            return WAITS if said == WAITS else WANT_READ
        self._notify, self._notified = False, True
        return self._connection.send_or_forget()

    def _stopped(self, said: int) -> None:
        """Why no more goes out now."""
        self._held = said != DONE or not self._told
        self._starved = said == WANT_READ
        self._attend(said in (WANT_WRITE, UNSENT))
        if said == SPENT:
            self._soon()
        elif said == WANT_READ:
            self._poll(True)
        elif said == ENDED:
            self._failed(UnexpectedEOF("write"))
        elif said == DONE and self._notified and self._closing:
            self._close_notify_sent()

    def get_write_buffer_size(self) -> int:
        """Bytes: plaintext that is not encrypted yet, and ciphertext that the socket has not taken."""
        return 0 if self._lost else self._kept_size + self._connection.unsent

    def write_eof(self) -> None:
        """close_notify, after what was written; the peer may go on."""
        if not self._mute:
            self._mute = self._notify = True
            if not self._held:
                self._write_out()

    def can_write_eof(self) -> bool:
        return True

    # -- the end -------------------------------------------------------------------------------------------------------

    def _call(self, method: str, *arguments: object) -> Any:  # Any: the method's
        """The protocol's method. What it raises ends the transport."""
        try:
            return getattr(self._protocol, method)(*arguments)
        except BaseException as error:
            self._protocol_failed(method, error)
            return None

    def _protocol_failed(self, method: str, error: BaseException) -> None:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        self._loop.call_exception_handler(
            {
                "message": f"Fatal error: protocol.{method}() call failed.",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._end(error)

    def _failed(self, error: BaseException) -> None:
        """A verb has."""
        if not self._lost:
            try:
                self._connection.send()  # an alert
            except OSError:
                pass
            self._end(self._object._as_stdlib(error) if isinstance(error, TLSError) else error)
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error

    def close(self) -> None:
        """See the module's docstring. During the handshake: as abort()."""
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

    def _close_notify_sent(self) -> None:
        if self._eof:
            self._end(None)
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def abort(self) -> None:
        self._closing = self._mute = True
        self._loop.call_soon(self._end, None)

    def kill(self, error: BaseException) -> None:
        """Ends a handshake, or a verb, from outside: whatever it waits for gets the error, and the peer an alert."""
        if self._waiting is not None:
            self._waiting.throw(error)
        elif self._job is not None:
            self._job.throw(error)
        elif self._patient is not None:
            self._patient.throw(error)

    def _end(self, error: BaseException | None) -> None:
        """Nothing moves from now on."""
        if self._lost:
            return
        self._closing = self._mute = True
        if not self._told:
            self.kill(Closed("the transport was closed"))  # which leaves an alert for the peer
        self._poll(False)
        self._attend(False)
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._kept.clear()
        self._kept_size = 0
        if self._told:
            self.kill(Closed("the transport was closed"))
        self._connection.detach()
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
            # No cycle is left for the collector.
            self._protocol = self._patient = None
            del self._data_received
            if self._told:
                self._verbs = self._connection
            if self._ended is not None:
                self._ended(self)

    # -- what transports have ------------------------------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        """TLS has failed for good: by what the peer has sent, or by what a callback has raised."""
        return bool(self._connection.dead)

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        buffered = isinstance(protocol, asyncio.BufferedProtocol)
        self._data_received = self._fill if buffered else getattr(protocol, "data_received", self._fill)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: object = None) -> Any:  # Any: of each name another type
        """As asyncio's transports over TLS, and "ssl_object" is an SSLObject."""
        if name in ("peername", "sockname"):
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


def _settle(connected: asyncio.Future[None], error: BaseException | None) -> None:
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


def _put_together(pieces: deque[bytes]) -> None:
    """Makes one of the first pieces if they are small."""
    taken = [pieces.popleft()]
    length = len(taken[0])
    while pieces and length + len(pieces[0]) <= FLIGHT_SIZE:
        length += len(pieces[0])
        taken.append(pieces.popleft())
    pieces.appendleft(taken[0] if len(taken) == 1 else b"".join(taken))
