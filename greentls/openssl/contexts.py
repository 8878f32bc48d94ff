"""SSL_CTX: settings, certificates, and the callbacks that all connections of one context share."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from cryptography import x509
from OpenSSL import crypto
from OpenSSL.SSL import Context

from greentls.errors import ConfigurationError
from greentls.openssl import errors
from greentls.openssl.library import BIO, NULL, SSL_CTX, Callback, Memory, T, ffi, lib, need, pointer
from greentls.openssl.provider import PrivateKey
from greentls.openssl.stacks import certificate_der

OP_NO_RENEGOTIATION: int = lib.SSL_OP_NO_RENEGOTIATION  # SSL_CTX_set_options(3)
OP_NO_ANTI_REPLAY: int = lib.SSL_OP_NO_ANTI_REPLAY

# cmd of SSL_CTX_ctrl(3), from ssl.h and tls1.h.
_CHAIN_CERT = 89
_SET_SIGALGS_LIST = 98
_SET_CLIENT_SIGALGS_LIST = 102
_SESS_NUMBER = 20  # and what follows it up to 31


def raw(context: Context) -> SSL_CTX:
    """pyOpenSSL's context as C's."""
    pointer: SSL_CTX = context._context
    return pointer


# -- settings ----------------------------------------------------------------------------------------------------------


def set_num_tickets(context: Context, count: int) -> None:
    """How many TLS 1.3 tickets a server sends after a full handshake."""
    lib.SSL_CTX_set_num_tickets(raw(context), count)


def tune_context(context: Context) -> None:
    """Modes for a Connection that owns its buffers.

    With RELEASE_BUFFERS an idle connection keeps no 16 KiB record buffers. Without PARTIAL_WRITE, which pyOpenSSL sets,
    one SSL_write() encrypts all that it is given; a memory BIO always takes it.
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
    if lib.SSL_CTX_set1_curves_list(raw(context), names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"groups {names!r}", "OpenSSL does not know one of them")


def set_signature_algorithms(context: Context, names: str, of_clients: bool = False) -> None:
    """Signature algorithms, colon-separated, best first. of_clients: those of a client's certificate only."""
    command = _SET_CLIENT_SIGALGS_LIST if of_clients else _SET_SIGALGS_LIST
    if lib.SSL_CTX_ctrl(raw(context), command, 0, names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"signature algorithms {names!r}", "OpenSSL does not know one of them")


def set_psk_identity_hint(context: Context, hint: bytes) -> None:
    """A TLS 1.2 server's hint which identity a client should take, at most 256 bytes."""
    if lib.SSL_CTX_use_psk_identity_hint(raw(context), hint) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError("psk_identity_hint", "OpenSSL refuses it", "at most 256 bytes")


def set_post_handshake_auth(context: Context) -> None:
    """A client offers to show its certificate later (RFC 8446 4.2.6)."""
    lib.SSL_CTX_set_post_handshake_auth(raw(context), 1)


# SSL_CTX_sess_number(3), in the order of their control numbers; nobody asks for None.
_STATS = (
    "number", "connect", "connect_good", "connect_renegotiate", "accept", "accept_good", "accept_renegotiate", "hits",
    None, "misses", "timeouts", "cache_full",
)  # fmt: skip


def session_stats(context: Context) -> dict[str, int]:
    """What a context has counted."""
    return {
        name: lib.SSL_CTX_ctrl(raw(context), _SESS_NUMBER + index, 0, NULL) for index, name in enumerate(_STATS) if name
    }


def set_max_early_data(context: Context, max_bytes: int) -> None:
    """The tickets allow a client to send so many bytes of early data (SSL_CTX_set_max_early_data(3))."""
    lib.SSL_CTX_set_max_early_data(raw(context), max_bytes)


# -- certificates ------------------------------------------------------------------------------------------------------


def use_certificate(context: SSL_CTX, certificate: bytes, key: bytes | PrivateKey) -> None:
    """Adds a certificate and its private key. Raises ConfigurationError.

    certificate: DER. key: DER (PKCS #8), or one that asks. OpenSSL itself reads both: pyOpenSSL refuses kinds of keys
    that it does not know.
    """
    leaf = _from_der(lib.d2i_X509_bio, certificate)
    private = _from_der(lib.d2i_PrivateKey_bio, key) if isinstance(key, bytes) else key.another_reference()
    try:
        if not (
            leaf != NULL
            and private != NULL
            and lib.SSL_CTX_use_certificate(context, leaf) == 1
            and lib.SSL_CTX_use_PrivateKey(context, private) == 1
        ):
            *_, code = [0, *errors.take()]
            problem = errors.describe(code)[1] or "it refuses it"
            raise ConfigurationError("certificate", f"OpenSSL cannot use it: {problem}", "give one of another key")
        lib.ERR_clear_error()  # if the key of an earlier certificate does not fit this one, OpenSSL leaves an error
    finally:
        lib.X509_free(leaf)
        lib.EVP_PKEY_free(private)


def _from_der(read: Callable[[BIO, object], T], der: bytes) -> T:
    bio = lib.BIO_new_mem_buf(der, len(der))
    try:
        return read(bio, NULL)
    finally:
        lib.BIO_free(bio)


def check_certificate(certificate: bytes, key: bytes | PrivateKey, ciphers: str = "ALL:@SECLEVEL=0") -> None:
    """Does what use_certificate() does, with a context that is thrown away. Raises ConfigurationError.

    ciphers: in OpenSSL's syntax; the security level in it is the one that the key has to reach.
    """
    context = lib.SSL_CTX_new(lib.TLS_method())
    try:
        lib.SSL_CTX_set_cipher_list(context, ciphers.encode())
        use_certificate(context, certificate, key)
    finally:
        lib.SSL_CTX_free(context)


def add_chain(context: Context, certificates: Iterable[x509.Certificate], shared: bool) -> None:
    """Intermediate certificates, to be sent after the leaf that was set last. Raises ConfigurationError.

    shared: after any leaf of the context. That is SSL_CTX_add_extra_chain_cert(3), which pyOpenSSL has;
    SSL_CTX_add1_chain_cert(3) is needed for the other.
    """
    for certificate in certificates:
        if shared:
            context.add_extra_chain_cert(certificate)
            continue
        if lib.SSL_CTX_ctrl(raw(context), _CHAIN_CERT, 1, crypto.X509.from_cryptography(certificate)._x509) != 1:
            raise ConfigurationError(f"intermediate certificate {certificate.subject}", errors.reason())


def add_trust_anchor(context: Context, certificate: x509.Certificate) -> None:
    """A CA certificate that peers' chains may end at."""
    store = lib.SSL_CTX_get_cert_store(raw(context))
    if lib.X509_STORE_add_cert(store, crypto.X509.from_cryptography(certificate)._x509) != 1:
        lib.ERR_clear_error()
        raise MemoryError("X509_STORE_add_cert")


def ca_certificates(context: Context) -> list[bytes]:
    """DER of the CA certificates in the store; those of a directory come into it when they are first needed."""
    objects = lib.X509_STORE_get0_objects(lib.SSL_CTX_get_cert_store(raw(context)))
    found = [lib.X509_OBJECT_get0_X509(lib.OPENSSL_sk_value(objects, i)) for i in range(lib.OPENSSL_sk_num(objects))]
    return [certificate_der(each) for each in found if each != NULL and lib.X509_check_ca(each)]


# -- callbacks ---------------------------------------------------------------------------------------------------------


def set_session_callbacks(context: SSL_CTX, get: Callback, new: Callback, remove: Callback) -> None:
    """SSL_CTX_sess_set_get_cb(3) and its two sisters; NULL detaches."""
    lib.SSL_CTX_sess_set_get_cb(context, get)
    lib.SSL_CTX_sess_set_new_cb(context, new)
    lib.SSL_CTX_sess_set_remove_cb(context, remove)


def set_allow_early_data_callback(context: SSL_CTX, callback: Callback) -> None:
    """Asked for each connection with early data to which OpenSSL itself has no objection."""
    lib.SSL_CTX_set_allow_early_data_cb(context, callback, NULL)


def set_verify_callback(context: SSL_CTX, callback: Callback) -> None:
    """SSL_CTX_set_cert_verify_callback(3): replaces X509_verify_cert(), which the callback has to call."""
    lib.SSL_CTX_set_cert_verify_callback(context, callback, NULL)


# -- session tickets (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)) ---------------------------------------------------------

TICKET_KEY_NAME = 16  # bytes
# OSSL_PARAM(3), a structure that the binding does not know: key, data_type, data, data_size, return_size.
_PARAM = struct.Struct("@PIPNN0P")
_PARAM_UTF8_STRING, _PARAM_OCTET_STRING = 4, 5
_MAC_KEY, _MAC_DIGEST, _SHA256 = (ffi.new("char[]", text) for text in (b"key", b"digest", b"SHA256"))


def set_ticket_key_callback(context: SSL_CTX, callback: Callback) -> None:
    """Raises UnsupportedOpenSSL also for the functions that use_ticket_key() needs."""
    need("EVP_CipherInit_ex2", "EVP_MAC_CTX_set_params")
    lib.SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ffi.cast("void *", callback))


def use_ticket_key(cipher: object, mac: object, aes: bytes, hmac: bytes, iv: Memory, encrypt: bool) -> None:
    """Gives an EVP_CIPHER_CTX* AES-CBC, and an EVP_MAC_CTX* HMAC-SHA256, with their keys.

    aes: 16 or 32 bytes. iv: 16 bytes. Raises ConfigurationError if OpenSSL, for instance a FIPS provider, refuses.
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
        lib.EVP_CipherInit_ex2(cipher, kind, aes, iv, encrypt, NULL) != 1
        or lib.EVP_MAC_CTX_set_params(mac, ffi.from_buffer(parameters)) != 1
    ):
        raise ConfigurationError("ticket key", errors.reason())
