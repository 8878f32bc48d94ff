"""SSL_SESSION: a session's bytes, and what it knows (d2i_SSL_SESSION(3))."""

from __future__ import annotations

from greentls.openssl.library import NULL, SSL_CIPHER, SSL_SESSION, ffi, lib
from greentls.openssl.lifetimes import owned


def to_bytes(session: SSL_SESSION) -> bytes:
    """DER of a session. It holds the master secret in clear."""
    start = ffi.new("unsigned char **")  # NULL: OpenSSL allocates
    length = lib.i2d_SSL_SESSION(session, start)
    try:
        octets: bytes = ffi.buffer(start[0], length)[:]
        return octets
    finally:
        lib.OPENSSL_free(start[0])


def from_bytes(blob: bytes, brief: bool = False) -> SSL_SESSION | None:
    """A new session, owned; None if the bytes are not one. brief: no finalizer uses it (greentls.openssl.lifetimes)."""
    data = ffi.from_buffer(blob)
    session: SSL_SESSION = lib.d2i_SSL_SESSION(NULL, ffi.new("const unsigned char **", data), len(blob))
    if not session:
        lib.ERR_clear_error()
        return None
    if brief:
        return ffi.gc(session, lib.SSL_SESSION_free)  # type: ignore[no-any-return]  # cffi has no types
    return owned(session, lib.SSL_SESSION_free)


def shared(session: SSL_SESSION) -> SSL_SESSION:
    """The same session, owned: with one reference more."""
    lib.SSL_SESSION_up_ref(session)
    return owned(session, lib.SSL_SESSION_free)


def session_id(session: SSL_SESSION) -> bytes:
    """The session's id, empty if it has none."""
    length = ffi.new("unsigned int *")
    octets: bytes = ffi.unpack(lib.SSL_SESSION_get_id(session, length), length[0])
    return octets


def id_context(session: SSL_SESSION) -> bytes:
    """What the session is bound to (SSL_CTX_set_session_id_context(3)); empty for a client's, which is not bound."""
    length = ffi.new("unsigned int *")
    octets: bytes = ffi.unpack(lib.SSL_SESSION_get0_id_context(session, length), length[0])
    return octets


def server_name(session: SSL_SESSION) -> str | None:
    """RFC 6066 server_name of the connection that made the session."""
    name = lib.SSL_SESSION_get0_hostname(session)
    return None if name == NULL else ffi.string(name).decode("ascii", "surrogateescape")


def alpn_protocol(session: SSL_SESSION) -> bytes:
    """The ALPN protocol of the connection that made the session, empty if there was none."""
    start, length = ffi.new("const unsigned char **"), ffi.new("size_t *")
    lib.SSL_SESSION_get0_alpn_selected(session, start, length)
    return bytes(ffi.buffer(start[0], length[0])) if length[0] else b""


def max_early_data(session: SSL_SESSION) -> int:
    """Bytes of early data that the server accepts on a connection that resumes the session."""
    return int(lib.SSL_SESSION_get_max_early_data(session))


def times(session: SSL_SESSION) -> tuple[int, int]:
    """(made at, seconds since the epoch; lifetime, seconds)."""
    return lib.SSL_SESSION_get_time(session), lib.SSL_SESSION_get_timeout(session)


def version(session: SSL_SESSION) -> int:
    """The protocol version that it was made under: 0x0304 for TLS 1.3."""
    return int(lib.SSL_SESSION_get_protocol_version(session))


def resumable(session: SSL_SESSION) -> bool:
    """Whether OpenSSL would offer it (SSL_SESSION_is_resumable(3))."""
    return bool(lib.SSL_SESSION_is_resumable(session))


def ticket(session: SSL_SESSION) -> tuple[bool, int]:
    """(whether it has a ticket; the ticket's lifetime hint in seconds)."""
    return bool(lib.SSL_SESSION_has_ticket(session)), lib.SSL_SESSION_get_ticket_lifetime_hint(session)


def cipher(session: SSL_SESSION) -> SSL_CIPHER:
    """The cipher that a resumption must use."""
    found: SSL_CIPHER = lib.SSL_SESSION_get0_cipher(session)
    return found
