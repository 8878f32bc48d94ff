"""Converts OpenSSL's stacks of certificates and cipher suites to Python's lists."""

from __future__ import annotations

from greentls.openssl import bios
from greentls.openssl.library import NULL, SSL_CIPHER, X509, X509_STORE_CTX, Stack, ffi, lib


def ciphers(stack: Stack) -> list[SSL_CIPHER]:
    """Returns the SSL_CIPHER* in a STACK_OF(SSL_CIPHER)*; none for NULL."""
    if stack == NULL:
        return []
    return [ffi.cast("SSL_CIPHER *", lib.OPENSSL_sk_value(stack, i)) for i in range(lib.OPENSSL_sk_num(stack))]


def verified_chain(store: X509_STORE_CTX) -> list[bytes]:
    """Returns DER of the chain that a verification has built, the leaf first."""
    stack = lib.X509_STORE_CTX_get1_chain(store)
    try:
        return certificates_der(stack)
    finally:
        for index in range(lib.sk_X509_num(stack)):
            lib.X509_free(lib.sk_X509_value(stack, index))
        lib.sk_X509_free(stack)


def certificates_der(stack: Stack) -> list[bytes]:
    """Returns DER of each X509* in a STACK_OF(X509)*; none for NULL."""
    if stack == NULL:
        return []
    return [certificate_der(lib.sk_X509_value(stack, index)) for index in range(lib.sk_X509_num(stack))]


def certificate_der(certificate: X509) -> bytes:
    """Returns a certificate's DER."""
    bio = ffi.gc(bios.new(), lib.BIO_free)
    lib.i2d_X509_bio(bio, certificate)
    return bytes(bios.take(bio))
