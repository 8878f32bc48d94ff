"""TLSStream: a non-blocking socket and a Connection, for greenlets. It waits; the pump below it does everything else.

A pump's verb goes as far as it can and says what to wait for. Here are the waits, and whose turn each is. Only the wait
for data, where it has no timeout, is the pump's own: the stream gives it a function of the hub's. Several greenlets may
use one stream, typically one that reads and one that writes. One does the handshake, and the others wait for it. After
it there are three turns, each for one greenlet at a time. None of them holds up the others:

- being inside OpenSSL: others wait only while the occupant waits in a hook, because nothing else in there switches;
- waiting until the socket takes more: that greenlet continues until everything is sent. So a reader with a key update
  to send leaves it to a writer that is blocked. A second writer waits for its turn, which is its back-pressure;
- waiting until the socket can be read: a second reader waits for the first, then checks again. The pump has this turn.

A peer that is always faster does not block the hub: the work before the hub runs again is bounded by the pump's budget.

Somebody else may run between any two bytecodes here: a signal handler, or a finalizer that the collector calls. Either
may use another stream, or this one, and may switch to greenlets that do. So

- a turn is taken by one C call, which fails if it is not free, and given back by another; nothing is called between
  those and the line that notes whose turn it is;
- a greenlet that is about to wait for a turn says so, and then looks at the turn once more.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gevent import get_hub
from gevent.event import Event
from gevent.exceptions import InvalidSwitchError
from gevent.hub import Hub
from gevent.socket import wait as wait_on

import greentls.hub.gevent  # noqa: F401  # here() would import it in a handshake, in whose middle another may come
from greentls.core.connection import Connection
from greentls.errors import ConcurrentUseError, TLSError, UnexpectedEOF, WouldBlock
from greentls.hub import PerHub, heap
from greentls.hub.rounds import Rounds
from greentls.openssl import bios, pump
from greentls.openssl.library import pointer
from greentls.openssl.pump import BOTH, CLOSED, DONE, ENDED, SPENT, UNSENT, WANT_READ, WANT_WRITE
from greentls.strategy import Strategy

if TYPE_CHECKING:
    import gevent.core

__all__ = ["TLSStream"]

Result = TypeVar("Result")

FLIGHT_SIZE = 131072  # plaintext bytes encrypted before they are sent; bounds what one write holds as ciphertext

# Seconds between two looks at whether the memory of BIOs can be given back. To give it back at each wait makes an
# upload dearer by half. The sooner it is free, the more of it serves the connections that come next.
IDLE = 0.1

_READ, _WRITE = 1, 2  # libev's events
_EBADF = errno.EBADF
_SAID = DONE, BOTH, CLOSED  # step_shutdown()'s: close_notify has been said
_TAKEN = DONE, UNSENT  # by step_write()
_INTERNET = _socket.AF_INET, _socket.AF_INET6
_NODELAY = _socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1

_CLOSED = _socket.socket()  # in the place of one that was closed: all it does is EBADF
_CLOSED.close()

# (hub, watcher): waits until the watcher's event, or returns earlier if something else wakes the greenlet.
_wait_until: Callable[..., object] = Hub.wait if pump.twin is None else pump.twin.wait_until

# What one greenlet at a time does with a stream.
_TURNS = b"hs"
_HANDSHAKE, _SEND = _TURNS
_awaited: dict[tuple[TLSStream, int], Event] = {}  # for those who wait for their turn


class TLSStream:
    """A Connection over a socket, for greenlets. Like the socket, it belongs to one thread's hub.

    sock: a connected socket as the interpreter makes them (``_socket.socket``), non-blocking, owned from now on.
    timeout: seconds that each wait for the socket may take, None for ever; TimeoutError after that, and the stream can
    go on. 0: no wait at all, WouldBlock instead. strategy: how the handshake is done; None: in the greenlet.
    read_ahead: False: nothing behind the record that is being read leaves the kernel. readable, writable: gevent's io
    watchers of the socket, if there are any; owned from now on.
    """

    __slots__ = (
        "__weakref__", "_call", "_free", "_hub", "_read_ahead", "_readable", "_received_when_looked", "_shut",
        "_socket", "_timeout", "_writable", "closed", "connection",
    )  # fmt: skip

    def __init__(
        self,
        sock: _socket.socket,
        connection: Connection,
        timeout: float | None = None,
        strategy: Strategy | None = None,
        read_ahead: bool = True,
        readable: gevent.core.io | None = None,
        writable: gevent.core.io | None = None,
    ) -> None:
        self._timeout = timeout
        self._call = strategy.call if strategy is not None else None
        self._socket = sock
        self._read_ahead = read_ahead
        self._readable, self._writable = readable, writable  # those that are missing are made at the first wait
        self._hub = get_hub()
        self._free = bytearray(_TURNS)  # no object of the collector's, as a list is
        self._received_when_looked = -1  # by gives_back()
        self.closed = False
        self._shut = False  # for sending: shut()
        self.use(connection)
        if sock.family in _INTERNET:
            # Flights are whole: Nagle's algorithm only makes a TLS 1.3 ticket wait for the peer's delayed ACK.
            sock.setsockopt(*_NODELAY)

    def use(self, connection: Connection) -> None:
        """Another one instead, before the handshake."""
        self.connection = connection
        hub, readable = self._hub, self._readable
        connection.attach(self._socket, not self._read_ahead, self._timeout is not None, hub)
        if self._timeout is None and readable is not None:
            connection.pause_by(_wait_until, hub, readable)

    @property
    def timeout(self) -> float | None:
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._timeout = timeout
        self.connection.pause_by(None)  # the next wait finds out
        self.connection.look(timeout is not None)

    # -- operations ----------------------------------------------------------------------------------------------------

    def do_handshake(self) -> None:
        """Raises TLSError, UnexpectedEOF, OSError, TimeoutError, or what a hook raised."""
        connection = self.connection
        if connection.busy and connection.inside:
            connection.admit("do_handshake")
        free, mine = self._free, False
        try:
            while not mine:
                mine = True
                try:
                    free.remove(_HANDSHAKE)
                except ValueError:
                    mine = False
                    self._wait_for(_HANDSHAKE, "read")
            call = self._call
            if call is not None and connection.drained and not connection.established:
                while (said := self._do(connection.refill)) != DONE:
                    self._wait(said)
            while True:
                try:
                    said = connection.step_handshake() if call is None else call(connection, connection.step_handshake)
                except BaseException as error:
                    if not self._again(error):
                        raise
                    continue
                if said == DONE:
                    break
                self._wait(said)
            # A server's tickets go out with its first data, or before it waits for the client's: often its request came
            # together with its Finished. Where waiting is not the stream's, nobody knows when the next verb comes.
            if connection.unsent and not (connection.patient and self._timeout != 0.0):
                try:  # a client may have said all it wanted, and left before its tickets came
                    said = connection.send_or_forget()
                except ConcurrentUseError:
                    said = WANT_WRITE
                if said != DONE:
                    self.flush(forget=True)
            if connection.bulky and not connection.watched:
                self._watch()  # before it waits for data, so that the pump can
        finally:
            if mine and _HANDSHAKE not in free:
                free.append(_HANDSHAKE)
                if _awaited:
                    self._left(_HANDSHAKE)

    def read(self, max_bytes: int) -> bytes:
        """1 to max_bytes bytes, or b"" after the peer's close_notify.

        Raises UnexpectedEOF, TLSError, OSError, TimeoutError, or what a hook raised.
        """
        connection = self.connection
        while True:
            try:
                said = connection.step_read(max_bytes)
            except BaseException as error:
                if not self._again(error):
                    raise
                continue
            if not isinstance(said, int):
                break
            if said == CLOSED:
                said = b""
                break
            self._wait(said, "read")
        if not connection.server_side and connection.unsent:
            self._answer()
        return said

    def read_into(self, buffer: bytearray | memoryview) -> int:
        """read() into a writable buffer; returns the length."""
        connection = self.connection
        with bios.writable(buffer) as room:  # or a traceback would keep the caller's buffer exported
            address, length = pointer(room), len(room)
            while (said := self._do(connection.step_read_into, address, length)) <= 0 and said != CLOSED:
                self._wait(said, "read")
        if not connection.server_side and connection.unsent:
            self._answer()
        return max(said, 0)

    def _answer(self) -> None:
        """At a client at once, as it may be its certificate that the server waits for (RFC 8446 4.6.2); the answer to a
        key update has only to go before the next data (4.6.3). Unless a greenlet waits to send: that one sends it."""
        if _SEND in self._free:
            self.flush(forget=True)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends all of it. Raises TLSError, OSError, TimeoutError, or what a hook raised."""
        if len(data) <= FLIGHT_SIZE and isinstance(data, bytes):
            if self._encrypt(data) != DONE:
                self.flush()
            return
        with memoryview(data) as view, view.cast("B") as octets:
            for start in range(0, len(octets), FLIGHT_SIZE):
                with octets[start : start + FLIGHT_SIZE] as piece:
                    if self._encrypt(piece) != DONE:
                        self.flush()

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Takes some of the data once all that was taken before is sent; returns how many bytes.

        Raises as write(); after TimeoutError and WouldBlock nothing was taken. What the socket does not accept in time
        goes first next time, and is lost if there is none.
        """
        with memoryview(data) as view, view.cast("B") as octets, octets[:FLIGHT_SIZE] as piece:
            length = len(piece)
            said = self._encrypt(piece)
        if said != DONE:
            enough = TimeoutError()
            try:
                self.flush(late=enough)
            except TimeoutError as error:
                if error is not enough:
                    raise
            finally:
                del enough  # its traceback holds this frame
        return length

    def _encrypt(self, data: bytes | memoryview) -> int:
        """DONE, or UNSENT."""
        connection = self.connection
        try:
            while isinstance(data, bytes):
                try:
                    said = connection.step_write(data)
                except BaseException as error:
                    if not self._again(error):
                        raise
                    continue
                if said in _TAKEN:
                    return said
                self._wait(said, "write")
            with bios.readable(data) as readable:
                address, length = pointer(readable), len(readable)
                while (said := self._do(connection.step_write_from, address, length)) not in _TAKEN:
                    self._wait(said, "write")
                return said
        except TLSError:
            if self._shut:  # as send(2) after shutdown(2)
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
            raise

    def shutdown(self) -> None:
        """Sends close_notify and receives until the peer's arrives.

        Raises UnexpectedEOF if it does not arrive, and TLSError if there is data before it: a caller that continues in
        plaintext must not mistake truncation for close_notify, or lose data. Raises OSError, TimeoutError, and any
        exception from a hook.
        """
        if not self.connection.finished:
            self.do_handshake()
        shutdown, refill = self.connection.shutdown, self.connection.refill
        done = self._do(shutdown)
        self.flush()
        while not (done or self._do(shutdown)):
            self.flush()  # a close_notify that had to wait, or the answer to a key update
            while (said := self._do(refill)) != DONE:
                self._wait(said, "shutdown")

    def feed(self, data: bytes) -> None:
        """Ciphertext that somebody else has received from the socket, before the handshake."""
        self.connection.receive_data(data)

    def receive(self) -> bytes:
        """Ciphertext as it comes from the socket, b"" at its end; the connection has it too. Before the handshake."""
        while isinstance(said := self._do(self.connection.receive), int):
            self._wait(said, "read")
        return said

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

    def close_notify(self, for_good: bool = False) -> None:
        """Sends close_notify if that can be done at once. for_good: the socket is closed next; else the peer may still
        send."""
        connection = self.connection
        try:
            if connection.leave(for_good) in _SAID:  # may enter hooks
                connection.close()
        except TLSError:
            pass

    def close(self) -> None:
        """close_notify(), and the end of the socket. A greenlet that waits for it gets OSError."""
        if self.closed:
            return
        loop = self._hub.loop
        if loop is None or sys.is_finalizing():  # a finalizer's, or another thread's: the hub is no more
            self.abandon()
            return
        try:
            self.close_notify(for_good=True)
        finally:
            self.connection.detach()
            sock, self._socket = self._socket, _CLOSED
            self._release(_close_polled, sock, loop)

    def abandon(self) -> None:
        """The end of the socket, without a word, where there is no hub, or nobody knows the stream any more."""
        self.closed = True
        self.connection.detach()  # before its number is another one's
        self._socket.close()

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
        self.connection.detach()
        self._release()
        return self._socket.detach()

    def _release(self, then: Callable[..., None] = lambda: None, *arguments: object) -> None:
        """Ends the waits: libev must not poll a descriptor that is closed, or somebody else's. then: after them."""
        self.closed = True
        watchers = self._readable, self._writable
        self._readable = self._writable = None
        for watcher in watchers:
            if watcher is not None:
                if watcher.callback is not None:  # somebody waits for it
                    self._hub.cancel_waits_close_and_then(watchers, _closed(), then, *arguments)
                    return
                watcher.close()
        then(*arguments)

    # -- turns and waits -----------------------------------------------------------------------------------------------

    def _do(self, verb: Callable[..., Result], *arguments: object) -> Result:
        """A verb, when nobody is inside OpenSSL."""
        while True:
            try:
                return verb(*arguments)
            except BaseException as error:
                if not self._again(error):
                    raise

    def _again(self, error: BaseException) -> bool:
        """Whether a verb that has raised this can be tried again: another greenlet was inside OpenSSL, in a hook, and
        has left."""
        connection = self.connection
        if isinstance(error, InvalidSwitchError) and not connection.dead:  # no hook's, which would have ended it
            return True  # the wait was ended by mistake, which here is only another look
        if not isinstance(error, ConcurrentUseError) or connection.dead or connection.inside:
            self._last_words()
            return False
        while connection.taken:
            left = connection.when_left(Event())
            if connection.taken and not left.wait(self._timeout):
                raise self.late("write")
        return True

    def _wait(self, said: int, name: str = "do_handshake") -> None:
        """For what the pump said it wants; then it may work again."""
        if said == WANT_READ:
            self._wait_to_receive()
        elif said == WANT_WRITE:
            self.flush(forget=name != "write")
        elif said == SPENT:
            self._rest()
        elif said == ENDED:
            raise UnexpectedEOF(name)
        self.connection.rest()

    def _rest(self) -> None:
        """To the hub and back, behind a look at the sockets and at the clock: sleep(0) is only for greenlets that are
        ready already. Not where there must be no wait, as the caller has a loop of its own then."""
        if self._timeout != 0.0:
            with self._hub.loop.timer(0.0) as timer:
                self._hub.wait(timer)

    def flush(self, forget: bool = False, late: TimeoutError | None = None) -> None:
        """Sends all that the connection has for the peer. forget: a server does, if its peer has gone.

        late: what to raise after the timeout, instead of a new TimeoutError or WouldBlock.
        """
        connection = self.connection
        send = connection.send_or_forget if forget and connection.established else connection.send
        free, mine = self._free, False
        try:
            while self._do(send) != DONE:
                while not mine:
                    mine = True
                    try:
                        free.remove(_SEND)
                    except ValueError:
                        mine = False
                        self._wait_for(_SEND, "write")
                connection.attend(True)
                if self._timeout == 0.0:
                    raise late or self.late("write")
                if self._writable is None:
                    self._writable = self._hub.loop.io(self._socket.fileno(), _WRITE)
                wait_on(self._writable, self._timeout, late or self.late("write"))
        finally:
            if mine and _SEND not in free:
                connection.attend(False)
                free.append(_SEND)
                if _awaited:
                    self._left(_SEND)
            del late  # it may be what is raised, and the traceback holds this frame

    def _wait_to_receive(self) -> None:
        """Until the socket can be read, or another greenlet that waits for that has left. The pump does this itself
        if there is nothing else to do."""
        connection = self.connection
        if connection.bulky and not connection.watched:
            self._watch()
        if self._readable is None:
            self._readable = self._hub.loop.io(self._socket.fileno(), _READ)
        if self._timeout is None:
            wait = partial(_wait_until, self._hub, self._readable)
            connection.pause_by(_wait_until, self._hub, self._readable)
        else:
            wait = partial(wait_on, self._readable, self._timeout, self.late("read"))
        try:
            if connection.wait(wait):
                return
        except InvalidSwitchError:  # it was woken by mistake, which here is only another look
            return
        finally:
            del wait  # it has the error that is raised, and the traceback holds this frame
        late, free = self.late("read"), connection.when_next(Event())
        try:
            if connection.waiting and not free.wait(self._timeout):
                raise late
        finally:
            del late  # the traceback holds this frame
        if self.closed:
            raise _closed()

    def _watch(self) -> None:
        """From now on somebody looks whether the memory of the BIOs can be given back."""
        self.connection.watch()
        _resting.get().add(self)

    def gives_back(self) -> bool:
        """The memory of the connection's BIOs, if nothing has come since this was asked last. Called in the hub."""
        if self.closed:
            return True
        received, before = self.connection.received, self._received_when_looked
        self._received_when_looked = received
        if received != before or not self.connection.release():
            return False
        heap.connection_rests()
        return True

    def late(self, what: str) -> TimeoutError:
        """What a wait raises that takes too long. Raises WouldBlock if there must not be one."""
        if self._timeout == 0.0:
            self.connection.rest()  # the caller has a loop of its own, and comes back after others
            raise WouldBlock(what)
        return TimeoutError(f"The {what if self.connection.established else 'handshake'} operation timed out")

    def _last_words(self) -> None:
        """An alert, or a close_notify, if the socket takes it at once: nobody waits for a connection that failed."""
        try:
            self.connection.send()
        except (OSError, ConcurrentUseError):
            pass

    def _wait_for(self, turn: int, what: str) -> None:
        """Until it may be free. Raises TimeoutError, WouldBlock, OSError if the stream is closed."""
        late = self.late(what)
        left = _awaited.setdefault((self, turn), Event())
        try:
            if turn in self._free:
                self._left(turn)
            elif not left.wait(self._timeout):
                raise late
        finally:
            del late  # the traceback holds this frame
        if self.closed:
            raise _closed()

    def _left(self, turn: int) -> None:
        left = _awaited.pop((self, turn), None)
        if left is not None:
            left.set()


_resting: PerHub[Rounds[TLSStream]] = PerHub(lambda: Rounds(TLSStream.gives_back, IDLE))


def _closed() -> OSError:
    """gevent's cancel_wait_ex, which is one for all, and would hold the frames of those that it was raised in."""
    return OSError(_EBADF, "File descriptor was closed in another greenlet")


def _close_polled(sock: _socket.socket, loop: gevent.core.loop) -> None:
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
