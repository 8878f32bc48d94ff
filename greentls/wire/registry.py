"""The numbers of TLS and their names: enums from the IANA registries "TLS Parameters" and "TLS ExtensionType Values".

The wire may carry numbers that are in no table, and deliberately GREASE. So parsed values are ints everywhere. An enum
member equals its int, and name() makes either readable. The names before a range() have its numbers, one after another.
"""

from __future__ import annotations

from enum import IntEnum

from greentls.wire.cipher_suites import CipherSuite as CipherSuite

#: The two-byte numbers that clients send so that servers stay tolerant: 0x0A0A, 0x1A1A, ... 0xFAFA (RFC 8701 2).
GREASE = frozenset(range(0x0A0A, 0x10000, 0x1010))


def is_grease(number: int) -> bool:
    """Whether a two-byte number is GREASE."""
    return number in GREASE


def name(enum: type[IntEnum], number: int) -> str:
    """Returns the name of number in enum, or "GREASE 0x1A1A" or "unknown 0x1234" (decimal below 256)."""
    try:
        return enum(number).name
    except ValueError:
        text = str(number) if number < 256 else f"0x{number:04X}"
        return f"GREASE {text}" if is_grease(number) else f"unknown {text}"


class ProtocolVersion(IntEnum):
    """Two bytes (RFC 8446 4.2.1; DTLS: RFC 6347, RFC 9147)."""

    SSLv2 = 0x0002
    SSLv3 = 0x0300
    TLSv1_0 = 0x0301
    TLSv1_1 = 0x0302
    TLSv1_2 = 0x0303
    TLSv1_3 = 0x0304
    DTLSv1_3 = 0xFEFC
    DTLSv1_2 = 0xFEFD
    DTLSv1_0 = 0xFEFF


class ContentType(IntEnum):
    """A record's first byte (RFC 8446 5.1)."""

    change_cipher_spec = 20
    alert = 21
    handshake = 22
    application_data = 23
    heartbeat = 24


class HandshakeType(IntEnum):
    """A handshake message's first byte (RFC 8446 4)."""

    hello_request, client_hello, server_hello, hello_verify_request, new_session_ticket = range(5)
    end_of_early_data, hello_retry_request = range(5, 7)
    encrypted_extensions, request_connection_id, new_connection_id = range(8, 11)
    certificate, server_key_exchange, certificate_request, server_hello_done, certificate_verify = range(11, 16)
    client_key_exchange, client_certificate_request = range(16, 18)
    finished, certificate_url, certificate_status, supplemental_data, key_update = range(20, 25)
    compressed_certificate, ekt_key = range(25, 27)
    next_protocol = 67
    message_hash = 254


class AlertLevel(IntEnum):
    """RFC 8446 6. In TLS 1.3 the description alone decides."""

    warning = 1
    fatal = 2


class AlertDescription(IntEnum):
    """RFC 8446 6 and the registry. Names in _RESERVED belong to TLS 1.2 or older."""

    close_notify = 0
    unexpected_message = 10
    bad_record_mac, decryption_failed_RESERVED, record_overflow = range(20, 23)
    decompression_failure_RESERVED = 30
    handshake_failure, no_certificate_RESERVED, bad_certificate, unsupported_certificate = range(40, 44)
    certificate_revoked, certificate_expired, certificate_unknown, illegal_parameter = range(44, 48)
    unknown_ca, access_denied, decode_error, decrypt_error, too_many_cids_requested = range(48, 53)
    export_restriction_RESERVED = 60
    protocol_version, insufficient_security = range(70, 72)
    internal_error = 80
    inappropriate_fallback = 86
    user_canceled = 90
    no_renegotiation_RESERVED = 100
    missing_extension, unsupported_extension, certificate_unobtainable_RESERVED = range(109, 112)
    unrecognized_name, bad_certificate_status_response, bad_certificate_hash_value_RESERVED = range(112, 115)
    unknown_psk_identity, certificate_required, general_error = range(115, 118)
    no_application_protocol, ech_required = range(120, 122)


class ExtensionType(IntEnum):
    """The IANA registry, and the few others (marked "not IANA") that current clients send."""

    server_name, max_fragment_length, client_certificate_url, trusted_ca_keys, truncated_hmac = range(5)
    status_request, user_mapping, client_authz, server_authz, cert_type = range(5, 10)
    supported_groups, ec_point_formats, srp, signature_algorithms, use_srtp = range(10, 15)
    heartbeat, application_layer_protocol_negotiation, status_request_v2, signed_certificate_timestamp = range(15, 19)
    client_certificate_type, server_certificate_type, padding, encrypt_then_mac = range(19, 23)
    extended_master_secret, token_binding, cached_info, tls_lts, compress_certificate = range(23, 28)
    record_size_limit, pwd_protect, pwd_clear, password_salt, ticket_pinning = range(28, 33)
    tls_cert_with_extern_psk, delegated_credential, session_ticket = range(33, 36)
    TLMSP, TLMSP_proxying, TLMSP_delegate, supported_ekt_ciphers = range(36, 40)
    pre_shared_key, early_data, supported_versions, cookie, psk_key_exchange_modes = range(41, 46)
    certificate_authorities, oid_filters, post_handshake_auth, signature_algorithms_cert, key_share = range(47, 52)
    transparency_info, connection_id_deprecated, connection_id, external_id_hash, external_session_id = range(52, 57)
    quic_transport_parameters, ticket_request, dnssec_chain, sequence_number_encryption_algorithms = range(57, 61)
    rrc, tls_flags = range(61, 63)
    next_protocol_negotiation = 13172  # not IANA: draft-agl-tls-nextprotoneg, before ALPN
    application_settings_old = 17513  # not IANA: ALPS, draft-vvv-tls-alps, Chromium until 2024
    application_settings = 17613  # not IANA: ALPS, Chromium since
    channel_id = 30032  # not IANA: draft-balfanz-tls-channelid
    trust_anchors = 51764  # not IANA: draft-ietf-tls-trust-anchor-ids, Chromium
    ech_outer_extensions = 64768
    encrypted_client_hello = 65037
    renegotiation_info = 65281
    quic_transport_parameters_draft = 65445  # not IANA: QUIC before RFC 9000


class NameType(IntEnum):
    """RFC 6066 3."""

    host_name = 0


class NamedGroup(IntEnum):
    """TLS Supported Groups: elliptic curves, finite fields (RFC 7919), post-quantum groups and hybrids."""

    sect163k1, sect163r1, sect163r2, sect193r1, sect193r2, sect233k1, sect233r1, sect239k1 = range(1, 9)
    sect283k1, sect283r1, sect409k1, sect409r1, sect571k1, sect571r1 = range(9, 15)
    secp160k1, secp160r1, secp160r2, secp192k1, secp192r1, secp224k1, secp224r1, secp256k1 = range(15, 23)
    secp256r1, secp384r1, secp521r1 = range(23, 26)
    brainpoolP256r1, brainpoolP384r1, brainpoolP512r1, x25519, x448 = range(26, 31)
    brainpoolP256r1tls13, brainpoolP384r1tls13, brainpoolP512r1tls13 = range(31, 34)
    GC256A, GC256B, GC256C, GC256D, GC512A, GC512B, GC512C, curveSM2 = range(34, 42)
    ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144, ffdhe8192 = range(256, 261)
    MLKEM512, MLKEM768, MLKEM1024 = range(512, 515)
    SecP256r1MLKEM768, X25519MLKEM768, SecP384r1MLKEM1024, curveSM2MLKEM768 = range(4587, 4591)
    X25519Kyber768Draft00, SecP256r1Kyber768Draft00 = range(25497, 25499)
    arbitrary_explicit_prime_curves, arbitrary_explicit_char2_curves = range(65281, 65283)


class SignatureScheme(IntEnum):
    """RFC 8446 4.2.3 and the registry. Before TLS 1.3 the two bytes were a hash and a signature algorithm."""

    rsa_pkcs1_md5 = 0x0101  # TLS 1.2's {md5, rsa}
    rsa_pkcs1_sha1, dsa_sha1, ecdsa_sha1 = range(0x0201, 0x0204)  # TLS 1.2's {sha1, rsa}, and so on
    rsa_pkcs1_sha224, dsa_sha224, ecdsa_sha224 = range(0x0301, 0x0304)
    rsa_pkcs1_sha256, dsa_sha256, ecdsa_secp256r1_sha256 = range(0x0401, 0x0404)
    rsa_pkcs1_sha384, dsa_sha384, ecdsa_secp384r1_sha384 = range(0x0501, 0x0504)
    rsa_pkcs1_sha512, dsa_sha512, ecdsa_secp521r1_sha512 = range(0x0601, 0x0604)
    rsa_pkcs1_sha256_legacy, rsa_pkcs1_sha384_legacy, rsa_pkcs1_sha512_legacy = range(0x0420, 0x0621, 0x0100)
    eccsi_sha256, iso_ibs1, iso_ibs2, iso_chinese_ibs, sm2sig_sm3 = range(0x0704, 0x0709)
    gostr34102012_256a, gostr34102012_256b, gostr34102012_256c, gostr34102012_256d = range(0x0709, 0x070D)
    gostr34102012_512a, gostr34102012_512b, gostr34102012_512c = range(0x070D, 0x0710)
    rsa_pss_rsae_sha256, rsa_pss_rsae_sha384, rsa_pss_rsae_sha512 = range(0x0804, 0x0807)
    ed25519, ed448 = range(0x0807, 0x0809)
    rsa_pss_pss_sha256, rsa_pss_pss_sha384, rsa_pss_pss_sha512 = range(0x0809, 0x080C)
    ecdsa_brainpoolP256r1tls13_sha256 = 0x081A
    ecdsa_brainpoolP384r1tls13_sha384 = 0x081B
    ecdsa_brainpoolP512r1tls13_sha512 = 0x081C
    mldsa44, mldsa65, mldsa87 = range(0x0904, 0x0907)
    slhdsa_sha2_128s, slhdsa_sha2_128f, slhdsa_sha2_192s, slhdsa_sha2_192f = range(0x0911, 0x0915)
    slhdsa_sha2_256s, slhdsa_sha2_256f = range(0x0915, 0x0917)
    slhdsa_shake_128s, slhdsa_shake_128f, slhdsa_shake_192s, slhdsa_shake_192f = range(0x0917, 0x091B)
    slhdsa_shake_256s, slhdsa_shake_256f = range(0x091B, 0x091D)


class PskKeyExchangeMode(IntEnum):
    """RFC 8446 4.2.9."""

    psk_ke = 0
    psk_dhe_ke = 1


class ECPointFormat(IntEnum):
    """RFC 8422 5.1.2."""

    uncompressed = 0
    ansiX962_compressed_prime = 1
    ansiX962_compressed_char2 = 2


class ECCurveType(IntEnum):
    """RFC 8422 5.4."""

    explicit_prime = 1
    explicit_char2 = 2
    named_curve = 3


class CompressionMethod(IntEnum):
    """RFC 3749. TLS 1.3 allows only null."""

    null = 0
    DEFLATE = 1
    LZS = 64


class CertificateType(IntEnum):
    """RFC 7250."""

    X509 = 0
    OpenPGP_RESERVED = 1
    RawPublicKey = 2
    IEEE_1609Dot2 = 3


class ClientCertificateType(IntEnum):
    """The certificates that a TLS 1.2 CertificateRequest asks for (RFC 5246 7.4.4)."""

    rsa_sign = 1
    dss_sign = 2
    rsa_fixed_dh = 3
    dss_fixed_dh = 4
    rsa_ephemeral_dh_RESERVED = 5
    dss_ephemeral_dh_RESERVED = 6
    fortezza_dms_RESERVED = 20
    ecdsa_sign = 64
    rsa_fixed_ecdh = 65
    ecdsa_fixed_ecdh = 66
    gost_sign256 = 67
    gost_sign512 = 68


class CertificateStatusType(IntEnum):
    """RFC 6066 8, RFC 6961 2.2."""

    ocsp = 1
    ocsp_multi_RESERVED = 2


class CertificateCompressionAlgorithm(IntEnum):
    """RFC 8879 7.3."""

    zlib = 1
    brotli = 2
    zstd = 3
