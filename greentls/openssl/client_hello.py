"""The ClientHello as OpenSSL received it (SSL_CTX_set_client_hello_cb(3))."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from greentls.openssl.library import SSL, SSL_CTX, ffi, hidden


class _Functions(NamedTuple):
    set_callback: Any
    extension: Any
    ciphers: Any
    session_id: Any


@functools.cache
def _functions() -> _Functions:
    return _Functions(
        hidden("SSL_CTX_set_client_hello_cb", "void (*)(SSL_CTX *, int (*)(SSL *, int *, void *), void *)"),
        hidden("SSL_client_hello_get0_ext", "int (*)(SSL *, unsigned int, const unsigned char **, size_t *)"),
        hidden("SSL_client_hello_get0_ciphers", "size_t (*)(SSL *, const unsigned char **)"),
        hidden("SSL_client_hello_get0_session_id", "size_t (*)(SSL *, const unsigned char **)"),
    )


def set_callback(context: SSL_CTX, callback: Any) -> None:
    """SSL_CTX_set_client_hello_cb(3). Raises UnsupportedOpenSSL also where the callback could not read the hello."""
    _functions().set_callback(context, callback, ffi.NULL)


def need() -> None:
    """Raises UnsupportedOpenSSL where there is no client-hello callback, or where it could not read the hello."""
    _functions()


_SUPPORTED_VERSIONS = 43


# Bytes: header, legacy_version, random, and the two lengths round legacy_session_id.
_BEFORE_CIPHERS = 4 + 2 + 32 + 1 + 2


def extension(ssl: SSL, extension_type: int) -> bytes | None:
    """An extension's bytes as the client sent them, None if there is none. In a client-hello callback only."""
    start, length = ffi.new("const unsigned char **"), ffi.new("size_t *")
    found = _functions().extension(ssl, extension_type, start, length)
    return bytes(ffi.buffer(start[0], length[0])) if found else None


def message(ssl: SSL) -> bytes | None:
    """The ClientHello as the client sent it, header included; None for one that does not offer TLS 1.3. In a
    client-hello callback only.

    OpenSSL tells parts of it, and of its extensions those that it knows. But it reads the cipher suites where they were
    received, in the middle of the message; so the rest is round them. (In SSLv2's hello it is elsewhere; that has no
    extensions.) Empty where that is not so.
    """
    functions = _functions()
    if not functions.extension(ssl, _SUPPORTED_VERSIONS, ffi.NULL, ffi.NULL):
        return None
    start = ffi.new("const unsigned char **")
    functions.ciphers(ssl, start)
    hello = start[0] - (_BEFORE_CIPHERS + functions.session_id(ssl, ffi.NULL))
    if hello[0] != 1:  # HandshakeType.client_hello
        return b""
    return bytes(ffi.buffer(hello, 4 + (hello[1] << 16 | hello[2] << 8 | hello[3])))
