"""SSL: the functions of one connection."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable
from types import ModuleType

from greentls.errors import ConfigurationError, UnsupportedOpenSSL
from greentls.openssl import bios, errors, sessions
from greentls.openssl.library import (
    BIO,
    NULL,
    SSL,
    SSL_CIPHER,
    SSL_CTX,
    SSL_SESSION,
    Callback,
    Memory,
    Pointer,
    callback,
    ffi,
    have,
    lib,
    text,
)
from greentls.openssl.lifetimes import owned
from greentls.openssl.stacks import certificate_der, certificates_der, ciphers

_STATUSTYPE_OCSP = 1
_GET_PEER_TMP_KEY, _GET_TMP_KEY, _GET_NEGOTIATED_GROUP = 109, 133, 134  # cmd of SSL_ctrl(3)
_GROUP_OF_A_PROVIDER = 1 << 24  # TLSEXT_nid_unknown, in the numbers of groups that OpenSSL itself does not implement
_X25519 = 1034  # obj_mac.h: an empty key has to be of some type
_READ_EARLY_DATA_SUCCESS, _EARLY_DATA_ACCEPTED = 1, 2
_HOSTFLAG_NO_PARTIAL_WILDCARDS, _HOSTFLAG_NEVER_CHECK_SUBJECT = 0x4, 0x20


def new(context: int, server_side: bool) -> tuple[SSL, BIO, BIO]:
    """(a connection of the SSL_CTX at this address, owned; its incoming and outgoing memory BIO, which live as long).
    Raises MemoryError."""
    ssl = lib.SSL_new(ffi.cast("SSL_CTX *", context))  # it takes a reference to the context
    if not ssl:
        raise MemoryError("SSL_new")
    ssl = owned(ssl, _free_quietly)
    if server_side:
        lib.SSL_set_accept_state(ssl)
    else:
        lib.SSL_set_connect_state(ssl)
    incoming, outgoing = bios.new(), bios.new()
    lib.SSL_set_bio(ssl, incoming, outgoing)  # owns them
    return ssl, incoming, outgoing


def _free_quietly(ssl: SSL, lib: ModuleType = lib) -> None:  # its own: this module may be half taken down
    """Frees a connection as if close_notify had been sent, so that its session stays resumable (SSL_set_shutdown(3)).

    A session that must not be resumed is gone by then: OpenSSL removes it with each fatal alert.
    """
    lib.SSL_set_shutdown(ssl, lib.SSL_SENT_SHUTDOWN)
    lib.SSL_free(ssl)


# What Operation.run() calls, as it is: SSL_read(3), SSL_write(3), SSL_do_handshake(3), SSL_get_error(3).
read: Callable[[SSL, Memory, int], int] = lib.SSL_read
write: Callable[[SSL, Memory | bytes, int], int] = lib.SSL_write
do_handshake: Callable[[SSL], int] = lib.SSL_do_handshake
get_error: Callable[[SSL, int], int] = lib.SSL_get_error
WANT_READ: int = lib.SSL_ERROR_WANT_READ
ZERO_RETURN: int = lib.SSL_ERROR_ZERO_RETURN
SYSCALL: int = lib.SSL_ERROR_SYSCALL

BOTH_SAID = 2


def shutdown(ssl: SSL) -> int:
    """SSL_shutdown(3) with results as the others have them. 1: close_notify is out. BOTH_SAID: the peer's has come.

    SSL_shutdown() answers 0 for the first, which elsewhere is a failure. It answers 1 for a fatal alert, too, but then
    leaves an error. And it fails between the two halves of a post-handshake message; SSL_do_handshake() reads the rest.
    """
    result: int = lib.SSL_shutdown(ssl)
    if result < 0 and errors.describe(errors.peek())[1] == "shutdown while in init":
        errors.clear()
        result = lib.SSL_do_handshake(ssl)
        if result > 0:
            result = lib.SSL_shutdown(ssl)
    if not errors.peek():
        result += result >= 0
    elif result > 0:
        result = -1
    return result


def pending(ssl: SSL) -> int:
    """Returns the number of plaintext bytes that can be read at once."""
    return int(lib.SSL_pending(ssl))


def session_reused(ssl: SSL) -> bool:
    """Whether the handshake resumes; an external pre-shared key is a session to OpenSSL."""
    return bool(lib.SSL_session_reused(ssl))


def protocol_version(ssl: SSL) -> int:
    """Returns the version that was agreed on or, before that, the highest one that is offered; 0x0304 for TLS 1.3."""
    return int(lib.SSL_version(ssl))


def verify_mode(ssl: SSL) -> int:
    """SSL_get_verify_mode(3)."""
    return int(lib.SSL_get_verify_mode(ssl))


def verify_result(ssl: SSL) -> tuple[int, str]:
    """X509_V_ERR_* of the peer's chain, 0 if it is good, and OpenSSL's text for it."""
    code: int = lib.SSL_get_verify_result(ssl)
    return code, text(lib.X509_verify_cert_error_string(code))


def send_fatal_alert(ssl: SSL, alert: int) -> None:
    """Ends a connection as OpenSSL itself does, at any point: sends the alert, forgets the session and does nothing
    else with the SSL afterwards. Raises UnsupportedOpenSSL.

    The function is internal, and has had this signature since OpenSSL 3.0. Since 3.2 it takes an SSL_CONNECTION, which
    begins with its SSL.
    """
    lib.ossl_statem_send_fatal(ssl, alert)


def set_info_callback(ssl: SSL, context: SSL_CTX, callback: Callback) -> None:
    """SSL_set_info_callback(3), for this one connection; where that is hidden, for all connections of its context."""
    try:
        lib.SSL_set_info_callback(ssl, callback)
    except UnsupportedOpenSSL:
        lib.SSL_CTX_set_info_callback(context, callback)


def forget_keys(ssl: SSL) -> None:
    """Destroys the large key of a post-quantum handshake that is over: the client's, which either side has.

    OpenSSL keeps it until the connection is freed, for SSL_get_peer_tmp_key(3), which nobody here calls. That of
    X25519MLKEM768 takes 7 KiB at a server and, being private, 8 KiB at a client. No function frees it, but
    EVP_PKEY_set_type(3) empties a key. Keys of other groups are small, and destroying them costs a handshake 1 %.
    """
    if _can_forget_keys() and lib.SSL_ctrl(ssl, _GET_NEGOTIATED_GROUP, 0, NULL) >= _GROUP_OF_A_PROVIDER:
        forget_all_keys(ssl)


def forget_all_keys(ssl: SSL) -> None:
    """The same for both keys of any handshake that is over, 540 bytes: for a connection that rests."""
    if not _can_forget_keys():
        return
    key = ffi.new("EVP_PKEY **")
    for which in (_GET_PEER_TMP_KEY, _GET_TMP_KEY):
        if lib.SSL_ctrl(ssl, which, 0, key) == 1:
            lib.EVP_PKEY_set_type(key[0], _X25519)
            lib.EVP_PKEY_free(key[0])


@functools.cache
def _can_forget_keys() -> bool:
    return have("SSL_ctrl", "EVP_PKEY_set_type")


def received_shutdown(ssl: SSL) -> bool:
    """Whether the peer's close_notify or a fatal alert has come (SSL_get_shutdown(3))."""
    return bool(lib.SSL_get_shutdown(ssl) & lib.SSL_RECEIVED_SHUTDOWN)


def set_session_id_context(ssl: SSL, value: bytes) -> None:
    """Sets the value that new sessions are bound to, at most 32 bytes. Only sessions of the same value are resumed."""
    lib.SSL_set_session_id_context(ssl, value, len(value))


def server_name(ssl: SSL) -> str | None:
    """RFC 6066 server_name as the client wrote it; bytes that are not ASCII become surrogates."""
    name = lib.SSL_get_servername(ssl, 0)
    return None if name == NULL else ffi.string(name).decode("ascii", "surrogateescape")


MAX_SERVER_NAME = 255  # bytes (TLSEXT_MAXLEN_host_name)


def set_server_name(ssl: SSL, name: str) -> None:
    """RFC 6066 server_name that a client sends. Raises ConfigurationError."""
    encoded = _encode(name)
    if len(encoded) > MAX_SERVER_NAME:  # OpenSSL would say so; the binding does not
        raise ConfigurationError(f"server_hostname {name!r}", f"longer than {MAX_SERVER_NAME} bytes")
    lib.SSL_set_tlsext_host_name(ssl, encoded)


@functools.lru_cache(1024)  # asked twice for each connection; and clients connect to few names
def _encode(name: str) -> bytes:
    return name.encode("ascii" if name.isascii() else "idna")


@functools.lru_cache(1024)
def packed_ip(name: str) -> bytes | None:
    """The address in network byte order, None for a DNS name.

    It is read as OpenSSL and ssl read it: numbers with leading zeros are decimal, and an address with a scope is none
    (a2i_IPADDRESS()).
    """
    try:
        if _DOTTED.fullmatch(name):
            return bytes(map(int, name.split(".")))
        return None if "%" in name else ipaddress.IPv6Address(name).packed
    except ValueError:
        return None


_DOTTED = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")


def check_host(ssl: SSL, name: str, common_name: bool) -> None:
    """Demands that the peer's certificate is valid for a DNS name or IP address (X509_VERIFY_PARAM_set1_host(3)).

    common_name: the subject of a certificate without alternative names may name it. Raises ConfigurationError.
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
        # OpenSSL 4.0 refuses what is not a proper name; before that it compared whatever it was given.
        if done != 1 and have("X509_VERIFY_PARAM_set1_host_input_validation"):
            accept = lib.X509_VERIFY_PARAM_set1_host_input_validation
            accept(parameters, _any_name)
            done = lib.X509_VERIFY_PARAM_set1_host(parameters, encoded, len(encoded))
            accept(parameters, NULL)
    if done != 1:
        lib.ERR_clear_error()
        raise ConfigurationError(f"server_hostname {name!r}", "neither a DNS name nor an IP address")


@callback(0, lambda *_: None)
def _any_name(name: Pointer, length: int) -> int:
    return 1


def read_early_data(ssl: SSL, buffer: Memory, room: int) -> int:
    """SSL_read_early_data(3): how many bytes, at most room; 0 if no more will come; -1 on errors, as SSL_read(3)."""
    length = ffi.new("size_t *")
    outcome = lib.SSL_read_early_data(ssl, buffer, room, length)
    return int(length[0]) if outcome == _READ_EARLY_DATA_SUCCESS else 0 if outcome else -1


def write_early_data(ssl: SSL, data: Memory, length: int) -> int:
    """SSL_write_early_data(3); servers use it, too, before the client's Finished. Returns what SSL_write(3) returns."""
    written = ffi.new("size_t *")
    return int(written[0]) if lib.SSL_write_early_data(ssl, data, length, written) == 1 else -1


def early_data_accepted(ssl: SSL) -> bool | None:
    """Whether the server took the client's early data; None if there was none."""
    status = lib.SSL_get_early_data_status(ssl)
    return None if status == 0 else status == _EARLY_DATA_ACCEPTED


def client_random(ssl: SSL) -> bytes:
    """ClientHello.random: 32 bytes."""
    buffer = ffi.new("unsigned char[32]")
    lib.SSL_get_client_random(ssl, buffer, 32)
    return bytes(ffi.buffer(buffer))


def request_client_certificate(ssl: SSL) -> list[int]:
    """SSL_verify_client_post_handshake(3), which enters no handshake. Returns the errors; none if it succeeded."""
    lib.ERR_clear_error()
    return [] if lib.SSL_verify_client_post_handshake(ssl) == 1 else errors.take()


def set_verify_mode(ssl: SSL, mode: int) -> None:
    """SSL_set_verify(3), for one connection."""
    lib.SSL_set_verify(ssl, mode, NULL)


def alpn_protocol(ssl: SSL) -> bytes:
    """The ALPN protocol agreed on, empty if none."""
    start, length = ffi.new("const unsigned char **"), ffi.new("unsigned int *")
    lib.SSL_get0_alpn_selected(ssl, start, length)
    return bytes(ffi.buffer(start[0], length[0])) if length[0] else b""


def group_name(ssl: SSL) -> str | None:
    """The key-exchange group agreed on. Only after the handshake: OpenSSL reads a session that is not there before.

    None if there was none, and where OpenSSL's functions for it are hidden.
    """
    try:
        return text(lib.SSL_get0_group_name(ssl)) or None
    except UnsupportedOpenSSL:  # OpenSSL before 3.2
        try:
            return text(lib.SSL_group_to_name(ssl, lib.SSL_ctrl(ssl, _GET_NEGOTIATED_GROUP, 0, NULL))) or None
        except UnsupportedOpenSSL:
            return None


def version(ssl: SSL) -> str:
    """The protocol version: "TLSv1.3"."""
    return text(lib.SSL_get_version(ssl))


Cipher = tuple[str, str, int]


def cipher(ssl: SSL) -> Cipher | None:
    """(name, version, secret bits) of the cipher in use."""
    current = lib.SSL_get_current_cipher(ssl)
    return None if current == NULL else _cipher(current)


def _cipher(cipher: SSL_CIPHER) -> Cipher:
    name, version = lib.SSL_CIPHER_get_name(cipher), lib.SSL_CIPHER_get_version(cipher)
    return ffi.string(name).decode(), ffi.string(version).decode(), lib.SSL_CIPHER_get_bits(cipher, NULL)


def shared_ciphers(ssl: SSL) -> list[Cipher] | None:
    """A server's view: the client's ciphers that this side accepts, in the client's order; None if it offered none."""
    offered = ciphers(lib.SSL_get_client_ciphers(ssl))
    if not offered:
        return None
    ours = ciphers(lib.SSL_get_ciphers(ssl))
    return [_cipher(each) for each in offered if each in ours]


def finished(ssl: SSL, ours: bool) -> bytes:
    """The verify_data of our last Finished or the peer's, empty before there is one (SSL_get_finished(3))."""
    function = lib.SSL_get_finished if ours else lib.SSL_get_peer_finished
    buffer = ffi.new("char[64]")
    return bytes(ffi.buffer(buffer, function(ssl, buffer, 64)))


def exported_keying_material(ssl: SSL, label: bytes, length: int, context: bytes | None) -> bytes:
    """SSL_export_keying_material(3). Raises ValueError."""
    out = ffi.new("unsigned char[]", length)
    given = context or b""
    if lib.SSL_export_keying_material(ssl, out, length, label, len(label), given, len(given), context is not None) != 1:
        lib.ERR_clear_error()
        raise ValueError(f"{label!r}: this connection exports no {length} bytes of keying material")
    return bytes(ffi.buffer(out, length))


def verified_peer_chain(ssl: SSL) -> list[bytes]:
    """DER of the chain that the verification built, up to its anchor; empty if there was none."""
    return certificates_der(lib.SSL_get0_verified_chain(ssl))


def own_certificate(ssl: SSL) -> bytes | None:
    """DER of the certificate that this side has chosen, None if there is none."""
    certificate = lib.SSL_get_certificate(ssl)
    return None if certificate == NULL else certificate_der(certificate)


def knows_peer(ssl: SSL) -> bool:
    """Whether there is a certificate of the peer, from the peer itself or from the session to be offered."""
    certificate = lib.SSL_get_peer_certificate(ssl)
    lib.X509_free(certificate)
    return bool(certificate != NULL)


def would_verify(ssl: SSL, context: SSL_CTX) -> bool:
    """Whether a client's full handshake would accept the certificate of the session that the client offers.

    Asks as OpenSSL does (ssl_verify_cert_chain()): for the name, with the flags and at the security level of the
    connection. The only intermediate certificates are those that came with the session; a session from bytes has none.
    """
    certificate = lib.SSL_get_peer_certificate(ssl)
    if certificate == NULL:
        return False
    store = lib.X509_STORE_CTX_new()
    try:
        trusted, chain = lib.SSL_CTX_get_cert_store(context), lib.SSL_get_peer_cert_chain(ssl)
        if store == NULL or lib.X509_STORE_CTX_init(store, trusted, certificate, chain) != 1:
            raise MemoryError("X509_STORE_CTX_init")
        parameters = lib.X509_STORE_CTX_get0_param(store)
        lib.X509_VERIFY_PARAM_set_auth_level(parameters, lib.SSL_get_security_level(ssl))
        lib.X509_STORE_CTX_set_default(store, b"ssl_server")  # the purpose of the peer's certificate
        lib.X509_VERIFY_PARAM_set1(parameters, lib.SSL_get0_param(ssl))
        return bool(lib.X509_verify_cert(store) == 1)
    finally:
        lib.X509_STORE_CTX_free(store)
        lib.X509_free(certificate)
        lib.ERR_clear_error()


def offers_cipher(ssl: SSL, session: SSL_SESSION) -> bool:
    """Whether a client offers the session's cipher. If not, a TLS 1.2 server that resumes is a fatal error to it."""
    offered = lib.SSL_get1_supported_ciphers(ssl)
    try:
        return sessions.cipher(session) in ciphers(offered)
    finally:
        lib.OPENSSL_sk_free(offered)


def peer_certificates(ssl: SSL, server_side: bool) -> list[bytes]:
    """DER of the peer's chain as it was sent. At a server SSL_get_peer_cert_chain(3) leaves the client's own out."""
    chain = certificates_der(lib.SSL_get_peer_cert_chain(ssl))
    if server_side or not chain:
        leaf = lib.SSL_get_peer_certificate(ssl)
        if leaf != NULL:
            chain.insert(0, certificate_der(ffi.gc(leaf, lib.X509_free)))
    return chain


def switch_context(ssl: SSL, context: SSL_CTX) -> None:
    """SSL_set_SSL_CTX(3): certificate, ALPN and trust of another context; the first one's session callbacks stay."""
    lib.SSL_set_SSL_CTX(ssl, context)


def set_session(ssl: SSL, session: SSL_SESSION) -> None:
    """Sets the session that a client offers for resumption. Raises ConfigurationError."""
    if lib.SSL_set_session(ssl, session) != 1:
        raise ConfigurationError("session", errors.reason(), "offer one of the same settings")


def forget_session(ssl: SSL) -> None:
    """Offers no session for resumption."""
    lib.SSL_set_session(ssl, NULL)


def current_session(ssl: SSL) -> SSL_SESSION | None:
    """The connection's session, owned; None if there is none."""
    session: SSL_SESSION = lib.SSL_get1_session(ssl)
    return None if session == NULL else owned(session, lib.SSL_SESSION_free)


def set_ocsp_response(ssl: SSL, response: bytes) -> None:
    """Staples a DER OCSP response; OpenSSL frees the copy (SSL_set_tlsext_status_ocsp_resp(3))."""
    copy = lib.OPENSSL_malloc(len(response))
    ffi.memmove(copy, response, len(response))
    lib.SSL_set_tlsext_status_ocsp_resp(ssl, copy, len(response))


def request_ocsp_response(ssl: SSL) -> None:
    """Asks for a staple, as a client (SSL_set_tlsext_status_type(3))."""
    lib.SSL_set_tlsext_status_type(ssl, _STATUSTYPE_OCSP)


def ocsp_response(ssl: SSL) -> bytes | None:
    """The DER OCSP response that the server stapled, or None."""
    start = ffi.new("unsigned char **")
    length = lib.SSL_get_tlsext_status_ocsp_resp(ssl, start)
    return bytes(ffi.buffer(start[0], length)) if length > 0 else None
