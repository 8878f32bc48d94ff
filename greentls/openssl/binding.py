"""Thin functions over the OpenSSL that cryptography carries: reference counts, the error queue, sessions, BIOs.

Nothing here decides anything. ``SSL*``, ``SSL_SESSION*`` and the like pass through as opaque cffi pointers (``Any``);
what is returned as owned is freed with the last reference to that pointer (``_owned()``). Functions that the binding
does not export come from ``symbols`` and are looked up at first use, so that an OpenSSL without one of them still does
everything else.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import struct
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL, crypto

from greentls.errors import ConfigurationError, UnsupportedOpenSSL
from greentls.openssl import symbols

_binding = Binding()
ffi: Any = _binding.ffi
lib: Any = _binding.lib

# Macros of ssl.h and tls1.h that the binding does not carry.
_CTRL_CHAIN_CERT = 89
_CTRL_SET_GROUPS_LIST = 92
_CTRL_SET_BUF_MEM, _BIO_CLOSE = 114, 1  # bio.h
_CTRL_SET_SIGALGS_LIST = 98
_CTRL_SET_CLIENT_SIGALGS_LIST = 102
_STATUSTYPE_OCSP = 1
_CTRL_SESS_NUMBER = 20  # and what follows it up to 31
_READ_EARLY_DATA_SUCCESS, _EARLY_DATA_ACCEPTED = 1, 2
_HOSTFLAG_NO_PARTIAL_WILDCARDS, _HOSTFLAG_NEVER_CHECK_SUBJECT = 0x4, 0x20

OP_NO_RENEGOTIATION: int = lib.SSL_OP_NO_RENEGOTIATION  # SSL_CTX_set_options(3)
OP_NO_ANTI_REPLAY = 1 << 24


@functools.cache
def hidden(name: str, signature: str) -> Any:
    """An OpenSSL function that the binding does not export, as a callable. Raises UnsupportedOpenSSL."""
    return ffi.cast(signature, symbols.address(name))


# -- who frees what ----------------------------------------------------------------------------------------------------
#
# The destructor of ffi.gc() is a finalizer to the cycle collector, which may call it before the finalizer of another
# object in the same cycle, and that one would use freed memory. A plain pointer is invisible to the collector, and is
# destroyed only when all finalizers of a cycle have run. So Python's objects hold a plain one, and what frees is held
# from here, out of the collector's reach, until nobody refers to the plain one any more.

_held: dict[int, tuple[Any, Any]] = {}  # by id() of a plain pointer: a weak reference to it, and what it holds


def hold(thing: Any) -> Any:
    """What keeps a thing out of the collector's reach, and its finalizer from being called, while it is kept itself."""
    pointer = ffi.cast("void *", 0)
    key = id(pointer)
    # A call of C's, in which no signal handler can raise. Its second argument, a default, will be the weak reference.
    _held[key] = weakref.ref(pointer, functools.partial(_held.pop, key)), thing
    return pointer


def _owned(pointer: Any, free: Any) -> Any:
    """A copy of a pointer. What it points to is freed with the last reference to this copy."""
    copy = ffi.cast(ffi.typeof(pointer), pointer)
    key = id(copy)
    _held[key] = weakref.ref(copy, functools.partial(_held.pop, key)), ffi.gc(pointer, free)  # as in hold()
    return copy


# -- the error queue (ERR_get_error(3), OSSL_ERR_STATE_save(3)) --------------------------------------------------------


def take_errors() -> list[int]:
    """Empties this thread's error queue; oldest first, as OpenSSL packs them."""
    codes = []
    while code := lib.ERR_get_error():
        codes.append(code)
    return codes


def describe(code: int) -> tuple[str, str]:
    """(library, reason) of a packed error: ("SSL routines", "no shared cipher")."""
    library, reason = lib.ERR_lib_error_string(code), lib.ERR_reason_error_string(code)
    return _text(library), _text(reason)


def _text(string: Any) -> str:
    """Empty for NULL."""
    return "" if string == ffi.NULL else ffi.string(string).decode()


def save_errors() -> Any:
    """Takes this thread's error queue away. Give the result to restore_errors(); None if the queue was empty."""
    if not lib.ERR_peek_error():
        return None
    try:
        new = hidden("OSSL_ERR_STATE_new", "void *(*)(void)")
        save = hidden("OSSL_ERR_STATE_save", "void (*)(void *)")
        free = hidden("OSSL_ERR_STATE_free", "void (*)(void *)")
    except UnsupportedOpenSSL:
        return take_errors()  # OpenSSL 3.0 and 3.1 have no such state: file and line are lost, the errors are not
    state = ffi.gc(new(), free)
    save(state)
    return state


def restore_errors(saved: Any) -> None:
    """Makes this thread's error queue what save_errors() took away."""
    lib.ERR_clear_error()
    if saved is None:
        return
    if isinstance(saved, list):
        for code in saved:
            lib.ERR_put_error(code >> 23 & 0xFF, 0, code & 0x7FFFFF, b"", 0)
    else:
        hidden("OSSL_ERR_STATE_restore", "void (*)(const void *)")(saved)


# -- sessions (d2i_SSL_SESSION(3), SSL_CTX_sess_set_get_cb(3)) ---------------------------------------------------------


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


def session_to_bytes(session: Any) -> bytes:
    """DER of an SSL_SESSION*. It holds the master secret in clear."""
    start = ffi.new("unsigned char **")  # NULL: OpenSSL allocates
    length = lib.i2d_SSL_SESSION(session, start)
    try:
        return bytes(ffi.buffer(start[0], length))
    finally:
        lib.OPENSSL_free(start[0])


def session_from_bytes(blob: bytes) -> Any:
    """A new SSL_SESSION*, owned, or None if the bytes are not one."""
    data = ffi.from_buffer(blob)
    session = lib.d2i_SSL_SESSION(ffi.NULL, ffi.new("const unsigned char **", data), len(blob))
    if not session:
        lib.ERR_clear_error()
        return None
    return _owned(session, lib.SSL_SESSION_free)


def shared_session(session: Any) -> Any:
    """The same SSL_SESSION*, owned: with a reference more."""
    _sessions.SSL_SESSION_up_ref(session)
    return _owned(session, lib.SSL_SESSION_free)


def session_id(session: Any) -> bytes:
    """The session's id, empty if it has none."""
    length = ffi.new("unsigned int *")
    octets: bytes = ffi.unpack(_sessions.SSL_SESSION_get_id(session, length), length[0])
    return octets


def session_id_context(session: Any) -> bytes:
    """What the session is bound to (SSL_CTX_set_session_id_context(3)); empty: nothing, as a client's."""
    length = ffi.new("unsigned int *")
    octets: bytes = ffi.unpack(_sessions.SSL_SESSION_get0_id_context(session, length), length[0])
    return octets


def session_server_name(session: Any) -> str | None:
    name = _sessions.SSL_SESSION_get0_hostname(session)
    return None if name == ffi.NULL else ffi.string(name).decode("ascii", "surrogateescape")


def session_alpn_protocol(session: Any) -> bytes:
    start, length = ffi.new("const unsigned char **"), ffi.new("size_t *")
    _sessions.SSL_SESSION_get0_alpn_selected(session, start, length)
    return bytes(ffi.buffer(start[0], length[0])) if length[0] else b""


def session_max_early_data(session: Any) -> int:
    """Bytes that the server takes as early data on a connection that resumes the session."""
    return int(lib.SSL_SESSION_get_max_early_data(session))


def session_times(session: Any) -> tuple[int, int]:
    """(made at, seconds since the epoch; lifetime, seconds)."""
    return _sessions.SSL_SESSION_get_time(session), _sessions.SSL_SESSION_get_timeout(session)


def session_version(session: Any) -> int:
    """The protocol version that it was made under: 0x0304 for TLS 1.3."""
    version: int = _sessions.SSL_SESSION_get_protocol_version(session)
    return version


def session_resumable(session: Any) -> bool:
    return bool(_sessions.SSL_SESSION_is_resumable(session))


def session_ticket(session: Any) -> tuple[bool, int]:
    """(there is one; its lifetime hint in seconds)."""
    return bool(_sessions.SSL_SESSION_has_ticket(session)), _sessions.SSL_SESSION_get_ticket_lifetime_hint(session)


def set_session_callbacks(context: Any, get: Any, new: Any, remove: Any) -> None:
    """SSL_CTX_sess_set_get_cb and its two sisters; NULL detaches."""
    hidden(
        "SSL_CTX_sess_set_get_cb",
        "void (*)(SSL_CTX *, SSL_SESSION *(*)(SSL *, const unsigned char *, int, int *))",
    )(context, get)
    hidden("SSL_CTX_sess_set_new_cb", "void (*)(SSL_CTX *, int (*)(SSL *, SSL_SESSION *))")(context, new)
    hidden("SSL_CTX_sess_set_remove_cb", "void (*)(SSL_CTX *, void (*)(SSL_CTX *, SSL_SESSION *))")(context, remove)


def set_client_hello_callback(context: Any, callback: Any) -> None:
    """SSL_CTX_set_client_hello_cb(3). Raises UnsupportedOpenSSL also where the callback could not read the hello."""
    _client_hello_functions().set_callback(context, callback, ffi.NULL)


def need_client_hello() -> None:
    """Raises UnsupportedOpenSSL where there is no client-hello callback, or where it could not read the hello."""
    _client_hello_functions()


class _ClientHelloFunctions(NamedTuple):
    set_callback: Any
    extension: Any
    ciphers: Any
    session_id: Any


@functools.cache
def _client_hello_functions() -> _ClientHelloFunctions:
    return _ClientHelloFunctions(
        hidden("SSL_CTX_set_client_hello_cb", "void (*)(SSL_CTX *, int (*)(SSL *, int *, void *), void *)"),
        hidden("SSL_client_hello_get0_ext", "int (*)(SSL *, unsigned int, const unsigned char **, size_t *)"),
        hidden("SSL_client_hello_get0_ciphers", "size_t (*)(SSL *, const unsigned char **)"),
        hidden("SSL_client_hello_get0_session_id", "size_t (*)(SSL *, const unsigned char **)"),
    )


# -- session tickets (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)) ---------------------------------------------------------

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


def set_ticket_key_callback(context: Any, callback: Any) -> None:
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
        code, *_ = [*take_errors(), 0]
        raise ConfigurationError("ticket key", describe(code)[1] or "OpenSSL refuses it")


# -- contexts ----------------------------------------------------------------------------------------------------------


def pointer(thing: Any) -> int:
    """A C pointer's address, to find Python's side of it."""
    return int(ffi.cast("uintptr_t", thing))


def raw_context(context: SSL.Context) -> Any:
    return context._context


def set_num_tickets(context: SSL.Context, count: int) -> None:
    hidden("SSL_CTX_set_num_tickets", "int (*)(SSL_CTX *, size_t)")(raw_context(context), count)


def tune_context(context: SSL.Context) -> None:
    """Modes for a Connection that owns its buffers.

    RELEASE_BUFFERS: an idle connection keeps no 16 KiB record buffers. Without PARTIAL_WRITE (which pyOpenSSL sets) one
    SSL_write() encrypts the whole of what it is given, and a memory BIO always takes it.
    """
    lib.SSL_CTX_set_mode(raw_context(context), lib.SSL_MODE_RELEASE_BUFFERS)
    lib.SSL_CTX_clear_mode(raw_context(context), lib.SSL_MODE_ENABLE_PARTIAL_WRITE)


def set_cipher_list(context: SSL.Context, names: str) -> None:
    """TLS 1.2 cipher suites in OpenSSL's syntax (openssl-ciphers(1))."""
    if lib.SSL_CTX_set_cipher_list(raw_context(context), names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"ciphers {names!r}", "OpenSSL knows none of them")


def set_ciphersuites(context: SSL.Context, names: str) -> None:
    """TLS 1.3 cipher suites, colon-separated."""
    if lib.SSL_CTX_set_ciphersuites(raw_context(context), names.encode()) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"cipher suites {names!r}", "OpenSSL knows none of them")


def set_groups(context: SSL.Context, names: str) -> None:
    """Key-exchange groups, colon-separated, best first."""
    if hasattr(lib, "SSL_CTX_set1_curves_list"):
        done = lib.SSL_CTX_set1_curves_list(raw_context(context), names.encode())
    else:  # cryptography 44 and 46 do not have the macro
        control = hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
        done = control(raw_context(context), _CTRL_SET_GROUPS_LIST, 0, ffi.from_buffer(names.encode() + b"\0"))
    if done != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"groups {names!r}", "OpenSSL does not know one of them")


def set_signature_algorithms(context: SSL.Context, names: str, of_clients: bool = False) -> None:
    """Signature algorithms, colon-separated, best first. of_clients: those of a client's certificate only."""
    control = hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
    command = _CTRL_SET_CLIENT_SIGALGS_LIST if of_clients else _CTRL_SET_SIGALGS_LIST
    if control(raw_context(context), command, 0, ffi.from_buffer(names.encode() + b"\0")) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"signature algorithms {names!r}", "OpenSSL does not know one of them")


def set_psk_identity_hint(context: SSL.Context, hint: bytes) -> None:
    if lib.SSL_CTX_use_psk_identity_hint(raw_context(context), hint) != 1:
        lib.ERR_clear_error()
        raise ConfigurationError("psk_identity_hint", "OpenSSL refuses it", "at most 128 bytes")


def set_post_handshake_auth(context: SSL.Context) -> None:
    """A client offers to show its certificate later (RFC 8446 4.2.6)."""
    lib.SSL_CTX_set_post_handshake_auth(raw_context(context), 1)


# SSL_CTX_sess_number(3), in the order of their control numbers; None: nobody asks.
_STATS = (
    "number", "connect", "connect_good", "connect_renegotiate", "accept", "accept_good", "accept_renegotiate", "hits",
    None, "misses", "timeouts", "cache_full",
)  # fmt: skip


def session_stats(context: SSL.Context) -> dict[str, int]:
    """What a context has counted."""
    control = hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
    return {
        name: control(raw_context(context), _CTRL_SESS_NUMBER + index, 0, ffi.NULL)
        for index, name in enumerate(_STATS)
        if name
    }


def set_max_early_data(context: SSL.Context, max_bytes: int) -> None:
    """Tickets allow a client to send so many bytes early (SSL_CTX_set_max_early_data(3))."""
    lib.SSL_CTX_set_max_early_data(raw_context(context), max_bytes)


def set_allow_early_data_callback(context: Any, callback: Any) -> None:
    """Asked for each connection with early data, once OpenSSL has no objection left of its own."""
    signature = "void (*)(SSL_CTX *, int (*)(SSL *, void *), void *)"
    hidden("SSL_CTX_set_allow_early_data_cb", signature)(context, callback, ffi.NULL)


def set_verify_callback(context: Any, callback: Any) -> None:
    """SSL_CTX_set_cert_verify_callback(3): in the place of X509_verify_cert(), which callback has to call."""
    signature = "void (*)(SSL_CTX *, int (*)(X509_STORE_CTX *, void *), void *)"
    hidden("SSL_CTX_set_cert_verify_callback", signature)(context, callback, ffi.NULL)


def use_certificate(context: Any, certificate: bytes, key: bytes) -> None:
    """Adds a certificate and its private key (PKCS #8) to an SSL_CTX*, both as DER. Raises ConfigurationError.

    OpenSSL reads both itself: pyOpenSSL, between it and them, refuses kinds of keys that it does not know.
    """
    leaf, private = _from_der(lib.d2i_X509_bio, certificate), _from_der(lib.d2i_PrivateKey_bio, key)
    try:
        if not (
            leaf != ffi.NULL
            and private != ffi.NULL
            and lib.SSL_CTX_use_certificate(context, leaf) == 1
            and lib.SSL_CTX_use_PrivateKey(context, private) == 1
        ):
            *_, code = [0, *take_errors()]
            problem = describe(code)[1] or "it refuses it"
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


def check_certificate(certificate: bytes, key: bytes, ciphers: str = "ALL:@SECLEVEL=0") -> None:
    """use_certificate() with a context that nobody else sees. ciphers: by the security level in there."""
    context = lib.SSL_CTX_new(lib.TLS_method())
    try:
        lib.SSL_CTX_set_cipher_list(context, ciphers.encode())
        use_certificate(context, certificate, key)
    finally:
        lib.SSL_CTX_free(context)


def add_chain(context: SSL.Context, certificates: Iterable[x509.Certificate], shared: bool) -> None:
    """Intermediate certificates sent behind the leaf that was set last; shared: behind any leaf of the context.

    What is shared needs no hidden function: SSL_CTX_add_extra_chain_cert(3) against SSL_CTX_add1_chain_cert(3).
    """
    for certificate in certificates:
        if shared:
            context.add_extra_chain_cert(certificate)
            continue
        control = hidden("SSL_CTX_ctrl", "long (*)(SSL_CTX *, int, long, void *)")
        if control(raw_context(context), _CTRL_CHAIN_CERT, 1, crypto.X509.from_cryptography(certificate)._x509) != 1:
            code, *_ = [*take_errors(), 0]
            raise ConfigurationError(f"intermediate certificate {certificate.subject}", describe(code)[1])


def add_trust_anchor(context: SSL.Context, certificate: x509.Certificate) -> None:
    store = lib.SSL_CTX_get_cert_store(raw_context(context))
    if lib.X509_STORE_add_cert(store, crypto.X509.from_cryptography(certificate)._x509) != 1:
        lib.ERR_clear_error()
        raise MemoryError("X509_STORE_add_cert")


def ca_certificates(context: SSL.Context) -> list[bytes]:
    """DER of the CA certificates in the store; those of a directory come into it when they are first needed."""
    certificate_of = hidden("X509_OBJECT_get0_X509", "X509 *(*)(const X509_OBJECT *)")
    is_ca = hidden("X509_check_ca", "int (*)(X509 *)")
    objects = lib.X509_STORE_get0_objects(lib.SSL_CTX_get_cert_store(raw_context(context)))
    value = hidden("OPENSSL_sk_value", "X509_OBJECT *(*)(const void *, int)")
    found = [certificate_of(value(objects, index)) for index in range(lib.sk_X509_OBJECT_num(objects))]
    return [_certificate_der(each) for each in found if each != ffi.NULL and is_ca(each)]


# -- connections -------------------------------------------------------------------------------------------------------


def new_ssl(context: SSL.Context, server_side: bool) -> tuple[Any, Any, Any]:
    """(SSL*, owned; incoming BIO*, outgoing BIO*): memory BIOs that live as long as the SSL*."""
    ssl = lib.SSL_new(raw_context(context))  # which takes a reference of the context
    if ssl == ffi.NULL:
        raise MemoryError("SSL_new")
    ssl = _owned(ssl, _free_quietly)
    if server_side:
        lib.SSL_set_accept_state(ssl)
    else:
        lib.SSL_set_connect_state(ssl)
    incoming, outgoing = lib.BIO_new(_MEMORY), lib.BIO_new(_MEMORY)
    if incoming == ffi.NULL or outgoing == ffi.NULL:
        raise MemoryError("BIO_new")
    lib.SSL_set_bio(ssl, incoming, outgoing)  # owns them
    return ssl, incoming, outgoing


def _free_quietly(ssl: Any, lib: Any = lib) -> None:  # lib: this module may be half taken down
    """As if close_notify had gone out: SSL_free() then leaves the session resumable (SSL_set_shutdown(3)). One that is
    not to be resumed has been removed by then: OpenSSL does so with each fatal alert."""
    lib.SSL_set_shutdown(ssl, lib.SSL_SENT_SHUTDOWN)
    lib.SSL_free(ssl)


_MEMORY = lib.BIO_s_mem()


def shrink_bios(*bios: Any) -> None:
    """Lets empty memory BIOs begin anew: one keeps the size of the most that it ever held.

    The BIOs stay what they are, as somebody may have their addresses at hand (BIO_set_mem_buf(3)).
    """
    try:
        control = hidden("BIO_ctrl", "long (*)(BIO *, int, long, void *)")
        new = hidden("BUF_MEM_new", "void *(*)(void)")
    except UnsupportedOpenSSL:
        return  # they stay as they are: nothing but memory is lost
    for bio in bios:
        control(bio, _CTRL_SET_BUF_MEM, _BIO_CLOSE, new())


def bio_write(bio: Any, data: bytes | bytearray | memoryview) -> None:
    """Appends to a memory BIO; it takes everything or there is no memory."""
    if data and lib.BIO_write(bio, ffi.from_buffer(data), len(data)) != len(data):
        raise MemoryError("BIO_write")


def bio_read(bio: Any) -> bytearray:
    """Everything in a memory BIO; it is empty afterwards."""
    length = lib.BIO_get_mem_data(bio, start)
    data = bytearray(length)
    if length:
        del data[max(lib.BIO_read(bio, ffi.from_buffer(data), length), 0) :]  # somebody else may have read some of it
    return data


# BIO_write(3) and BIO_read(3) from and to a Buffer's pointer: (bio, pointer, size). As they are: without functions
# around them, and what those looked up again, an echo takes 6 % fewer instructions in Python.
write_bio: Any = lib.BIO_write
read_bio: Any = lib.BIO_read
mem_data: Any = lib.BIO_get_mem_data  # (bio, start): how many bytes there are


def bio_pending(bio: Any) -> int:
    """Bytes in a memory BIO."""
    return int(lib.BIO_get_mem_data(bio, start))


start = ffi.new("char **")  # BIO_get_mem_data() also tells where they are, which nobody asks


class Buffer:
    """What a socket receives into and a BIO is fed from, or the other way: without a copy between."""

    __slots__ = ("memory", "pointer")

    def __init__(self, size: int) -> None:
        self.memory = memoryview(bytearray(size))
        self.pointer = ffi.from_buffer(self.memory)


_allocate = ffi.new_allocator(should_clear_after_alloc=False)  # what SSL_read() fills need not be zero before


def readable(data: bytes | bytearray | memoryview) -> Any:
    """Bytes as C sees them. Raises BufferError or TypeError if they are none, or not contiguous."""
    return ffi.from_buffer(data)


def writable(buffer: bytearray | memoryview) -> Any:
    """Memory that C may write to. Raises BufferError or TypeError."""
    return ffi.from_buffer(buffer, require_writable=True)


RECORD_SIZE = 16384  # plaintext bytes in a record at most (RFC 8446 5.1): SSL_read() never gives more


def read_buffer(size: int) -> Any:
    """A char[] for read_bytes()."""
    return _allocate("char[]", size)


def fill(buffer: Any, data: bytes) -> int:
    """Copies data into a buffer that has room for them; returns how many bytes they are."""
    ffi.memmove(buffer, data, len(data))
    return len(data)


read_bytes: Callable[[Any, int], bytes] = ffi.unpack  # the first bytes of a char[]


def send_fatal_alert(ssl: Any, alert: int) -> None:
    """As OpenSSL itself ends a connection at any point of it: the alert goes out, the session is forgotten, and nothing
    else will be done with the SSL*. Raises UnsupportedOpenSSL.

    The function is internal, and has had this signature since OpenSSL 3.0. An SSL_CONNECTION, which it takes since 3.2,
    begins with its SSL.
    """
    hidden("ossl_statem_send_fatal", "void (*)(SSL *, int)")(ssl, alert)


def set_info_callback(ssl: Any, context: SSL.Context, callback: Any) -> None:
    """SSL_set_info_callback(3), of this one connection; where that is hidden, of all that the context has."""
    setter = _info_callback_setter()
    if setter is not None:
        setter(ssl, callback)
    else:
        lib.SSL_CTX_set_info_callback(raw_context(context), callback)


@functools.cache
def _info_callback_setter() -> Any:
    if hasattr(lib, "SSL_set_info_callback"):
        return lib.SSL_set_info_callback
    try:  # cryptography 44 does not have it
        return hidden("SSL_set_info_callback", "void (*)(SSL *, void (*)(SSL *, int, int))")
    except UnsupportedOpenSSL:
        return None


def received_shutdown(ssl: Any) -> bool:
    """The peer's close_notify has come, or a fatal alert (SSL_get_shutdown(3))."""
    return bool(lib.SSL_get_shutdown(ssl) & lib.SSL_RECEIVED_SHUTDOWN)


_SUPPORTED_VERSIONS = 43
_BEFORE_CIPHERS = (
    4 + 2 + 32 + 1 + 2
)  # bytes: header, legacy_version, random, and the two lengths round legacy_session_id


def client_hello_extension(ssl: Any, extension_type: int) -> bytes | None:
    """An extension's bytes as the client sent them, None if there is none. In a client-hello callback only."""
    start, length = ffi.new("const unsigned char **"), ffi.new("size_t *")
    found = _client_hello_functions().extension(ssl, extension_type, start, length)
    return bytes(ffi.buffer(start[0], length[0])) if found else None


def client_hello(ssl: Any) -> bytes | None:
    """The ClientHello as the client sent it, header included; None for one that does not offer TLS 1.3. In a
    client-hello callback only.

    OpenSSL tells parts of it, and of its extensions those that it knows. But it reads the cipher suites where they were
    received, in the middle of the message; so the rest is round them. (In SSLv2's hello it is elsewhere; that has no
    extensions.) Empty where that is not so.
    """
    _, extension, ciphers, session_id = _client_hello_functions()
    if not extension(ssl, _SUPPORTED_VERSIONS, ffi.NULL, ffi.NULL):
        return None
    start = ffi.new("const unsigned char **")
    ciphers(ssl, start)
    message = start[0] - (_BEFORE_CIPHERS + session_id(ssl, ffi.NULL))
    if message[0] != 1:  # HandshakeType.client_hello
        return b""
    return bytes(ffi.buffer(message, 4 + (message[1] << 16 | message[2] << 8 | message[3])))


def set_session_id_context(ssl: Any, value: bytes) -> None:
    """Which sessions it may resume, and what those are bound to that it makes; 32 bytes at most."""
    hidden("SSL_set_session_id_context", "int (*)(SSL *, const unsigned char *, unsigned int)")(ssl, value, len(value))


def server_name(ssl: Any) -> str | None:
    """RFC 6066 server_name as the client wrote it; bytes that are not ASCII come out as surrogates."""
    name = lib.SSL_get_servername(ssl, 0)
    return None if name == ffi.NULL else ffi.string(name).decode("ascii", "surrogateescape")


MAX_SERVER_NAME = 255  # bytes (TLSEXT_MAXLEN_host_name)


def set_server_name(ssl: Any, name: str) -> None:
    """RFC 6066 server_name."""
    encoded = _encode(name)
    if len(encoded) > MAX_SERVER_NAME:  # which OpenSSL would tell, and the binding does not
        raise ConfigurationError(f"server_hostname {name!r}", f"longer than {MAX_SERVER_NAME} bytes")
    lib.SSL_set_tlsext_host_name(ssl, encoded)


def _encode(name: str) -> bytes:
    return name.encode("ascii" if name.isascii() else "idna")


def packed_ip(name: str) -> bytes | None:
    """The address in network byte order, None for a DNS name. As OpenSSL reads it, and so Python: leading zeros are
    decimal, and an address with a scope is none (a2i_IPADDRESS())."""
    try:
        if _DOTTED.fullmatch(name):
            return bytes(map(int, name.split(".")))
        return None if "%" in name else ipaddress.IPv6Address(name).packed
    except ValueError:
        return None


_DOTTED = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")


def check_host(ssl: Any, name: str, common_name: bool) -> None:
    """The peer's certificate must be valid for this DNS name or IP address (X509_VERIFY_PARAM_set1_host(3)).

    common_name: a certificate without alternative names may name it in its subject.
    """
    parameters = lib.SSL_get0_param(ssl)
    packed = packed_ip(name)
    if packed is not None:
        done = lib.X509_VERIFY_PARAM_set1_ip(parameters, packed, len(packed))
    else:
        encoded = _encode(name)
        flags = _HOSTFLAG_NO_PARTIAL_WILDCARDS | (0 if common_name else _HOSTFLAG_NEVER_CHECK_SUBJECT)
        lib.X509_VERIFY_PARAM_set_hostflags(parameters, flags)
        done = lib.X509_VERIFY_PARAM_set1_host(parameters, encoded, len(encoded))
        if done != 1:  # not a proper name to OpenSSL 4.0, which before that compared whatever it was given
            accept = hidden(
                "X509_VERIFY_PARAM_set1_host_input_validation",
                "void (*)(X509_VERIFY_PARAM *, int (*)(const char *, size_t))",
            )
            accept(parameters, _any_name)
            done = lib.X509_VERIFY_PARAM_set1_host(parameters, encoded, len(encoded))
            accept(parameters, ffi.NULL)
    if done != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"server_hostname {name!r}", "neither a DNS name nor an IP address")


_any_name = ffi.callback("int(*)(const char *, size_t)", lambda name, length: 1)


def read_early_data(ssl: Any, buffer: Any, room: int) -> int:
    """SSL_read_early_data(3): how many bytes, room at most, 0 when there will be no more, -1 as SSL_read(3)."""
    length = ffi.new("size_t *")
    outcome = lib.SSL_read_early_data(ssl, buffer, room, length)
    return int(length[0]) if outcome == _READ_EARLY_DATA_SUCCESS else 0 if outcome else -1


def write_early_data(ssl: Any, data: Any, length: int) -> int:
    """SSL_write_early_data(3), which is the server's, too, before the client's Finished; returns as SSL_write(3)."""
    written = ffi.new("size_t *")
    return int(written[0]) if lib.SSL_write_early_data(ssl, data, length, written) == 1 else -1


def early_data_accepted(ssl: Any) -> bool | None:
    """Whether the server took the client's early data; None if there was none."""
    status = hidden("SSL_get_early_data_status", "int (*)(const SSL *)")(ssl)
    return None if status == 0 else status == _EARLY_DATA_ACCEPTED


def client_random(ssl: Any) -> bytes:
    """ClientHello.random: 32 bytes."""
    buffer = ffi.new("unsigned char[32]")
    lib.SSL_get_client_random(ssl, buffer, 32)
    return bytes(ffi.buffer(buffer))


def request_client_certificate(ssl: Any) -> list[int]:
    """SSL_verify_client_post_handshake(3), which enters no handshake: the errors, none if it is done."""
    lib.ERR_clear_error()
    return [] if lib.SSL_verify_client_post_handshake(ssl) == 1 else take_errors()


def set_verify_mode(ssl: Any, mode: int) -> None:
    """SSL_set_verify(3), of one connection."""
    lib.SSL_set_verify(ssl, mode, ffi.NULL)


def alpn_protocol(ssl: Any) -> bytes:
    """The ALPN protocol agreed on, empty if none."""
    start, length = ffi.new("const unsigned char **"), ffi.new("unsigned int *")
    lib.SSL_get0_alpn_selected(ssl, start, length)
    return bytes(ffi.buffer(start[0], length[0])) if length[0] else b""


def group_name(ssl: Any) -> str | None:
    """The key-exchange group agreed on. Call it only after the handshake: OpenSSL looks into a session it expects."""
    if not getattr(lib, "Cryptography_HAS_SSL_GET0_GROUP_NAME", 0):
        return None
    name = lib.SSL_get0_group_name(ssl)
    return None if name == ffi.NULL else ffi.string(name).decode()


def version(ssl: Any) -> str:
    return _text(lib.SSL_get_version(ssl))


Cipher = tuple[str, str, int]


def cipher(ssl: Any) -> Cipher | None:
    """(name, version, secret bits) of the cipher in use."""
    current = lib.SSL_get_current_cipher(ssl)
    return None if current == ffi.NULL else _cipher(current)


def _cipher(cipher: Any) -> Cipher:
    name, version = lib.SSL_CIPHER_get_name(cipher), lib.SSL_CIPHER_get_version(cipher)
    return ffi.string(name).decode(), ffi.string(version).decode(), lib.SSL_CIPHER_get_bits(cipher, ffi.NULL)


def shared_ciphers(ssl: Any) -> list[Cipher] | None:
    """At a server, what the client offers of what is accepted here, in the client's order; None if it offered none."""
    offered = _ciphers(hidden("SSL_get_client_ciphers", "void *(*)(const SSL *)")(ssl))
    if not offered:
        return None
    ours = _ciphers(hidden("SSL_get_ciphers", "void *(*)(const SSL *)")(ssl))
    return [_cipher(each) for each in offered if each in ours]


def _ciphers(stack: Any) -> list[Any]:
    if stack == ffi.NULL:
        return []
    value = hidden("OPENSSL_sk_value", "const SSL_CIPHER *(*)(const void *, int)")
    return [value(stack, index) for index in range(hidden("OPENSSL_sk_num", "int (*)(const void *)")(stack))]


def finished(ssl: Any, ours: bool) -> bytes:
    """The verify_data of our last Finished or the peer's, empty before it (SSL_get_finished(3))."""
    function = lib.SSL_get_finished if ours else lib.SSL_get_peer_finished
    buffer = ffi.new("char[64]")
    return bytes(ffi.buffer(buffer, function(ssl, buffer, 64)))


def exported_keying_material(ssl: Any, label: bytes, length: int, context: bytes | None) -> bytes:
    """SSL_export_keying_material(3). Raises ValueError."""
    out = ffi.new("unsigned char[]", length)
    given = context or b""
    if lib.SSL_export_keying_material(ssl, out, length, label, len(label), given, len(given), context is not None) != 1:
        lib.ERR_clear_error()
        raise ValueError(f"{label!r}: this connection exports no {length} bytes of keying material")
    return bytes(ffi.buffer(out, length))


def verified_peer_chain(ssl: Any) -> list[bytes]:
    """DER of the chain that the verification built, up to its anchor; empty if there was none."""
    return certificates_der(lib.SSL_get0_verified_chain(ssl))


def own_certificate(ssl: Any) -> bytes | None:
    """DER of the certificate that this side has chosen."""
    certificate = lib.SSL_get_certificate(ssl)
    return None if certificate == ffi.NULL else _certificate_der(certificate)


def knows_peer(ssl: Any) -> bool:
    """Whether there is a certificate of the peer: its own, or that of the session to be offered."""
    certificate = lib.SSL_get_peer_certificate(ssl)
    lib.X509_free(certificate)
    return bool(certificate != ffi.NULL)


def would_verify(ssl: Any, context: SSL.Context) -> bool:
    """Whether a client would find the certificate of the session that it offers good, in a full handshake.

    As OpenSSL asks (ssl_verify_cert_chain()): for the name, by the flags and at the security level of the SSL*. Of the
    intermediate certificates only those are known that came with the session; a session from bytes has none.
    """
    certificate = lib.SSL_get_peer_certificate(ssl)
    if certificate == ffi.NULL:
        return False
    store = lib.X509_STORE_CTX_new()
    try:
        trusted, chain = lib.SSL_CTX_get_cert_store(raw_context(context)), lib.SSL_get_peer_cert_chain(ssl)
        if store == ffi.NULL or lib.X509_STORE_CTX_init(store, trusted, certificate, chain) != 1:
            raise MemoryError("X509_STORE_CTX_init")
        parameters = hidden("X509_STORE_CTX_get0_param", "X509_VERIFY_PARAM *(*)(X509_STORE_CTX *)")(store)
        level = hidden("SSL_get_security_level", "int (*)(const SSL *)")(ssl)
        hidden("X509_VERIFY_PARAM_set_auth_level", "void (*)(X509_VERIFY_PARAM *, int)")(parameters, level)
        hidden("X509_STORE_CTX_set_default", "int (*)(X509_STORE_CTX *, const char *)")(store, _OF_A_SERVER)
        own = lib.SSL_get0_param(ssl)
        hidden("X509_VERIFY_PARAM_set1", "int (*)(X509_VERIFY_PARAM *, const X509_VERIFY_PARAM *)")(parameters, own)
        return bool(lib.X509_verify_cert(store) == 1)
    finally:
        lib.X509_STORE_CTX_free(store)
        lib.X509_free(certificate)
        lib.ERR_clear_error()


_OF_A_SERVER = ffi.new("char[]", b"ssl_server")  # the purpose of the peer's certificate


def offers_cipher(ssl: Any, session: Any) -> bool:
    """Whether a client offers the session's cipher; a TLS 1.2 server that resumes without is a fatal error to it."""
    offered = hidden("SSL_get1_supported_ciphers", "void *(*)(SSL *)")(ssl)
    try:
        return _sessions.SSL_SESSION_get0_cipher(session) in _ciphers(offered)
    finally:
        hidden("OPENSSL_sk_free", "void (*)(void *)")(offered)


def peer_certificates(ssl: Any, server_side: bool) -> list[bytes]:
    """DER of the peer's chain as it was sent; SSL_get_peer_cert_chain(3) leaves a client's own out at the server."""
    chain = certificates_der(lib.SSL_get_peer_cert_chain(ssl))
    if server_side or not chain:
        leaf = lib.SSL_get_peer_certificate(ssl)
        if leaf != ffi.NULL:
            chain.insert(0, _certificate_der(ffi.gc(leaf, lib.X509_free)))
    return chain


def switch_context(ssl: Any, context: SSL.Context) -> None:
    """SSL_set_SSL_CTX: certificate, ALPN and trust from another context; session callbacks stay with the first."""
    lib.SSL_set_SSL_CTX(ssl, raw_context(context))


def set_session(ssl: Any, session: Any) -> None:
    if lib.SSL_set_session(ssl, session) != 1:
        code, *_ = [*take_errors(), 0]
        raise ConfigurationError("session", describe(code)[1] or "OpenSSL refuses it", "offer one of the same settings")


def forget_session(ssl: Any) -> None:
    """None is offered for resumption."""
    lib.SSL_set_session(ssl, ffi.NULL)


def current_session(ssl: Any) -> Any:
    """The connection's SSL_SESSION*, owned, or None."""
    session = lib.SSL_get1_session(ssl)
    return None if session == ffi.NULL else _owned(session, lib.SSL_SESSION_free)


def verified_chain(store: Any) -> list[bytes]:
    """DER of the chain that an X509_STORE_CTX* has built, the leaf first."""
    stack = lib.X509_STORE_CTX_get1_chain(store)
    try:
        return certificates_der(stack)
    finally:
        for index in range(lib.sk_X509_num(stack)):
            lib.X509_free(lib.sk_X509_value(stack, index))
        lib.sk_X509_free(stack)


def set_ocsp_response(ssl: Any, response: bytes) -> None:
    """Staples a DER OCSP response; OpenSSL frees the copy (SSL_set_tlsext_status_ocsp_resp(3))."""
    copy = lib.OPENSSL_malloc(len(response))
    ffi.memmove(copy, response, len(response))
    lib.SSL_set_tlsext_status_ocsp_resp(ssl, copy, len(response))


def request_ocsp_response(ssl: Any) -> None:
    """A client asks for a staple: SSL_set_tlsext_status_type(3)."""
    lib.SSL_set_tlsext_status_type(ssl, _STATUSTYPE_OCSP)


def ocsp_response(ssl: Any) -> bytes | None:
    """The DER OCSP response that the server stapled, or None."""
    start = ffi.new("unsigned char **")
    length = lib.SSL_get_tlsext_status_ocsp_resp(ssl, start)
    return bytes(ffi.buffer(start[0], length)) if length > 0 else None


def certificates_der(stack: Any) -> list[bytes]:
    """DER of each X509* in a STACK_OF(X509)*; none for NULL."""
    if stack == ffi.NULL:
        return []
    return [_certificate_der(lib.sk_X509_value(stack, index)) for index in range(lib.sk_X509_num(stack))]


def _certificate_der(certificate: Any) -> bytes:
    bio = ffi.gc(lib.BIO_new(lib.BIO_s_mem()), lib.BIO_free)
    lib.i2d_X509_bio(bio, certificate)
    return bytes(bio_read(bio))


def callback(signature: str, function: Callable[..., Any], fatal: Any, on_error: Callable[..., Any]) -> Any:
    """A C function pointer that lives as long as the caller keeps it.

    fatal: what C gets if the arguments or the result cannot be converted, after on_error(type, value, traceback).
    """
    if fatal is None:
        return ffi.callback(signature, function, onerror=on_error)
    return ffi.callback(signature, function, error=fatal, onerror=on_error)
