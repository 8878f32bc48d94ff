"""The bridge: OpenSSL's callbacks may wait.

OpenSSL decides by callback: which session has this id, which certificate fits this name, is this chain good. It calls
from deep inside SSL_do_handshake() and takes the return value for the answer. Under greenlets that is enough. A
callback that waits switches to the hub with OpenSSL's C frames on its stack (greenlet copies that slice of the stack to
the heap and back), other connections run, and when the answer is there the callback returns as if it had never waited.
What makes this more than one line is what OpenSSL, cffi and a switch do to each other:

- OpenSSL is not re-entrant. While a handshake is suspended in a callback, a second SSL_write() on the same SSL* would
  put *plaintext* on the wire, and a second SSL_do_handshake() would free what the first one uses. So an SSL* has one
  occupant at a time. A second entry, by another greenlet or by the callback itself, is a ConcurrentUseError before C.
- cffi swallows what a callback raises: it prints the exception and returns 0, which the servername callback's caller
  takes for "go on". So a guard catches everything, BaseException included (GreenletExit, gevent.Timeout and SystemExit
  are exactly what ends a waiting greenlet), keeps it in the operation's record, gives OpenSSL the callback's fatal
  value, runs no further callback of that operation, and raises the original object to the operation's caller once C has
  returned, even if C returned success. The connection is dead from then on. Some callbacks have no fatal value (a
  session lookup can only miss; keylog returns nothing). There the servername and cert callbacks, installed as
  tripwires, stop the handshake. If nothing did, the bridge makes OpenSSL send a fatal alert, by the function that
  OpenSSL's own checks end in; a library that hides that function is fed nonsense instead. **Fail closed.**
- The error queue belongs to the thread, so errors of different greenlets mix in it. Every operation and every callback
  finds it empty, and leaves it as it was if another operation is suspended.
- A callback's pointer arguments lie on the C stack, which is elsewhere while the greenlet does not run. Inputs are
  copied before user code runs, outputs are written after it, and user code gets no cdata.
- Python runs signal handlers, and finalizers for the collector, between two bytecodes. They may use TLS and may switch.
  So an operation is entered by one C call, which also tells whether somebody is inside; it is left before anything else
  is called; and errors found in the queue are an interrupted operation's, and are put back. These steps, and the guard,
  are the pump's (greentls.openssl.pump), and are C where that is compiled. A Connection is a pump, so the SSL* lives as
  long as anybody can call a method of it.
- The session-remove callback may run under OpenSSL's lock, in the garbage collector, or at the interpreter's exit. It
  has no operation and never waits: Hooks.remove_session must only note the id.
- OpenSSL looks for the session before it looks at the server name. It would resume under one name what was made under
  another, and so bypass the other certificate or trust store. So the servername hook is asked in the client-hello
  callback, which precedes everything else, with the name that is read from the hello here; and a session's binding
  there, its session-id context, is the Config that was chosen *and* the name. OpenSSL's own servername callback only
  acknowledges the name, and refuses if the hook has not been asked.
- After a HelloRetryRequest the client says hello again, and OpenSSL does not compare the two. What hooks have decided
  by the first hello stands, so the second one must repeat it, except for what RFC 8446 4.1.2 lists: otherwise
  illegal_parameter.

This rests on undocumented behaviour in two points. Memory BIOs (SSL_set_bio(3)) are never read or written between a
callback's call and its return, so ciphertext may come and go meanwhile. SSL_CTX_set_client_hello_cb(3),
SSL_CTX_sess_set_get_cb(3), SSL_CTX_set_cert_cb(3), SSL_CTX_set_tlsext_servername_callback(3) and
SSL_CTX_set_alpn_select_cb(3) hold no lock around the call.

The callbacks themselves are in greentls.core.callbacks, the hooks in greentls.core.hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar, cast

from greenlet import getcurrent

from greentls.core.handshake import State, States
from greentls.errors import (
    CertificateError,
    ConcurrentUseError,
    ConnectionDead,
    TLSError,
    UnsupportedOpenSSL,
    WrongThreadError,
)
from greentls.hub.coroutines import asker
from greentls.hub.protocol import Event
from greentls.openssl import bios, connections, errors, pump
from greentls.openssl.library import SSL
from greentls.openssl.pump import Entrant, Pump, current_thread, nobody
from greentls.wire.registry import AlertDescription

__all__ = ["Operation", "guarded", "occupant", "occupants", "second_net", "tls_error"]

Answer = TypeVar("Answer")
Fatal = TypeVar("Fatal")

# A record that no peer sends: application data that no key opens. An OpenSSL that skips rejected early data gives up
# after 16 KiB and some of it, not counting each record's tag of 16 bytes, so enough is fed to reach the alert from
# wherever the handshake stood.
_NONSENSE = (b"\x17\x03\x03\x01\x00" + bytes(256)) * 70


class Operation(States, Pump):
    """What one connection's SSL* is doing, and who may use it: the pump's decisions, and the bridge's record.

    A Connection is one. context: the SSL_CTX's address.
    """

    alert = AlertDescription.internal_error  # what the peer is told if a callback fails where OpenSSL cannot be told

    def refusal(self, name: str) -> BaseException:
        """Why the running greenlet may not enter."""
        if self.busy:
            return self._occupied(name)
        if self.dead:
            return ConnectionDead(name, reason=self.dead)
        if getcurrent() is self.hub and name != "shutdown":
            return WrongThreadError(f"{name}: the hub must never wait: spawn a greenlet for TLS operations")
        if self.waits and self.waits == current_thread():
            return ConcurrentUseError(f"{name}: another thread is inside {self.name} of this connection")
        if self.thread and self.thread != current_thread():
            return WrongThreadError(f"{name}: a connection belongs to the thread of its first operation")
        return ConcurrentUseError(f"{name}: somebody else was inside of this connection")

    def _occupied(self, name: str) -> ConcurrentUseError:
        who = "this greenlet's own callback" if self.inside else "another greenlet"
        return ConcurrentUseError(f"{name}: {who} is inside {self.name} of this connection")

    @property
    def inside(self) -> bool:
        """The running greenlet is inside OpenSSL: this is one of its hooks."""
        return self.entered and self.entrant() is getcurrent()

    @property
    def taken(self) -> bool:
        """Somebody is inside, or was interrupted there, or this thread waits for another one's operation."""
        return bool(self.busy or self.moving or self.waits)

    def go_elsewhere(self, ask: Callable[..., object]) -> None:
        """The next operation comes from another thread, and this thread's come again after come_back(). Both are called
        between operations only. ask: runs the functions of callbacks meanwhile."""
        self.ask, self.thread, self.entrant, self.waits = ask, 0, nobody, current_thread()

    def come_back(self) -> None:
        self.ask, self.thread, self.entrant, self.waits = None, 0, nobody, 0
        self.tell_those_who_wait()

    def stand_in(self, entrant: Entrant) -> Entrant:
        """Inside of an operation: a weak reference to the greenlet that runs its callback. Returns the one before."""
        before, self.entrant = self.entrant, entrant
        return before

    def when_left(self, event: Event) -> Event:
        """The event that is set once nobody is inside any more: this one, unless there is one already."""
        left: Event = self.__dict__.setdefault("left", event)
        self.awaited = True
        return left

    def tell_those_who_wait(self) -> None:
        if not self.waits:  # an event is set in the thread of those who wait for it
            left = self.__dict__.pop("left", None)
            if left is not None:
                left.set()

    def when_next(self, event: Event) -> Event:
        """The event that is set once nobody waits until the socket can be read: this one, unless there is one."""
        free: Event = self.__dict__.setdefault("next", event)
        self.crowded = True
        return free

    def tell_the_next(self) -> None:
        free = self.__dict__.pop("next", None)
        if free is not None:
            free.set()

    def check_entry(self, name: str) -> None:
        """For what changes an SSL* without being an operation: the occupant's own callbacks may, others may not.

        The coroutine that a callback waits for is the callback's, though the event loop's greenlet runs it.
        """
        if self.busy and not self.inside and (self.entrant() is not asker() or self.thread != current_thread()):
            raise ConcurrentUseError(f"{name}: another greenlet is inside {self.name} of this connection")

    def not_now(self, name: str) -> NoReturn:
        """Raises why data cannot be read or written."""
        self.admit(name)  # raises the reason if the connection is dead, or somebody is inside
        if self.state is State.CLOSING:  # as OpenSSL, to which it would be an error of the whole connection
            raise TLSError(name, "SSL routines", "protocol is shutdown")
        raise TLSError(name, reason="the handshake is not finished")

    def failed(self, name: str, failed: bool) -> BaseException:
        """The connection is dead. Returns what to raise: what a callback raised, or what OpenSSL says."""
        said = self._said(name, failed)
        failure, self.failure = self.failure, None
        self.die(str(said) if failure is None else f"a callback raised {failure!r}")
        if failure is None:
            return said
        if failure.__cause__ is None:
            failure.__cause__ = said
        return failure

    def _said(self, name: str, failed: bool) -> TLSError:
        """What OpenSSL made of the operation. If a callback failed and OpenSSL did not notice, it does now."""
        if not failed:
            self._end()
            return TLSError(name, reason="a callback failed where OpenSSL cannot be told; the connection was ended")
        error = tls_error(name, errors.take())
        if error.reason != "certificate verify failed":
            return error
        refused = CertificateError(*error.args)
        refused.verify_code, refused.verify_message = connections.verify_result(self.ssl)
        return refused

    def _end(self) -> None:
        """OpenSSL sends a fatal alert and forgets the session. No callback of ours runs meanwhile."""
        try:
            connections.send_fatal_alert(self.ssl, self.alert)
        except UnsupportedOpenSSL:
            self._provoke_alert()
        errors.clear()

    def _provoke_alert(self) -> None:
        """Nonsense into OpenSSL, which is fatal to it; the alert is then bad_record_mac or unexpected_message."""
        bios.take(self.incoming)
        bios.append(self.incoming, _NONSENSE)
        scratch = bios.read_buffer(1)
        for _ in range(_NONSENSE.count(b"\x17\x03\x03")):
            errors.clear()
            result = connections.read(self.ssl, scratch, 1)
            if result <= 0 and connections.get_error(self.ssl, result) != connections.WANT_READ:
                break


def tls_error(name: str, codes: list[int]) -> TLSError:
    """What the error queue says of an operation. Its last error is the one that is told, as the standard library does:
    programs compare the reason. Those before it, which often say more, are the details."""
    *earlier, (library, reason) = [("", ""), *map(errors.describe, codes)]
    return TLSError(name, library, reason, codes[-1] if codes else 0, tuple(text for _, text in earlier if text))


# -- the guard ---------------------------------------------------------------------------------------------------------

# Every pump is an Operation.
#: The one that is inside OpenSSL with an SSL*, or None.
occupant = cast("Callable[[SSL], Operation | None]", pump.occupant)
#: All that are inside OpenSSL, the last one last.
occupants = cast("Callable[[], list[Operation]]", pump.occupants)


def guarded(fatal: Fatal) -> Callable[[Callable[..., Answer]], Callable[..., Answer | Fatal]]:
    """Decorator: of a function(connection, *arguments) it makes a function(SSL*, *arguments).

    What the function raises is kept for the operation's caller, and the result is fatal. It is so at once where the
    operation has failed already, and where there is none.
    """

    return lambda function: pump.guard(function, fatal)


def second_net(kind: type[BaseException], failure: BaseException, traceback: object) -> None:
    """For cffi: what escaped the guard (a KeyboardInterrupt in its first line), or a result that C cannot take."""
    for operation in reversed(occupants()):
        if operation.inside:
            operation.failure = operation.failure or failure
            return
    raise failure  # no operation's: cffi prints it
