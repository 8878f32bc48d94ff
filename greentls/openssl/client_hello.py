"""The ClientHello as OpenSSL received it (SSL_CTX_set_client_hello_cb(3)); in a client-hello callback only."""

from __future__ import annotations

from greentls.openssl.library import NULL, SSL, SSL_CTX, Callback, ffi, lib
from greentls.openssl.library import need as need_functions

_SUPPORTED_VERSIONS = 43  # ExtensionType
_BEFORE_CIPHERS = 4 + 2 + 32 + 1 + 2  # header, legacy_version, random, the lengths of legacy_session_id and of ciphers
_FUNCTIONS = (
    "SSL_CTX_set_client_hello_cb", "SSL_client_hello_get0_ext", "SSL_client_hello_get0_ciphers",
    "SSL_client_hello_get0_session_id",
)  # fmt: skip


def need() -> None:
    """Raises UnsupportedOpenSSL where there is no client-hello callback, or where it could not read the hello."""
    need_functions(*_FUNCTIONS)


def set_callback(context: SSL_CTX, callback: Callback) -> None:
    """Attaches a client-hello callback to a context. Raises UnsupportedOpenSSL, as need() does."""
    need()
    lib.SSL_CTX_set_client_hello_cb(context, callback, NULL)


def extension(ssl: SSL, extension_type: int) -> bytes | None:
    """An extension's bytes as the client sent them, None if there is none."""
    start, length = ffi.new("const unsigned char **"), ffi.new("size_t *")
    found = lib.SSL_client_hello_get0_ext(ssl, extension_type, start, length)
    return ffi.buffer(start[0], length[0])[:] if found else None


def message(ssl: SSL) -> bytes | None:
    """The ClientHello as the client sent it, header included; None for one that does not offer TLS 1.3.

    OpenSSL tells parts of the message, and of its extensions only those that it knows. But its cipher suites lie where
    they were received, in the middle of the message; so the rest lies round them. Empty where that is not so. (In
    SSLv2's hello they lie elsewhere; that one has no extensions.)
    """
    if not lib.SSL_client_hello_get0_ext(ssl, _SUPPORTED_VERSIONS, NULL, NULL):
        return None
    start = ffi.new("const unsigned char **")
    lib.SSL_client_hello_get0_ciphers(ssl, start)
    hello = start[0] - (_BEFORE_CIPHERS + lib.SSL_client_hello_get0_session_id(ssl, NULL))
    header = ffi.buffer(hello, 4)[:]
    if header[0] != 1:  # HandshakeType.client_hello
        return b""
    octets: bytes = ffi.buffer(hello, 4 + int.from_bytes(header[1:], "big"))[:]
    return octets
