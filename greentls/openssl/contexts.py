"""SSL_CTX: the settings, certificates and callbacks that all connections of one context share."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from greentls.errors import ConfigurationError
from greentls.openssl import errors
from greentls.openssl.library import BIO, NULL, SSL_CTX, X509, Callback, Memory, T, ffi, lib, need, pointer
from greentls.openssl.lifetimes import owned
from greentls.openssl.provider import PrivateKey
from greentls.openssl.stacks import certificate_der

# SSL_CTX_set_options(3), SSL_CTX_set_session_cache_mode(3)
OP_NO_ANTI_REPLAY: int = lib.SSL_OP_NO_ANTI_REPLAY
OP_NO_COMPRESSION: int = lib.SSL_OP_NO_COMPRESSION
OP_NO_RENEGOTIATION: int = lib.SSL_OP_NO_RENEGOTIATION
OP_NO_TICKET: int = lib.SSL_OP_NO_TICKET
_CACHE_CLIENT, _CACHE_SERVER, _NO_INTERNAL_CACHE = 1, 2, 0x300

# cmd of SSL_CTX_ctrl(3), from ssl.h and tls1.h.
_CHAIN_CERT = 89
_SET_SIGALGS_LIST = 98
_SET_CLIENT_SIGALGS_LIST = 102
_SESS_NUMBER = 20  # the first of the commands up to 31


def new() -> SSL_CTX:
    """Makes a context for connections of either side. It is owned. Raises MemoryError.

    With RELEASE_BUFFERS an idle connection keeps no record buffers of 16 KiB. Without PARTIAL_WRITE one SSL_write()
    encrypts all of its data; a memory BIO always accepts them.
    """
    context: SSL_CTX = lib.SSL_CTX_new(lib.TLS_method())
    if not context:
        raise MemoryError("SSL_CTX_new")
    lib.SSL_CTX_set_mode(context, lib.SSL_MODE_RELEASE_BUFFERS | lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
    return owned(context, lib.SSL_CTX_free)


# -- settings ----------------------------------------------------------------------------------------------------------


def set_versions(context: SSL_CTX, minimum: int, maximum: int) -> None:
    """Sets the lowest and highest protocol version: 0x0303 for TLS 1.2, 0 for no bound. Raises ConfigurationError."""
    if not (
        lib.SSL_CTX_set_min_proto_version(context, minimum) == 1
        and lib.SSL_CTX_set_max_proto_version(context, maximum) == 1
    ):
        lib.ERR_clear_error()
        versions = f"versions 0x{minimum:04x} to 0x{maximum:04x}"
        raise ConfigurationError(versions, "this OpenSSL has none of them", "allow TLS 1.2 (0x0303)")


def set_options(context: SSL_CTX, options: int) -> int:
    """Adds options. Returns all options in force."""
    return int(lib.SSL_CTX_set_options(context, options))


def set_alpn_protocols(context: SSL_CTX, protocols: Iterable[bytes]) -> None:
    """Sets the protocols that a client offers, best first. Raises ConfigurationError."""
    try:
        offer = b"".join(bytes([len(protocol)]) + protocol for protocol in protocols)
    except ValueError:
        raise ConfigurationError("alpn_protocols", "one of them has more than 255 bytes") from None
    if lib.SSL_CTX_set_alpn_protos(context, offer, len(offer)) != 0:  # here 0 is success
        raise ConfigurationError("alpn_protocols", errors.reason())


def set_dh_parameters(context: SSL_CTX, pem: bytes) -> None:
    """Sets the parameters for TLS 1.2 without elliptic curves. Raises ConfigurationError."""
    parameters = _read(pem, lambda bio, _: lib.PEM_read_bio_DHparams(bio, NULL, NULL, NULL))
    try:
        if parameters == NULL or lib.SSL_CTX_set_tmp_dh(context, parameters) != 1:
            raise ConfigurationError("dh_parameters", errors.reason())
    finally:
        lib.DH_free(parameters)


def set_session_lifetime(context: SSL_CTX, seconds: int) -> None:
    """Sets how long a session may be resumed."""
    lib.SSL_CTX_set_timeout(context, seconds)


def set_session_id_context(context: SSL_CTX, value: bytes) -> None:
    """Sets the value that a server's sessions are bound to, at most 32 bytes. A session is resumed only under the same
    value."""
    lib.SSL_CTX_set_session_id_context(context, value, len(value))


def keep_sessions_outside(context: SSL_CTX, server_side: bool) -> None:
    """Allows sessions, but keeps them out of OpenSSL's own cache (SSL_CTX_set_session_cache_mode(3))."""
    lib.SSL_CTX_set_session_cache_mode(context, _NO_INTERNAL_CACHE | (_CACHE_SERVER if server_side else _CACHE_CLIENT))


def set_num_tickets(context: SSL_CTX, count: int) -> None:
    """Sets how many TLS 1.3 tickets a server sends after a full handshake."""
    lib.SSL_CTX_set_num_tickets(context, count)


def set_cipher_list(context: SSL_CTX, names: str) -> None:
    """Sets the TLS 1.2 cipher suites, in OpenSSL's syntax (openssl-ciphers(1)). Raises ConfigurationError."""
    if lib.SSL_CTX_set_cipher_list(context, names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"ciphers {names!r}", "OpenSSL knows none of them")


def set_ciphersuites(context: SSL_CTX, names: str) -> None:
    """Sets the TLS 1.3 cipher suites, colon-separated. Raises ConfigurationError."""
    if lib.SSL_CTX_set_ciphersuites(context, names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"cipher suites {names!r}", "OpenSSL knows none of them")


def set_groups(context: SSL_CTX, names: str) -> None:
    """Sets the key-exchange groups, colon-separated, best first. Raises ConfigurationError."""
    if lib.SSL_CTX_set1_curves_list(context, names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"groups {names!r}", "OpenSSL does not know one of them")


def set_signature_algorithms(context: SSL_CTX, names: str, of_clients: bool = False) -> None:
    """Sets the signature algorithms, colon-separated, best first. of_clients: only those for a client's certificate.
    Raises ConfigurationError."""
    command = _SET_CLIENT_SIGALGS_LIST if of_clients else _SET_SIGALGS_LIST
    if lib.SSL_CTX_ctrl(context, command, 0, names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"signature algorithms {names!r}", "OpenSSL does not know one of them")


def set_psk_identity_hint(context: SSL_CTX, hint: bytes) -> None:
    """Sets a TLS 1.2 server's hint which identity a client should use, at most 256 bytes. Raises ConfigurationError."""
    if lib.SSL_CTX_use_psk_identity_hint(context, hint) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError("psk_identity_hint", "OpenSSL refuses it", "at most 256 bytes")


def set_post_handshake_auth(context: SSL_CTX) -> None:
    """Lets a client offer to show its certificate after the handshake (RFC 8446 4.2.6)."""
    lib.SSL_CTX_set_post_handshake_auth(context, 1)


# SSL_CTX_sess_number(3), in the order of the control numbers. None is not used.
_STATS = (
    "number", "connect", "connect_good", "connect_renegotiate", "accept", "accept_good", "accept_renegotiate", "hits",
    None, "misses", "timeouts", "cache_full",
)  # fmt: skip


def session_stats(context: SSL_CTX) -> dict[str, int]:
    """Returns the context's counters."""
    return {name: lib.SSL_CTX_ctrl(context, _SESS_NUMBER + index, 0, NULL) for index, name in enumerate(_STATS) if name}


def set_max_early_data(context: SSL_CTX, max_bytes: int) -> None:
    """Sets how many bytes of early data the tickets allow (SSL_CTX_set_max_early_data(3))."""
    lib.SSL_CTX_set_max_early_data(context, max_bytes)


# -- certificates ------------------------------------------------------------------------------------------------------


def use_certificate(context: SSL_CTX, certificate: bytes, key: bytes | PrivateKey, name: str = "certificate") -> None:
    """Adds a certificate and its private key. Raises ConfigurationError.

    certificate: DER. key: DER (PKCS #8), or a PrivateKey. name: the subject of the error.
    """
    leaf = _read(certificate, lib.d2i_X509_bio)
    private = _read(key, lib.d2i_PrivateKey_bio) if isinstance(key, bytes) else key.another_reference()
    try:
        if not (
            leaf != NULL
            and private != NULL
            and lib.SSL_CTX_use_certificate(context, leaf) == 1
            and lib.SSL_CTX_use_PrivateKey(context, private) == 1
        ):
            *_, code = [0, *errors.take()]
            reason = errors.describe(code)[1]
            problem = f"OpenSSL cannot use it: {reason or 'it refuses it'}"
            refused = ConfigurationError(name, problem, "give one of another key")
            refused.reason = reason
            raise refused
        lib.ERR_clear_error()  # if the key of an earlier certificate does not fit this one, OpenSSL leaves an error
    finally:
        lib.X509_free(leaf)
        lib.EVP_PKEY_free(private)


def _read(data: bytes, read: Callable[[BIO, object], T]) -> T:
    bio = lib.BIO_new_mem_buf(data, len(data))
    try:
        return read(bio, NULL)
    finally:
        lib.BIO_free(bio)


def check_certificate(
    certificate: bytes, key: bytes | PrivateKey, ciphers: str = "ALL:@SECLEVEL=0", name: str = "certificate"
) -> None:
    """Does what use_certificate() does, with a context that is thrown away. Raises ConfigurationError.

    ciphers: cipher suites in OpenSSL's syntax. The key must reach the security level in it.
    """
    context = lib.SSL_CTX_new(lib.TLS_method())
    try:
        lib.SSL_CTX_set_cipher_list(context, ciphers.encode())
        use_certificate(context, certificate, key, name)
    finally:
        lib.SSL_CTX_free(context)


def add_chain(context: SSL_CTX, certificates: Iterable[x509.Certificate], shared: bool) -> None:
    """Adds intermediate certificates, which are sent after the leaf that was set last. Raises ConfigurationError.

    shared: whether they are sent after any leaf of the context, which every binding supports
    (SSL_CTX_add_extra_chain_cert(3)).
    """
    for certificate in certificates:
        added = _copy(certificate)
        if shared:
            done = lib.SSL_CTX_add_extra_chain_cert(context, added) == 1  # it takes our reference
        else:
            done = lib.SSL_CTX_ctrl(context, _CHAIN_CERT, 1, added) == 1  # it takes another reference
        if not (shared and done):
            lib.X509_free(added)
        if not done:
            raise ConfigurationError(f"intermediate certificate {certificate.subject}", errors.reason())


def _copy(certificate: x509.Certificate) -> X509:
    """Copies cryptography's certificate into this OpenSSL. Raises ConfigurationError."""
    copy: X509 = _read(certificate.public_bytes(Encoding.DER), lib.d2i_X509_bio)
    if copy == NULL:
        raise ConfigurationError(f"certificate {certificate.subject}", errors.reason())
    return copy


def add_trust_anchor(context: SSL_CTX, certificate: x509.Certificate) -> None:
    """Adds a CA certificate, at which peers' chains may end. Raises ConfigurationError."""
    anchor = _copy(certificate)
    done = lib.X509_STORE_add_cert(lib.SSL_CTX_get_cert_store(context), anchor)
    lib.X509_free(anchor)
    if done != 1:
        lib.ERR_clear_error()
        raise MemoryError("X509_STORE_add_cert")


def load_trust_anchors(context: SSL_CTX, cafile: str | None, capath: str | None) -> None:
    """Loads CA certificates from a PEM file, or a directory of PEM files (SSL_CTX_load_verify_locations(3)). Raises
    ConfigurationError."""
    file, directory = (NULL if path is None else os.fsencode(path) for path in (cafile, capath))
    if lib.SSL_CTX_load_verify_locations(context, file, directory) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"trust anchors {cafile or capath}", "no PEM certificates there")


def set_verify_flags(context: SSL_CTX, flags: int) -> None:
    """Sets the flags of the store, not of the context (X509_STORE_set_flags(3)). A connection that is switched to this
    context uses its store, but keeps the flags of its first context."""
    lib.X509_STORE_set_flags(lib.SSL_CTX_get_cert_store(context), flags)


def add_crl(context: SSL_CTX, revoked: x509.CertificateRevocationList) -> None:
    """Adds a list of certificates that must not be trusted. Raises ConfigurationError."""
    crl = _read(revoked.public_bytes(Encoding.DER), lib.d2i_X509_CRL_bio)
    try:
        if crl == NULL or lib.X509_STORE_add_crl(lib.SSL_CTX_get_cert_store(context), crl) != 1:
            raise ConfigurationError(f"revocation list of {revoked.issuer}", errors.reason())
    finally:
        lib.X509_CRL_free(crl)


def ca_certificates(context: SSL_CTX) -> list[bytes]:
    """Returns DER of the CA certificates in the store. Those of a directory are loaded when they are first needed."""
    objects = lib.X509_STORE_get0_objects(lib.SSL_CTX_get_cert_store(context))
    found = [lib.X509_OBJECT_get0_X509(lib.OPENSSL_sk_value(objects, i)) for i in range(lib.OPENSSL_sk_num(objects))]
    return [certificate_der(each) for each in found if each != NULL and lib.X509_check_ca(each)]


# -- callbacks ---------------------------------------------------------------------------------------------------------


def set_session_callbacks(context: SSL_CTX, get: Callback, new: Callback, remove: Callback) -> None:
    """Sets the callbacks of SSL_CTX_sess_set_get_cb(3) and its two sister functions. NULL removes one."""
    lib.SSL_CTX_sess_set_get_cb(context, get)
    lib.SSL_CTX_sess_set_new_cb(context, new)
    lib.SSL_CTX_sess_set_remove_cb(context, remove)


def set_allow_early_data_callback(context: SSL_CTX, callback: Callback) -> None:
    """Sets the callback that decides about early data which OpenSSL itself would accept."""
    lib.SSL_CTX_set_allow_early_data_cb(context, callback, NULL)


def set_verify_callback(context: SSL_CTX, callback: Callback) -> None:
    """Replaces X509_verify_cert() by a callback, which must call it (SSL_CTX_set_cert_verify_callback(3))."""
    lib.SSL_CTX_set_cert_verify_callback(context, callback, NULL)


# -- session tickets (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)) ---------------------------------------------------------

TICKET_KEY_NAME = 16  # bytes
# OSSL_PARAM(3), which the binding does not declare: key, data_type, data, data_size, return_size.
_PARAM = struct.Struct("@PIPNN0P")
_PARAM_UTF8_STRING, _PARAM_OCTET_STRING = 4, 5
_MAC_KEY, _MAC_DIGEST, _SHA256 = (ffi.new("char[]", text) for text in (b"key", b"digest", b"SHA256"))


def set_ticket_key_callback(context: SSL_CTX, callback: Callback) -> None:
    """Sets the callback for ticket keys. Raises UnsupportedOpenSSL, also for functions that use_ticket_key() needs."""
    need("EVP_CipherInit_ex2", "EVP_MAC_CTX_set_params")
    lib.SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ffi.cast("void *", callback))


def use_ticket_key(cipher: object, mac: object, aes: bytes, hmac: bytes, iv: Memory, encrypt: bool) -> None:
    """Sets up an EVP_CIPHER_CTX* for AES-CBC, and an EVP_MAC_CTX* for HMAC-SHA256.

    aes: 16 or 32 bytes. iv: 16 bytes. Raises ConfigurationError if OpenSSL refuses, for example with a FIPS provider.
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
