"""The C callbacks: OpenSSL's questions to a connection's hooks.

Each callback is one function that copies its inputs from OpenSSL, asks the hook, and writes the answer to where OpenSSL
wants it. A decorator makes a C function pointer of the function, with the bridge's guard around it. The function gets
its connection, and whatever it raises becomes the callback's fatal value (greentls.core.bridge).

cffi frees a callback together with the Python object that made it, but an SSL_CTX may still call it. So the process has
one callback of each kind, which lives as long as this module and finds its operation by SSL*.
"""

from __future__ import annotations

import atexit
import os
import struct
import weakref
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, TypeVar

from greenlet import getcurrent

from greentls.core.bridge import Operation, guarded, occupant, occupants, second_net
from greentls.core.handshake import UNREAD, Unread
from greentls.core.hooks import HookConnection, Hooks
from greentls.core.session import TLS13, Session
from greentls.errors import TLSError, UnsupportedOpenSSL, WireError
from greentls.keys.signer import Signer
from greentls.openssl import client_hello, connections, contexts, facts, library, provider, stacks
from greentls.openssl import sessions as ssl_sessions
from greentls.openssl.library import SSL, SSL_CTX, SSL_SESSION, Callback, Pointer, ffi, lib
from greentls.wire.hello import ClientHello
from greentls.wire.registry import AlertDescription, ExtensionType
from greentls.wire.retry import changed_field

__all__ = [
    "MAX_MESSAGES_WITHOUT_DATA", "MAX_PSK_LOOKUPS", "MAX_SESSION_LOOKUPS", "count_messages", "install",
    "question", "verify_resumption",
]  # fmt: skip

T = TypeVar("T")

if TYPE_CHECKING:

    class Asker(Operation, HookConnection):
        """A Connection: as the bridge sees it, and as hooks do."""


# A hello may name some 1,600 PSK identities, and OpenSSL asks for each before it checks a single binder: one cheap
# hello would cost 1,600 lookups. Clients offer one, rarely two (a ticket and the one before it).
MAX_SESSION_LOOKUPS = 2

# The same limit for external pre-shared keys: OpenSSL asks for every identity that is short enough. A client has one or
# two, and OpenSSL asks twice after a HelloRetryRequest.
MAX_PSK_LOOKUPS = 4

# Consecutive post-handshake messages and answers to them (KeyUpdates, NewSessionTickets, renegotiation under TLS 1.2)
# without application data between them. A KeyUpdate of 27 bytes costs us 8 microseconds and an answer of 27 bytes, and
# SSL_read() continues as long as they come. OpenSSL itself counts only empty records (32) and warnings (4). BoringSSL
# allows 32 KeyUpdates, which are 64 with their answers; rustls allows 32 messages.
MAX_MESSAGES_WITHOUT_DATA = 64

# Server names that a Config remembers, some 500 bytes each. A client may ask for any name; sites have fewer.
MAX_BINDINGS = 1024

_OK, _NOACK, _ALERT_FATAL = 0, 3, 2  # SSL_TLSEXT_ERR_*
_GO_ON, _REFUSE = 1, 0  # SSL_CLIENT_HELLO_SUCCESS, SSL_CLIENT_HELLO_ERROR
_NAME_HEADER = struct.Struct(">HBH")  # ServerNameList's length, NameType, HostName's length
_TOO_SHORT, _LONGEST = _NAME_HEADER.size, _NAME_HEADER.size + connections.MAX_SERVER_NAME  # what OpenSSL takes
_MESSAGE_DONE = lib.SSL_CB_ACCEPT_EXIT, lib.SSL_CB_CONNECT_EXIT
_TICKET_IV = 16  # bytes, EVP_MAX_IV_LENGTH: what AES-CBC has


def _callback(fatal: object = None) -> Callable[[Callable[..., object]], Callback]:
    """Decorator that makes a C function pointer. fatal: returned to C if the function's result cannot be converted."""
    return library.callback(fatal, second_net)


def _hook(fatal: object = None) -> Callable[[Callable[..., object]], Callback]:
    """Decorator: a C function pointer to a guarded function. C's arguments begin with the SSL*, in whose place the
    function has its connection. fatal: the answer by which OpenSSL ends the handshake."""
    return library.callback(fatal, second_net, guarded(fatal))


def question(
    connection: HookConnection, hook: Callable[..., object], arguments: tuple[object, ...], bound: bool = True
) -> object:
    """A key of Handshake.answers. bound: an answer holds for the Config, and the server name, that are chosen now."""
    return id(hook), arguments, connection.session_id_context if bound else b""


def _asked(connection: HookConnection, hook: Callable[..., T], *arguments: object, bound: bool = True) -> T:
    """What the hook answers, or has answered before OpenSSL was entered."""
    answers = connection.handshake.answers
    ready = answers.pop(question(connection, hook, arguments, bound), None) if answers else None
    return hook(connection, *arguments) if ready is None else ready()


# -- the ClientHello ---------------------------------------------------------------------------------------------------


@_hook(_REFUSE)  # the alert is internal_error, unless another one is written
def _on_client_hello(connection: Asker, alert: Pointer, _: Pointer) -> int:
    handshake = connection.handshake
    if connection.hooks.psk_server:
        handshake.offered_psks = client_hello.extension(connection.ssl, ExtensionType.pre_shared_key)
    if handshake.hello is not None:
        alert[0] = AlertDescription.illegal_parameter
        _check_second_hello(connection)
        return _GO_ON
    handshake.hello, extension = facts.hello(connection)
    name = None if extension is None else _server_name(extension)
    handshake.server_name = name
    if isinstance(name, Unread):
        return _GO_ON  # OpenSSL reads it next, and knows the alert
    hook = connection.session_hooks.servername
    refusal = _asked(connection, hook, name, bound=False) if hook else None
    if refusal is not None:
        alert[0] = refusal
        return _REFUSE
    binding = connection.session_id_context
    connections.set_session_id_context(connection.ssl, binding)
    bindings = connection.bindings
    if bindings is not None:
        if len(bindings) >= MAX_BINDINGS:
            bindings.clear()
        bindings[extension] = name, binding  # the next such hello is the compiled twin's work
    return _GO_ON


def _check_second_hello(connection: Asker) -> None:
    """Raises TLSError unless it repeats the first one, as far as it must."""
    first, second = connection.handshake.hello or b"", client_hello.message(connection.ssl) or b""
    try:
        changed = changed_field(ClientHello.parse(first), ClientHello.parse(second))
    except WireError as error:
        raise TLSError(connection.name, reason=f"the hello after the HelloRetryRequest: {error}") from None
    if changed:
        raise TLSError(connection.name, reason=f"the client has after the HelloRetryRequest another {changed}")


def _server_name(extension: bytes) -> str | Unread:
    """The name, in lower case (RFC 4343); UNREAD if the extension is malformed. A ServerNameList has one host_name and
    nothing else: RFC 6066 3 forbids two names of one type, and defines one type."""
    return _short_name(extension) if _TOO_SHORT < len(extension) <= _LONGEST else UNREAD


@lru_cache(1024)  # most names are asked for again
def _short_name(extension: bytes) -> str | Unread:
    size = len(extension)
    if _NAME_HEADER.unpack_from(extension) != (size - 2, 0, size - _TOO_SHORT):
        return UNREAD
    return extension[_TOO_SHORT:].decode("ascii", "surrogateescape").lower()


@_callback(_ALERT_FATAL)
def _on_servername(ssl: SSL, alert: Pointer, _: Pointer) -> int:
    """Acknowledges the name for which the hook was asked. Refuses if it was not asked, so this is also a tripwire."""
    operation = occupant(ssl)
    if operation is not None and operation.failure is None and (name := operation.handshake.server_name) is not UNREAD:
        return _NOACK if name is None or _resumes(operation) else _OK
    alert[0] = AlertDescription.internal_error
    return _servername(ssl)


@guarded(_ALERT_FATAL)
def _servername(connection: Asker) -> int:
    if connection.handshake.server_name is UNREAD and connection.session_hooks.servername:
        raise TLSError(connection.name, reason="OpenSSL reads a server_name where RFC 6066 has none")
    return _NOACK if connections.server_name(connection.ssl) is None or _resumes(connection) else _OK


def _resumes(operation: Operation) -> bool:
    """Whether this is a resumption, which does not acknowledge the name. RFC 6066 3 says so, and RFC 8446, which moves
    the acknowledgement to EncryptedExtensions, does not change it. OpenSSL complies only under TLS 1.2. To OpenSSL an
    external pre-shared key is a session, too; here it is not."""
    return connections.session_reused(operation.ssl) and not operation.handshake.external_psk


@_hook(_ALERT_FATAL)
def _on_alpn(connection: Asker, out: Pointer, out_length: Pointer, offered: Pointer, length: int, _: Pointer) -> int:
    hook = connection.hooks.alpn
    if hook is None:
        return _NOACK
    protocols, rest = [], bytes(ffi.buffer(offered, length))  # OpenSSL has checked the lengths
    while rest:
        protocols.append(rest[1 : 1 + rest[0]])
        rest = rest[1 + rest[0] :]
    chosen = _asked(connection, hook, tuple(protocols))
    if chosen is None:
        return _NOACK
    if chosen not in protocols:
        raise ValueError(f"alpn: {chosen!r} was chosen, but the client offers {protocols!r}")
    connection.handshake.kept = out[0] = ffi.new("unsigned char[]", chosen)
    out_length[0] = len(chosen)
    return _OK


# -- sessions ----------------------------------------------------------------------------------------------------------


def _look_up(connection: Asker, session_id: bytes) -> Pointer | None:
    hook, handshake = connection.session_hooks.get_session, connection.handshake
    handshake.lookups += 1
    if hook is None or handshake.lookups > MAX_SESSION_LOOKUPS:
        return None
    handshake.kept = found = _asked(connection, hook, session_id) if handshake.answers else hook(connection, session_id)
    if not isinstance(found, Session):
        return found
    return found.pointer if found.id == session_id else None  # OpenSSL before 4.0 would be fatal about a wrong one


@_hook(ffi.NULL)
def _on_get_session(connection: Asker, start: Pointer, length: int, copy: Pointer) -> Pointer:
    copy[0] = 1  # OpenSSL takes its own reference
    found = _look_up(connection, ffi.buffer(start, length)[:])
    return ffi.NULL if found is None else found


def _store(connection: Asker, session_id: bytes, id_context: bytes, expires: int, der: bytes, resumed: bool) -> None:
    hook = connection.session_hooks.store_session
    if hook is not None:
        hook(connection, session_id, id_context, expires, der, resumed)


@_hook(0)
def _on_new_session(connection: Asker, session: SSL_SESSION) -> int:
    if connection.session_hooks.store_session is not None:
        _store(connection, *facts.record(connection.ssl, session))
    hook = connection.session_hooks.new_session
    if hook is not None:
        lent = Session(session, None if connection.server_side else connection.vouched_until)
        try:
            hook(connection, lent)
        finally:
            del lent.pointer  # if the hook has kept it, its use is an AttributeError, and not of freed memory
    return 0  # OpenSSL keeps its reference


@_callback()
def _on_remove_session(context: SSL_CTX, session: SSL_SESSION) -> None:
    _, hook = _removers.get(library.pointer(context), (None, None))
    if hook is not None:
        hook(ssl_sessions.session_id(session), ssl_sessions.id_context(session))


@_hook(-1)
def _on_ticket_key(connection: Asker, name: Pointer, iv: Pointer, cipher: Pointer, mac: Pointer, seal: int) -> int:
    hook = connection.session_hooks.ticket_key
    asked = None if seal else bytes(ffi.buffer(name, contexts.TICKET_KEY_NAME))
    answer = hook(connection, asked) if hook else None
    if answer is None:
        return 0
    key, renew = answer
    if seal:
        ffi.memmove(name, key.name, contexts.TICKET_KEY_NAME)
        ffi.memmove(iv, os.urandom(_TICKET_IV), _TICKET_IV)
    contexts.use_ticket_key(cipher, mac, key.aes, key.hmac, iv, bool(seal))
    # A TLS 1.3 ticket is used once (RFC 8446 C.4), and after a 1 the client would get no other.
    return 2 if not seal and (renew or connections.protocol_version(connection.ssl) >= TLS13) else 1


@_hook(0)
def _on_early_data(connection: Asker, _: Pointer) -> int:
    hook = connection.session_hooks.early_data  # SSL_new() has copied the callback and max_early_data
    if hook is None or connections.verify_mode(connection.ssl):  # the Config that a name has chosen may verify
        return 0
    if not ssl_sessions.max_early_data(lib.SSL_get_session(connection.ssl)):
        # The ticket allowed none. OpenSSL would accept as much as this Config does, and then be fatal about the ticket.
        return 0
    return int(hook(connection, connections.client_random(connection.ssl)) is True)


# -- certificates ------------------------------------------------------------------------------------------------------


@_hook(0)
def _on_certificate(connection: Asker, _: Pointer) -> int:
    hook = connection.hooks.certificate
    if hook is not None:
        hook(connection)
    return 1


@_hook(-1)
def _on_ocsp_at_a_server(connection: Asker, _: Pointer) -> int:
    hook = connection.hooks.ocsp
    staple = _asked(connection, hook, None) if hook else None
    if staple is None:
        return _NOACK
    connections.set_ocsp_response(connection.ssl, staple)
    return _OK


@_hook(0)  # this makes the alert bad_certificate_status_response
def _on_ocsp_at_a_client(connection: Asker, _: Pointer) -> int:
    hook = connection.hooks.ocsp
    if hook and not connections.session_reused(connection.ssl):  # where OpenSSL asks under TLS 1.3, too: no staple
        hook(connection, connections.ocsp_response(connection.ssl))
    return 1


@_callback(0)
def _on_verify(store: Pointer, _: Pointer) -> int:
    # This replaces OpenSSL's verification, so that the hook comes after all of it. The callback of
    # SSL_CTX_set_verify(3) would come in the middle: name constraints and policies are checked after its last call.
    ssl = lib.X509_STORE_CTX_get_ex_data(store, lib.SSL_get_ex_data_X509_STORE_CTX_idx())
    ssl = ffi.cast("SSL *", ssl)
    must_be_good = connections.verify_mode(ssl) & lib.SSL_VERIFY_PEER
    if lib.X509_verify_cert(store) != 1 and must_be_good:
        return 0  # the error stands: no hook turns a no into a yes
    good = _verify(ssl, store if must_be_good else None)
    if not good:
        # OpenSSL says bad_certificate for this one, for APPLICATION_VERIFICATION only handshake_failure.
        lib.X509_STORE_CTX_set_error(store, lib.X509_V_ERR_CERT_REJECTED)
    return int(good)


@guarded(0)
def _verify(connection: Asker, store: Pointer) -> int:
    sent = store is None
    for hook in connection.verify_hooks:
        ssl = connection.ssl
        chain = connections.peer_certificates(ssl, connection.server_side) if sent else stacks.verified_chain(store)
        hook(connection, chain, False)
    return 1


def verify_resumption(ssl: SSL) -> int:
    """Asks the verify hooks again after a resumption, which verifies nothing. Called by Operation.run()."""
    if connections.session_reused(ssl):
        _verify_again(ssl)  # what it raises ends the operation
    return 1


@guarded(None)
def _verify_again(connection: Asker) -> None:
    for hook in connection.verify_hooks:
        chain = connections.peer_certificates(connection.ssl, connection.server_side)
        if chain:  # there is none with an external pre-shared key, or if a certificate was optional
            connection.alert = AlertDescription.bad_certificate
            hook(connection, chain, True)
            connection.alert = AlertDescription.internal_error


# -- pre-shared keys ---------------------------------------------------------------------------------------------------


@_hook(0)
def _on_psk_client(
    connection: Asker, hint: Pointer, identity: Pointer, max_identity: int, key: Pointer, max_key: int
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


@_hook(0)
def _on_psk_server(connection: Asker, identity: Pointer, key: Pointer, max_key: int) -> int:
    hook = connection.hooks.psk_server
    name = _identity(connection, ffi.string(identity))
    if hook is None or name is None:
        return 0
    connection.handshake.psk_lookups += 1
    if connection.handshake.psk_lookups > MAX_PSK_LOOKUPS:
        return 0
    return _give_key("psk_server", hook(connection, name), key, max_key)


def _identity(connection: Asker, identity: bytes) -> str | None:
    """Returns an identity as text (RFC 4279 5.1: UTF-8), or None if it is a TLS 1.3 session's: OpenSSL asks for the key
    of each offered identity, and shows it up to its first NUL."""
    offered = connection.handshake.offered_psks
    if offered is not None and not (identity and len(identity).to_bytes(2, "big") + identity in offered):
        return None
    try:
        return identity.decode()
    except UnicodeDecodeError:
        return None


def _text(string: Pointer) -> str | None:
    return None if string == ffi.NULL else ffi.string(string).decode("utf-8", "surrogateescape")


def _give_key(who: str, given: bytes, key: Pointer, max_key: int) -> int:
    if len(given) > max_key:
        raise ValueError(f"{who}: a key of {len(given)} bytes; {max_key} are allowed")
    ffi.memmove(key, given, len(given))
    return len(given)


# -- a signature -------------------------------------------------------------------------------------------------------


def _on_sign(signer: Signer, message: bytes, digest: str, padding: str) -> bytes | None:
    """Makes a signature for the SSL* that this greenlet is inside of, because OpenSSL does not say for which SSL* it
    asks. If the greenlet is inside of several, it is the one that it entered last. Looking at an operation takes 0.03
    microseconds."""
    me = getcurrent()
    for operation in reversed(occupants()):
        if operation.entrant() is me:
            signature: bytes | None = _sign(operation.ssl, signer, message, digest, padding)
            return signature
    return None


@guarded(None)
def _sign(connection: Asker, signer: Signer, message: bytes, digest: str, padding: str) -> bytes:
    algorithm = signer.algorithm(digest, padding)
    hook = connection.hooks.sign
    return signer.sign(message, algorithm) if hook is None else hook(connection, signer, message, algorithm)


provider.answer_with(_on_sign, second_net)


# -- observers ---------------------------------------------------------------------------------------------------------


@_hook()
def _on_keylog(connection: Asker, line: Pointer) -> None:
    hook = connection.hooks.keylog
    if hook is not None:
        hook(connection, ffi.string(line))


@_callback()
def _on_message(sent: int, version: int, content_type: int, start: Pointer, length: int, ssl: SSL, _: Pointer) -> None:
    _message(ssl, bool(sent), version, content_type, start, length)


@guarded(None)
def _message(connection: Asker, sent: bool, version: int, content_type: int, start: Pointer, length: int) -> None:
    hook = connection.hooks.message
    if hook is not None:
        hook(connection, sent, version, content_type, bytes(ffi.buffer(start, length)))


@_callback()
def count_messages(ssl: SSL, where: int, result: int) -> None:
    """An info callback that is set after the handshake: during it OpenSSL would call forty times."""
    if result != 1 or where not in _MESSAGE_DONE:
        return
    operation = occupant(ssl)
    if operation is None:
        return
    operation.messages += 1
    operation.budget -= 1
    if operation.messages > MAX_MESSAGES_WITHOUT_DATA and operation.failure is None:
        lib.SSL_clear_mode(ssl, lib.SSL_MODE_AUTO_RETRY)  # so that SSL_read() returns now
        operation.alert = AlertDescription.unexpected_message
        operation.failure = TLSError(operation.name, reason="too many post-handshake messages without application data")


# -- installing them ---------------------------------------------------------------------------------------------------

_NONE = Hooks()
_removers: dict[int, tuple[SSL_CTX, Callable[[bytes, bytes], None]]] = {}  # by SSL_CTX*: a removal has no operation


@cache
def _quick() -> facts.Callbacks:
    """Not at import, as it looks for functions in OpenSSL."""
    plain = facts.Callbacks(_on_client_hello, _on_servername, _on_get_session, _on_new_session)
    return facts.callbacks(plain, _look_up, _store)


def install(owner: object, context: SSL_CTX, hooks: Hooks, server_side: bool, verify_mode: int) -> None:
    """Points an SSL_CTX's callbacks here, except those for which there is no hook.

    owner: the Python object that lives as long as the context is used, and keeps it. Raises UnsupportedOpenSSL if this
    OpenSSL hides a function that sets the callback of a hook.
    """
    if hooks.get_session or hooks.new_session or hooks.store_session or hooks.remove_session:
        get, new, remove = (
            trampoline if hook else ffi.NULL
            for trampoline, hook in (
                (_quick().get_session, hooks.get_session),
                (
                    _on_new_session if hooks.new_session else _quick().new_session,
                    hooks.new_session or hooks.store_session,
                ),
                (_on_remove_session, hooks.remove_session),
            )
        )
        contexts.set_session_callbacks(context, get, new, remove)
        if hooks.remove_session:
            _removers[library.pointer(context)] = (context, hooks.remove_session)
            weakref.finalize(owner, _detach, library.pointer(context)).atexit = False
    if server_side:
        try:
            client_hello.set_callback(context, _quick().client_hello)
        except UnsupportedOpenSSL:
            if hooks.servername:
                raise
            # In this case nothing is chosen by name, and sessions are bound to this Config, but not to a name.
        if hooks.ticket_key:
            contexts.set_ticket_key_callback(context, _on_ticket_key)
        if hooks != _NONE:  # a tripwire behind get_session
            lib.SSL_CTX_set_tlsext_servername_callback(context, _quick().servername)
        if hooks.alpn:
            lib.SSL_CTX_set_alpn_select_cb(context, _on_alpn, ffi.NULL)
        if hooks.early_data:
            contexts.set_allow_early_data_callback(context, _on_early_data)
    if hooks.certificate or hooks.message or not server_side:  # the other tripwire
        lib.SSL_CTX_set_cert_cb(context, _on_certificate, ffi.NULL)
    lib.SSL_CTX_set_verify(context, verify_mode, ffi.NULL)
    # A server needs it in any case: a connection that is switched here may have a hook of its first Config.
    if hooks.verify or server_side:
        try:
            contexts.set_verify_callback(context, _on_verify)
        except UnsupportedOpenSSL:
            if hooks.verify:
                raise
    if hooks.ocsp:
        lib.SSL_CTX_set_tlsext_status_cb(context, _on_ocsp_at_a_server if server_side else _on_ocsp_at_a_client)
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
    """Removes the callbacks at the interpreter's exit. It frees connections when this module is partly destroyed, and a
    callback would fail."""
    for address in list(_removers):
        _detach(address)
