"""TLSTransport: an asyncio.Transport that is a non-blocking socket and a Connection.

The loop says when the socket is readable or writable; the transport moves ciphertext between the socket and the
connection's BIOs, and plaintext between the connection and the protocol. OpenSSL is only entered in a worker, so that
its callbacks may wait; one step of a connection runs at a time. While one waits in a callback, nothing is read from the
socket, and what the program writes is kept.

    socket readable -> receive -> SSL_read() in a worker -> protocol.data_received()
    write() -> SSL_write() in a worker -> send -> the rest when the socket is writable

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
import weakref
from asyncio import constants, transports
from asyncio.trsock import TransportSocket
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from greentls.aio.ssl_object import SSLObject
from greentls.aio.workers import Job, Workers
from greentls.errors import TLSError, UnexpectedEOF, WantRead
from greentls.openssl.pump import MAX_UNSENT, RECEIVE_SIZE, RECORD_SIZE, WANT_READ

if TYPE_CHECKING:
    from greentls.core.session import Session
    from greentls.ssl.context import SSLContext

__all__ = ["Closed", "TLSTransport"]

RECORDS = 16  # that are decrypted before the protocol has them: 256 KiB, as much as asyncio's transports read at once
FLIGHT_SIZE = 131072  # bytes that are encrypted before they are sent
SHUTDOWN_TIMEOUT = 30.0  # seconds for the peer's close_notify; asyncio's


Timeouts = tuple[float | None, float | None]  # seconds for the handshake and for the peer's close_notify, or defaults


class Closed(ConnectionAbortedError):
    """This side has closed the transport, or aborted it, in the middle of the handshake."""


class _Buffers:
    """Those that no transport is using. One is taken before it is filled, and given back once it has been copied."""

    def __init__(self) -> None:
        self.received: list[memoryview[int]] = []


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Workers, _Buffers]] = weakref.WeakKeyDictionary()


def _shared(loop: asyncio.AbstractEventLoop) -> tuple[Workers, _Buffers]:
    """What the transports of one loop share."""
    found = _by_loop.get(loop)
    if found is None:
        found = _by_loop[loop] = Workers(loop), _Buffers()
    return found


class TLSTransport(transports._FlowControlMixin, asyncio.Transport):
    """TLS over a connected socket, for one protocol. Made by create_connection(), create_server() and start_tls().

    The socket is the transport's from now on.
    """

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

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
        loop = asyncio.get_running_loop()
        super().__init__(loop=loop)
        self._loop = loop
        self._sock, self._under, self._ended = sock, under, ended
        self._workers, self._spare = _shared(loop)
        self._announced = announced  # the protocol has been told of a connection
        self._fd = sock.fileno()
        self._addresses: dict[str, object] = {}
        self.set_protocol(protocol)
        self._waiting: greenlet | None = None  # the worker that waits for ciphertext, during the handshake
        self._polling = False  # add_reader() is in force
        self._job: Job | None = None  # the step that waits in a callback
        self._told = False  # connection_made() was called
        self._paused = False  # by pause_reading()
        self._blocked = False  # nothing can be encrypted until more has come
        self._eof = False  # the peer has ended
        self._closing = False
        self._lost = False  # nothing moves any more
        self._ending = ""  # "notify": close_notify has to go out; "notified": it has
        self._timer: asyncio.TimerHandle | None = None
        self._plain: deque[bytes] = deque()  # written by the program, not encrypted yet
        self._plain_size = 0
        self._unsent = bytearray()  # ciphertext that the socket has not taken
        self._pieces: list[bytes] = []  # of what a step has read
        self._more = False  # the step ended before OpenSSL had nothing left
        self._done: Callable[[BaseException | None], None] | None = None  # to be called when the handshake has ended
        self._object = SSLObject(self, context, server_side, server_hostname, session)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handshake, shutdown = timeouts
        for name, seconds in (("handshake", handshake), ("shutdown", shutdown)):
            if seconds is not None and seconds <= 0:
                raise ValueError(f"ssl_{name}_timeout should be a positive number, got {seconds}")
        self._handshake_timeout = context.handshake_timeout if handshake is None else handshake
        self._shutdown_timeout = SHUTDOWN_TIMEOUT if shutdown is None else shutdown

    # -- the handshake -------------------------------------------------------------------------------------------------

    def begin(self, done: Callable[[BaseException | None], None]) -> None:
        """Begins the handshake. done(error) is called once it is finished and the protocol has been told, with None, or
        with what has ended it."""
        self._done = done
        self._run(partial(self._object.handshake, self._handshake_timeout), self._shaken, copy_context())

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

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _run(self, step: Callable[[], object], then: Callable[..., None], context: Context | None = None) -> None:
        job = self._workers.run(step, then, context)
        if not job.done:
            self._job = job

    def _shaken(self, _: object, error: BaseException | None) -> None:
        """The handshake has ended."""
        self._job = None
        if self._lost:
            return
        if error is not None:
            self._end(error)
            return
        self._told = True
        if not self._announced:
            self._call("connection_made", self)
        self._settle(None)
        self._advance()

    def _settle(self, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

    # -- for the handshake, in a worker --------------------------------------------------------------------------------

    def receive(self) -> bytes:
        """Ciphertext as it comes, b"" at its end. Waits. Raises OSError."""
        while True:
            self._waiting = getcurrent()
            self._poll(True)
            try:
                self._waiting.parent.switch()
            finally:
                self._waiting = None
            try:
                return self._sock.recv(RECEIVE_SIZE)
            except (BlockingIOError, InterruptedError):
                pass

    def flush(self) -> None:
        """What OpenSSL has for the peer goes out, or is kept until the socket takes it."""
        data = self._object._connection.data_to_send()
        if data:
            self.send(data)

    def send(self, data: bytes) -> None:
        """Bytes for the socket, after those that it has not taken yet. What goes wrong ends the transport."""
        if self._lost:
            return
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._loop.call_soon(self._end, error)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._fd, self._on_writable)
        self._unsent += data

    # -- from the peer -------------------------------------------------------------------------------------------------

    def _poll(self, on: bool) -> None:
        if on is not self._polling and not self._lost:
            self._polling = on
            if on:
                self._loop.add_reader(self._fd, self._on_readable)
            else:
                self._loop.remove_reader(self._fd)

    def _on_readable(self) -> None:
        if self._waiting is not None:
            self._waiting.switch()
            return
        unsent = self._object._connection.unsent
        if self._job is not None or (self._paused and not self._closing) or unsent > MAX_UNSENT:
            self._poll(False)  # until _advance()
            return
        spare = self._spare.received
        try:
            buffer = spare.pop()
        except IndexError:
            buffer = memoryview(bytearray(RECEIVE_SIZE))
        try:
            length = self._sock.recv_into(buffer)
            self._object._connection.receive_data(buffer[:length])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        finally:
            if not spare:
                spare.append(buffer)
        if not length:
            self._poll(False)
        self._run(self._read, self._have_read)

    def _advance(self) -> None:
        """What has come, and could not be handled before, is; then the socket is polled again."""
        if self._lost or self._job is not None or not self._told:
            return
        if self._plain or self._ending == "notify":
            self._write_out()
            if self._lost or self._job is not None:
                return
        if self._paused and not self._closing:
            return
        connection = self._object._connection
        if self._more or not connection.drained:
            self._run(self._read, self._have_read)
        elif not (connection.eof or self._eof):
            self._poll(True)

    def _read(self) -> None:
        """In a worker. Into self._pieces."""
        connection, pieces = self._object._connection, self._pieces
        self._more = False
        try:
            for _ in range(RECORDS):
                said = connection.step_read(RECORD_SIZE)
                if isinstance(said, int):
                    self._eof = said != WANT_READ
                    return
                pieces.append(said)
                if connection.drained:
                    return
        except UnexpectedEOF:
            self._eof = True
            return
        self._more = True

    def _have_read(self, _: object, error: BaseException | None) -> None:
        self._job = None
        if self._lost:
            return
        pieces = self._pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            if not self._closing:
                self._give(data)
        if error is not None:
            self.flush()
            self._end(self._object._as_stdlib(error) if isinstance(error, TLSError) else error)
            return
        if self._lost:
            return
        if not self._unsent and self._object._connection.unsent:
            self.flush()
        self._blocked = False
        if self._eof:
            self._peer_ended()
        elif self._more and not self._paused:
            self._loop.call_soon(self._advance)
        elif self._plain or self._ending == "notify" or not self._polling:
            self._advance()

    def _give(self, data: bytes) -> None:
        if not self._buffered:
            self._call("data_received", data)
            return
        view = memoryview(data)
        while view and not self._lost:
            room = self._call("get_buffer", len(view))
            if room is None:
                return
            with memoryview(room) as buffer:
                length = min(len(buffer), len(view))
                buffer[:length] = view[:length]
            view = view[length:]
            self._call("buffer_updated", length)

    def _peer_ended(self) -> None:
        self._poll(False)
        if self._closing:
            if self._ending == "notified":
                self._end(None)
            return
        if not self._call("eof_received"):
            self.close()

    # -- to the peer ---------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As asyncio.Transport.write(): what cannot go out at once is kept. Before connection_made() nothing can be."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._closing or self._lost or self._ending or not data:
            return
        self._plain.append(bytes(data))
        self._plain_size += len(data)
        if self._job is None and not self._unsent:
            self._write_out()
        if self._plain or self._unsent:
            self._maybe_pause_protocol()  # type: ignore[attr-defined]  # not in typeshed

    def _write_out(self) -> None:
        """Encrypts and sends, as far as the socket takes it. close_notify goes after all data."""
        while (self._plain or self._ending == "notify") and not (
            self._unsent or self._lost or self._job or self._blocked
        ):
            self._run(self._encrypt if self._plain else self._notify, self._have_written)

    def _encrypt(self) -> None:
        """In a worker."""
        plain = self._plain
        if len(plain) > 1 and len(plain[0]) < FLIGHT_SIZE:
            plain.appendleft(b"".join(_first(plain, FLIGHT_SIZE)))
        data = plain[0]
        rest = data[FLIGHT_SIZE:]
        if rest:
            data = data[:FLIGHT_SIZE]
        self._object._connection.write(data)
        self._plain_size -= len(data)
        if rest:
            plain[0] = rest
        else:
            plain.popleft()

    def _notify(self) -> None:
        """In a worker."""
        self._ending = "notified"
        self._object._connection.shutdown()

    def _have_written(self, _: object, error: BaseException | None) -> None:
        waited, self._job = self._job is not None, None
        if self._lost:
            return
        self.flush()
        if isinstance(error, WantRead):  # a part of a post-handshake message has come: the rest goes first
            self._blocked = True
            error = None
        if error is not None:
            self._end(self._object._as_stdlib(error) if isinstance(error, TLSError) else error)
            return
        if self._ending == "notified" and not self._unsent:
            self._notified()
        if waited:
            self._advance()
        self._maybe_resume_protocol()  # type: ignore[attr-defined]  # not in typeshed

    def _on_writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        del self._unsent[:sent]
        if self._unsent:
            return
        self._loop.remove_writer(self._fd)
        self.flush()
        if self._unsent:
            return
        if self._ending == "notified":
            self._notified()
        if self._told and self._job is None:
            self._write_out()
            if not self._polling:
                self._advance()
        self._maybe_resume_protocol()  # type: ignore[attr-defined]  # not in typeshed

    def _call(self, method: str, *arguments: object) -> Any:  # Any: the method's
        """The protocol's method. What it raises ends the transport."""
        try:
            return getattr(self._protocol, method)(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {
                    "message": f"Fatal error: protocol.{method}() call failed.",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
            self._end(error)
            return None

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """See the module's docstring. During the handshake: as abort()."""
        if self._closing or self._lost:
            return
        self._closing = True
        if not self._told:
            self._loop.call_soon(self._end, None)
            return
        self._timer = self._loop.call_later(self._shutdown_timeout, self._end, None)
        if self._ending == "notified" and not self._unsent:
            self._notified()
            return
        self._ending = self._ending or "notify"
        if self._job is None:
            self._write_out()
            if not (self._lost or self._eof):
                self._advance()

    def write_eof(self) -> None:
        """close_notify, after what was written; the peer may go on."""
        if not (self._ending or self._closing or self._lost):
            self._ending = "notify"
            if self._job is None:
                self._write_out()

    def can_write_eof(self) -> bool:
        return True

    def _notified(self) -> None:
        """close_notify is on its way."""
        if not self._closing:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        if self._eof or self._object._connection.eof:
            self._end(None)
        else:
            self._poll(True)

    def abort(self) -> None:
        self._closing = True
        self._loop.call_soon(self._end, None)

    def kill(self, error: BaseException) -> None:
        """Ends a handshake from outside: whatever it waits for gets the error, and the peer an alert."""
        if self._waiting is not None:
            self._waiting.throw(error)
        elif self._job is not None:
            self._job.throw(error)

    def _end(self, error: BaseException | None) -> None:
        """Nothing moves from now on."""
        if self._lost:
            return
        self._closing = True
        if not self._told:
            self.kill(Closed("the transport was closed"))  # which leaves an alert for the peer
        self._poll(False)
        if self._unsent:
            self._loop.remove_writer(self._fd)
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._plain.clear()
        self._unsent.clear()
        self._plain_size = 0
        if self._told:
            self.kill(Closed("the transport was closed"))
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
            if self._ended is not None:
                self._ended(self)

    # -- what transports have ------------------------------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        """TLS has failed for good: by what the peer has sent, or by what a callback has raised."""
        return bool(self._object._connection.dead)

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol  # Any: of one kind or the other
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_reading(self) -> bool:
        return not (self._paused or self._closing)

    def pause_reading(self) -> None:
        self._paused = True  # _on_readable() sees it

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._advance)

    def get_write_buffer_size(self) -> int:
        """Bytes: plaintext that is not encrypted yet, and ciphertext that the socket has not taken."""
        return self._plain_size + len(self._unsent)

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


def _first(pieces: deque[bytes], size: int) -> list[bytes]:
    """As many of the pieces as fit into size, taken away from them; one at least."""
    taken = [pieces.popleft()]
    length = len(taken[0])
    while pieces and length + len(pieces[0]) <= size:
        length += len(pieces[0])
        taken.append(pieces.popleft())
    return taken
