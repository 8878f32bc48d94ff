"""SSL_CTX: settings, certificates, and the callbacks that OpenSSL has for all connections of one."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from OpenSSL import crypto
from OpenSSL.SSL import Context

from greentls.errors import ConfigurationError
from greentls.openssl import errors
from greentls.openssl.library import SSL_CTX, ffi, hidden, lib, pointer
from greentls.openssl.provider import PrivateKey
from greentls.openssl.stacks import certificate_der

# Macros of ssl.h and tls1.h that the binding does not carry.
_CTRL_CHAIN_CERT = 89
_CTRL_SET_GROUPS_LIST = 92
_CTRL_SET_SIGALGS_LIST = 98
_CTRL_SET_CLIENT_SIGALGS_LIST = 102
_CTRL_SESS_NUMBER = 20  # and what follows it up to 31

OP_NO_RENEGOTIATION: int = lib.SSL_OP_NO_RENEGOTIATION  # SSL_CTX_set_options(3)
OP_NO_ANTI_REPLAY = 1 << 24


def set_session_callbacks(context: SSL_CTX, get: Any, new: Any, remove: Any) -> None:
    """SSL_CTX_sess_set_get_cb and its two sisters; NULL detaches."""
    hidden(
        "SSL_CTX_sess_set_get_cb",
        "void (*)(SSL_CTX *, SSL_SESSION *(*)(SSL *, const unsigned char *, int, int *))",
    )(context, get)
    hidden("SSL_CTX_sess_set_new_cb", "void (*)(SSL_CTX *, int (*)(SSL *, SSL_SESSION *))")(context, new)
    hidden("SSL_CTX_sess_set_remove_cb", "void (*)(SSL_CTX *, void (*)(SSL_CTX *, SSL_SESSION *))")(context, remove)


TICKET_KEY_NAME = 16  # bytes

_CIPHER_INIT = (
    "EVP_CipherInit_ex2",
    "int (*)(void *, const EVP_CIPHER *, const unsigned char *, const unsigned char *, int, const void *)",
)
_MAC_SET_PARAMS = ("EVP_MAC_CTX_set_params", "int (*)(void *, const void *)")
# OSSL_PARAM(3), a structure that the binding does not know: key, data_type, data, data_size, return_size.
_PARAM = struct.Struct("@PIPNN0P")
_PARAM_UTF8_STRING, _PARAM_OCTET_STRING = 4, 5
_MAC_KEY, _MAC_DIGEST, _SHA256 = (ffi.new("char[]", text) for text in (b"key", b"digest", b"SHA256"))


def set_ticket_key_callback(context: SSL_CTX, callback: Any) -> None:
    """Raises UnsupportedOpenSSL, for what use_ticket_key() needs too."""
    hidden(*_CIPHER_INIT), hidden(*_MAC_SET_PARAMS)
    hidden("SSL_CTX_set_tlsext_ticket_key_evp_cb", "int (*)(SSL_CTX *, void *)")(context, ffi.cast("void *", callback))


def use_ticket_key(cipher: Any, mac: Any, aes: bytes, hmac: bytes, iv: Any, encrypt: bool) -> None:
    """Makes an EVP_CIPHER_CTX* one of AES-CBC and an EVP_MAC_CTX* one of HMAC-SHA256.

    aes: 16 or 32 bytes. iv: 16 of them, in C. Raises ConfigurationError if OpenSSL, a FIPS provider say, refuses.
    """
    key = ffi.from_buffer(hmac)
    parameters = b"".join(
        (
            _PARAM.pack(pointer(_MAC_KEY), _PARAM_OCTET_STRING, pointer(key), len(hmac), 0),
            _PARAM.pack(pointer(_MAC_DIGEST), _PARAM_UTF8_STRING, pointer(_SHA256), len(_SHA256) - 1, 0),
            bytes(_PARAM.size),  # OSSL_PARAM_END
        )
    )
    kind = lib.EVP_get_cipherbyname(b"aes-%d-cbc" % (len(aes) * 8))
    if (
        hidden(*_CIPHER_INIT)(cipher, kind, aes, iv, encrypt, ffi.NULL) != 1
        or hidden(*_MAC_SET_PARAMS)(mac, ffi.from_buffer(parameters)) != 1
    ):
        code, *_ = [*errors.take(), 0]
        raise ConfigurationError("ticket key", errors.describe(code)[1] or "OpenSSL refuses it")


def raw(context: Context) -> Any:
    return context._context


def set_num_tickets(context: Context, count: int) -> None:
    hidden("SSL_CTX_set_num_tickets", "int (*)(SSL_CTX *, size_t)")(raw(context), count)


def tune_context(context: Context) -> None:
    """Modes for a Connection that owns its buffers.

    RELEASE_BUFFERS: an idle connection keeps no 16 KiB record buffers. Without PARTIAL_WRITE (which pyOpenSSL sets) one
    SSL_write() encrypts the whole of what it is given, and a memory BIO always takes it.
    """
    lib.SSL_CTX_set_mode(raw(context), lib.SSL_MODE_RELEASE_BUFFERS)
    lib.SSL_CTX_clear_mode(raw(context), lib.SSL_MODE_ENABLE_PARTIAL_WRITE)


def set_cipher_list(context: Context, names: str) -> None:
    """TLS 1.2 cipher suites in OpenSSL's syntax (openssl-ciphers(1))."""
    if lib.SSL_CTX_set_cipher_list(raw(context), names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"ciphers {names!r}", "OpenSSL knows none of them")


def set_ciphersuites(context: Context, names: str) -> None:
    """TLS 1.3 cipher suites, colon-separated."""
    if lib.SSL_CTX_set_ciphersuites(raw(context), names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"cipher suites {names!r}", "OpenSSL knows none of them")


def set_groups(context: Context, names: str) -> None:
    """Key-exchange groups, colon-separated, best first."""
    if hasattr(lib, "SSL_CTX_set1_curves_list"):
        done = lib.SSL_CTX_set1_curves_list(raw(context), names.encode())
    else:  # cryptography 44 and 46 do not have the macro
        control = hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
        done = control(raw(context), _CTRL_SET_GROUPS_LIST, 0, ffi.from_buffer(names.encode() + b"\0"))
    if done != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"groups {names!r}", "OpenSSL does not know one of them")


def set_signature_algorithms(context: Context, names: str, of_clients: bool = False) -> None:
    """Signature algorithms, colon-separated, best first. of_clients: those of a client's certificate only."""
    control = hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
    command = _CTRL_SET_CLIENT_SIGALGS_LIST if of_clients else _CTRL_SET_SIGALGS_LIST
    if control(raw(context), command, 0, ffi.from_buffer(names.encode() + b"\0")) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"signature algorithms {names!r}", "OpenSSL does not know one of them")


def set_psk_identity_hint(context: Context, hint: bytes) -> None:
    if lib.SSL_CTX_use_psk_identity_hint(raw(context), hint) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError("psk_identity_hint", "OpenSSL refuses it", "at most 128 bytes")


def set_post_handshake_auth(context: Context) -> None:
    """A client offers to show its certificate later (RFC 8446 4.2.6)."""
    lib.SSL_CTX_set_post_handshake_auth(raw(context), 1)


# SSL_CTX_sess_number(3), in the order of their control numbers; None: nobody asks.
_STATS = (
    "number", "connect", "connect_good", "connect_renegotiate", "accept", "accept_good", "accept_renegotiate", "hits",
    None, "misses", "timeouts", "cache_full",
)  # fmt: skip


def session_stats(context: Context) -> dict[str, int]:
    """What a context has counted."""
    control = hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
    return {
        name: control(raw(context), _CTRL_SESS_NUMBER + index, 0, ffi.NULL) for index, name in enumerate(_STATS) if name
    }


def set_max_early_data(context: Context, max_bytes: int) -> None:
    """Tickets allow a client to send so many bytes early (SSL_CTX_set_max_early_data(3))."""
    lib.SSL_CTX_set_max_early_data(raw(context), max_bytes)


def set_allow_early_data_callback(context: SSL_CTX, callback: Any) -> None:
    """Asked for each connection with early data, once OpenSSL has no objection left of its own."""
    signature = "void (*)(SSL_CTX *, int (*)(SSL *, void *), void *)"
    hidden("SSL_CTX_set_allow_early_data_cb", signature)(context, callback, ffi.NULL)


def set_verify_callback(context: SSL_CTX, callback: Any) -> None:
    """SSL_CTX_set_cert_verify_callback(3): in the place of X509_verify_cert(), which callback has to call."""
    signature = "void (*)(SSL_CTX *, int (*)(X509_STORE_CTX *, void *), void *)"
    hidden("SSL_CTX_set_cert_verify_callback", signature)(context, callback, ffi.NULL)


def use_certificate(context: SSL_CTX, certificate: bytes, key: bytes | PrivateKey) -> None:
    """Adds a certificate and its private key to an SSL_CTX*. Raises ConfigurationError.

    certificate: DER. key: PKCS #8, or one that asks. OpenSSL reads both itself: pyOpenSSL, between it and them, refuses
    kinds of keys that it does not know.
    """
    leaf = _from_der(lib.d2i_X509_bio, certificate)
    private = _from_der(lib.d2i_PrivateKey_bio, key) if isinstance(key, bytes) else key.another_reference()
    try:
        if not (
            leaf != ffi.NULL
            and private != ffi.NULL
            and lib.SSL_CTX_use_certificate(context, leaf) == 1
            and lib.SSL_CTX_use_PrivateKey(context, private) == 1
        ):
            *_, code = [0, *errors.take()]
            problem = errors.describe(code)[1] or "it refuses it"
            raise ConfigurationError("certificate", f"OpenSSL cannot use it: {problem}", "give one of another key")
        lib.ERR_clear_error()  # a certificate that a first key does not fit leaves one
    finally:
        lib.X509_free(leaf)
        lib.EVP_PKEY_free(private)


def _from_der(read: Any, der: bytes) -> Any:
    bio = lib.BIO_new_mem_buf(der, len(der))
    try:
        return read(bio, ffi.NULL)
    finally:
        lib.BIO_free(bio)


def check_certificate(certificate: bytes, key: bytes | PrivateKey, ciphers: str = "ALL:@SECLEVEL=0") -> None:
    """use_certificate() with a context that nobody else sees. ciphers: by the security level in there."""
    context = lib.SSL_CTX_new(lib.TLS_method())
    try:
        lib.SSL_CTX_set_cipher_list(context, ciphers.encode())
        use_certificate(context, certificate, key)
    finally:
        lib.SSL_CTX_free(context)


def add_chain(context: Context, certificates: Iterable[x509.Certificate], shared: bool) -> None:
    """Intermediate certificates sent behind the leaf that was set last; shared: behind any leaf of the context.

    What is shared needs no hidden function: SSL_CTX_add_extra_chain_cert(3) against SSL_CTX_add1_chain_cert(3).
    """
    for certificate in certificates:
        if shared:
            context.add_extra_chain_cert(certificate)
            continue
        control = hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
        if control(raw(context), _CTRL_CHAIN_CERT, 1, crypto.X509.from_cryptography(certificate)._x509) != 1:
            code, *_ = [*errors.take(), 0]
            raise ConfigurationError(f"intermediate certificate {certificate.subject}", errors.describe(code)[1])


def add_trust_anchor(context: Context, certificate: x509.Certificate) -> None:
    store = lib.SSL_CTX_get_cert_store(raw(context))
    if lib.X509_STORE_add_cert(store, crypto.X509.from_cryptography(certificate)._x509) != 1:
        lib.ERR_clear_error()
        raise MemoryError("X509_STORE_add_cert")


def ca_certificates(context: Context) -> list[bytes]:
    """DER of the CA certificates in the store; those of a directory come into it when they are first needed."""
    certificate_of = hidden("X509_OBJECT_get0_X509", "X509 *(*)(const X509_OBJECT *)")
    is_ca = hidden("X509_check_ca", "int (*)(X509 *)")
    objects = lib.X509_STORE_get0_objects(lib.SSL_CTX_get_cert_store(raw(context)))
    value = hidden("OPENSSL_sk_value", "X509_OBJECT *(*)(const void *, int)")
    found = [certificate_of(value(objects, index)) for index in range(lib.sk_X509_OBJECT_num(objects))]
    return [certificate_der(each) for each in found if each != ffi.NULL and is_ca(each)]
