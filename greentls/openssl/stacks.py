"""OpenSSL's stacks of certificates and of cipher suites, as Python's lists."""

from __future__ import annotations

from typing import Any

from greentls.openssl import bios
from greentls.openssl.library import ffi, hidden, lib


def ciphers(stack: Any) -> list[Any]:
    if stack == ffi.NULL:
        return []
    value = hidden("OPENSSL_sk_value", "const SSL_CIPHER *(*)(const void *, int)")
    return [value(stack, index) for index in range(hidden("OPENSSL_sk_num", "int (*)(const void *)")(stack))]


def verified_chain(store: Any) -> list[bytes]:
    """DER of the chain that an X509_STORE_CTX* has built, the leaf first."""
    stack = lib.X509_STORE_CTX_get1_chain(store)
    try:
        return certificates_der(stack)
    finally:
        for index in range(lib.sk_X509_num(stack)):
            lib.X509_free(lib.sk_X509_value(stack, index))
        lib.sk_X509_free(stack)


def certificates_der(stack: Any) -> list[bytes]:
    """DER of each X509* in a STACK_OF(X509)*; none for NULL."""
    if stack == ffi.NULL:
        return []
    return [certificate_der(lib.sk_X509_value(stack, index)) for index in range(lib.sk_X509_num(stack))]


def certificate_der(certificate: Any) -> bytes:
    bio = ffi.gc(lib.BIO_new(lib.BIO_s_mem()), lib.BIO_free)
    lib.i2d_X509_bio(bio, certificate)
    return bytes(bios.take(bio))
