"""Flow moves data between a protocol and a connection, whenever the event loop finds the socket readable or writable.

The connection's pump moves bytes between the descriptor and OpenSSL as far as it can without waiting, and says what to
wait for:

    socket readable -> step_read() -> protocol.data_received(), until the pump wants to read more
    write() -> step_write(); the rest is kept, and is written when the socket is writable

- The loop's own greenlet must not wait. If hooks may be asked after the handshake, PatientVerbs take the place of the
  connection's verbs. While a hook waits, nothing is read, and what the program writes is kept.
- The pump's budget bounds the work before the loop runs again. When it is spent, the rest waits for the loop's next
  turn (_soon), even if the peer is always faster or the program writes without end.
- If only a part of a post-handshake message has come, nothing can be written until the rest has come, even if the
  program has paused reading. While the pump receives the rest, it may also receive data behind it, and no event
  announces those.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import transports
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

from greentls.aio.ssl_object import SSLObject
from greentls.aio.workers import WAITS, PatientVerbs
from greentls.errors import ConcurrentUseError, TLSError, UnexpectedEOF
from greentls.openssl.pump import CLOSED, DONE, ENDED, RECORD_SIZE, SPENT, UNSENT, WANT_READ, WANT_WRITE

if TYPE_CHECKING:
    from greentls.core.connection import Connection

__all__ = ["Flow"]

FLIGHT_SIZE = 131072  # bytes of plaintext that are encrypted before anything is sent


class Flow(transports._FlowControlMixin, asyncio.Transport):
    """The part of a TLSTransport that works between the handshake and the end."""

    # The mixin's __init__() would set these, after those of three other classes.
    _protocol_paused = False
    _high_water, _low_water = 65536, 16384  # bytes; asyncio's

    _waiting: greenlet | None = None  # during the handshake: the worker that waits for the socket
    _patient: PatientVerbs | None = None
    _told = False  # connection_made() was called
    _open = False  # start() was called
    _polling = False  # add_reader() is in force
    _attending = False  # add_writer() is in force
    _turning = False  # _read() is running
    _due = False  # a call of _advance() is scheduled
    _paused = False  # by pause_reading()
    _eof = False  # the peer has ended
    _held = True  # what the program writes is kept: the handshake is not done, or something must go out before it
    _starved = False  # nothing can be encrypted until more has come
    _kept_size = 0
    _notify = _notified = False  # close_notify must go out; it has gone out
    _closing = False
    _mute = False  # what the program writes is dropped
    _lost = False  # the end: nothing is sent or received any more
    _protocol: Any  # Any: a Protocol or a BufferedProtocol, and None at the end
    _data_received: Callable[[bytes], object]  # the protocol's method, or _fill()
    _connection: Connection
    _verbs: PatientVerbs | Connection
    _loop: asyncio.AbstractEventLoop
    _sock: socket.socket
    _fd: int
    _object: SSLObject
    _kept: deque[bytes]  # written by the program, not encrypted yet

    def _end(self, error: BaseException | None) -> None:
        """Ends the transport: nothing is sent or received any more."""
        raise NotImplementedError  # TLSTransport has it

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _poll(self, on: bool) -> None:
        if on is not self._polling and not self._lost:
            self._polling = on
            if on:
                self._loop.add_reader(self._fd, self._on_readable)
            else:
                self._loop.remove_reader(self._fd)

    def _attend(self, on: bool) -> None:
        """Starts or stops waiting until the socket is writable."""
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
            self._soon()  # a read had to wait for this, too

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        """Does all that can be done now, in a new turn of the loop."""
        self._due = False
        self._connection.rest()
        if self._told and self._held and not self._lost:
            self._write_out()
        if self._open and not (self._paused or self._eof or self._lost):
            self._poll(True)
            self._read()

    # -- from the peer -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Reads what has come, as far as the budget goes."""
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
        """Handles every result of a read except data and WANT_READ."""
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
        elif self._connection.unsent:  # reading is paused, but answers must go out
            self._held = True
            self._write_out()

    def _fill(self, data: bytes) -> None:
        """Does for a BufferedProtocol what data_received() does."""
        view = memoryview(data)
        while view and not self._lost:
            with memoryview(self._protocol.get_buffer(len(view))) as buffer:
                length = min(len(buffer), len(view))
                if not length:
                    raise RuntimeError("get_buffer() returned an empty buffer")
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
        """Like asyncio.Transport.write(): keeps what cannot go out at once."""
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
                    self._soon()  # the pump had to receive the rest of a post-handshake message, and perhaps data
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
        if len(data) <= FLIGHT_SIZE:
            self._kept.append(data)
        else:
            self._kept.extend(data[at : at + FLIGHT_SIZE] for at in range(0, len(data), FLIGHT_SIZE))

    def _write_out(self) -> None:
        """Writes what is held, as far as the socket and the budget allow. close_notify goes after all data."""
        kept = self._kept
        try:
            said = self._connection.send_or_forget()
            while said == DONE and (kept or self._notify):
                if kept:
                    if self._patient is None:  # PatientVerbs must get the same data again
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
        if self._connection.writable:  # not said yet: a hook, or the rest of a post-handshake message, comes first
            return WAITS if said == WAITS else WANT_READ
        self._notify, self._notified = False, True
        return self._connection.send_or_forget()

    def _stopped(self, said: int) -> None:
        """Prepares for the reason why nothing more goes out now."""
        if said == DONE:
            self._held, self._starved = not self._told, False
            if self._attending:
                self._attend(False)
            if self._notified and self._closing:
                self._close_notify_sent()
            return
        self._held, self._starved = True, said == WANT_READ
        self._attend(said in (WANT_WRITE, UNSENT))
        if said == SPENT:
            self._soon()
        elif said == WANT_READ:
            self._poll(True)
        elif said == ENDED:
            self._failed(UnexpectedEOF("write"))

    def _close_notify_sent(self) -> None:
        if self._eof:
            self._end(None)
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def get_write_buffer_size(self) -> int:
        """The bytes of plaintext that are not encrypted yet, and of ciphertext that the socket has not taken."""
        return 0 if self._lost else self._kept_size + self._connection.unsent

    def write_eof(self) -> None:
        """Sends close_notify after what was written. The peer may continue."""
        if not self._mute:
            self._mute = self._notify = True
            if not self._held:
                self._write_out()

    def can_write_eof(self) -> bool:
        return True

    # -- the protocol --------------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        buffered = isinstance(protocol, asyncio.BufferedProtocol)
        self._data_received = self._fill if buffered else getattr(protocol, "data_received", self._fill)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def _call(self, method: str, *arguments: object) -> object:
        """Calls a method of the protocol. If it raises, the transport ends."""
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
        """Ends the transport after a failed verb, which may have left an alert for the peer."""
        if not self._lost:
            try:
                self._connection.send()  # the alert
            except (OSError, ConcurrentUseError):
                pass
            self._end(self._object._as_stdlib(error) if isinstance(error, TLSError) else error)
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error


def _put_together(pieces: deque[bytes]) -> None:
    """Joins the first pieces into one if they are small."""
    taken = [pieces.popleft()]
    length = len(taken[0])
    while pieces and length + len(pieces[0]) <= FLIGHT_SIZE:
        length += len(pieces[0])
        taken.append(pieces.popleft())
    pieces.appendleft(taken[0] if len(taken) == 1 else b"".join(taken))
