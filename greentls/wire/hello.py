"""ClientHello and ServerHello (RFC 8446 4.1, RFC 5246 7.4.1).

Parsing is lazy. parse() reads the outline: the fixed fields and the table of extensions. An extension's body is parsed
when its attribute is first read (see extensions.py), so a server that reads three fields pays for three. Each
declaration below gives the value of an absent extension: None, False, or an empty tuple.

The parser advises and OpenSSL decides: parse() refuses a hello without a readable outline, not an unusual one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from greentls.errors import WireError
from greentls.wire import bodies as body
from greentls.wire.extensions import Body, Extensions
from greentls.wire.handshake import message_bytes, opaque, open_message, uint16s
from greentls.wire.reader import Reader
from greentls.wire.registry import GREASE, AlertDescription, ExtensionType, HandshakeType

__all__ = ["HELLO_RETRY_REQUEST_RANDOM", "MAX_PSK_LOOKUPS", "ClientHello", "ServerHello"]

# psk_identities holds all offered identities. A server should look up at most this many; otherwise one connection costs
# hundreds of lookups. Clients offer one or two tickets.
MAX_PSK_LOOKUPS = 2

MAX_SESSION_ID = 32  # opaque legacy_session_id<0..32>

# A ServerHello with this random is a HelloRetryRequest (RFC 8446 4.1.3).
HELLO_RETRY_REQUEST_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()


class _Hello:
    """The extensions whose bodies have one form in both hellos."""

    __slots__ = ()

    max_fragment_length = Body(ExtensionType.max_fragment_length, body.number8, None)
    client_certificate_url = Body(ExtensionType.client_certificate_url, body.empty, False)
    truncated_hmac = Body(ExtensionType.truncated_hmac, body.empty, False)
    user_mapping = Body(ExtensionType.user_mapping, body.list8_of_8, ())
    client_authz = Body(ExtensionType.client_authz, body.list8_of_8, ())
    server_authz = Body(ExtensionType.server_authz, body.list8_of_8, ())
    supported_groups = Body(ExtensionType.supported_groups, body.list16_of_16, ())
    ec_point_formats = Body(ExtensionType.ec_point_formats, body.list8_of_8, ())
    use_srtp = Body(ExtensionType.use_srtp, body.use_srtp, None)
    heartbeat = Body(ExtensionType.heartbeat, body.number8, None)
    alpn_protocols = Body(ExtensionType.application_layer_protocol_negotiation, body.protocol_names, ())
    extended_master_secret = Body(ExtensionType.extended_master_secret, body.empty, False)
    token_binding = Body(ExtensionType.token_binding, body.token_binding, None)
    tls_lts = Body(ExtensionType.tls_lts, body.empty, False)
    record_size_limit = Body(ExtensionType.record_size_limit, body.number16, None)
    password_salt = Body(ExtensionType.password_salt, body.opaque16, None)
    tls_cert_with_extern_psk = Body(ExtensionType.tls_cert_with_extern_psk, body.empty, False)
    cookie = Body(ExtensionType.cookie, body.opaque16, None)
    connection_id = Body(ExtensionType.connection_id, body.opaque8, None)
    external_id_hash = Body(ExtensionType.external_id_hash, body.opaque8, None)
    external_session_id = Body(ExtensionType.external_session_id, body.opaque8, None)
    rrc = Body(ExtensionType.rrc, body.empty, False)
    tls_flags = Body(ExtensionType.tls_flags, body.opaque8, None)
    channel_id = Body(ExtensionType.channel_id, body.empty, False)
    renegotiation_info = Body(ExtensionType.renegotiation_info, body.opaque8, None)


@dataclass(frozen=True, slots=True)
class ClientHello(_Hello):
    """A ClientHello (RFC 8446 4.1.2). Numbers are ints; registry.py has their enums.

    Unknown extensions and GREASE are only in extensions.
    """

    legacy_version: int
    random: bytes
    legacy_session_id: bytes
    cipher_suites: tuple[int, ...]
    legacy_compression_methods: tuple[int, ...] = (0,)
    extensions: Extensions = field(default_factory=lambda: Extensions(None))

    server_name = Body(ExtensionType.server_name, body.server_name, None)
    trusted_ca_keys = Body(ExtensionType.trusted_ca_keys, body.trusted_ca_keys, ())
    status_request = Body(ExtensionType.status_request, body.status_request, None)
    cert_type = Body(ExtensionType.cert_type, body.list8_of_8, ())
    srp = Body(ExtensionType.srp, body.opaque8, None)
    signature_algorithms = Body(ExtensionType.signature_algorithms, body.list16_of_16, ())
    status_request_v2 = Body(ExtensionType.status_request_v2, body.status_request_v2, ())
    signed_certificate_timestamp = Body(ExtensionType.signed_certificate_timestamp, body.empty, False)
    client_certificate_type = Body(ExtensionType.client_certificate_type, body.list8_of_8, ())
    server_certificate_type = Body(ExtensionType.server_certificate_type, body.list8_of_8, ())
    padding = Body(ExtensionType.padding, body.padding, None)
    encrypt_then_mac = Body(ExtensionType.encrypt_then_mac, body.unread, False)
    cached_info = Body(ExtensionType.cached_info, body.cached_info, ())
    compress_certificate = Body(ExtensionType.compress_certificate, body.list8_of_16, ())
    pwd_protect = Body(ExtensionType.pwd_protect, body.opaque8, None)
    pwd_clear = Body(ExtensionType.pwd_clear, body.opaque8, None)
    ticket_pinning = Body(ExtensionType.ticket_pinning, body.opaque16, None)
    delegated_credential = Body(ExtensionType.delegated_credential, body.list16_of_16, ())
    session_ticket = Body(ExtensionType.session_ticket, body.everything, None)
    supported_ekt_ciphers = Body(ExtensionType.supported_ekt_ciphers, body.list8_of_8, ())
    pre_shared_key = Body(ExtensionType.pre_shared_key, body.offered_psks, None)
    early_data = Body(ExtensionType.early_data, body.empty, False)
    supported_versions = Body(ExtensionType.supported_versions, body.list8_of_16, ())
    psk_key_exchange_modes = Body(ExtensionType.psk_key_exchange_modes, body.list8_of_8, ())
    certificate_authorities = Body(ExtensionType.certificate_authorities, body.list16_of_opaque16, ())
    post_handshake_auth = Body(ExtensionType.post_handshake_auth, body.empty, False)
    signature_algorithms_cert = Body(ExtensionType.signature_algorithms_cert, body.list16_of_16, ())
    key_share = Body(ExtensionType.key_share, body.client_shares, ())
    transparency_info = Body(ExtensionType.transparency_info, body.empty, False)
    quic_transport_parameters = Body(ExtensionType.quic_transport_parameters, body.quic_transport_parameters, ())
    ticket_request = Body(ExtensionType.ticket_request, body.ticket_request, None)
    dnssec_chain = Body(ExtensionType.dnssec_chain, body.number16, None)
    next_protocol_negotiation = Body(ExtensionType.next_protocol_negotiation, body.empty, False)
    application_settings_old = Body(ExtensionType.application_settings_old, body.protocol_names, ())
    application_settings = Body(ExtensionType.application_settings, body.protocol_names, ())
    ech_outer_extensions = Body(ExtensionType.ech_outer_extensions, body.list8_of_16, ())
    encrypted_client_hello = Body(ExtensionType.encrypted_client_hello, body.encrypted_client_hello, None)

    @classmethod
    def parse(cls, message: bytes) -> ClientHello:
        """Parses a whole handshake message with its header. Raises WireError if the outline cannot be read."""
        hello = open_message(message, HandshakeType.client_hello, "ClientHello")
        return cls(
            hello.u16("legacy_version"),
            hello.take(32, "random"),
            _session_id(hello, "legacy_session_id"),
            hello.u16s(2, "cipher_suites"),
            tuple(hello.opaque(1, "legacy_compression_methods")),
            _extensions(hello),
        )

    def to_bytes(self) -> bytes:
        """Returns the message: the inverse of parse(), byte for byte."""
        return message_bytes(
            HandshakeType.client_hello,
            self.legacy_version.to_bytes(2, "big")
            + self.random
            + opaque(1, self.legacy_session_id)
            + uint16s(2, self.cipher_suites)
            + opaque(1, bytes(self.legacy_compression_methods))
            + self.extensions.to_bytes(),
        )

    @property
    def psk_identities(self) -> tuple[body.PskIdentity, ...]:
        """All identities that pre_shared_key offers, the best first; see MAX_PSK_LOOKUPS."""
        psks = self.pre_shared_key
        return psks.identities if psks else ()

    @property
    def psk_binders(self) -> tuple[bytes, ...]:
        """One for each of psk_identities."""
        psks = self.pre_shared_key
        return psks.binders if psks else ()

    @property
    def grease(self) -> tuple[int, ...]:
        """The GREASE (RFC 8701) among cipher_suites and extensions."""
        return tuple(filter(GREASE.__contains__, self.cipher_suites + self.extensions.types))


@dataclass(frozen=True, slots=True)
class ServerHello(_Hello):
    """A ServerHello or HelloRetryRequest (RFC 8446 4.1.3, RFC 5246 7.4.1.3), with fields like ClientHello's."""

    legacy_version: int
    random: bytes
    legacy_session_id_echo: bytes
    cipher_suite: int
    legacy_compression_method: int = 0
    extensions: Extensions = field(default_factory=lambda: Extensions(None))

    server_name = Body(ExtensionType.server_name, body.empty, False)
    trusted_ca_keys = Body(ExtensionType.trusted_ca_keys, body.empty, False)
    status_request = Body(ExtensionType.status_request, body.empty, False)
    cert_type = Body(ExtensionType.cert_type, body.number8, None)
    status_request_v2 = Body(ExtensionType.status_request_v2, body.empty, False)
    signed_certificate_timestamp = Body(ExtensionType.signed_certificate_timestamp, body.list16_of_opaque16, ())
    client_certificate_type = Body(ExtensionType.client_certificate_type, body.number8, None)
    server_certificate_type = Body(ExtensionType.server_certificate_type, body.number8, None)
    encrypt_then_mac = Body(ExtensionType.encrypt_then_mac, body.empty, False)
    cached_info = Body(ExtensionType.cached_info, body.cached_info_types, ())
    session_ticket = Body(ExtensionType.session_ticket, body.empty, False)
    supported_ekt_ciphers = Body(ExtensionType.supported_ekt_ciphers, body.number8, None)
    selected_identity = Body(ExtensionType.pre_shared_key, body.number16, None)
    selected_version = Body(ExtensionType.supported_versions, body.number16, None)
    key_share = Body(ExtensionType.key_share, body.server_share, None)
    next_protocol_negotiation = Body(ExtensionType.next_protocol_negotiation, body.next_protocols, None)
    encrypted_client_hello = Body(ExtensionType.encrypted_client_hello, body.everything, None)

    @classmethod
    def parse(cls, message: bytes) -> ServerHello:
        """Parses a whole handshake message with its header. Raises WireError if the outline cannot be read."""
        hello = open_message(message, HandshakeType.server_hello, "ServerHello")
        return cls(
            hello.u16("legacy_version"),
            hello.take(32, "random"),
            _session_id(hello, "legacy_session_id_echo"),
            hello.u16("cipher_suite"),
            hello.u8("legacy_compression_method"),
            _extensions(hello),
        )

    def to_bytes(self) -> bytes:
        """Returns the message: the inverse of parse(), byte for byte."""
        return message_bytes(
            HandshakeType.server_hello,
            self.legacy_version.to_bytes(2, "big")
            + self.random
            + opaque(1, self.legacy_session_id_echo)
            + self.cipher_suite.to_bytes(2, "big")
            + self.legacy_compression_method.to_bytes(1, "big")
            + self.extensions.to_bytes(),
        )

    @property
    def is_hello_retry_request(self) -> bool:
        """Whether this asks for a second ClientHello. Then key_share has a group and no key_exchange."""
        return self.random == HELLO_RETRY_REQUEST_RANDOM

    @property
    def version(self) -> int:
        """The version of the connection: selected_version, or legacy_version before TLS 1.3."""
        return self.selected_version or self.legacy_version


def _session_id(hello: Reader, field_name: str) -> bytes:
    session_id = hello.opaque(1, field_name)
    if len(session_id) > MAX_SESSION_ID:
        got, expected = f"{len(session_id)} bytes", f"at most {MAX_SESSION_ID} expected"
        raise WireError(field_name, got, expected, AlertDescription.decode_error)
    return session_id


def _extensions(hello: Reader) -> Extensions:
    extensions = Extensions(hello.opaque(2, "extensions") if hello else None)
    hello.finish()
    return extensions
