"""SSL: one connection, what is asked of it and what it tells."""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Any

from OpenSSL.SSL import Context

from greentls.errors import ConfigurationError, UnsupportedOpenSSL
from greentls.openssl import bios, contexts, errors, sessions
from greentls.openssl.library import BIO, SSL, SSL_SESSION, ffi, hidden, lib, text
from greentls.openssl.lifetimes import owned
from greentls.openssl.stacks import certificate_der, certificates_der, ciphers

_STATUSTYPE_OCSP = 1
_READ_EARLY_DATA_SUCCESS, _EARLY_DATA_ACCEPTED = 1, 2
_HOSTFLAG_NO_PARTIAL_WILDCARDS, _HOSTFLAG_NEVER_CHECK_SUBJECT = 0x4, 0x20


def new(context: Context, server_side: bool) -> tuple[SSL, BIO, BIO]:
    """(SSL*, owned; incoming BIO*, outgoing BIO*): memory BIOs that live as long as the SSL*."""
    ssl = lib.SSL_new(contexts.raw(context))  # which takes a reference of the context
    if ssl == ffi.NULL:
        raise MemoryError("SSL_new")
    ssl = owned(ssl, _free_quietly)
    if server_side:
        lib.SSL_set_accept_state(ssl)
    else:
        lib.SSL_set_connect_state(ssl)
    incoming, outgoing = bios.new(), bios.new()
    lib.SSL_set_bio(ssl, incoming, outgoing)  # owns them
    return ssl, incoming, outgoing


def _free_quietly(ssl: SSL, lib: Any = lib) -> None:  # lib: this module may be half taken down
    """As if close_notify had gone out: SSL_free() then leaves the session resumable (SSL_set_shutdown(3)). One that is
    not to be resumed has been removed by then: OpenSSL does so with each fatal alert."""
    lib.SSL_set_shutdown(ssl, lib.SSL_SENT_SHUTDOWN)
    lib.SSL_free(ssl)


def send_fatal_alert(ssl: SSL, alert: int) -> None:
    """As OpenSSL itself ends a connection at any point of it: the alert goes out, the session is forgotten, and nothing
    else will be done with the SSL*. Raises UnsupportedOpenSSL.

    The function is internal, and has had this signature since OpenSSL 3.0. An SSL_CONNECTION, which it takes since 3.2,
    begins with its SSL.
    """
    hidden("ossl_statem_send_fatal", "void (*)(SSL *, int)")(ssl, alert)


def set_info_callback(ssl: SSL, context: Context, callback: Any) -> None:
    """SSL_set_info_callback(3), of this one connection; where that is hidden, of all that the context has."""
    setter = _info_callback_setter()
    if setter is not None:
        setter(ssl, callback)
    else:
        lib.SSL_CTX_set_info_callback(contexts.raw(context), callback)


@functools.cache
def _info_callback_setter() -> Any:
    if hasattr(lib, "SSL_set_info_callback"):
        return lib.SSL_set_info_callback
    try:  # cryptography 44 does not have it
        return hidden("SSL_set_info_callback", "void (*)(SSL *, void (*)(SSL *, int, int))")
    except UnsupportedOpenSSL:
        return None


def received_shutdown(ssl: SSL) -> bool:
    """The peer's close_notify has come, or a fatal alert (SSL_get_shutdown(3))."""
    return bool(lib.SSL_get_shutdown(ssl) & lib.SSL_RECEIVED_SHUTDOWN)


def set_session_id_context(ssl: SSL, value: bytes) -> None:
    """Which sessions it may resume, and what those are bound to that it makes; 32 bytes at most."""
    hidden("SSL_set_session_id_context", "int (*)(SSL *, const unsigned char *, unsigned int)")(ssl, value, len(value))


def server_name(ssl: SSL) -> str | None:
    """RFC 6066 server_name as the client wrote it; bytes that are not ASCII come out as surrogates."""
    name = lib.SSL_get_servername(ssl, 0)
    return None if name == ffi.NULL else ffi.string(name).decode("ascii", "surrogateescape")


MAX_SERVER_NAME = 255  # bytes (TLSEXT_MAXLEN_host_name)


def set_server_name(ssl: SSL, name: str) -> None:
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


def check_host(ssl: SSL, name: str, common_name: bool) -> None:
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


def read_early_data(ssl: SSL, buffer: Any, room: int) -> int:
    """SSL_read_early_data(3): how many bytes, room at most, 0 when there will be no more, -1 as SSL_read(3)."""
    length = ffi.new("size_t *")
    outcome = lib.SSL_read_early_data(ssl, buffer, room, length)
    return int(length[0]) if outcome == _READ_EARLY_DATA_SUCCESS else 0 if outcome else -1


def write_early_data(ssl: SSL, data: Any, length: int) -> int:
    """SSL_write_early_data(3), which is the server's, too, before the client's Finished; returns as SSL_write(3)."""
    written = ffi.new("size_t *")
    return int(written[0]) if lib.SSL_write_early_data(ssl, data, length, written) == 1 else -1


def early_data_accepted(ssl: SSL) -> bool | None:
    """Whether the server took the client's early data; None if there was none."""
    status = hidden("SSL_get_early_data_status", "int (*)(const SSL *)")(ssl)
    return None if status == 0 else status == _EARLY_DATA_ACCEPTED


def client_random(ssl: SSL) -> bytes:
    """ClientHello.random: 32 bytes."""
    buffer = ffi.new("unsigned char[32]")
    lib.SSL_get_client_random(ssl, buffer, 32)
    return bytes(ffi.buffer(buffer))


def request_client_certificate(ssl: SSL) -> list[int]:
    """SSL_verify_client_post_handshake(3), which enters no handshake: the errors, none if it is done."""
    lib.ERR_clear_error()
    return [] if lib.SSL_verify_client_post_handshake(ssl) == 1 else errors.take()


def set_verify_mode(ssl: SSL, mode: int) -> None:
    """SSL_set_verify(3), of one connection."""
    lib.SSL_set_verify(ssl, mode, ffi.NULL)


def alpn_protocol(ssl: SSL) -> bytes:
    """The ALPN protocol agreed on, empty if none."""
    start, length = ffi.new("const unsigned char **"), ffi.new("unsigned int *")
    lib.SSL_get0_alpn_selected(ssl, start, length)
    return bytes(ffi.buffer(start[0], length[0])) if length[0] else b""


def group_name(ssl: SSL) -> str | None:
    """The key-exchange group agreed on. Call it only after the handshake: OpenSSL looks into a session it expects."""
    if not getattr(lib, "Cryptography_HAS_SSL_GET0_GROUP_NAME", 0):
        return None
    name = lib.SSL_get0_group_name(ssl)
    return None if name == ffi.NULL else ffi.string(name).decode()


def version(ssl: SSL) -> str:
    return text(lib.SSL_get_version(ssl))


Cipher = tuple[str, str, int]


def cipher(ssl: SSL) -> Cipher | None:
    """(name, version, secret bits) of the cipher in use."""
    current = lib.SSL_get_current_cipher(ssl)
    return None if current == ffi.NULL else _cipher(current)


def _cipher(cipher: Any) -> Cipher:
    name, version = lib.SSL_CIPHER_get_name(cipher), lib.SSL_CIPHER_get_version(cipher)
    return ffi.string(name).decode(), ffi.string(version).decode(), lib.SSL_CIPHER_get_bits(cipher, ffi.NULL)


def shared_ciphers(ssl: SSL) -> list[Cipher] | None:
    """At a server, what the client offers of what is accepted here, in the client's order; None if it offered none."""
    offered = ciphers(hidden("SSL_get_client_ciphers", "void *(*)(const SSL *)")(ssl))
    if not offered:
        return None
    ours = ciphers(hidden("SSL_get_ciphers", "void *(*)(const SSL *)")(ssl))
    return [_cipher(each) for each in offered if each in ours]


def finished(ssl: SSL, ours: bool) -> bytes:
    """The verify_data of our last Finished or the peer's, empty before it (SSL_get_finished(3))."""
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
    """DER of the certificate that this side has chosen."""
    certificate = lib.SSL_get_certificate(ssl)
    return None if certificate == ffi.NULL else certificate_der(certificate)


def knows_peer(ssl: SSL) -> bool:
    """Whether there is a certificate of the peer: its own, or that of the session to be offered."""
    certificate = lib.SSL_get_peer_certificate(ssl)
    lib.X509_free(certificate)
    return bool(certificate != ffi.NULL)


def would_verify(ssl: SSL, context: Context) -> bool:
    """Whether a client would find the certificate of the session that it offers good, in a full handshake.

    As OpenSSL asks (ssl_verify_cert_chain()): for the name, by the flags and at the security level of the SSL*. Of the
    intermediate certificates only those are known that came with the session; a session from bytes has none.
    """
    certificate = lib.SSL_get_peer_certificate(ssl)
    if certificate == ffi.NULL:
        return False
    store = lib.X509_STORE_CTX_new()
    try:
        trusted, chain = lib.SSL_CTX_get_cert_store(contexts.raw(context)), lib.SSL_get_peer_cert_chain(ssl)
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


def offers_cipher(ssl: SSL, session: SSL_SESSION) -> bool:
    """Whether a client offers the session's cipher; a TLS 1.2 server that resumes without is a fatal error to it."""
    offered = hidden("SSL_get1_supported_ciphers", "void *(*)(SSL *)")(ssl)
    try:
        return sessions.cipher(session) in ciphers(offered)
    finally:
        hidden("OPENSSL_sk_free", "void (*)(void *)")(offered)


def peer_certificates(ssl: SSL, server_side: bool) -> list[bytes]:
    """DER of the peer's chain as it was sent; SSL_get_peer_cert_chain(3) leaves a client's own out at the server."""
    chain = certificates_der(lib.SSL_get_peer_cert_chain(ssl))
    if server_side or not chain:
        leaf = lib.SSL_get_peer_certificate(ssl)
        if leaf != ffi.NULL:
            chain.insert(0, certificate_der(ffi.gc(leaf, lib.X509_free)))
    return chain


def switch_context(ssl: SSL, context: Context) -> None:
    """SSL_set_SSL_CTX: certificate, ALPN and trust from another context; session callbacks stay with the first."""
    lib.SSL_set_SSL_CTX(ssl, contexts.raw(context))


def set_session(ssl: SSL, session: SSL_SESSION) -> None:
    if lib.SSL_set_session(ssl, session) != 1:
        code, *_ = [*errors.take(), 0]
        raise ConfigurationError(
            "session", errors.describe(code)[1] or "OpenSSL refuses it", "offer one of the same settings"
        )


def forget_session(ssl: SSL) -> None:
    """None is offered for resumption."""
    lib.SSL_set_session(ssl, ffi.NULL)


def current_session(ssl: SSL) -> Any:
    """The connection's SSL_SESSION*, owned, or None."""
    session = lib.SSL_get1_session(ssl)
    return None if session == ffi.NULL else owned(session, lib.SSL_SESSION_free)


def set_ocsp_response(ssl: SSL, response: bytes) -> None:
    """Staples a DER OCSP response; OpenSSL frees the copy (SSL_set_tlsext_status_ocsp_resp(3))."""
    copy = lib.OPENSSL_malloc(len(response))
    ffi.memmove(copy, response, len(response))
    lib.SSL_set_tlsext_status_ocsp_resp(ssl, copy, len(response))


def request_ocsp_response(ssl: SSL) -> None:
    """A client asks for a staple: SSL_set_tlsext_status_type(3)."""
    lib.SSL_set_tlsext_status_type(ssl, _STATUSTYPE_OCSP)


def ocsp_response(ssl: SSL) -> bytes | None:
    """The DER OCSP response that the server stapled, or None."""
    start = ffi.new("unsigned char **")
    length = lib.SSL_get_tlsext_status_ocsp_resp(ssl, start)
    return bytes(ffi.buffer(start[0], length)) if length > 0 else None
