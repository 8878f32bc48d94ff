"""The pump: descriptor -> BIO -> SSL_* -> BIO -> descriptor, as far as it goes without waiting.

A pump makes and owns one connection's SSL* and its two memory BIOs; once it is attached, it has a non-blocking socket.
Each verb enters OpenSSL, sends what it has for the peer, receives, and begins again, until there is something to tell.
It knows no loop: it says what to wait for, and the caller waits and calls again. For data the caller may hand in a
function that waits (pause_by()); then the handshake and reads call that, and go on. The rules:

- **It sends before it receives.** What OpenSSL has for the peer may be what the peer waits for.
- **Its work is bounded.** Each record and each receive takes from `budget`. When that is spent the verb says so,
  and the caller lets others have their turn; in the middle of its work it says that it wants to read, which comes to
  the same where there is a loop, and ends the work where there is none. Whoever waits gets a new budget.
- **It owns its buffers,** from before the C call that fills one until the content is copied, sent or given to a BIO.
- **One occupant.** OpenSSL is not re-entrant, but its callbacks may wait, so a second entry is possible; it is refused
  before OpenSSL is entered. So are another thread than that of the first operation, and the hub, which must not wait.
  `busy`, `dead`, `failure` and `entrant` are the bridge's as much as the pump's: a callback that fails notes why, and
  the pump raises that when OpenSSL has returned.

A subclass (the bridge's Operation) says what is raised: refusal(), failed(), not_now().

The pump exists twice. PlainPump below is Python, where a signal handler, a finalizer or another greenlet may run
between any two bytecodes. `_pump.c` is its twin, where nobody can, with the same verbs; it is used where it was built,
unless GREENTLS_PURE is set. Nothing else differs, and one suite of tests holds both to this contract.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import getcurrent

from greentls.errors import ConcurrentUseError, ConnectionDead
from greentls.openssl import bios, connections, errors, symbols
from greentls.openssl.library import SSL, Memory, ffi
from greentls.openssl.lifetimes import keep

__all__ = [
    "BOTH", "BULKY", "CLOSED", "COMPILED", "DONE", "ENDED", "MAX_UNSENT", "RECEIVE_SIZE", "RECORD_SIZE",
    "SEND_SIZE", "SPENT", "TURN", "UNSENT", "WANT_READ", "WANT_WRITE", "PlainPump", "Pump", "current_thread", "guard",
    "occupant", "occupants",
]  # fmt: skip

CONTRACT = 18  # _pump.c has the same number, or is an older build and not used

# What a verb answers, besides a number of bytes.
DONE = 1
BOTH = connections.BOTH_SAID  # shutdown(): the peer's close_notify has come as well
WANT_READ = 0  # nothing to go on with before the socket can be read; without a socket: before feed()
CLOSED = -1  # the peer's close_notify has come
WANT_WRITE = -2  # the socket takes no more, and nothing was taken from the caller
ENDED = -3  # the peer's ciphertext has ended, without a close_notify
SPENT = -4  # the budget is, since others last had their turn: rest()
UNSENT = -5  # write(): taken and encrypted, but the socket has not taken all of it

RECORD_SIZE = bios.RECORD_SIZE
RECEIVE_SIZE = 65536  # bytes a receive asks for: four full records; more does not get faster, fewer costs calls
SEND_SIZE = 131072 + 4096  # bytes a send is given: a flight of 128 KiB and what its records add

# Bytes of answers for the peer, behind those that a writer is blocked with, from which on a reader waits as well: the
# answers to 600 KeyUpdates. Data are not among them, as writers wait; else two peers, each with a blocked writer, would
# both stop reading.
MAX_UNSENT = 16384

# What a pump does at most before others have their turn: a record that is encrypted or read is 1, in 2 to 20
# microseconds; so is a receive, and each 4 KiB of it, whose messages in crumbs take 60. The way to the hub takes 5.
TURN = 128
PER_UNIT = 4096

BULKY = 4096  # bytes at once, from which on a BIO has grown so much that its memory is worth giving back
HEADER_SIZE = 5  # of a record

_MOVES = _SEND, _RECEIVE = "send", "receive"
_MORE = 0x8000 if sys.platform == "linux" else 0  # MSG_MORE, which others have not


Answer = TypeVar("Answer")
Fatal = TypeVar("Fatal")
Given = TypeVar("Given")
Entrant = Callable[[], object]  # a weak reference to a greenlet, or nobody
Thread = object  # what tells threads apart; 0: none


def nobody() -> None:
    """A weak reference to nobody."""


# The buffers that nobody owns, one of each kind, so that a connection that waits for its peer holds none. Whoever needs
# one takes it out of its list, by one C call, or makes another.
_outgoing: list[bios.Buffer] = []
_plain: list[Memory] = []


# By SSL*: cffi pointers are equal, and hash alike, if their addresses are.
_running: dict[SSL, list[PlainPump]] = {}  # a pump once, and again when its entrant is noted


class PlainPump:
    """See the module's docstring.

    A verb enters OpenSSL once, for its SSL_* function and for the receives and sends that go with it; `name` tells
    which of these is being done. Somebody else's send or receive takes `_turn` and then looks at `name`; the occupant
    notes its `name` and then looks at `_turn`. So they cannot miss each other.

    context: the address of an SSL_CTX, which others keep. server_side: which side it is. Raises MemoryError.
    """

    # More than 30 attributes in a dictionary would be looked up by name, each time.
    __slots__ = (
        "_emptied", "_flags", "_header", "_missing", "_pauses", "_rest", "_socket", "_turn", "ask", "attended",
        "awaited", "budget", "bulky", "crowded", "dead", "drained_at", "eager", "entrant", "eof", "established",
        "failure", "hub", "incoming", "messages", "name", "outgoing", "patient", "pause", "received", "server_side",
        "ssl", "thread", "waits", "watched", "whole_records", "writable",
    )  # fmt: skip

    def __init__(self, context: int, server_side: bool) -> None:
        self.name = ""  # of the operation that runs, or that ran last
        self.dead = ""  # why, once an operation failed for good
        self.failure: BaseException | None = None  # what a callback raised while the operation runs
        self.established = False  # the handshake is done as far as it must be for data
        self.writable = False  # the same, and close_notify has not been said
        self.hub: object = None  # a greenlet that must not wait, and so must not enter. It may say close_notify
        self.thread: Thread = 0  # that of the first operation
        # The one that waits for another one's operation, from before that begins until it is back.
        self.waits: Thread = 0
        # Runs a callback's function, if that is not to run in the thread that OpenSSL runs in.
        self.ask: Callable[..., Any] | None = None  # Any: what that returns
        self.pause: Callable[[], object] | None = None  # see pause_by()
        self.crowded = False  # somebody else wants to wait until the socket can be read: tell_the_next()
        self.eof = False  # the peer's ciphertext has ended
        self.attended = self.eager = False
        self.awaited = False  # somebody waits until nobody is inside any more: tell_those_who_wait()
        self.bulky = False  # the BIOs have grown
        self.watched = False  # and somebody looks whether their memory can be given back
        self.patient = False  # what is unsent behind a server's handshake are tickets, which may go with its first data
        self.whole_records = False
        self.received = 0  # receives so far
        self.budget = TURN
        self.messages = 0  # post-handshake messages since there was data
        self._socket: Any = None  # Any: what attach() was given, or _CLOSED
        # Of what was taken out of the outgoing BIO: what the socket did not take.
        self._rest: memoryview[int] | None = None
        self._flags = 0  # send(2)'s
        self._emptied = False
        self._header = b""  # of the next record, as far as it has come
        self._missing = 0  # bytes of the record whose header has come
        self.ssl, self.incoming, self.outgoing = connections.new(context, server_side)
        self.server_side = server_side
        # OpenSSL would only say that it wants to read if nothing was received since it last did. These are two counts
        # and no flag, as somebody else may receive between an SSL_read() and the note of it. A client begins.
        self.drained_at = 0 if server_side else -1
        # The greenlet that entered last. A weak reference, and no frame keeps another one: otherwise a greenlet that
        # waits for ever in a callback could not be collected, which ends the operation with its GreenletExit.
        self.entrant: Entrant = nobody
        self._turn = [True]  # unless somebody sends or receives
        self._pauses = [True]  # unless somebody waits until the socket can be read

    # -- what a subclass decides ---------------------------------------------------------------------------------------

    def refusal(self, name: str) -> BaseException:
        """What to raise to the running greenlet, which may not enter: somebody is inside, the connection is dead, or
        this is the hub, or another thread."""
        raise NotImplementedError

    def failed(self, name: str, failed: bool) -> BaseException:
        """What to raise after an operation that failed, or whose callback did. Called while it is inside. failed: also
        to OpenSSL."""
        raise NotImplementedError

    def not_now(self, name: str) -> None:
        """Raises, as the handshake has to be done first, or close_notify was said."""
        raise NotImplementedError

    def tell_those_who_wait(self) -> None:
        """Nobody is inside any more."""

    def tell_the_next(self) -> None:
        """Nobody waits any more until the socket can be read."""

    # -- inside OpenSSL ------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Somebody is inside OpenSSL."""
        return self.ssl in _running

    @property
    def entered(self) -> bool:
        """Somebody is inside, and is the entrant: until that is noted, the one before is."""
        return len(_running.get(self.ssl, ())) > 1

    def run(self, name: str, function: Callable[..., int], arguments: tuple[object, ...]) -> int:
        """Calls an SSL_* function with the arguments; its callbacks may wait.

        Returns the function's positive result, WANT_READ, or CLOSED. Raises what a callback raised, as itself; what
        failed() says if OpenSSL failed; what refusal() says before OpenSSL is entered.
        """
        return self._occupy(name, _call, (function, arguments))

    def _occupy(self, name: str, inside: Callable[[PlainPump, Given], Answer], given: Given) -> Answer:
        """Calls inside(this pump, given), while it is the occupant."""
        me = self.entrant
        if me() is not getcurrent():
            me = self._admitted(name)
        ssl = self.ssl
        entry = [self]  # no other entry is this object
        found = None
        try:
            if _running.setdefault(ssl, entry) is not entry:
                raise self.refusal(name)
            if self.dead:
                raise ConnectionDead(name, reason=self.dead)
            self.entrant = me
            entry.append(self)
            self.name = name
            if errors.peek():
                found = errors.save()
            return inside(self, given)
        finally:
            try:
                if _running[ssl] is entry:  # no call before this is done, since others may run in one
                    self.name = name  # who comes next must not seem to be sending or receiving
                    del _running[ssl]
            except KeyError:  # it was another's, who has left meanwhile
                pass
            if self.awaited or found is not None:
                self._left(found)

    def _outcome(self, result: int) -> int:
        """WANT_READ, or CLOSED. Raises what failed() says."""
        error = connections.get_error(self.ssl, result)
        if self.failure is None:
            if error == connections.WANT_READ:
                return WANT_READ
            if error == connections.ZERO_RETURN or (
                # Java says user_canceled before its close_notify, and SSL_get_error(3) does not know the latter then.
                # A fatal alert, which sets the same flag, has left an error.
                error == connections.SYSCALL and connections.received_shutdown(self.ssl) and not errors.peek()
            ):
                return CLOSED
        raise self.failed(self.name, result <= 0 and error != connections.WANT_READ)

    # -- who is inside -------------------------------------------------------------------------------------------------

    def admit(self, name: str) -> None:
        """Raises what a verb raises before OpenSSL is entered."""
        if self.ssl in _running or self.dead:
            raise self.refusal(name)
        me = self.entrant
        if me() is not getcurrent():
            self._admitted(name)  # who enters notes it

    def _admitted(self, name: str) -> Entrant:
        """A weak reference to the running greenlet, which is another one than before. See _current_thread() for why
        this frame, which is part of a refusal's traceback, keeps no other."""
        entrant, thread = weakref.ref(getcurrent()), current_thread()
        if (entrant() is self.hub and name != "shutdown") or (self.waits and self.waits == thread):
            raise self.refusal(name)
        self.thread = self.thread or thread
        if self.thread != thread:
            raise self.refusal(name)
        return entrant

    def _left(self, found: errors.State | list[int] | None = None) -> None:
        """found: the errors of an operation that was interrupted."""
        if self.awaited and self.ssl not in _running:
            self.awaited = False
            self.tell_those_who_wait()
        if found is not None and _running:
            errors.restore(found)

    @property
    def moving(self) -> bool:
        """Somebody was interrupted in the middle of a send or a receive, outside of OpenSSL."""
        return not self._turn

    # -- the verbs -----------------------------------------------------------------------------------------------------

    def continue_handshake(self) -> int:
        """DONE, and what is to be sent has not been yet. Else WANT_READ, WANT_WRITE, ENDED, CLOSED."""
        while True:
            step = self._occupy("do_handshake", _handshake, None)
            if step != WANT_READ or not self._paused():
                return step

    def step_read(self, size: int) -> bytes | int:
        """1 to size bytes; or WANT_READ, WANT_WRITE, SPENT, ENDED, CLOSED."""
        if size <= 0:
            raise ValueError(f"a read of {size} bytes")
        if size > RECORD_SIZE:
            size = RECORD_SIZE
        if self.budget <= 0 and self._socket is not None:
            return SPENT
        while True:
            if not self.established:
                self.not_now("read")
            if self.received == self.drained_at:  # OpenSSL has nothing
                self.admit("read")
                unsent = self._rest is not None or bios.mem_data(self.outgoing, bios.start)
                if unsent and self._socket is not None and not self._move(_SEND, self._has_sent):
                    return WANT_WRITE
                if self.budget <= 0 or (self._emptied and not self.eager):  # nor has the socket
                    self._emptied = False
                    if not self._paused():
                        return WANT_READ
                    if self._rest is not None:  # which the socket may take by now
                        continue
            step = self._occupy("read", _read, size)
            if step is not None and (step or not self._paused()):
                return step

    def step_read_into(self, address: int, room: int) -> int:
        """step_read() to an address; room: bytes there. Returns how many there were."""
        data = self.step_read(room)
        return data if isinstance(data, int) else bios.fill(address, data)

    def step_write(self, data: Memory | bytes) -> int:
        """Encrypts all of it, once the socket has taken what it was given before, and sends: DONE or UNSENT. Or nothing
        was taken: WANT_WRITE, SPENT, or, as a post-handshake message has come in part, WANT_READ, ENDED."""
        length = len(data)
        if not self.writable:
            self.not_now("write")
        if not length:
            return DONE
        if self._socket is not None:
            if self.budget <= 0:
                return SPENT
            if self._rest is not None:
                step = self.send()
                if step != DONE:
                    return step
            self.budget -= 1 + length // RECORD_SIZE
        while True:
            step = self._occupy("write", _write, data)
            if step != WANT_READ:
                return step
            if self.eof:
                return ENDED
            step = self.refill()
            if step != DONE:
                return step

    def step_write_from(self, address: int, length: int) -> int:
        """step_write() from an address."""
        return self.step_write(bios.span(address, length))

    def step_shutdown(self) -> int:
        """Says close_notify the first time, DONE, and looks for the peer's from the second time on: BOTH or CLOSED,
        DONE if it has not come. WANT_READ: close_notify has to wait for the rest of a post-handshake message. ENDED.
        It is not sent yet."""
        if not self.established:
            self.not_now("shutdown")
        step = self.run("shutdown", connections.shutdown, (self.ssl,))
        return ENDED if step == WANT_READ and self.eof else step

    # -- the socket ----------------------------------------------------------------------------------------------------

    def attach(self, sock: object, whole_records: bool = False, eager: bool = False, hub: object = None) -> None:
        """From now on verbs send and receive.

        sock: a _socket.socket, non-blocking. It is kept, and the collector does not close it, so that a finalizer can
        still say close_notify; it must not refer to its pump. whole_records: nothing is received behind the record that
        is being read, as by OpenSSL on a socket; it costs a second receive for each. eager: see look(). hub: a greenlet
        that must not wait, and so must not enter. It may say close_notify.
        """
        if gc.is_tracked(sock):  # from CPython 3.12 on
            keep(self.ssl, sock)
        self._socket, self.whole_records, self.eager, self.hub = sock, whole_records, eager, hub

    def detach(self) -> None:
        """Before the socket is closed: from now on it is as a closed one, EBADF."""
        if self._socket is not None:
            self._socket, self._emptied, self.pause = _CLOSED, False, None

    def attend(self, attended: bool) -> None:
        """Whether somebody waits until the socket takes more, and then sends all there is."""
        self.attended = attended

    def leave(self, for_good: bool) -> int:
        """Says close_notify if it may be said, and sends what there is for the peer if the socket takes it at once.

        for_good: the socket is closed next. So the end of the connection goes out in the same segment, instead of
        behind it: MSG_MORE of send(2). Answers as step_shutdown(); WANT_READ if nothing was said. Raises as that does,
        after the send.
        """
        self._flags = _MORE if for_good else 0
        if self.busy or not (self.writable or (self.established and not self.dead)):
            return WANT_READ
        try:
            return self.step_shutdown() if self.writable else WANT_READ  # else it has been said, or cannot be
        finally:
            if self.unsent:
                try:
                    self.send()
                except (OSError, ConcurrentUseError):
                    pass

    def look(self, eager: bool) -> None:
        """Whether to look at a socket that the last receive has emptied before saying that it wants to read. A look
        that finds nothing costs more than a wait that ends at once; but less than one with a timeout."""
        self.eager = eager

    def pause_by(self, pause: Callable[..., object] | None, *arguments: object) -> None:
        """How the handshake and reads wait until the socket can be read, where they would say that they want to read.

        pause: called with the arguments, two at most, it returns when that is so, and others have had their turn; or
        raises. None: they say it. They say it all the same if the BIOs have grown and nobody watches them, if another
        greenlet waits, and in another thread.
        """
        self.pause = partial(pause, *arguments) if pause is not None and arguments else pause

    def watch(self) -> None:
        """From now on somebody looks whether the memory of BIOs can be given back."""
        self.watched = True

    def rest(self) -> None:
        """Others have had their turn."""
        self.budget = TURN

    @property
    def attached(self) -> bool:
        """There is a socket, or was one."""
        return self._socket is not None

    @property
    def unsent(self) -> int:
        """Bytes of ciphertext that wait to be sent."""
        rest = self._rest
        return int(bios.mem_data(self.outgoing, bios.start)) + (0 if rest is None else len(rest))

    def _move(self, name: str, move: Callable[[], Answer]) -> Answer:
        """_push() or _pull(), outside of OpenSSL: if nobody was interrupted in the middle of one."""
        turn, mine = self._turn, True
        try:
            try:
                turn.pop()
            except IndexError:
                mine = False
            if not mine or (self.name in _MOVES and self.ssl in _running):
                raise _in_the_middle(name)
            return move()
        finally:
            if mine and not turn:
                turn.append(True)
                if self.awaited:
                    self._left()

    def send(self) -> int:
        """DONE: all that there is was sent. WANT_WRITE: the socket takes no more. Raises OSError."""
        return self._move(_SEND, self._push)

    def _push(self) -> int:
        """send(). The caller is alone."""
        sock, unsent, spare = self._socket, self._rest, _outgoing
        if unsent is not None:
            try:
                sent = sock.send(unsent, self._flags)
            except BlockingIOError:
                return WANT_WRITE
            if sent < len(unsent):
                self._rest = unsent[sent:]
                return WANT_WRITE
            self._rest = None
        try:
            buffer = spare.pop()
        except IndexError:
            buffer = bios.Buffer(SEND_SIZE)
        try:
            while (length := bios.read(self.outgoing, buffer.pointer, SEND_SIZE)) > 0:
                if length > BULKY:
                    self.bulky = True
                try:
                    sent = sock.send(buffer.memory[:length], self._flags)
                except BlockingIOError:
                    sent = 0
                except BaseException:
                    self._rest = memoryview(bytes(buffer.memory[:length]))
                    raise
                if sent < length:
                    self._rest = memoryview(bytes(buffer.memory[sent:length]))
                    return WANT_WRITE
                if length < SEND_SIZE:
                    return DONE  # the BIO is empty
            return DONE
        finally:
            if not spare:
                spare.append(buffer)

    def send_or_forget(self) -> int:
        """send(); but a server's peer may have said all it wanted and left before its tickets, or answers, came. They
        are forgotten then, as there may be data to read."""
        return self._move(_SEND, self._push_or_forget)

    def _push_or_forget(self) -> int:
        try:
            return self._push()
        except (BrokenPipeError, ConnectionResetError):
            if not (self.server_side and self.established):
                raise
            self._rest = None
            bios.take(self.outgoing)
            return DONE

    def refill(self) -> int:
        """Sends, then receives once: DONE if something has come, or the end. WANT_READ, WANT_WRITE."""
        return self._move(_RECEIVE, self._refill)

    def _refill(self) -> int:
        if self._socket is None:
            return WANT_READ
        if (self._rest is not None or bios.mem_data(self.outgoing, bios.start)) and not self._has_sent():
            return WANT_WRITE
        return WANT_READ if self._receive() is None else DONE

    def _has_sent(self) -> bool:
        """What there is for the peer; or somebody else waits to send it."""
        return self._push_or_forget() == DONE or (
            self.attended and bios.mem_data(self.outgoing, bios.start) <= MAX_UNSENT
        )

    @property
    def waiting(self) -> bool:
        """Somebody waits until the socket can be read."""
        return not self._pauses

    def wait(self, function: Callable[[], object]) -> bool:
        """Calls a function that waits until the socket can be read. False, without calling it: somebody else waits for
        that."""
        turn, mine = self._pauses, True
        try:
            try:
                turn.pop()
            except IndexError:
                mine = False
                return False
            function()
            return True
        finally:
            del function  # it may hold what it has raised, and the traceback holds this frame
            if mine and not turn:
                turn.append(True)
                if self.crowded:
                    self.crowded = False
                    self.tell_the_next()

    def _paused(self) -> bool:
        """Whether it did wait until the socket can be read."""
        if self.pause is None or self.ask is not None or (self.bulky and not self.watched) or not self.wait(self.pause):
            return False
        self.budget = TURN
        return True

    def receive(self) -> bytes | int:
        """A receive, for who wants to see the ciphertext as well: b"" at its end. WANT_READ."""
        data = self._move(_RECEIVE, self._receive)
        return WANT_READ if data is None else data

    def _receive(self) -> bytes | None:
        if self.budget <= 0 or (self._emptied and not self.eager):
            self._emptied = False
            return None
        return self._pull()

    def _pull(self) -> bytes | None:
        """Receives: b"" at the end, None if there is nothing for now. The caller is alone."""
        sock, wanted = self._socket, RECEIVE_SIZE
        if sock is None:
            return None
        if self.whole_records:
            wanted = min(self._missing or HEADER_SIZE - len(self._header), RECEIVE_SIZE)
        try:
            data: bytes = sock.recv(wanted)
        except BlockingIOError:
            return None
        length = len(data)
        if length:
            if bios.write(self.incoming, data, length) != length:
                raise MemoryError("BIO_write")
            self._emptied = length < wanted
        else:
            self.eof, self._emptied = True, False
        self.received += 1
        self.budget -= 1 + length // PER_UNIT
        if length > BULKY:
            self.bulky = True
        if self.whole_records:
            self._note_records(data)
        return data

    def feed(self, data: bytes) -> None:
        """Ciphertext that somebody else has received; b"": its end."""
        if data:
            bios.append(self.incoming, data)
        else:
            self.eof = True
        if self.whole_records:
            self._note_records(data)
        self.received += 1

    def _note_records(self, data: bytes) -> None:
        while data:
            skipped = min(self._missing, len(data))
            self._missing -= skipped
            wanted = skipped + HEADER_SIZE - len(self._header)
            self._header += data[skipped:wanted]
            data = data[wanted:]
            if len(self._header) == HEADER_SIZE:
                self._missing, self._header = int.from_bytes(self._header[3:], "big"), b""


# -- what PlainPump._occupy() calls ------------------------------------------------------------------------------------
# Functions, because a method of a local variable costs an object.


def _call(pump: PlainPump, call: tuple[Callable[..., int], tuple[object, ...]]) -> int:
    function, arguments = call
    result = function(*arguments)
    return result if result > 0 and pump.failure is None else pump._outcome(result)


def _handshake(pump: PlainPump, _: None) -> int:
    while True:
        received = pump.received
        if received != pump.drained_at:
            result = connections.do_handshake(pump.ssl)
            if result > 0 and pump.failure is None:
                if not (pump.eof or bios.mem_data(pump.incoming, bios.start)):
                    pump.drained_at = received
                return DONE
            if pump._outcome(result) != WANT_READ:
                return CLOSED
            if pump.eof:
                return ENDED
            pump.drained_at = received
        pump.name = _RECEIVE
        if not pump._turn:
            raise _in_the_middle(_RECEIVE)
        step = pump._refill()
        pump.name = "do_handshake"
        if step != DONE:
            if step == WANT_READ and received:
                bios.shrink(pump.incoming, pump.outgoing)  # later it would leave holes in the heap
            return step


def _read(pump: PlainPump, size: int) -> bytes | int | None:
    """None: OpenSSL wants more."""
    if pump.received == pump.drained_at:
        pump.name = _RECEIVE
        if not pump._turn:
            raise _in_the_middle(_RECEIVE)
        if pump._pull() is None:
            return WANT_READ
        pump.name = "read"
    received = pump.received
    try:
        plain = _plain.pop()
    except IndexError:
        plain = bios.read_buffer(RECORD_SIZE)
    length = connections.read(pump.ssl, plain, size)
    if length <= 0 or pump.failure is not None:
        if pump._outcome(length) != WANT_READ:
            return CLOSED
        if pump.eof:
            return ENDED
        pump.drained_at = received
        return None
    pump.messages = 0
    pump.budget -= 1
    # The rest of a record, then: OpenSSL has none of it any more.
    if length < size and not (pump.eof or bios.mem_data(pump.incoming, bios.start)):
        pump.drained_at = received
    data = bios.read_bytes(plain, length)
    if not _plain:
        _plain.append(plain)
    return data


def _write(pump: PlainPump, data: Memory | bytes) -> int:
    taken = connections.write(pump.ssl, data, len(data))
    if taken <= 0 or pump.failure is not None:
        pump._outcome(taken)
        return WANT_READ
    if pump._socket is None:
        return DONE
    pump.name = _SEND
    return DONE if pump._turn and pump._push() == DONE else UNSENT


def _in_the_middle(name: str) -> ConcurrentUseError:
    return ConcurrentUseError(f"{name}: somebody was interrupted in the middle of it")


class _Closed:
    """A socket that was closed."""

    def _closed(self, *_: object) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    send = recv = _closed


_CLOSED = _Closed()


def _current_thread() -> Thread:
    """A weak reference to the greenlet that this thread has begun with: two are equal if they are to one that is alive.

    Weak, and no frame that may become part of a traceback keeps that greenlet: greenlet (3.5.6 and before) frees the
    first greenlet of a thread that has ended if gc.get_referrers() knows of none, as it does while the garbage that
    refers to it is being collected; the collector then reads what was freed.
    """
    root = getcurrent()
    while root.parent is not None:
        root = root.parent
    return weakref.ref(root)


def _occupant(ssl: SSL) -> PlainPump | None:
    entry = _running.get(ssl)
    return None if entry is None else entry[0]


def _occupants() -> list[PlainPump]:
    return [entry[0] for entry in list(_running.values())]


def _guard(function: Callable[..., Answer], fatal: Fatal) -> Callable[..., Answer | Fatal]:
    def ask(ssl: SSL, *arguments: object) -> Answer | Fatal:
        pump = _occupant(ssl)
        if pump is None or pump.failure is not None:
            return fatal
        saved = errors.save() if errors.peek() else None
        try:
            if pump.ask is None:
                return function(pump, *arguments)
            answer: Answer = pump.ask(function, pump, *arguments)
            return answer
        except BaseException as failure:
            pump.failure = failure
            return fatal
        finally:
            if saved is not None or errors.peek():
                errors.restore(saved)

    return ask


# -- which of the two --------------------------------------------------------------------------------------------------

FUNCTIONS = (
    "SSL_new", "SSL_free", "SSL_set_accept_state", "SSL_set_connect_state", "SSL_set_bio", "SSL_set_shutdown",
    "BIO_s_mem", "BIO_new", "BIO_free",
    "SSL_do_handshake", "SSL_read", "SSL_write", "SSL_shutdown", "SSL_get_error", "SSL_get_shutdown",
    "BIO_read", "BIO_write", "BIO_get_mem_data", "ERR_peek_error", "ERR_clear_error",
)  # fmt: skip  # in the order of _pump.c


def bind(compiled: ModuleType, receive: int = 0, send: int = 0) -> None:
    """Hands the compiled pump what it needs. receive, send: addresses, for tests; 0: recv(2) and send(2)."""
    functions = (*map(symbols.exported, FUNCTIONS), receive, send)
    cast = (partial(ffi.cast, ffi.typeof(kind)) for kind in ("SSL *", "BIO *"))
    compiled.bind(functions, getcurrent, *cast, errors.save, errors.restore, nobody)


def _compiled() -> Any:  # Any: a module of C's, or None
    if os.environ.get("GREENTLS_PURE"):
        return None
    try:
        from greentls.openssl import _pump  # type: ignore[attr-defined]  # C
    except ImportError:
        return None
    if _pump.CONTRACT != CONTRACT:
        return None
    bind(_pump)
    return _pump


twin = _compiled()
COMPILED = twin is not None

if TYPE_CHECKING:
    Pump = PlainPump
else:
    Pump = twin.Pump if COMPILED else PlainPump
#: (function, fatal): a function(SSL*, *arguments) for OpenSSL's callbacks, which calls function(pump, *arguments)
#: with the pump that is inside OpenSSL with that SSL*. What it raises is kept as the pump's failure, and the result is
#: fatal; it is so at once where the pump has failed already, and where there is none. The error queue is left as found.
guard: Callable[[Callable[..., Answer], Fatal], Callable[..., Answer | Fatal]] = (
    partial(partial, twin.ask) if COMPILED else _guard
)
#: (): what tells this thread apart from others.
current_thread: Callable[[], Thread] = twin.current_thread if COMPILED else _current_thread
#: (ssl): the pump that is inside OpenSSL with it, or None.
occupant: Callable[[SSL], PlainPump | None] = twin.occupant if COMPILED else _occupant
#: Those that are inside OpenSSL, the last one last.
occupants: Callable[[], list[PlainPump]] = twin.occupants if COMPILED else _occupants
