"""The bridge: OpenSSL's callbacks may wait.

OpenSSL decides by callback: which session has this id, which certificate for this name, is this chain good. It calls
from deep inside SSL_do_handshake() and wants the answer as the return value. Under greenlets that is enough. A callback
that waits switches to the hub with OpenSSL's C frames on its stack (greenlet copies that slice of the stack to the heap
and back), other connections run, and when the answer is there the callback returns as if nothing had been. What makes
this more than one line is what OpenSSL, cffi and a switch do to each other:

- OpenSSL is not re-entrant. While a handshake is suspended in a callback, a second SSL_write() on the same SSL* would
  put *plaintext* on the wire, a second SSL_do_handshake() would free what the first one uses. So an SSL* has one
  occupant at a time; a second entry, by another greenlet or by the callback itself, is a ConcurrentUseError before C.
- cffi swallows what a callback raises: it prints it and returns 0, which means "go on" to the servername callback. So a
  guard catches everything, BaseException included (GreenletExit, gevent.Timeout and SystemExit are exactly what ends a
  waiting greenlet), keeps it in the operation's record, gives OpenSSL the callback's fatal value, runs no further
  callback of that operation, and raises the original object to the operation's caller once C has returned, even where
  C returned success. The connection is dead from then on. Some callbacks have no fatal value (a session lookup can
  only miss; keylog returns nothing); there the servername and cert callbacks, installed as tripwires, stop the
  handshake, and if nothing did, the bridge makes OpenSSL send a fatal alert itself, by the function that OpenSSL's own
  checks end in; a library that hides it is fed nonsense instead. **Fail closed.**
- The error queue belongs to the thread, so other greenlets' errors mix into it. Every operation and every callback
  finds it empty, and leaves it as it was where somebody else may be in the middle of an operation.
- A callback's pointer arguments lie on the C stack, which is somewhere else while the greenlet is not running. Inputs
  are copied before user code runs, outputs written after it, and no cdata is handed to user code.
- cffi frees a callback with the Python object that made it, while the SSL_CTX may still call it. So there is one
  immortal callback of each kind in the process, and it finds its operation by SSL*.
- Whoever comes between: Python runs signal handlers, and finalizers for the collector, between two bytecodes. They may
  use TLS and may switch. So an operation is entered by one C call, which also tells whether somebody is inside; it is
  left before anything else is called; and errors in the queue are an interrupted operation's, and are put back.
- The session-remove callback may run under OpenSSL's lock, in the garbage collector, or at interpreter exit. It has no
  operation and never waits: Hooks.remove_session must only note the id.
- OpenSSL looks for the session before it looks at the server name, and would resume under one name what was made under
  another, past all that another certificate or another trust store stands for. So the servername hook is asked in the
  client-hello callback, which comes before everything else, with the name read from the hello here; and what a session
  is bound to there, its session-id context, is the Config that was chosen *and* the name. OpenSSL's own servername
  callback only acknowledges the name, and refuses if the hook has not been asked.
- After a HelloRetryRequest the client says hello again, and OpenSSL does not compare. What hooks have decided by the
  first hello stands, so the second one must be the same but for what RFC 8446 4.1.2 lists: else illegal_parameter.

Where this rests on undocumented behaviour: SSL_set_bio(3) memory BIOs are never read or written between a callback's
call and its return, so that ciphertext may come and go meanwhile; SSL_CTX_set_client_hello_cb(3),
SSL_CTX_sess_set_get_cb(3), SSL_CTX_set_cert_cb(3), SSL_CTX_set_tlsext_servername_callback(3),
SSL_CTX_set_alpn_select_cb(3) hold no lock around the call.
"""

from __future__ import annotations

import atexit
import os
import struct
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from greenlet import getcurrent

from greentls.core.session import Session
from greentls.errors import (
    CertificateError,
    ConcurrentUseError,
    ConnectionDead,
    TLSError,
    UnsupportedOpenSSL,
    WireError,
    WrongThreadError,
)
from greentls.openssl import bios, client_hello, connections, contexts, errors, library, stacks
from greentls.openssl import sessions as ssl_sessions
from greentls.openssl.library import ffi, lib
from greentls.wire.hello import ClientHello
from greentls.wire.registry import ExtensionType
from greentls.wire.retry import changed_field

if TYPE_CHECKING:
    from greentls.tickets import TicketKey

__all__ = [
    "CLOSED", "MAX_MESSAGES_WITHOUT_DATA", "MAX_PSK_LOOKUPS", "MAX_SESSION_LOOKUPS", "WANT_READ", "Bridged", "Hooks",
    "Operation", "count_messages", "install", "question", "verify_resumption",
]  # fmt: skip

# A hello may name some 1,600 PSK identities, and OpenSSL asks for each before it checks a single binder: one cheap
# hello would be 1,600 lookups. Clients offer one, rarely two (a ticket and the one before it).
MAX_SESSION_LOOKUPS = 2

# The same for external pre-shared keys, for which OpenSSL counts every identity that is short enough. A client has one
# or two, and asks twice after a HelloRetryRequest.
MAX_PSK_LOOKUPS = 4

# Post-handshake messages and answers to them (KeyUpdates, NewSessionTickets, renegotiation under TLS 1.2) in a row,
# without application data between. A KeyUpdate of 27 bytes costs us 8 microseconds and 27 bytes of an answer, and
# SSL_read() goes on for as long as they come. OpenSSL itself counts empty records (32) and warnings (4) only. BoringSSL
# allows 32 KeyUpdates, which are 64 with their answers; rustls allows 32 messages.
MAX_MESSAGES_WITHOUT_DATA = 64

# What Operation.run() answers besides SSL_*'s own positive results.
WANT_READ = 0
CLOSED = -1  # the peer's close_notify has come

# AlertDescription, RFC 8446 6.2
_UNEXPECTED_MESSAGE, _BAD_CERTIFICATE, _ILLEGAL_PARAMETER, _INTERNAL_ERROR = 10, 42, 47, 80
_OK, _NOACK, _ALERT_FATAL = 0, 3, 2  # SSL_TLSEXT_ERR_*
_GO_ON, _REFUSE = 1, 0  # SSL_CLIENT_HELLO_SUCCESS, SSL_CLIENT_HELLO_ERROR
_NAME_HEADER = struct.Struct(">HBH")  # ServerNameList's length, NameType, HostName's length
_MESSAGE_DONE = lib.SSL_CB_ACCEPT_EXIT, lib.SSL_CB_CONNECT_EXIT
_UNREAD = object()  # in the place of a server name: no hello has been read
_TLS13 = 0x0304
_TICKET_IV = 16  # bytes, EVP_MAX_IV_LENGTH: what AES-CBC has
# A record that no peer sends: application data that no key opens. An OpenSSL that skips rejected early data gives up
# after 16 KiB and some of it, not counting each record's tag of 16 bytes, so enough is fed to reach the alert from
# wherever the handshake stood.
_NONSENSE = (b"\x17\x03\x03\x01\x00" + bytes(256)) * 70


class Bridged(Protocol):
    """A connection as its hooks and the bridge see it."""

    server_side: bool
    external_psk: bool

    @property
    def good_until(self) -> float | None: ...

    @property
    def hooks(self) -> Hooks: ...

    @property
    def verify_hooks(self) -> Sequence[Callable[[Any, list[bytes], bool], None]]: ...

    @property
    def session_hooks(self) -> Hooks: ...

    @property
    def session_id_context(self) -> bytes: ...


@dataclass(frozen=True, repr=False)  # a functools.partial shows the keys that it was given
class Hooks:
    """A Config's answers to OpenSSL's questions. Each may wait; whatever it raises refuses the connection.

    The connection that asks comes first. When the servername hook switches to another Config (SSL_set_SSL_CTX), the
    session hooks of the first one stay in force, the verify hooks of both are asked, and the others come from the new
    one.
    """

    #: (connection, server_name or None) -> None, or the number of the alert to refuse with. Runs on every handshake,
    #: before OpenSSL has looked for a session; may switch the Context. The name is the client's, not checked: any text.
    servername: Callable[[Any, str | None], int | None] | None = None
    #: (connection, the client's protocols) -> one of them, or None to go on without ALPN
    alpn: Callable[[Any, Sequence[bytes]], bytes | None] | None = None
    #: (connection, session id) -> the Session, or None: a full handshake
    get_session: Callable[[Any, bytes], Session | None] | None = None
    #: (connection, Session). The Session is a copy that the hook may keep.
    new_session: Callable[[Any, Session], None] | None = None
    #: (session id, session-id context). No connection; must not wait, must not raise: see the module's docstring.
    remove_session: Callable[[bytes, bytes], None] | None = None
    #: (connection, the name of the key that a ticket was sealed with, or None for a new ticket) -> (a key, whether the
    #: client is to get another ticket), or None: a full handshake, or no ticket.
    ticket_key: Callable[[Any, bytes | None], tuple[TicketKey, bool] | None] | None = None
    #: server: (connection, None) -> a DER OCSP response or None. client: (connection, the peer's or None) -> None, once
    #: the chain was found good, and not on a resumption. It sets connection.vouched_until: until then a later
    #: connection resumes this one's sessions, by default not at all.
    ocsp: Callable[[Any, bytes | None], bytes | None] | None = None
    #: (connection, ClientHello.random) -> whether early data is taken; if not, the handshake goes on without. Asked
    #: when the binder was found good and the ticket's age right (RFC 8446 8.2), and where no client is verified.
    early_data: Callable[[Any, bytes], bool] | None = None
    #: (connection, DER certificates, the peer's first; resumed?). After all of OpenSSL's own checks have passed, and
    #: again for each resumption, with what the session knows. Not asked where the peer has no certificate. Where the
    #: verify mode asks for no checks: the certificates as they came, whatever they are. Raises to refuse.
    verify: Callable[[Any, list[bytes], bool], None] | None = None
    #: (connection). Before a certificate is chosen: SSL_CTX_set_cert_cb(3).
    certificate: Callable[[Any], None] | None = None
    #: (connection, one line for an SSLKEYLOGFILE): secrets.
    keylog: Callable[[Any, bytes], None] | None = None
    #: (connection, the server's hint or None) -> (identity, key) of a pre-shared key, or None to do without.
    psk_client: Callable[[Any, str | None], tuple[str | None, bytes] | None] | None = None
    #: (connection, the client's identity) -> its key, empty if it is unknown. Twice after a HelloRetryRequest.
    psk_server: Callable[[Any, str], bytes] | None = None
    #: (connection, sent?, version, content type, message): SSL_CTX_set_msg_callback(3).
    message: Callable[[Any, bool, int, int, bytes], None] | None = None


def question(connection: Any, hook: Callable[..., Any], arguments: tuple[Any, ...], bound: bool = True) -> Any:
    """A key of Operation.answers. bound: an answer is one for the Config, and the name, that are chosen now."""
    return id(hook), arguments, connection.session_id_context if bound else b""


def _nobody() -> None:
    """A weak reference to nobody."""


def _thread() -> Any:
    """What tells threads apart, without a system call: a weak reference to the greenlet that this one has begun with.

    Weak, and no frame that may become part of a traceback keeps that greenlet: greenlet (3.5.6 and before) frees the
    first greenlet of a thread that has ended if gc.get_referrers() knows of none, as it does while the garbage that
    refers to it is being collected; the collector then reads what was freed.
    """
    root = getcurrent()
    while root.parent is not None:
        root = root.parent
    return weakref.ref(root)


class Operation:
    """What one connection's SSL* is doing. Lives as long as its connection; entered once per operation."""

    name = ""  # of the operation that runs, or that ran last
    lookups = psk_lookups = 0
    messages = 0  # and answers, post-handshake, since there was application data
    chores = 0  # the same, since the pump has looked
    alert = _INTERNAL_ERROR  # what the peer is told if a callback fails where OpenSSL cannot be told
    server_name: Any = _UNREAD  # what the client's hello says, str or None, at a server
    hello: bytes | None = None  # the client's first, at a server, for as long as a second one may come
    offered_psks: bytes | None = None  # pre_shared_key of the TLS 1.3 hello that is worked on
    kept: Any = None  # memory that OpenSSL reads after a callback has returned
    thread: Any = None  # that of the first operation
    # What hooks have answered before OpenSSL was entered, by question().
    answers: dict[Any, Callable[[], Any]] | None = None
    # Who runs the bodies of callbacks, where that is not the thread that OpenSSL runs in.
    ask: Callable[..., Any] | None = None
    # The thread that waits for another one's operation, from before that begins until it is back.
    waits: Any = None
    # A greenlet that must not wait, and so must not enter. It may say close_notify, which asks nobody anything.
    hub: Any = None
    left: Any = None  # an event of those who wait until nobody is inside any more: made once, and set once

    def __init__(self, ssl: Any, incoming: Any, connection: Bridged) -> None:
        self.ssl = ssl
        self.incoming = incoming  # the BIO that OpenSSL reads ciphertext from
        self.connection = weakref.ref(connection)
        self.failure: BaseException | None = None  # what a callback raised
        self.dead = ""  # why, once an operation failed for good
        # The greenlet that entered last, which has one thread. A weak reference, and run() keeps no other: otherwise a
        # greenlet that waits for ever in a hook could not be collected, which ends the operation with its GreenletExit.
        self.entrant: Callable[[], Any] = _nobody

    def run(self, name: str, function: Any, arguments: tuple[Any, ...]) -> int:
        """Calls an SSL_* function with the arguments, of which SSL* is the first; its callbacks may wait.

        Returns the function's positive result, WANT_READ, or CLOSED. Raises what a callback raised, as itself; TLSError
        if OpenSSL failed; ConcurrentUseError, WrongThreadError or ConnectionDead before OpenSSL is entered.
        """
        me = self.entrant
        if me() is not getcurrent():
            me = self.admit(name)
        ssl = self.ssl
        entry = self, me  # no other entry is this object
        found = None
        try:
            if _running.setdefault(ssl, entry) is not entry:
                raise self._occupied(name)
            if self.dead:
                raise ConnectionDead(name, reason=self.dead)
            self.entrant = me
            self.name = name
            if lib.ERR_peek_error():
                found = errors.save()
            result: int = function(*arguments)
            if result > 0 and self.failure is None:
                return result
            error = lib.SSL_get_error(ssl, result)
            if self.failure is None:
                if error == lib.SSL_ERROR_WANT_READ:
                    return WANT_READ
                if error == lib.SSL_ERROR_ZERO_RETURN or (error == lib.SSL_ERROR_SYSCALL and self._closed_by_peer()):
                    return CLOSED
            said = self._said(name, failed=result <= 0 and error != lib.SSL_ERROR_WANT_READ)
            failure, self.failure = self.failure, None
            self.dead = str(said) if failure is None else f"a callback raised {failure!r}"
        finally:
            if ssl in _running and _running[ssl] is entry:  # no call before this is done: see "Whoever comes between"
                del _running[ssl]
                if self.left is not None:
                    self.tell_those_who_wait()
            if found is not None and _running:
                errors.restore(found)
        try:
            if failure is None:
                raise said
            if failure.__cause__ is None:
                failure.__cause__ = said
            raise failure
        finally:
            del failure, said  # the traceback holds this frame

    def _closed_by_peer(self) -> bool:
        """Java says user_canceled before its close_notify, and SSL_get_error(3) then does not know the latter. A fatal
        alert, which sets the same flag, has left an error."""
        return connections.received_shutdown(self.ssl) and not lib.ERR_peek_error()

    def admit(self, name: str) -> Any:
        """Raises what run() raises before OpenSSL is entered. Returns a weak reference to the running greenlet."""
        if self.busy:
            raise self._occupied(name)
        if self.dead:
            raise ConnectionDead(name, reason=self.dead)
        if self.entrant() is getcurrent():
            return self.entrant
        if getcurrent() is self.hub and name != "shutdown":
            raise WrongThreadError(f"{name}: the hub must never wait: spawn a greenlet for TLS operations")
        thread = _thread()
        if thread == self.waits:
            raise ConcurrentUseError(f"{name}: another thread is inside {self.name} of this connection")
        if self.thread is None:
            self.thread = thread
        elif self.thread != thread:  # two weak references are equal if they are to one object that is alive
            raise WrongThreadError(f"{name}: a connection belongs to the thread of its first operation")
        return weakref.ref(getcurrent())

    def _occupied(self, name: str) -> ConcurrentUseError:
        who = "this greenlet's own callback" if self.inside else "another greenlet"
        return ConcurrentUseError(f"{name}: {who} is inside {self.name} of this connection")

    def finished(self) -> None:
        """The handshake is: what it needed is not needed any more."""
        self.answers = self.kept = self.hello = self.offered_psks = None

    def asked(self, hook: Callable[..., Any], *arguments: Any, bound: bool = True) -> Any:
        """What the hook answers; it may have been asked already. bound: for the Config that is chosen now."""
        connection = self.connection()
        ready = self.answers.pop(question(connection, hook, arguments, bound), None) if self.answers else None
        return hook(connection, *arguments) if ready is None else ready()

    def foretell(self, server_name: str | None) -> None:
        """A strategy has read the hello, and asks hooks what OpenSSL will ask; forget_hello() ends it."""
        self.server_name = server_name
        self.name = "do_handshake"  # from here on the Config is switched, and the Connection stays

    def forget_hello(self) -> None:
        self.server_name = _UNREAD

    @property
    def hello_read(self) -> bool:
        """server_name is what the hello says, so that sessions can be bound to it."""
        return self.server_name is not _UNREAD

    @property
    def busy(self) -> bool:
        """The entrant is inside OpenSSL."""
        return self.ssl in _running

    @property
    def inside(self) -> bool:
        """The running greenlet is inside OpenSSL: this is one of its hooks."""
        return self.busy and self.entrant() is getcurrent()

    @property
    def taken(self) -> bool:
        """Somebody is inside, or this thread waits for another one's operation."""
        return self.busy or self.waits is not None

    def go_elsewhere(self) -> None:
        """The next operation comes in another thread, and this thread's come again after come_back(). Between
        operations only, as come_back()."""
        self.thread, self.entrant, self.waits = None, _nobody, _thread()

    def come_back(self) -> None:
        self.thread, self.entrant, self.waits = None, _nobody, None
        self.tell_those_who_wait()

    def tell_those_who_wait(self) -> None:
        if self.waits is None:  # an event is set in the thread of those who wait for it
            left = self.__dict__.pop("left", None)
            if left is not None:
                left.set()

    def check_entry(self, name: str) -> None:
        """For what changes an SSL* without being an operation: the occupant's own callbacks may, others may not."""
        if self.busy and not self.inside:
            raise ConcurrentUseError(f"{name}: another greenlet is inside {self.name} of this connection")

    def _said(self, name: str, failed: bool) -> TLSError:
        """What OpenSSL made of the operation. If a callback failed and OpenSSL did not notice, it does now."""
        if not failed:
            self._end()
            return TLSError(name, reason="a callback failed where OpenSSL cannot be told; the connection was ended")
        error = tls_error(name, errors.take())
        if error.reason != "certificate verify failed":
            return error
        refused = CertificateError(*error.args)
        refused.verify_code = lib.SSL_get_verify_result(self.ssl)
        refused.verify_message = ffi.string(lib.X509_verify_cert_error_string(refused.verify_code)).decode()
        return refused

    def _end(self) -> None:
        """OpenSSL sends a fatal alert and forgets the session. No callback of ours runs meanwhile."""
        try:
            connections.send_fatal_alert(self.ssl, self.alert)
        except UnsupportedOpenSSL:
            self._provoke_alert()
        lib.ERR_clear_error()

    def _provoke_alert(self) -> None:
        """Nonsense into OpenSSL, which is fatal to it; the alert is then bad_record_mac or unexpected_message."""
        bios.take(self.incoming)
        bios.append(self.incoming, _NONSENSE)
        scratch = ffi.new("char[]", 1)
        for _ in range(_NONSENSE.count(b"\x17\x03\x03")):
            lib.ERR_clear_error()
            result = lib.SSL_read(self.ssl, scratch, 1)
            if result <= 0 and lib.SSL_get_error(self.ssl, result) != lib.SSL_ERROR_WANT_READ:
                break


def tls_error(name: str, codes: list[int]) -> TLSError:
    """What the error queue says of an operation. Its last error is the one that is told, as the standard library does:
    programs compare the reason. Those before it, which often say more, are the details."""
    *earlier, (library, reason) = [("", ""), *map(errors.describe, codes)]
    return TLSError(name, library, reason, codes[-1] if codes else 0, tuple(text for _, text in earlier if text))


# -- the callbacks -----------------------------------------------------------------------------------------------------

# By SSL*: cffi pointers are equal, and hash alike, if their addresses are.
_running: dict[Any, tuple[Operation, Any]] = {}
_NOBODY: tuple[Operation | None, Any] = None, None


def _guarded(ssl: Any, fatal: Any, body: Callable[..., Any], *arguments: Any) -> Any:
    operation, _ = _running.get(ssl, _NOBODY)
    if operation is None or operation.failure is not None:
        return fatal
    saved = errors.save() if lib.ERR_peek_error() else None
    try:
        connection = operation.connection()
        if connection is None:  # the collector has cleared what is weak, and then called a finalizer that came here
            raise ConnectionDead(operation.name, reason="the connection is garbage, and has no hooks any more")
        if operation.ask is None:
            return body(operation, connection, *arguments)
        return operation.ask(body, operation, connection, *arguments)
    except BaseException as failure:
        operation.failure = failure
        return fatal
    finally:
        if saved is not None or lib.ERR_peek_error():
            errors.restore(saved)


def _second_net(kind: type[BaseException], failure: BaseException, traceback: Any) -> None:
    """What escaped the guard (a KeyboardInterrupt in its first line), or a result that C cannot take."""
    for operation, _ in reversed(list(_running.values())):
        if operation.inside:
            operation.failure = operation.failure or failure
            return
    raise failure  # nobody's: cffi prints it


def _callback(signature: str, fatal: Any = None) -> Callable[[Callable[..., Any]], Any]:
    return lambda function: library.callback(signature, function, fatal, _second_net)


@_callback("int(SSL *, int *, void *)", _REFUSE)
def _on_client_hello(ssl: Any, alert: Any, _: Any) -> Any:
    alert[0] = _INTERNAL_ERROR
    return _guarded(ssl, _REFUSE, _client_hello, alert)


def _client_hello(operation: Operation, connection: Bridged, alert: Any) -> int:
    if connection.hooks.psk_server:
        operation.offered_psks = client_hello.extension(operation.ssl, ExtensionType.pre_shared_key)
    if operation.hello is not None:
        alert[0] = _ILLEGAL_PARAMETER
        _check_second_hello(operation)
        return _GO_ON
    operation.hello = client_hello.message(operation.ssl)
    extension = client_hello.extension(operation.ssl, ExtensionType.server_name)
    name = None if extension is None else _server_name(extension)
    if name is _UNREAD:
        operation.server_name = _UNREAD
        return _GO_ON  # OpenSSL reads it next, and knows the alert
    operation.server_name = name
    hook = connection.session_hooks.servername
    refusal = operation.asked(hook, name, bound=False) if hook else None
    if refusal is not None:
        alert[0] = refusal
        return _REFUSE
    connections.set_session_id_context(operation.ssl, connection.session_id_context)
    return _GO_ON


def _check_second_hello(operation: Operation) -> None:
    """Raises TLSError unless it is the first one again, as far as it must be."""
    first, second = operation.hello or b"", client_hello.message(operation.ssl) or b""
    try:
        changed = changed_field(ClientHello.parse(first), ClientHello.parse(second))
    except WireError as error:
        raise TLSError(operation.name, reason=f"the hello after the HelloRetryRequest: {error}") from None
    if changed:
        raise TLSError(operation.name, reason=f"the client has after the HelloRetryRequest another {changed}")


def _server_name(extension: bytes) -> Any:
    """The name, in lower case (RFC 4343); _UNREAD for what is none. A ServerNameList is of one host_name and nothing
    else: RFC 6066 3 has no two names of one type, and knows one type."""
    size = len(extension)
    if not _NAME_HEADER.size < size <= _NAME_HEADER.size + connections.MAX_SERVER_NAME:  # what OpenSSL takes
        return _UNREAD
    if _NAME_HEADER.unpack_from(extension) != (size - 2, 0, size - 5):
        return _UNREAD
    return extension[5:].decode("ascii", "surrogateescape").lower()


@_callback("int(SSL *, int *, void *)", _ALERT_FATAL)
def _on_servername(ssl: Any, alert: Any, _: Any) -> Any:
    operation, _ = _running.get(ssl, _NOBODY)
    if operation is not None and operation.server_name is not _UNREAD and operation.failure is None:
        return _NOACK if operation.server_name is None or _resumes(operation) else _OK
    alert[0] = _INTERNAL_ERROR
    return _guarded(ssl, _ALERT_FATAL, _servername)


def _resumes(operation: Operation) -> bool:
    """Then the name is not answered: RFC 6066 3 says so, and RFC 8446, which moves the answer to EncryptedExtensions,
    says nothing else. OpenSSL sees to it under TLS 1.2 only. To it an external pre-shared key is a session, too."""
    connection = operation.connection()
    return bool(lib.SSL_session_reused(operation.ssl)) and not (connection and connection.external_psk)


def _servername(operation: Operation, connection: Bridged) -> int:
    if operation.server_name is _UNREAD and connection.session_hooks.servername:
        raise TLSError(operation.name, reason="OpenSSL reads a server_name where RFC 6066 has none")
    return _NOACK if connections.server_name(operation.ssl) is None or _resumes(operation) else _OK


@_callback("int(SSL *, unsigned char **, unsigned char *, unsigned char *, unsigned int, void *)", _ALERT_FATAL)
def _on_alpn(ssl: Any, out: Any, out_length: Any, offered: Any, length: int, _: Any) -> Any:
    return _guarded(ssl, _ALERT_FATAL, _alpn, out, out_length, offered, length)


def _alpn(operation: Operation, connection: Bridged, out: Any, out_length: Any, offered: Any, length: int) -> int:
    hook = connection.hooks.alpn
    if hook is None:
        return _NOACK
    protocols, rest = [], bytes(ffi.buffer(offered, length))  # OpenSSL has checked the lengths
    while rest:
        protocols.append(rest[1 : 1 + rest[0]])
        rest = rest[1 + rest[0] :]
    chosen = operation.asked(hook, tuple(protocols))
    if chosen is None:
        return _NOACK
    if chosen not in protocols:
        raise ValueError(f"alpn: {chosen!r} was chosen, but the client offers {protocols!r}")
    operation.kept = ffi.new("unsigned char[]", chosen)
    out[0], out_length[0] = operation.kept, len(chosen)
    return _OK


@_callback("SSL_SESSION *(SSL *, const unsigned char *, int, int *)", ffi.NULL)
def _on_get_session(ssl: Any, start: Any, length: int, copy: Any) -> Any:
    return _guarded(ssl, ffi.NULL, _get_session, start, length, copy)


def _get_session(operation: Operation, connection: Bridged, start: Any, length: int, copy: Any) -> Any:
    hook = connection.session_hooks.get_session
    operation.lookups += 1
    if hook is None or operation.lookups > MAX_SESSION_LOOKUPS:
        return ffi.NULL
    session_id = bytes(ffi.buffer(start, length))
    session = operation.asked(hook, session_id)
    if session is None or session.id != session_id:  # OpenSSL before 4.0 would be fatal about a wrong one
        return ffi.NULL
    operation.kept = session
    copy[0] = 1  # OpenSSL takes a reference of its own
    return session.pointer


@_callback("int(SSL *, SSL_SESSION *)", 0)
def _on_new_session(ssl: Any, session: Any) -> Any:
    return _guarded(ssl, 0, _new_session, session)


def _new_session(operation: Operation, connection: Bridged, session: Any) -> int:
    hook = connection.session_hooks.new_session
    if hook is not None:
        hook(connection, Session.sharing(session, connection.good_until))
    return 0  # OpenSSL keeps its reference


@_callback("void(SSL_CTX *, SSL_SESSION *)")
def _on_remove_session(context: Any, session: Any) -> None:
    _, hook = _removers.get(library.pointer(context), (None, None))
    if hook is not None:
        hook(ssl_sessions.session_id(session), ssl_sessions.id_context(session))


@_callback("int(SSL *, unsigned char *, unsigned char *, void *, void *, int)", -1)
def _on_ticket_key(ssl: Any, name: Any, iv: Any, cipher: Any, mac: Any, seal: int) -> Any:
    return _guarded(ssl, -1, _ticket_key, name, iv, cipher, mac, bool(seal))


def _ticket_key(
    operation: Operation, connection: Bridged, name: Any, iv: Any, cipher: Any, mac: Any, seal: bool
) -> int:
    hook = connection.session_hooks.ticket_key
    asked = None if seal else bytes(ffi.buffer(name, contexts.TICKET_KEY_NAME))
    answer = hook(connection, asked) if hook else None
    if answer is None:
        return 0
    key, renew = answer
    if seal:
        ffi.memmove(name, key.name, contexts.TICKET_KEY_NAME)
        ffi.memmove(iv, os.urandom(_TICKET_IV), _TICKET_IV)
    contexts.use_ticket_key(cipher, mac, key.aes, key.hmac, iv, seal)
    # Under TLS 1.3 a ticket is for one use (RFC 8446 C.4), and 1 would mean that the client gets no other.
    return 2 if not seal and (renew or lib.SSL_version(operation.ssl) >= _TLS13) else 1


@_callback("int(SSL *, void *)", -1)
def _on_ocsp(ssl: Any, _: Any) -> Any:
    # A client's 0 is the alert bad_certificate_status_response; a server's would be "go on". Neither takes -1 for good.
    operation, _ = _running.get(ssl, _NOBODY)
    connection = None if operation is None else operation.connection()
    client = connection is not None and not connection.server_side
    return _guarded(ssl, 0 if client else -1, _ocsp)


def _ocsp(operation: Operation, connection: Bridged) -> int:
    hook = connection.hooks.ocsp
    if connection.server_side:
        staple = operation.asked(hook, None) if hook else None
        if staple is None:
            return _NOACK
        connections.set_ocsp_response(operation.ssl, staple)
        return _OK
    if hook and not lib.SSL_session_reused(operation.ssl):  # with TLS 1.3 OpenSSL asks then, too; there is no staple
        hook(connection, connections.ocsp_response(operation.ssl))
    return 1


@_callback("int(SSL *, void *)", 0)
def _on_early_data(ssl: Any, _: Any) -> Any:
    return _guarded(ssl, 0, _early_data)


def _early_data(operation: Operation, connection: Bridged) -> int:
    hook = connection.session_hooks.early_data  # SSL_new() has copied the callback, as it has max_early_data
    if hook is None or lib.SSL_get_verify_mode(operation.ssl):  # the Config that a name has chosen may verify
        return 0
    if not ssl_sessions.max_early_data(lib.SSL_get_session(operation.ssl)):
        return 0  # the ticket allowed none: OpenSSL takes what this Config takes, and is then fatal about the ticket
    return int(hook(connection, connections.client_random(operation.ssl)) is True)


@_callback("int(X509_STORE_CTX *, void *)", 0)
def _on_verify(store: Any, _: Any) -> int:
    # In the place of OpenSSL's verification, so that the hook comes behind the whole of it. SSL_CTX_set_verify(3)'s
    # callback comes in the middle: name constraints and policies are checked after its last call.
    ssl = lib.X509_STORE_CTX_get_ex_data(store, lib.SSL_get_ex_data_X509_STORE_CTX_idx())
    ssl = ffi.cast("SSL *", ssl)
    must_be_good = lib.SSL_get_verify_mode(ssl) & lib.SSL_VERIFY_PEER
    if lib.X509_verify_cert(store) != 1 and must_be_good:
        return 0  # the error stands: nobody here turns a no into a yes
    good = _guarded(ssl, 0, _verify, store if must_be_good else None)
    if not good:
        # OpenSSL says bad_certificate for this one, for APPLICATION_VERIFICATION only handshake_failure.
        lib.X509_STORE_CTX_set_error(store, lib.X509_V_ERR_CERT_REJECTED)
    return int(good)


def _verify(operation: Operation, connection: Bridged, store: Any) -> int:
    sent = store is None
    for hook in connection.verify_hooks:
        ssl = operation.ssl
        chain = connections.peer_certificates(ssl, connection.server_side) if sent else stacks.verified_chain(store)
        hook(connection, chain, False)
    return 1


def verify_resumption(ssl: Any) -> int:
    """For Operation.run(), behind the handshake: a resumption verifies nothing, so the verify hook is asked again."""
    if lib.SSL_session_reused(ssl):
        _guarded(ssl, None, _verify_again)  # what it raises ends the operation
    return 1


def _verify_again(operation: Operation, connection: Bridged) -> None:
    for hook in connection.verify_hooks:
        chain = connections.peer_certificates(operation.ssl, connection.server_side)
        if chain:  # else it is an external pre-shared key, or a certificate was optional
            operation.alert = _BAD_CERTIFICATE
            hook(connection, chain, True)
            operation.alert = _INTERNAL_ERROR


@_callback("int(SSL *, void *)", 0)
def _on_certificate(ssl: Any, _: Any) -> Any:
    return _guarded(ssl, 0, _certificate)


def _certificate(operation: Operation, connection: Bridged) -> int:
    hook = connection.hooks.certificate
    if hook is not None:
        hook(connection)
    return 1


@_callback("void(SSL *, char *)")
def _on_keylog(ssl: Any, line: Any) -> None:
    _guarded(ssl, None, _keylog, line)


def _keylog(operation: Operation, connection: Bridged, line: Any) -> None:
    hook = connection.hooks.keylog
    if hook is not None:
        hook(connection, ffi.string(line))


@_callback("unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)", 0)
def _on_psk_client(ssl: Any, hint: Any, identity: Any, max_identity: int, key: Any, max_key: int) -> Any:
    return _guarded(ssl, 0, _psk_client, hint, identity, max_identity, key, max_key)


def _psk_client(
    operation: Operation, connection: Bridged, hint: Any, identity: Any, max_identity: int, key: Any, max_key: int
) -> int:
    hook = connection.hooks.psk_client
    answer = hook(connection, _text(hint)) if hook else None
    if answer is None:
        return 0
    name = (answer[0] or "").encode()
    if len(name) + 1 > max_identity:
        raise ValueError(f"psk_client: an identity of {len(name)} bytes; {max_identity - 1} are allowed")
    ffi.memmove(identity, name + b"\0", len(name) + 1)
    return _give_key("psk_client", answer[1], key, max_key)


@_callback("unsigned int(SSL *, const char *, unsigned char *, unsigned int)", 0)
def _on_psk_server(ssl: Any, identity: Any, key: Any, max_key: int) -> Any:
    return _guarded(ssl, 0, _psk_server, identity, key, max_key)


def _psk_server(operation: Operation, connection: Bridged, identity: Any, key: Any, max_key: int) -> int:
    hook = connection.hooks.psk_server
    name = _identity(operation, ffi.string(identity))
    if hook is None or name is None:
        return 0
    operation.psk_lookups += 1
    if operation.psk_lookups > MAX_PSK_LOOKUPS:
        return 0
    return _give_key("psk_server", hook(connection, name), key, max_key)


def _identity(operation: Operation, identity: bytes) -> str | None:
    """None for what is no identity but a TLS 1.3 session: OpenSSL asks for the key of each that is offered, up to its
    first NUL. RFC 4279 5.1 has identities in UTF-8."""
    offered = operation.offered_psks
    if offered is not None and not (identity and len(identity).to_bytes(2, "big") + identity in offered):
        return None
    try:
        return identity.decode()
    except UnicodeDecodeError:
        return None


def _text(string: Any) -> str | None:
    return None if string == ffi.NULL else ffi.string(string).decode("utf-8", "surrogateescape")


def _give_key(who: str, given: bytes, key: Any, max_key: int) -> int:
    if len(given) > max_key:
        raise ValueError(f"{who}: a key of {len(given)} bytes; {max_key} are allowed")
    ffi.memmove(key, given, len(given))
    return len(given)


@_callback("void(int, int, int, void *, size_t, SSL *, void *)")
def _on_message(sent: int, version: int, content_type: int, start: Any, length: int, ssl: Any, _: Any) -> None:
    _guarded(ssl, None, _message, sent, version, content_type, start, length)


def _message(
    operation: Operation, connection: Bridged, sent: int, version: int, content_type: int, start: Any, length: int
) -> None:
    hook = connection.hooks.message
    if hook is not None:
        hook(connection, bool(sent), version, content_type, bytes(ffi.buffer(start, length)))


@_callback("void(SSL *, int, int)")
def _on_info(ssl: Any, where: int, result: int) -> None:
    if result != 1 or where not in _MESSAGE_DONE:
        return
    operation, _ = _running.get(ssl, _NOBODY)
    if operation is None:
        return
    operation.messages += 1
    operation.chores += 1
    if operation.messages > MAX_MESSAGES_WITHOUT_DATA and operation.failure is None:
        lib.SSL_clear_mode(ssl, lib.SSL_MODE_AUTO_RETRY)  # SSL_read() returns now, and does not go on
        operation.alert = _UNEXPECTED_MESSAGE
        operation.failure = TLSError(operation.name, reason="too many post-handshake messages without application data")


def count_messages(ssl: Any, context: Any) -> None:
    """From the end of the handshake on, in which OpenSSL would call forty times. context: its SSL.Context."""
    connections.set_info_callback(ssl, context, _on_info)


# -- installing them ---------------------------------------------------------------------------------------------------

_NONE = Hooks()
_removers: dict[int, tuple[Any, Callable[[bytes, bytes], None]]] = {}  # by SSL_CTX*, since a removal has no operation


def install(owner: Any, context: Any, hooks: Hooks, server_side: bool, verify_mode: int) -> None:
    """Points an SSL_CTX's callbacks here; those for which there is no hook are left out.

    owner: the Python object that lives as long as the context is used. Raises UnsupportedOpenSSL where session hooks
    or a servername hook are asked for and this OpenSSL hides the functions that set them.
    """
    if hooks.get_session or hooks.new_session or hooks.remove_session:
        get, new, remove = (
            trampoline if hook else ffi.NULL
            for trampoline, hook in (
                (_on_get_session, hooks.get_session),
                (_on_new_session, hooks.new_session),
                (_on_remove_session, hooks.remove_session),
            )
        )
        contexts.set_session_callbacks(context, get, new, remove)
        if hooks.remove_session:
            _removers[library.pointer(context)] = (context, hooks.remove_session)
            weakref.finalize(owner, _detach, library.pointer(context)).atexit = False
    if server_side:
        try:
            client_hello.set_callback(context, _on_client_hello)
        except UnsupportedOpenSSL:
            if hooks.servername:
                raise
            # Nobody chooses by name, then, and sessions are bound to this one Config, but not to a name.
        if hooks.ticket_key:
            contexts.set_ticket_key_callback(context, _on_ticket_key)
        if hooks != _NONE:  # a tripwire behind get_session
            lib.SSL_CTX_set_tlsext_servername_callback(context, _on_servername)
        if hooks.alpn:
            lib.SSL_CTX_set_alpn_select_cb(context, _on_alpn, ffi.NULL)
        if hooks.early_data:
            contexts.set_allow_early_data_callback(context, _on_early_data)
    if hooks.certificate or hooks.message or not server_side:  # the other tripwire; nothing else fails without a sound
        lib.SSL_CTX_set_cert_cb(context, _on_certificate, ffi.NULL)
    lib.SSL_CTX_set_verify(context, verify_mode, ffi.NULL)
    # A server's in any case: of a connection that is switched here, the first Config may have a hook.
    if hooks.verify or server_side:
        try:
            contexts.set_verify_callback(context, _on_verify)
        except UnsupportedOpenSSL:
            if hooks.verify:
                raise
    if hooks.ocsp:
        lib.SSL_CTX_set_tlsext_status_cb(context, _on_ocsp)
    if hooks.keylog:
        lib.SSL_CTX_set_keylog_callback(context, _on_keylog)
    if hooks.psk_client and not server_side:
        lib.SSL_CTX_set_psk_client_callback(context, _on_psk_client)
    if hooks.psk_server and server_side:
        lib.SSL_CTX_set_psk_server_callback(context, _on_psk_server)
    if hooks.message:
        lib.SSL_CTX_set_msg_callback(context, _on_message)


def _detach(address: int) -> None:
    context, _ = _removers.pop(address)
    contexts.set_session_callbacks(context, ffi.NULL, ffi.NULL, ffi.NULL)


@atexit.register
def _detach_all() -> None:
    """The interpreter frees connections on its way out, when a callback would find this module half taken down."""
    for address in list(_removers):
        _detach(address)
