"""What OpenSSL tells of a ClientHello, of a session and of a finished handshake: all that is needed, in one call.

Compiled where the pump is (_pump.c). In Python each is up to a dozen calls through cffi, some 4 microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import NamedTuple, NewType

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl import client_hello, connections, pump, sessions
from greentls.openssl.declarations import CALLBACK_TYPES
from greentls.openssl.library import SSL, SSL_CTX, SSL_SESSION, Callback, address, ffi, pointer

__all__ = ["Found", "callbacks", "hello", "parse", "record", "settle"]

_SERVER_NAME = 0  # ExtensionType
_TLS13 = 0x0304

Found = NewType("Found", object)  # an SSL_SESSION*, or what the compiled twin has in its place
Hello = tuple["bytes | None", "bytes | None"]
Record = tuple[bytes, bytes, int, bytes, bool]

FUNCTIONS = (
    "SSL_client_hello_get0_ext", "SSL_client_hello_get0_ciphers", "SSL_client_hello_get0_session_id",
    "SSL_SESSION_get_id", "SSL_SESSION_get0_id_context", "SSL_SESSION_get_time", "SSL_SESSION_get_timeout",
    "i2d_SSL_SESSION", "d2i_SSL_SESSION", "SSL_SESSION_free",
    "SSL_session_reused", "SSL_ctrl", "EVP_PKEY_set_type", "EVP_PKEY_free", "SSL_set_info_callback", "SSL_version",
    "SSL_set_session_id_context", "SSL_SESSION_up_ref", "BIO_ctrl", "BUF_MEM_new", "CRYPTO_free",
)  # fmt: skip  # in the order of _pump.c


def hello(asker: pump.PlainPump) -> Hello:
    """client_hello.message(), and the server_name extension or None. asker: inside OpenSSL, in its client-hello
    callback."""
    twin = _twin()
    told: Hello = twin.hello(asker) if twin else _hello(asker)
    return told


def record(ssl: SSL, session: SSL_SESSION) -> Record:
    """(the session's id, its id context, when it expires in seconds since the epoch, its DER, whether the SSL* has
    resumed another one)."""
    der, expires = sessions.to_bytes(session), sum(sessions.times(session))
    return sessions.session_id(session), sessions.id_context(session), expires, der, connections.session_reused(ssl)


def parse(blob: bytes, start: int, session_id: bytes) -> Found | None:
    """A session whose DER begins at start, for a get_session callback to give to OpenSSL; None if there is none, or it
    has another id. No finalizer may use it (greentls.openssl.lifetimes)."""
    twin = _twin()
    if twin is None:
        session = sessions.from_bytes(blob[start:], brief=True)
        return None if session is None or sessions.session_id(session) != session_id else Found(session)
    if not isinstance(blob, bytes):  # a store may answer with a buffer that can change
        blob = bytes(memoryview(blob))
    found: Found | None = twin.parse(blob, start, session_id)
    return found


class Callbacks(NamedTuple):
    """What OpenSSL calls."""

    client_hello: Callback
    servername: Callback
    get_session: Callback
    new_session: Callback


def callbacks(plain: Callbacks, look_up: Callable[..., object], store: Callable[..., object]) -> Callbacks:
    """The same callbacks; where the twin is, its own. They do what needs no hook, and ask the first two for the rest.

    look_up: what get_session asks, (the pump, a session's id) -> an SSL_SESSION*, what parse() found, or None. store:
    what new_session calls with the pump and what record() tells.
    """
    twin = _twin()
    if twin is None:
        return plain
    first_two = tuple(int(_at(callback)) for callback in plain[:2])
    made = twin.bind_callbacks(first_two, look_up, store, pointer)
    kinds = zip(Callbacks._fields, made, strict=True)
    return Callbacks(*(ffi.cast(CALLBACK_TYPES[f"on_{name}"], address) for name, address in kinds))


def settle(over: pump.PlainPump, context: SSL_CTX, callback: Callback) -> bool:
    """Does what remains behind a handshake: connections.forget_keys() and set_info_callback(), and notes `patient`.

    over: the pump whose handshake is finished. context: its SSL_CTX. Returns connections.session_reused().
    """
    twin = _twin()
    reused: bool = twin.settle(over, _address(callback)) if twin else _settle(over, context, callback)
    return reused


def _settle(over: pump.PlainPump, context: SSL_CTX, callback: Callback) -> bool:
    connections.forget_keys(over.ssl)
    connections.set_info_callback(over.ssl, context, callback)
    over.patient = over.server_side and connections.protocol_version(over.ssl) >= _TLS13
    return connections.session_reused(over.ssl)


def _hello(asker: pump.PlainPump) -> Hello:
    return client_hello.message(asker.ssl), client_hello.extension(asker.ssl, _SERVER_NAME)


@cache
def _twin() -> ModuleType | None:
    if pump.twin is not None:
        try:
            pump.twin.bind_facts(tuple(map(address, FUNCTIONS)))
        except UnsupportedOpenSSL:  # one of them is hidden
            return None
    twin: ModuleType | None = pump.twin
    return twin


_at = partial(ffi.cast, ffi.typeof("uintptr_t"))


@cache
def _address(callback: Callback) -> int:
    return int(_at(callback))
