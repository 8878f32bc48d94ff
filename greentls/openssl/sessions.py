"""SSL_SESSION: bytes of it, and what it says (d2i_SSL_SESSION(3))."""

from __future__ import annotations

from typing import Any

from greentls.openssl.library import SSL_SESSION, ffi, hidden, lib
from greentls.openssl.lifetimes import owned

_SESSION_FUNCTIONS = {
    # char, not unsigned char, so that ffi.unpack() makes bytes of it
    "SSL_SESSION_get0_alpn_selected": "void (*)(const SSL_SESSION *, const unsigned char **, size_t *)",
    "SSL_SESSION_get0_cipher": "const SSL_CIPHER *(*)(const SSL_SESSION *)",
    "SSL_SESSION_get0_hostname": "const char *(*)(const SSL_SESSION *)",
    "SSL_SESSION_get0_id_context": "const char *(*)(const SSL_SESSION *, unsigned int *)",
    "SSL_SESSION_get_id": "const char *(*)(const SSL_SESSION *, unsigned int *)",
    "SSL_SESSION_get_protocol_version": "int (*)(const SSL_SESSION *)",
    "SSL_SESSION_get_ticket_lifetime_hint": "unsigned long (*)(const SSL_SESSION *)",
    "SSL_SESSION_get_time": "long (*)(const SSL_SESSION *)",
    "SSL_SESSION_get_timeout": "long (*)(const SSL_SESSION *)",
    "SSL_SESSION_has_ticket": "int (*)(const SSL_SESSION *)",
    "SSL_SESSION_is_resumable": "int (*)(const SSL_SESSION *)",
    "SSL_SESSION_up_ref": "int (*)(SSL_SESSION *)",
}


class _Sessions:
    """Those functions as attributes, each hidden() until its first use: a resumption takes six, and has no time to look
    for any of them twice."""

    def __getattr__(self, name: str) -> Any:
        if name not in _SESSION_FUNCTIONS:
            raise AttributeError(name)
        function = hidden(name, _SESSION_FUNCTIONS[name])
        setattr(self, name, function)
        return function


_sessions = _Sessions()


def to_bytes(session: SSL_SESSION) -> bytes:
    """DER of an SSL_SESSION*. It holds the master secret in clear."""
    start = ffi.new("unsigned char **")  # NULL: OpenSSL allocates
    length = lib.i2d_SSL_SESSION(session, start)
    try:
        return bytes(ffi.buffer(start[0], length))
    finally:
        lib.OPENSSL_free(start[0])


def from_bytes(blob: bytes) -> Any:
    """A new SSL_SESSION*, owned, or None if the bytes are not one."""
    data = ffi.from_buffer(blob)
    session = lib.d2i_SSL_SESSION(ffi.NULL, ffi.new("const unsigned char **", data), len(blob))
    if not session:
        lib.ERR_clear_error()
        return None
    return owned(session, lib.SSL_SESSION_free)


def shared(session: SSL_SESSION) -> Any:
    """The same SSL_SESSION*, owned: with a reference more."""
    _sessions.SSL_SESSION_up_ref(session)
    return owned(session, lib.SSL_SESSION_free)


def session_id(session: SSL_SESSION) -> bytes:
    """The session's id, empty if it has none."""
    length = ffi.new("unsigned int *")
    octets: bytes = ffi.unpack(_sessions.SSL_SESSION_get_id(session, length), length[0])
    return octets


def id_context(session: SSL_SESSION) -> bytes:
    """What the session is bound to (SSL_CTX_set_session_id_context(3)); empty: nothing, as a client's."""
    length = ffi.new("unsigned int *")
    octets: bytes = ffi.unpack(_sessions.SSL_SESSION_get0_id_context(session, length), length[0])
    return octets


def server_name(session: SSL_SESSION) -> str | None:
    name = _sessions.SSL_SESSION_get0_hostname(session)
    return None if name == ffi.NULL else ffi.string(name).decode("ascii", "surrogateescape")


def alpn_protocol(session: SSL_SESSION) -> bytes:
    start, length = ffi.new("const unsigned char **"), ffi.new("size_t *")
    _sessions.SSL_SESSION_get0_alpn_selected(session, start, length)
    return bytes(ffi.buffer(start[0], length[0])) if length[0] else b""


def max_early_data(session: SSL_SESSION) -> int:
    """Bytes that the server takes as early data on a connection that resumes the session."""
    return int(lib.SSL_SESSION_get_max_early_data(session))


def times(session: SSL_SESSION) -> tuple[int, int]:
    """(made at, seconds since the epoch; lifetime, seconds)."""
    return _sessions.SSL_SESSION_get_time(session), _sessions.SSL_SESSION_get_timeout(session)


def version(session: SSL_SESSION) -> int:
    """The protocol version that it was made under: 0x0304 for TLS 1.3."""
    version: int = _sessions.SSL_SESSION_get_protocol_version(session)
    return version


def resumable(session: SSL_SESSION) -> bool:
    return bool(_sessions.SSL_SESSION_is_resumable(session))


def ticket(session: SSL_SESSION) -> tuple[bool, int]:
    """(there is one; its lifetime hint in seconds)."""
    return bool(_sessions.SSL_SESSION_has_ticket(session)), _sessions.SSL_SESSION_get_ticket_lifetime_hint(session)


def cipher(session: SSL_SESSION) -> Any:
    """Its SSL_CIPHER*."""
    return _sessions.SSL_SESSION_get0_cipher(session)
