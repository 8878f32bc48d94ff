"""TLSStream: a non-blocking socket and a Connection, and the pump between them.

The pump has three rules. Enter OpenSSL once. Send what it has for the peer before receiving. Then loop or leave.

Several greenlets may use one stream, typically one that reads and one that writes. One does the handshake, and the
others wait for it. After it there are three turns, each for one greenlet at a time. None of them holds up the others:

- being inside OpenSSL: others wait only while the occupant waits in a hook, because nothing else in there switches;
- sending: a sender continues until the outgoing BIO is empty. So a reader with a key update to send leaves it to a
  writer that is blocked in send(). A second writer waits for its turn, which is its back-pressure;
- receiving: a second receiver waits for the first, then checks again.

A socket is tried before it is waited for, unless the last try has emptied it. Bytes that a send() did not take are kept
and go first next time, even if the sender was interrupted, so that a timeout or a kill never cuts a record in two. A
peer that is always faster does not block the hub: the work before the hub runs again is bounded (TURN).

Somebody else may run between any two bytecodes here: a signal handler, or a finalizer that the collector calls. Either
may use another stream, or this one, and may switch to greenlets that do. So

- a turn is taken by one C call, which fails if it is not free, before the first byte moves, and given back by another;
  nothing is called between those and the line that notes whose turn it is;
- a buffer belongs to one greenlet from before the C call that fills it until its content is copied or sent. Each thread
  has one spare buffer of each kind, so that a connection that waits for its peer holds none;
- a greenlet that is about to wait for a turn says so, and then looks at the turn once more.
"""

from __future__ import annotations

import _socket
import errno
import gc
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gevent import get_hub, getcurrent
from gevent.event import Event
from gevent.hub import Waiter
from gevent.socket import wait as wait_on

from greentls.core.connection import WANT_READ, Connection
from greentls.errors import ConcurrentUseError, TLSError, WantRead, WouldBlock
from greentls.hub import ThreadLocal
from greentls.openssl import bios, lifetimes
from greentls.strategy import Strategy
from greentls.wire.record import RECORD_HEADER_SIZE

__all__ = ["TLSStream"]

Result = TypeVar("Result")

RECEIVE_SIZE = 65536  # bytes a recv_into() asks for: four full records; more does not get faster, fewer costs calls
FLIGHT_SIZE = 131072  # plaintext bytes encrypted before they are sent; bounds what one sendall() holds as ciphertext
RECORDS_IN_A_FLIGHT = FLIGHT_SIZE // bios.RECORD_SIZE
SEND_SIZE = FLIGHT_SIZE + 4096  # bytes of ciphertext that a send() is given: a flight and what its records add

# Bytes for the peer, behind those that a writer is blocked with, from which on a reader waits as well: the answers to
# 600 KeyUpdates. Data are not among them, as writers wait for their turn; else two peers, each with a blocked writer,
# would both stop reading.
MAX_UNSENT = 16384

# What a stream does at most before it goes to the hub, where others and deadlines have their turn, however fast its
# peer is: so many records that it encrypts, or gives to its reader without a receive, each in 2 to 20 microseconds; and
# so many receives, of 1 ms each if they are crumbs of a handshake. The way to the hub takes 5 microseconds.
TURN = 128
RECEIVES = 8

BULKY = 4096  # bytes of ciphertext at once, from which on a BIO's memory is worth giving back
IDLE = (
    0.2  # seconds between two looks at whether it can be: to give it back at each wait makes an upload dearer by half
)

_READ, _WRITE = 1, 2  # libev's events

_CLOSED = _socket.socket()  # in the place of one that was closed: all it does is EBADF
_CLOSED.close()


# What one greenlet at a time does with a stream.
_HANDSHAKE, _SEND, _RECEIVE = "handshake", "send", "receive"
_awaited: dict[tuple[TLSStream, str], Event] = {}  # for those who wait for their turn


class _Spare:
    """The buffers that nobody owns, one of each kind. A greenlet takes one out of the list, or makes another."""

    def __init__(self) -> None:
        self.received: list[bios.Buffer] = []
        self.outgoing: list[bios.Buffer] = []
        self.plain: list[Any] = []


class _Here(ThreadLocal):
    def __init__(self) -> None:
        self.spare = _Spare()


_here = _Here()


class Records:
    """A socket's recv_into() that takes nothing behind the record which is being read, as OpenSSL on a socket does.

    It costs a second call for each record: one for the header, one for as many bytes as that says.
    """

    def __init__(self, sock: _socket.socket) -> None:
        self._recv_into = sock.recv_into
        self._header = b""  # of the next record, as far as it has come
        self._missing = 0  # bytes of the record whose header has come

    def recv_into(self, buffer: memoryview[int]) -> int:
        """A record, or what there is of it: how many bytes, 0 at the end. Raises BlockingIOError, OSError."""
        length = 0
        if not self._missing:
            length = self._recv_into(buffer, RECORD_HEADER_SIZE - len(self._header))
            self.passed(bytes(buffer[:length]))
            if not self._missing:
                return length
        try:
            more = self._recv_into(buffer[length : length + self._missing])
        except BlockingIOError:
            if not length:
                raise
            return length
        self._missing -= more
        return length + more

    def passed(self, data: bytes) -> None:
        """The next bytes of the stream, which have been received."""
        while data:
            skipped = min(self._missing, len(data))
            self._missing -= skipped
            wanted = skipped + RECORD_HEADER_SIZE - len(self._header)
            self._header += data[skipped:wanted]
            data = data[wanted:]
            if len(self._header) == RECORD_HEADER_SIZE:
                self._missing, self._header = int.from_bytes(self._header[3:], "big"), b""


class TLSStream:
    """A Connection over a socket, for greenlets. Like the socket, it belongs to one thread's hub.

    sock: a connected socket as the interpreter makes them (``_socket.socket``), non-blocking, owned from now on.
    timeout: seconds that each wait for the socket may take, None for ever; TimeoutError after that, and the stream can
    go on. 0: no wait at all, WouldBlock instead. strategy: how the handshake is done; None: in the greenlet.
    read_ahead: False: nothing behind the record that is being read leaves the kernel.
    """

    closed = False
    _shut = False  # for sending: shut()
    _readable: Any = None  # io watchers, made at the first wait
    _writable: Any = None
    _unsent: memoryview[int] | None = None  # what the last send() did not take
    _records_left = TURN
    _receives = RECEIVES  # what is left of them: before the next one there is a wait, if it is 0; -1: nothing is there
    _bulky = False  # the BIOs have grown, by bulk data or by certificates: release() is worth its while
    _idle: Any = None  # the timer that waits for an opportunity
    _received_when_looked = -1

    def __init__(
        self,
        sock: _socket.socket,
        connection: Connection,
        timeout: float | None = None,
        strategy: Strategy | None = None,
        read_ahead: bool = True,
    ) -> None:
        self.timeout = timeout
        self._call = strategy.call if strategy is not None else None
        self._socket = sock
        self._records = None if read_ahead else Records(sock)
        self._recv_into = (self._records or sock).recv_into
        if gc.is_tracked(sock):  # from CPython 3.12 on the collector may close it, and close_notify could not go out
            self._held = lifetimes.hold(sock)
        self._hub = get_hub()
        self._spare = _here.spare
        self._free = [_HANDSHAKE, _SEND, _RECEIVE]
        self.use(connection)
        if sock.family in (_socket.AF_INET, _socket.AF_INET6):
            # Flights are whole: Nagle's algorithm only makes a TLS 1.3 ticket wait for the peer's delayed ACK.
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)

    def use(self, connection: Connection) -> None:
        """Another one instead, before the handshake."""
        self.connection = connection
        connection.operation.keep_out(self._hub)

    # -- operations ----------------------------------------------------------------------------------------------------

    def do_handshake(self) -> None:
        """Raises TLSError, UnexpectedEOF, OSError, TimeoutError, or what a hook raised."""
        operation = self.connection.operation
        if operation.inside:
            operation.admit("do_handshake")
        free, mine = self._free, False
        try:
            while not mine:
                mine = True
                try:
                    free.remove(_HANDSHAKE)
                except ValueError:
                    mine = False
                    self._wait_for(_HANDSHAKE, "read")
            self._handshake()
        finally:
            if mine and _HANDSHAKE not in free:
                free.append(_HANDSHAKE)
                if _awaited:
                    self._left(_HANDSHAKE)

    def _handshake(self) -> None:
        connection = self.connection
        step = connection.step_handshake
        if self._call is not None:
            step = partial(self._call, connection, step)
        if connection.drained and not connection.established:
            self._receive()
        while self._step(step) == WANT_READ:
            self.flush()
            self._receive()
        if not connection.session_reused:
            self._bulky = True
        self._flush_tickets()

    def _flush_tickets(self, wait: bool = True) -> None:
        """flush(), where a client may have said all it wanted and left before its tickets came: there may be data to
        read."""
        try:
            self.flush(wait)
        except (BrokenPipeError, ConnectionResetError):
            if not self.connection.server_side:
                raise
            self._unsent = None
            self.connection.data_to_send()

    def read(self, max_bytes: int) -> bytes:
        """1 to max_bytes bytes, or b"" after the peer's close_notify.

        Raises UnexpectedEOF, TLSError, OSError, TimeoutError, or what a hook raised.
        """
        connection, spare, room = self.connection, self._spare.plain, min(max_bytes, bios.RECORD_SIZE)
        if connection.received != connection.drained_at:
            self._work(1)
        elif not connection.handshake.dead and connection.operation.entrant() is getcurrent():
            self._answer(patient=True)  # at once, as step_read() would only want to read
            self._receive()
        data = b""
        while True:
            try:
                plain = spare.pop()
            except IndexError:
                plain = bios.read_buffer(bios.RECORD_SIZE)
            try:
                length = connection.step_read(plain, room)
                if length > 0:
                    data = bios.read_bytes(plain, length)
            except BaseException as error:
                if not self._again(error):
                    raise
                continue
            finally:
                if not spare:
                    spare.append(plain)
            if length != WANT_READ:
                break
            self._answer(patient=True)
            self._receive()
        if not connection.server_side:
            self._answer()
        return data

    def read_into(self, buffer: bytearray | memoryview) -> int:
        """read() into a writable buffer; returns the length."""
        connection = self.connection
        if connection.received != connection.drained_at:
            self._work(1)
        with bios.writable(buffer) as room:  # or a traceback would keep the caller's buffer exported
            while (length := self._step(connection.step_read, room, len(room))) == WANT_READ:
                self._answer(patient=True)
                self._receive()
        if not connection.server_side:
            self._answer()
        return max(length, 0)

    def _answer(self, patient: bool = False) -> None:
        """Sends what reading has brought up, a key update or an alert, unless somebody else is sending. patient: even
        then, where it has become too much.

        Before a wait for more. And at a client at once, as it may be its certificate that the server waits for (RFC
        8446 4.6.2); the answer to a key update has only to go before the next data (4.6.3).
        """
        unsent = bios.mem_data(self.connection.outgoing, bios.start)
        if unsent or self._unsent is not None:
            self._flush_tickets(wait=patient and unsent > MAX_UNSENT)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends all of it. Raises TLSError, OSError, TimeoutError, or what a hook raised."""
        if len(data) <= FLIGHT_SIZE and isinstance(data, bytes):
            self._encrypt(data)
            self.flush()
            return
        with memoryview(data) as view, view.cast("B") as octets:
            for start in range(0, len(octets), FLIGHT_SIZE):
                with octets[start : start + FLIGHT_SIZE] as piece:
                    self._encrypt(piece)
                self.flush()
                self._work(RECORDS_IN_A_FLIGHT)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Takes some of the data once all that was taken before is sent; returns how many bytes.

        Raises as write(); after TimeoutError and WouldBlock nothing was taken. What the socket does not accept in time
        goes first next time, and is lost if there is none.
        """
        self._work(RECORDS_IN_A_FLIGHT)
        self.flush()
        with memoryview(data) as view, view.cast("B") as octets, octets[:FLIGHT_SIZE] as piece:
            length = self._encrypt(piece)
        enough = TimeoutError()
        try:
            self.flush(late=enough)
        except TimeoutError as error:
            if error is not enough:
                raise
        finally:
            del enough  # its traceback holds this frame
        return length

    def shutdown(self) -> None:
        """Sends close_notify and receives until the peer's arrives.

        Raises UnexpectedEOF if it does not arrive, and TLSError if there is data before it: a caller that continues in
        plaintext must not mistake truncation for close_notify, or lose data. Raises OSError, TimeoutError, and any
        exception from a hook.
        """
        if self.connection.unfinished:
            self.do_handshake()
        shutdown = self.connection.shutdown
        done = self._step(shutdown)
        self.flush()
        while not (done or self._step(shutdown)):
            self.flush()  # a close_notify that had to wait, or the answer to a key update
            self._receive()

    def feed(self, data: bytes) -> None:
        """Ciphertext that somebody else has received from the socket, before the handshake."""
        self.connection.receive_data(data)
        if self._records is not None:
            self._records.passed(data)

    def receive(self) -> bytes:
        """Ciphertext as it comes from the socket, b"" at its end; the connection has it too. Before the handshake."""
        data: list[bytes] = []
        self._receive(data.append)
        return b"".join(data)

    def refuse(self, alert: int, reason: str) -> None:
        """Connection.refuse(), and the alert on its way if the socket takes it at once."""
        self.connection.refuse(alert, reason)
        self._last_words()

    def refuse_in_clear(self, answer: bytes, reason: str) -> None:
        """The same for a peer that does not speak TLS."""
        self.connection.refuse(0, reason)
        self.connection.data_to_send()
        try:
            self._socket.send(answer)
        except OSError:
            pass

    def close_notify(self) -> None:
        """Sends close_notify if that can be done at once; the peer may still send."""
        connection, handshake = self.connection, self.connection.handshake
        if not handshake.established or handshake.dead or connection.busy:
            return
        if handshake.writable:  # else it has been said
            try:
                connection.shutdown()
            except TLSError:
                pass
        self._last_words()

    def close(self) -> None:
        """close_notify(), and the end of the socket. A greenlet that waits for it gets OSError."""
        if self.closed:
            return
        if sys.is_finalizing() or self._hub.loop is None:  # a finalizer's, or another thread's: the hub is no more
            self.closed = True
            self._socket.close()
            return
        try:
            self.close_notify()  # may enter hooks
        finally:
            sock, self._socket = self._socket, _CLOSED
            self._release(partial(_close_polled, sock, self._hub.loop))

    def shut(self, how: int) -> None:
        """shutdown(2) of the socket, after close_notify() if it may not send any more.

        A greenlet that waits for what is shut gets OSError, as from gevent's sockets.
        """
        ended = []
        if how in (_socket.SHUT_WR, _socket.SHUT_RDWR):
            self.close_notify()
            self._shut = True
            ended.append(self._writable)
        if how in (_socket.SHUT_RD, _socket.SHUT_RDWR):
            ended.append(self._readable)
        self._socket.shutdown(how)
        for watcher in ended:
            self._hub.cancel_wait(watcher, _closed())

    def detach(self) -> int:
        """The socket's descriptor, -1 if there is none any more; the stream is closed but the descriptor is not."""
        self._release()
        return self._socket.detach()

    def _release(self, then: Callable[[], None] = lambda: None) -> None:
        """Ends the waits: libev must not poll a descriptor that is closed, or somebody else's. then: after them."""
        self.closed = True
        self._receives = RECEIVES
        if self._idle is not None:
            self._idle.close()
        self._hub.cancel_waits_close_and_then((self._readable, self._writable), _closed(), then)
        self._readable = self._writable = None

    # -- the pump ------------------------------------------------------------------------------------------------------

    def _step(self, operation: Callable[..., Result], *arguments: Any) -> Result:
        """One operation of the connection, when it is this greenlet's turn."""
        while True:
            try:
                return operation(*arguments)
            except BaseException as error:
                if not self._again(error):
                    raise

    def _encrypt(self, data: bytes | memoryview) -> int:
        while _SEND not in self._free:
            self._wait_for(_SEND, "write")
        while True:
            try:
                return self.connection.write(data)
            except WantRead:
                self._receive()
            except BaseException as error:
                if self._shut:  # as send(2) after shutdown(2)
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
                if not self._again(error):
                    raise

    def _again(self, error: BaseException) -> bool:
        """Whether an operation that has raised this can be tried again: another greenlet was inside OpenSSL, in a hook,
        and has left."""
        operation = self.connection.operation
        if not isinstance(error, ConcurrentUseError) or operation.handshake.dead or operation.inside:
            self._last_words()
            return False
        while operation.taken:
            left = operation.when_left(Event())
            if operation.taken and not left.wait(self.timeout):
                raise self.late("write")
        return True

    def flush(self, wait: bool = True, late: TimeoutError | None = None) -> None:
        """Sends all that the connection has for the peer. wait: also for another greenlet that is sending.

        late: what to raise after the timeout, instead of a new TimeoutError or WouldBlock.
        """
        free, mine = self._free, False
        try:
            while not mine:
                mine = True
                try:
                    free.remove(_SEND)
                except ValueError:
                    mine = False
                    if not wait:
                        return
                    self._wait_for(_SEND, "write")
            while not self._send():
                if self.timeout == 0.0:
                    raise late or self.late("write")
                if self._writable is None:
                    self._writable = self._hub.loop.io(self._socket.fileno(), _WRITE)
                wait_on(self._writable, self.timeout, late or self.late("write"))
        finally:
            if mine and _SEND not in free:
                free.append(_SEND)
                if _awaited:
                    self._left(_SEND)
            del late  # it may be what is raised, and the traceback holds this frame

    def _send(self) -> bool:
        """Returns True if everything was sent, False if the socket is full. Only the holder of the turn calls this."""
        unsent, spare = self._unsent, self._spare.outgoing
        if unsent is not None:
            try:
                sent = self._socket.send(unsent)
            except BlockingIOError:
                return False
            if sent < len(unsent):
                self._unsent = unsent[sent:]
                return False
            self._unsent = None
        try:
            buffer = spare.pop()
        except IndexError:
            buffer = bios.Buffer(SEND_SIZE)
        try:
            while (length := bios.read(self.connection.outgoing, buffer.pointer, SEND_SIZE)) > 0:
                if length > BULKY:
                    self._bulky = True
                try:
                    sent = self._socket.send(buffer.memory[:length])
                except BlockingIOError:
                    sent = 0
                if sent < length:
                    self._unsent = memoryview(bytes(buffer.memory[sent:length]))
                    return False
                if length < SEND_SIZE:
                    return True  # the BIO is empty
            return True
        finally:
            if not spare:
                spare.append(buffer)

    def _receive(self, tap: Callable[[bytes], object] | None = None) -> None:
        """Ciphertext from the socket, or its end, to the connection; nothing, if another greenlet has received.

        tap: gets the same bytes.
        """
        free, mine, spare = self._free, True, self._spare.received
        try:
            try:
                free.remove(_RECEIVE)
            except ValueError:
                mine = False
                self._wait_for(_RECEIVE, "read")
                return
            if self._receives < 0 and self.timeout is not None:  # which it was before: a look costs less, or is all
                self._receives = RECEIVES
            while True:
                if self._receives > 0:
                    try:
                        buffer = spare.pop()
                    except IndexError:
                        buffer = bios.Buffer(RECEIVE_SIZE)
                    try:
                        length = self._recv_into(buffer.memory)
                        self.connection.receive(buffer.pointer, length)
                        if tap is not None:
                            tap(bytes(buffer.memory[:length]))
                        break
                    except BlockingIOError:
                        pass
                    finally:
                        if not spare:
                            spare.append(buffer)
                self._wait_to_receive()
            if length > BULKY:
                self._bulky = True
            if length < RECEIVE_SIZE and self.timeout is None and self._records is None:
                # As a rule the socket has nothing more then, and an exception costs more than a wait that ends at once;
                # but less than a wait with a timeout.
                self._receives = -1
            else:
                self._receives -= 1
        finally:
            if mine and _RECEIVE not in free:
                free.append(_RECEIVE)
                if _awaited:
                    self._left(_RECEIVE)

    def _wait_to_receive(self) -> None:
        if self._bulky and self._idle is None:
            self._idle = self._hub.loop.timer(IDLE, IDLE, ref=False)
            self._idle.start(_look_whether_idle, weakref.ref(self), self._idle)
        if self._readable is None:
            self._readable = self._hub.loop.io(self._socket.fileno(), _READ)
        readable = self._readable
        self._receives = RECEIVES
        if self.timeout is not None:
            wait_on(readable, self.timeout, self.late("read"))
            return
        waiter = Waiter(self._hub)
        try:
            readable.start(waiter.switch, None)
            waiter.get()  # hub.wait() would raise if it is woken by mistake; here that is only another look
        finally:
            readable.stop()

    def _give_back(self) -> bool:
        """The memory of the connection's BIOs, if nothing has come since this was asked last. In the hub, which does
        not switch."""
        received, before = self.connection.received, self._received_when_looked
        self._received_when_looked = received
        if received != before or not self.connection.release():
            return False
        self._bulky, self._idle = False, None
        return True

    def _work(self, records: int) -> None:
        """Goes to the hub and back before they are more than TURN, with the messages that came along with them; not
        where there must be no wait, as the caller has a loop of its own then."""
        operation = self.connection.operation
        self._records_left -= records
        if operation.chores:
            self._records_left -= operation.take_chores()
        if self._records_left < 0:
            self._records_left = TURN
            if self.timeout != 0.0:
                # Behind a look at the sockets and at the clock: sleep(0) is only for greenlets that are ready already.
                with self._hub.loop.timer(0.0) as timer:
                    self._hub.wait(timer)

    def late(self, what: str) -> TimeoutError:
        """What a wait raises that takes too long. Raises WouldBlock if there must not be one."""
        if self.timeout == 0.0:
            raise WouldBlock(what)
        return TimeoutError(f"The {what if self.connection.established else 'handshake'} operation timed out")

    def _last_words(self) -> None:
        """An alert, or a close_notify, if the socket takes it at once: nobody waits for a connection that failed."""
        try:
            self._if_free_to_send(self._send)
        except OSError:
            pass

    def _if_free_to_send(self, function: Callable[[], bool]) -> bool:
        """The function's result; False while somebody else is sending."""
        free, mine = self._free, True
        try:
            try:
                free.remove(_SEND)
            except ValueError:
                mine = False
                return False
            return function()
        finally:
            if mine and _SEND not in free:
                free.append(_SEND)
                if _awaited:
                    self._left(_SEND)

    def _wait_for(self, turn: str, what: str) -> None:
        """Until it may be free. Raises TimeoutError, WouldBlock, OSError if the stream is closed."""
        late = self.late(what)
        left = _awaited.setdefault((self, turn), Event())
        try:
            if turn in self._free:
                self._left(turn)
            elif not left.wait(self.timeout):
                raise late
        finally:
            del late  # the traceback holds this frame
        if self.closed:
            raise _closed()

    def _left(self, turn: str) -> None:
        left = _awaited.pop((self, turn), None)
        if left is not None:
            left.set()


def _look_whether_idle(stream: Callable[[], TLSStream | None], timer: Any) -> None:
    """stream: a weak reference, as a timer would keep what nobody uses any more."""
    idle = stream()
    if idle is None or idle._give_back():
        timer.close()


def _closed() -> OSError:
    """gevent's cancel_wait_ex, which is one for all, and would hold the frames of those that it was raised in."""
    return OSError(errno.EBADF, "File descriptor was closed in another greenlet")


def _close_polled(sock: _socket.socket, loop: Any) -> None:
    """At once; or, if gevent's select() polls the descriptor, when that has been woken and polls it no more."""
    if not loop.closing_fd(sock.fileno()):
        sock.close()
        return
    check = loop.check()

    def close() -> None:
        check.stop()
        check.close()
        sock.close()

    check.start(close)
