"""The numbers of TLS and their names: enums from the IANA registries "TLS Parameters" and "TLS ExtensionType Values".

The wire may carry numbers that are in no table, and deliberately GREASE. So parsed values are ints everywhere. An enum
member equals its int, and name() makes either readable.
"""

from __future__ import annotations

from enum import IntEnum

from greentls.wire.cipher_suites import CipherSuite

__all__ = [
    "GREASE",
    "AlertDescription",
    "AlertLevel",
    "CertificateCompressionAlgorithm",
    "CertificateStatusType",
    "CertificateType",
    "CipherSuite",
    "ClientCertificateType",
    "CompressionMethod",
    "ContentType",
    "ECCurveType",
    "ECPointFormat",
    "ExtensionType",
    "HandshakeType",
    "NameType",
    "NamedGroup",
    "ProtocolVersion",
    "PskKeyExchangeMode",
    "SignatureScheme",
    "is_grease",
    "name",
]


#: The sixteen two-byte numbers that clients send so that servers stay tolerant: 0x0A0A, 0x1A1A, ... 0xFAFA (RFC 8701
#: 2).
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

    hello_request = 0
    client_hello = 1
    server_hello = 2
    hello_verify_request = 3
    new_session_ticket = 4
    end_of_early_data = 5
    hello_retry_request = 6
    encrypted_extensions = 8
    request_connection_id = 9
    new_connection_id = 10
    certificate = 11
    server_key_exchange = 12
    certificate_request = 13
    server_hello_done = 14
    certificate_verify = 15
    client_key_exchange = 16
    client_certificate_request = 17
    finished = 20
    certificate_url = 21
    certificate_status = 22
    supplemental_data = 23
    key_update = 24
    compressed_certificate = 25
    ekt_key = 26
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
    bad_record_mac = 20
    decryption_failed_RESERVED = 21
    record_overflow = 22
    decompression_failure_RESERVED = 30
    handshake_failure = 40
    no_certificate_RESERVED = 41
    bad_certificate = 42
    unsupported_certificate = 43
    certificate_revoked = 44
    certificate_expired = 45
    certificate_unknown = 46
    illegal_parameter = 47
    unknown_ca = 48
    access_denied = 49
    decode_error = 50
    decrypt_error = 51
    too_many_cids_requested = 52
    export_restriction_RESERVED = 60
    protocol_version = 70
    insufficient_security = 71
    internal_error = 80
    inappropriate_fallback = 86
    user_canceled = 90
    no_renegotiation_RESERVED = 100
    missing_extension = 109
    unsupported_extension = 110
    certificate_unobtainable_RESERVED = 111
    unrecognized_name = 112
    bad_certificate_status_response = 113
    bad_certificate_hash_value_RESERVED = 114
    unknown_psk_identity = 115
    certificate_required = 116
    general_error = 117
    no_application_protocol = 120
    ech_required = 121


class ExtensionType(IntEnum):
    """The IANA registry, and the few others (marked "not IANA") that current clients send."""

    server_name = 0
    max_fragment_length = 1
    client_certificate_url = 2
    trusted_ca_keys = 3
    truncated_hmac = 4
    status_request = 5
    user_mapping = 6
    client_authz = 7
    server_authz = 8
    cert_type = 9
    supported_groups = 10
    ec_point_formats = 11
    srp = 12
    signature_algorithms = 13
    use_srtp = 14
    heartbeat = 15
    application_layer_protocol_negotiation = 16
    status_request_v2 = 17
    signed_certificate_timestamp = 18
    client_certificate_type = 19
    server_certificate_type = 20
    padding = 21
    encrypt_then_mac = 22
    extended_master_secret = 23
    token_binding = 24
    cached_info = 25
    tls_lts = 26
    compress_certificate = 27
    record_size_limit = 28
    pwd_protect = 29
    pwd_clear = 30
    password_salt = 31
    ticket_pinning = 32
    tls_cert_with_extern_psk = 33
    delegated_credential = 34
    session_ticket = 35
    TLMSP = 36
    TLMSP_proxying = 37
    TLMSP_delegate = 38
    supported_ekt_ciphers = 39
    pre_shared_key = 41
    early_data = 42
    supported_versions = 43
    cookie = 44
    psk_key_exchange_modes = 45
    certificate_authorities = 47
    oid_filters = 48
    post_handshake_auth = 49
    signature_algorithms_cert = 50
    key_share = 51
    transparency_info = 52
    connection_id_deprecated = 53
    connection_id = 54
    external_id_hash = 55
    external_session_id = 56
    quic_transport_parameters = 57
    ticket_request = 58
    dnssec_chain = 59
    sequence_number_encryption_algorithms = 60
    rrc = 61
    tls_flags = 62
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

    sect163k1 = 1
    sect163r1 = 2
    sect163r2 = 3
    sect193r1 = 4
    sect193r2 = 5
    sect233k1 = 6
    sect233r1 = 7
    sect239k1 = 8
    sect283k1 = 9
    sect283r1 = 10
    sect409k1 = 11
    sect409r1 = 12
    sect571k1 = 13
    sect571r1 = 14
    secp160k1 = 15
    secp160r1 = 16
    secp160r2 = 17
    secp192k1 = 18
    secp192r1 = 19
    secp224k1 = 20
    secp224r1 = 21
    secp256k1 = 22
    secp256r1 = 23
    secp384r1 = 24
    secp521r1 = 25
    brainpoolP256r1 = 26
    brainpoolP384r1 = 27
    brainpoolP512r1 = 28
    x25519 = 29
    x448 = 30
    brainpoolP256r1tls13 = 31
    brainpoolP384r1tls13 = 32
    brainpoolP512r1tls13 = 33
    GC256A = 34
    GC256B = 35
    GC256C = 36
    GC256D = 37
    GC512A = 38
    GC512B = 39
    GC512C = 40
    curveSM2 = 41
    ffdhe2048 = 256
    ffdhe3072 = 257
    ffdhe4096 = 258
    ffdhe6144 = 259
    ffdhe8192 = 260
    MLKEM512 = 512
    MLKEM768 = 513
    MLKEM1024 = 514
    SecP256r1MLKEM768 = 4587
    X25519MLKEM768 = 4588
    SecP384r1MLKEM1024 = 4589
    curveSM2MLKEM768 = 4590
    X25519Kyber768Draft00 = 25497
    SecP256r1Kyber768Draft00 = 25498
    arbitrary_explicit_prime_curves = 65281
    arbitrary_explicit_char2_curves = 65282


class SignatureScheme(IntEnum):
    """RFC 8446 4.2.3 and the registry. Before TLS 1.3 the two bytes were a hash and a signature algorithm."""

    rsa_pkcs1_md5 = 0x0101  # TLS 1.2's {md5, rsa}
    rsa_pkcs1_sha1 = 0x0201
    dsa_sha1 = 0x0202  # TLS 1.2's {sha1, dsa}, and so on
    ecdsa_sha1 = 0x0203
    rsa_pkcs1_sha224 = 0x0301
    dsa_sha224 = 0x0302
    ecdsa_sha224 = 0x0303
    rsa_pkcs1_sha256 = 0x0401
    dsa_sha256 = 0x0402
    ecdsa_secp256r1_sha256 = 0x0403
    rsa_pkcs1_sha256_legacy = 0x0420
    rsa_pkcs1_sha384 = 0x0501
    dsa_sha384 = 0x0502
    ecdsa_secp384r1_sha384 = 0x0503
    rsa_pkcs1_sha384_legacy = 0x0520
    rsa_pkcs1_sha512 = 0x0601
    dsa_sha512 = 0x0602
    ecdsa_secp521r1_sha512 = 0x0603
    rsa_pkcs1_sha512_legacy = 0x0620
    eccsi_sha256 = 0x0704
    iso_ibs1 = 0x0705
    iso_ibs2 = 0x0706
    iso_chinese_ibs = 0x0707
    sm2sig_sm3 = 0x0708
    gostr34102012_256a = 0x0709
    gostr34102012_256b = 0x070A
    gostr34102012_256c = 0x070B
    gostr34102012_256d = 0x070C
    gostr34102012_512a = 0x070D
    gostr34102012_512b = 0x070E
    gostr34102012_512c = 0x070F
    rsa_pss_rsae_sha256 = 0x0804
    rsa_pss_rsae_sha384 = 0x0805
    rsa_pss_rsae_sha512 = 0x0806
    ed25519 = 0x0807
    ed448 = 0x0808
    rsa_pss_pss_sha256 = 0x0809
    rsa_pss_pss_sha384 = 0x080A
    rsa_pss_pss_sha512 = 0x080B
    ecdsa_brainpoolP256r1tls13_sha256 = 0x081A
    ecdsa_brainpoolP384r1tls13_sha384 = 0x081B
    ecdsa_brainpoolP512r1tls13_sha512 = 0x081C
    mldsa44 = 0x0904
    mldsa65 = 0x0905
    mldsa87 = 0x0906
    slhdsa_sha2_128s = 0x0911
    slhdsa_sha2_128f = 0x0912
    slhdsa_sha2_192s = 0x0913
    slhdsa_sha2_192f = 0x0914
    slhdsa_sha2_256s = 0x0915
    slhdsa_sha2_256f = 0x0916
    slhdsa_shake_128s = 0x0917
    slhdsa_shake_128f = 0x0918
    slhdsa_shake_192s = 0x0919
    slhdsa_shake_192f = 0x091A
    slhdsa_shake_256s = 0x091B
    slhdsa_shake_256f = 0x091C


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
