from __future__ import annotations

import contextlib
import dataclasses
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentls.errors import WireError
from greentls.wire.bodies import (
    CachedObject,
    CertificateStatusRequest,
    ECHClientHello,
    KeyShareEntry,
    OCSPStatusRequest,
    OfferedPsks,
    PskIdentity,
    TicketRequest,
    TokenBindingParameters,
    TransportParameter,
    TrustedAuthority,
    UseSRTP,
)
from greentls.wire.extensions import MAX_EXTENSIONS, Body, Extension, Extensions
from greentls.wire.hello import ClientHello, ServerHello
from greentls.wire.registry import ExtensionType as E
from tests.support.wire_helpers import (
    RANDOM,
    byte,
    client_hello,
    extension,
    message,
    opaque,
    proper_prefixes,
    server_hello,
    tuples,
    u8,
    u16,
    u24,
    u32,
    uint16,
    uint32,
    v8,
    v16,
)

SHA1 = bytes(range(20))

# An extension, its body, the attribute and the value.
CLIENT_BODIES = [
    (E.server_name, v16(u8(0), v16(b"www.example.com")), "server_name", "www.example.com"),
    (E.server_name, v16(u8(7), v16(b"x"), u8(0), v16(b"a"), u8(0), v16(b"b")), "server_name", "a"),
    (E.server_name, v16(u8(7), v16(b"x")), "server_name", None),
    (E.server_name, v16(), "server_name", None),
    (E.server_name, v16(u8(0), v16()), "server_name", ""),
    (E.server_name, v16(u8(0), v16("b\xfccher".encode("latin-1"))), "server_name", "b\udcfccher"),
    (E.max_fragment_length, u8(4), "max_fragment_length", 4),
    (E.client_certificate_url, b"", "client_certificate_url", True),
    (
        E.trusted_ca_keys,
        v16(u8(0), u8(1), SHA1, u8(2), v16(b"dn"), u8(3), SHA1),
        "trusted_ca_keys",
        (TrustedAuthority(0, b""), TrustedAuthority(1, SHA1), TrustedAuthority(2, b"dn"), TrustedAuthority(3, SHA1)),
    ),
    (E.trusted_ca_keys, v16(u8(9), b"what"), "trusted_ca_keys", (TrustedAuthority(9, b"what"),)),
    (E.truncated_hmac, b"", "truncated_hmac", True),
    (
        E.status_request,
        u8(1) + v16(v16(b"r1"), v16(b"r2")) + v16(b"exts"),
        "status_request",
        CertificateStatusRequest(1, OCSPStatusRequest((b"r1", b"r2"), b"exts")),
    ),
    (E.status_request, u8(9) + b"??", "status_request", CertificateStatusRequest(9, b"??")),
    (E.user_mapping, v8(u8(64)), "user_mapping", (64,)),
    (E.client_authz, v8(u8(1), u8(2)), "client_authz", (1, 2)),
    (E.server_authz, v8(u8(1), u8(2)), "server_authz", (1, 2)),
    (E.cert_type, v8(u8(0), u8(1)), "cert_type", (0, 1)),
    (E.supported_groups, v16(u16(0x0A0A), u16(29), u16(4588)), "supported_groups", (0x0A0A, 29, 4588)),
    (E.supported_groups, v16(), "supported_groups", ()),
    (E.ec_point_formats, v8(u8(0), u8(1), u8(2)), "ec_point_formats", (0, 1, 2)),
    (E.srp, v8(b"alice"), "srp", b"alice"),
    (E.signature_algorithms, v16(u16(0x0403), u16(0x0804)), "signature_algorithms", (0x0403, 0x0804)),
    (E.use_srtp, v16(u16(1), u16(2)) + v8(b"mki"), "use_srtp", UseSRTP((1, 2), b"mki")),
    (E.heartbeat, u8(1), "heartbeat", 1),
    (
        E.application_layer_protocol_negotiation,
        v16(v8(b"h2"), v8(b"http/1.1"), v8(), v8(b"\xff")),
        "alpn_protocols",
        ("h2", "http/1.1", "", "\udcff"),
    ),
    (
        E.status_request_v2,
        v16(u8(2), v16(v16(v16(b"r")), v16(b"e")), u8(9), v16(b"??")),
        "status_request_v2",
        (CertificateStatusRequest(2, OCSPStatusRequest((b"r",), b"e")), CertificateStatusRequest(9, b"??")),
    ),
    (E.signed_certificate_timestamp, b"", "signed_certificate_timestamp", True),
    (E.client_certificate_type, v8(u8(2), u8(0)), "client_certificate_type", (2, 0)),
    (E.server_certificate_type, v8(u8(2)), "server_certificate_type", (2,)),
    (E.padding, bytes(100), "padding", 100),
    (E.encrypt_then_mac, b"", "encrypt_then_mac", True),
    (E.extended_master_secret, b"", "extended_master_secret", True),
    (E.token_binding, u8(1) + u8(0) + v8(u8(2)), "token_binding", TokenBindingParameters(1, 0, (2,))),
    (
        E.cached_info,
        v16(u8(1), v8(b"hash"), u8(2), v8()),
        "cached_info",
        (CachedObject(1, b"hash"), CachedObject(2, b"")),
    ),
    (E.tls_lts, b"", "tls_lts", True),
    (E.compress_certificate, v8(u16(2), u16(3)), "compress_certificate", (2, 3)),
    (E.record_size_limit, u16(16385), "record_size_limit", 16385),
    (E.pwd_protect, v8(b"name"), "pwd_protect", b"name"),
    (E.pwd_clear, v8(b"name"), "pwd_clear", b"name"),
    (E.password_salt, v16(b"salt"), "password_salt", b"salt"),
    (E.ticket_pinning, v16(b"pin"), "ticket_pinning", b"pin"),
    (E.tls_cert_with_extern_psk, b"", "tls_cert_with_extern_psk", True),
    (E.delegated_credential, v16(u16(0x0403)), "delegated_credential", (0x0403,)),
    (E.session_ticket, b"ticket", "session_ticket", b"ticket"),
    (E.session_ticket, b"", "session_ticket", b""),
    (E.supported_ekt_ciphers, v8(u8(1)), "supported_ekt_ciphers", (1,)),
    (
        E.pre_shared_key,
        v16(v16(b"one"), u32(0xFFFFFFFF), v16(b"two"), u32(0)) + v16(v8(b"b" * 32), v8(b"c" * 48)),
        "pre_shared_key",
        OfferedPsks((PskIdentity(b"one", 0xFFFFFFFF), PskIdentity(b"two", 0)), (b"b" * 32, b"c" * 48)),
    ),
    (E.early_data, b"", "early_data", True),
    (E.supported_versions, v8(u16(0xFAFA), u16(0x0304), u16(0x9999)), "supported_versions", (0xFAFA, 0x0304, 0x9999)),
    (E.cookie, v16(b"cookie"), "cookie", b"cookie"),
    (E.psk_key_exchange_modes, v8(u8(1), u8(0)), "psk_key_exchange_modes", (1, 0)),
    (E.certificate_authorities, v16(v16(b"dn1"), v16(b"dn2")), "certificate_authorities", (b"dn1", b"dn2")),
    (E.post_handshake_auth, b"", "post_handshake_auth", True),
    (E.signature_algorithms_cert, v16(u16(0x0401)), "signature_algorithms_cert", (0x0401,)),
    (
        E.key_share,
        v16(u16(0x1A1A), v16(b"\0"), u16(29), v16(b"k" * 32)),
        "key_share",
        (KeyShareEntry(0x1A1A, b"\0"), KeyShareEntry(29, b"k" * 32)),
    ),
    (E.key_share, v16(), "key_share", ()),
    (E.transparency_info, b"", "transparency_info", True),
    (E.connection_id, v8(b"cid"), "connection_id", b"cid"),
    (E.external_id_hash, v8(), "external_id_hash", b""),
    (E.external_session_id, v8(b"s" * 20), "external_session_id", b"s" * 20),
    (
        E.quic_transport_parameters,
        b"\x01\x02\x67\x10" + b"\x40\x4f\x00" + b"\x80\x00\x71\x27\x01x" + b"\xc0\0\0\0\0\0\0\x0f\x40\x01y",
        "quic_transport_parameters",
        (
            TransportParameter(1, b"\x67\x10"),
            TransportParameter(0x4F, b""),
            TransportParameter(0x7127, b"x"),
            TransportParameter(0x0F, b"y"),
        ),
    ),
    (E.ticket_request, u8(2) + u8(1), "ticket_request", TicketRequest(2, 1)),
    (E.dnssec_chain, u16(443), "dnssec_chain", 443),
    (E.rrc, b"", "rrc", True),
    (E.tls_flags, v8(b"\1"), "tls_flags", b"\1"),
    (E.next_protocol_negotiation, b"", "next_protocol_negotiation", True),
    (E.application_settings_old, v16(v8(b"h2")), "application_settings_old", ("h2",)),
    (E.application_settings, v16(v8(b"h2")), "application_settings", ("h2",)),
    (E.channel_id, b"", "channel_id", True),
    (E.ech_outer_extensions, v8(u16(10), u16(51)), "ech_outer_extensions", (10, 51)),
    (
        E.encrypted_client_hello,
        u8(0) + u16(1) + u16(2) + u8(7) + v16(b"enc") + v16(b"payload"),
        "encrypted_client_hello",
        ECHClientHello(0, 1, 2, 7, b"enc", b"payload"),
    ),
    (E.encrypted_client_hello, u8(1), "encrypted_client_hello", ECHClientHello(1)),
    (E.encrypted_client_hello, u8(9) + b"??", "encrypted_client_hello", ECHClientHello(9, payload=b"??")),
    (E.renegotiation_info, v8(b"verify"), "renegotiation_info", b"verify"),
]

SERVER_BODIES = [
    (E.server_name, b"", "server_name", True),
    (E.max_fragment_length, u8(1), "max_fragment_length", 1),
    (E.client_certificate_url, b"", "client_certificate_url", True),
    (E.trusted_ca_keys, b"", "trusted_ca_keys", True),
    (E.truncated_hmac, b"", "truncated_hmac", True),
    (E.status_request, b"", "status_request", True),
    (E.user_mapping, v8(u8(64)), "user_mapping", (64,)),
    (E.client_authz, v8(u8(1)), "client_authz", (1,)),
    (E.server_authz, v8(u8(1)), "server_authz", (1,)),
    (E.cert_type, u8(1), "cert_type", 1),
    (E.supported_groups, v16(u16(23)), "supported_groups", (23,)),
    (E.ec_point_formats, v8(u8(0)), "ec_point_formats", (0,)),
    (E.use_srtp, v16(u16(1)) + v8(), "use_srtp", UseSRTP((1,), b"")),
    (E.heartbeat, u8(2), "heartbeat", 2),
    (E.application_layer_protocol_negotiation, v16(v8(b"h2")), "alpn_protocols", ("h2",)),
    (E.status_request_v2, b"", "status_request_v2", True),
    (
        E.signed_certificate_timestamp,
        v16(v16(b"sct1"), v16(b"sct2")),
        "signed_certificate_timestamp",
        (b"sct1", b"sct2"),
    ),
    (E.client_certificate_type, u8(2), "client_certificate_type", 2),
    (E.server_certificate_type, u8(2), "server_certificate_type", 2),
    (E.encrypt_then_mac, b"", "encrypt_then_mac", True),
    (E.extended_master_secret, b"", "extended_master_secret", True),
    (E.token_binding, u8(1) + u8(0) + v8(u8(2)), "token_binding", TokenBindingParameters(1, 0, (2,))),
    (E.cached_info, v16(u8(1), u8(2)), "cached_info", (CachedObject(1, b""), CachedObject(2, b""))),
    (E.tls_lts, b"", "tls_lts", True),
    (E.record_size_limit, u16(64), "record_size_limit", 64),
    (E.password_salt, v16(b"salt"), "password_salt", b"salt"),
    (E.tls_cert_with_extern_psk, b"", "tls_cert_with_extern_psk", True),
    (E.session_ticket, b"", "session_ticket", True),
    (E.supported_ekt_ciphers, u8(1), "supported_ekt_ciphers", 1),
    (E.pre_shared_key, u16(1), "selected_identity", 1),
    (E.supported_versions, u16(0x0304), "selected_version", 0x0304),
    (E.cookie, v16(b"cookie"), "cookie", b"cookie"),
    (E.key_share, u16(29) + v16(b"k" * 32), "key_share", KeyShareEntry(29, b"k" * 32)),
    (E.key_share, u16(29), "key_share", KeyShareEntry(29, b"")),
    (E.connection_id, v8(b"cid"), "connection_id", b"cid"),
    (E.external_id_hash, v8(b"h"), "external_id_hash", b"h"),
    (E.external_session_id, v8(b"s" * 20), "external_session_id", b"s" * 20),
    (E.rrc, b"", "rrc", True),
    (E.tls_flags, v8(b"\1"), "tls_flags", b"\1"),
    (E.next_protocol_negotiation, v8(b"h2") + v8(b"http/1.1"), "next_protocol_negotiation", ("h2", "http/1.1")),
    (E.channel_id, b"", "channel_id", True),
    (E.encrypted_client_hello, b"confirms", "encrypted_client_hello", b"confirms"),
    (E.renegotiation_info, v8(), "renegotiation_info", b""),
]

CASES = [(ClientHello, client_hello, *case) for case in CLIENT_BODIES]
CASES += [(ServerHello, server_hello, *case) for case in SERVER_BODIES]

# No length says where these end, so that a part of one may be one too, or more than one.
UNBOUNDED = {
    (ClientHello, E.padding),
    (ClientHello, E.session_ticket),
    (ClientHello, E.quic_transport_parameters),
    (ClientHello, E.encrypt_then_mac),  # OpenSSL does not look at it
    (ServerHello, E.encrypted_client_hello),
    (ServerHello, E.next_protocol_negotiation),
    (ServerHello, E.key_share),  # in a HelloRetryRequest the group stands alone
}
UNKNOWN_FORMS = [ECHClientHello(9, payload=b"??"), CertificateStatusRequest(9, b"??")]


def bodies(hello_class):
    found = {name: getattr(hello_class, name) for name in dir(hello_class)}
    return {name: value for name, value in found.items() if isinstance(value, Body)}


@pytest.mark.parametrize("hello_class", [ClientHello, ServerHello])
def test_every_attribute_has_a_case(hello_class):
    assert {case[4] for case in CASES if case[0] is hello_class} == set(bodies(hello_class))


@pytest.mark.parametrize(("hello_class", "encode", "number", "body", "attribute", "value"), CASES)
def test_extension(hello_class, encode, number, body, attribute, value):
    encoded = encode(extension(0xABCD, b"before"), extension(number, body), extension(0xBCDE, b"after"))
    hello = hello_class.parse(encoded)
    assert getattr(hello, attribute) == value
    assert getattr(hello, attribute) is getattr(hello, attribute)  # parsed once
    assert hello.extensions[number] == hello.extensions.get(number) == body
    assert number in hello.extensions
    assert hello.to_bytes() == encoded
    for other, lazy in bodies(hello_class).items():
        if other != attribute:
            assert getattr(hello, other) == lazy._absent


@pytest.mark.parametrize(("hello_class", "encode", "number", "body", "attribute", "value"), CASES)
def test_malformed_extension(hello_class, encode, number, body, attribute, value):
    """Its attribute raises, each time, and nothing else does."""
    for wrong in [*proper_prefixes(body), body + b"\0"]:
        hello = hello_class.parse(encode(extension(number, wrong), extension(0xBCDE, b"after")))
        for _ in range(2):
            if (hello_class, number) in UNBOUNDED or value in UNKNOWN_FORMS:
                with contextlib.suppress(WireError):
                    getattr(hello, attribute)
                continue
            with pytest.raises(WireError) as caught:
                getattr(hello, attribute)
            assert caught.value.alert == 50
        assert hello.extensions[number] == wrong
        assert hello.random == RANDOM


def test_the_fields_of_a_client_hello():
    encoded = client_hello(extension(0), version=0x0301, session_id=b"s" * 32, suites=(0x2A2A, 5), compression=b"\1\0")
    hello = ClientHello.parse(encoded)
    assert hello.legacy_version == 0x0301
    assert hello.random == RANDOM
    assert hello.legacy_session_id == b"s" * 32
    assert hello.cipher_suites == (0x2A2A, 5)
    assert hello.legacy_compression_methods == (1, 0)
    assert list(hello.extensions) == [Extension(0, b"")]
    assert (0 in hello.extensions, 1 in hello.extensions, hello.extensions.get(1)) == (True, False, None)
    assert hello.grease == (0x2A2A,)


def test_psk_identities_and_binders():
    encoded = client_hello(extension(E.pre_shared_key, v16(v16(b"id"), u32(7)) + v16(v8(b"b" * 32))))
    hello = ClientHello.parse(encoded)
    assert hello.psk_identities == ((b"id", 7),)
    assert hello.psk_binders == (b"b" * 32,)
    assert ClientHello.parse(client_hello()).psk_identities == ClientHello.parse(client_hello()).psk_binders == ()


def test_server_hello_and_hello_retry_request():
    old = ServerHello.parse(server_hello(version=0x0303, session_id=b"s", suite=0xC02F, block=b""))
    assert (old.version, old.legacy_session_id_echo, old.cipher_suite) == (0x0303, b"s", 0xC02F)
    assert not old.is_hello_retry_request
    new = ServerHello.parse(server_hello(extension(E.supported_versions, u16(0x0304))))
    assert (new.legacy_version, new.version) == (0x0303, 0x0304)
    # RFC 8446 4.1.3 prints it.
    random = bytes.fromhex("CF21AD74E59A6111BE1D8C021E65B891C2A211167ABB8C5E079E09E2C8A8339C")
    retry = ServerHello.parse(server_hello(extension(E.key_share, u16(23)), random=random))
    assert retry.is_hello_retry_request
    assert retry.key_share == (23, b"")


# Feeding: a hello is whole, and nothing else is one ----------------------------------------------------------------

SAMPLES = [
    (ClientHello, client_hello(extension(0, v16(u8(0), v16(b"a"))), extension(0x1A1A), session_id=b"s" * 32)),
    (ClientHello, client_hello()),
    (ServerHello, server_hello(extension(43, u16(0x0304)), session_id=b"s" * 32)),
]


@pytest.mark.parametrize(("hello_class", "encoded"), SAMPLES)
def test_no_prefix_and_no_more_is_a_hello(hello_class, encoded):
    hello_class.parse(encoded)
    for wrong in [*proper_prefixes(encoded), encoded + b"\0"]:
        with pytest.raises(WireError) as caught:
            hello_class.parse(wrong)
        assert caught.value.alert == 50


@pytest.mark.parametrize(("hello_class", "encoded"), SAMPLES)
def test_no_prefix_of_the_body_but_that_without_extensions_is_a_hello(hello_class, encoded):
    body = encoded[4:]
    without_extensions = len(body) - 2 - len(hello_class.parse(encoded).extensions.block)
    for prefix in [*proper_prefixes(body), body + b"\0"]:
        cut = encoded[:1] + u24(len(prefix)) + prefix
        if len(prefix) == without_extensions:
            assert hello_class.parse(cut).extensions.block is None
            assert hello_class.parse(cut).to_bytes() == cut
        else:
            with pytest.raises(WireError) as caught:
                hello_class.parse(cut)
            assert caught.value.alert == 50


def test_the_wrong_type_is_an_unexpected_message():
    with pytest.raises(WireError, match=r"^msg_type: server_hello, client_hello expected$") as caught:
        ClientHello.parse(server_hello())
    assert caught.value.alert == 10


@pytest.mark.parametrize(
    ("encoded", "sentence"),
    [
        (b"\1\0", "ClientHello: 2 bytes, 4 expected"),
        (message(1, b"xyz") + b"more", "ClientHello: 11 bytes, 7 expected"),
        (message(1, b"\3"), "ClientHello: 1 bytes left, legacy_version needs 2"),
        (message(1, u16(0x0303), b"short"), "ClientHello: 5 bytes left, random needs 32"),
        (client_hello(session_id=b"s" * 33), "legacy_session_id: 33 bytes, at most 32 expected"),
        (
            message(1, u16(0x0303), RANDOM, v8(), v16(b"abc"), v8(b"\0")),
            "cipher_suites: 3 bytes, an even number expected",
        ),
        (client_hello(b"\0"), "extensions: 1 bytes left, extension header needs 4"),
        (client_hello(extension(3), b"\0\0\0"), "extensions: 3 bytes left, extension header needs 4"),
        (client_hello(u16(0) + u16(11) + b"abc"), "extensions: 3 bytes left, server_name needs 11"),
        (client_hello(extension(3), u16(0x1A1A) + u16(1)), "extensions: 0 bytes left, GREASE 0x1A1A needs 1"),
        (client_hello(block=v16() + b"x"), "ClientHello: 1 bytes left over, none expected"),
    ],
)
def test_the_sentence_names_the_field(encoded, sentence):
    with pytest.raises(WireError, match=f"^{re.escape(sentence)}$") as caught:
        ClientHello.parse(encoded)
    assert caught.value.alert == 50


def test_the_sentence_of_an_extension():
    hello = ClientHello.parse(client_hello(extension(0, v16(u8(0), u16(11), b"abc"))))
    with pytest.raises(WireError, match=r"^server_name: 3 bytes left, host_name needs 11$"):
        _ = hello.server_name


def test_a_nul_in_a_server_name():
    hello = ClientHello.parse(client_hello(extension(0, v16(u8(0), v16(b"a\0b")))))
    with pytest.raises(WireError, match=r"^server_name: a NUL in host_name, none expected$") as caught:
        _ = hello.server_name
    assert caught.value.alert == 112


# Unusual is not wrong -----------------------------------------------------------------------------------------------


def test_what_is_unusual_is_parsed():
    hello = ClientHello.parse(client_hello(version=0xFFFF, suites=(), compression=b""))
    assert (hello.legacy_version, hello.cipher_suites, hello.legacy_compression_methods) == (0xFFFF, (), ())


def test_a_repeated_extension_is_refused_where_it_is_asked_for():
    encoded = client_hello(extension(16, b"1"), extension(0xABCD), extension(16, b"2"), extension(35, b"t"))
    hello = ClientHello.parse(encoded)
    assert hello.to_bytes() == encoded
    assert hello.extensions.types == (16, 0xABCD, 16, 35)
    assert hello.session_ticket == b"t"
    for look in (lambda: hello.alpn_protocols, lambda: hello.extensions[16], lambda: hello.extensions.get(16)):
        with pytest.raises(WireError, match="application_layer_protocol_negotiation at most once expected") as caught:
            look()
        assert caught.value.alert == 47


def test_so_many_extensions_and_no_more():
    encoded = [extension(number) for number in range(MAX_EXTENSIONS + 1)]
    assert len(ClientHello.parse(client_hello(*encoded[:-1])).extensions) == MAX_EXTENSIONS
    with pytest.raises(WireError, match=r"^extensions: 1025 of them, at most 1024 expected$"):
        ClientHello.parse(client_hello(*encoded))


# Objects ------------------------------------------------------------------------------------------------------------


def test_hellos_are_values():
    encoded = client_hello(extension(35, b"ticket"))
    one, other = ClientHello.parse(encoded), ClientHello.parse(encoded)
    assert one.session_ticket == b"ticket"  # which other has not parsed
    assert one == other
    assert hash(one) == hash(other)
    assert one != ClientHello.parse(client_hello())
    assert ClientHello.parse(client_hello()) != ClientHello.parse(client_hello(block=b""))
    assert pickle.loads(pickle.dumps(one)) == one
    assert dataclasses.replace(one, legacy_session_id=b"new").legacy_session_id == b"new"
    assert "Extensions(" in repr(one)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.random = b""
    assert not hasattr(one, "__dict__")


def test_a_hello_can_be_made():
    hello = ClientHello(0x0303, RANDOM, b"", (0x1301,), extensions=Extensions.of((35, b"ticket"), (0x1A1A, b"")))
    assert hello.session_ticket == b"ticket"
    assert hello.to_bytes() == client_hello(extension(35, b"ticket"), extension(0x1A1A), suites=(0x1301,))
    assert ClientHello(0x0303, RANDOM, b"", (0x1301,)).to_bytes() == client_hello(suites=(0x1301,), block=b"")


# Round trips --------------------------------------------------------------------------------------------------------

raw_extensions = st.none() | st.lists(st.tuples(uint16, opaque), max_size=8)
text = st.binary(max_size=20).filter(lambda name: 0 not in name)


def block(raw):
    return b"" if raw is None else v16(*(extension(number, data) for number, data in raw))


@given(uint16, st.binary(min_size=32, max_size=32), st.binary(max_size=32), tuples(uint16), opaque, raw_extensions)
def test_client_hellos_round_trip(version, random, session_id, suites, compression, raw):
    encoded = client_hello(
        version=version, random=random, session_id=session_id, suites=suites, compression=compression, block=block(raw)
    )
    hello = ClientHello.parse(encoded)
    assert hello.to_bytes() == encoded
    assert (hello.legacy_version, hello.random, hello.legacy_session_id) == (version, random, session_id)
    assert (hello.cipher_suites, bytes(hello.legacy_compression_methods)) == (suites, compression)
    assert list(hello.extensions) == (raw or [])
    assert len(hello.extensions) == len(raw or [])


@given(uint16, st.binary(min_size=32, max_size=32), st.binary(max_size=32), uint16, byte, raw_extensions)
def test_server_hellos_round_trip(version, random, session_id, suite, compression, raw):
    encoded = server_hello(
        version=version, random=random, session_id=session_id, suite=suite, compression=compression, block=block(raw)
    )
    hello = ServerHello.parse(encoded)
    assert hello.to_bytes() == encoded
    assert (hello.legacy_version, hello.random, hello.legacy_session_id_echo) == (version, random, session_id)
    assert (hello.cipher_suite, hello.legacy_compression_method) == (suite, compression)
    assert list(hello.extensions) == (raw or [])


def client_extension(number, body):
    return ClientHello.parse(client_hello(extension(number, body)))


@given(text, tuples(text), tuples(st.tuples(uint16, opaque)), tuples(st.tuples(opaque, uint32)), tuples(opaque))
def test_structures_round_trip(host_name, protocols, shares, identities, binders):
    encoded = client_hello(
        extension(0, v16(u8(0), v16(host_name))),
        extension(16, v16(*map(v8, protocols))),
        extension(51, v16(*(u16(group) + v16(key) for group, key in shares))),
        extension(41, v16(*(v16(identity) + u32(age) for identity, age in identities)) + v16(*map(v8, binders))),
    )
    hello = ClientHello.parse(encoded)
    assert hello.server_name.encode("ascii", "surrogateescape") == host_name.lower()
    assert tuple(name.encode("ascii", "surrogateescape") for name in hello.alpn_protocols) == protocols
    assert hello.key_share == shares
    assert hello.psk_identities == identities
    assert hello.psk_binders == binders


@given(tuples(uint16), tuples(byte), tuples(opaque), opaque)
def test_lists_round_trip(numbers, small, names, request_extensions):
    hello = ClientHello.parse(
        client_hello(
            *(extension(number, v16(*map(u16, numbers))) for number in (10, 13, 34, 50)),
            *(extension(number, v8(*map(u16, numbers))) for number in (27, 43)),
            *(extension(number, v8(*map(u8, small))) for number in (11, 45)),
            extension(47, v16(*map(v16, names))),
            extension(5, u8(1) + v16(*map(v16, names)) + v16(request_extensions)),
        )
    )
    assert hello.supported_groups == hello.signature_algorithms == hello.delegated_credential == numbers
    assert hello.signature_algorithms_cert == hello.compress_certificate == hello.supported_versions == numbers
    assert hello.ec_point_formats == hello.psk_key_exchange_modes == small
    assert hello.certificate_authorities == names
    assert hello.status_request == (1, (names, request_extensions))


@given(tuples(st.tuples(st.integers(0, 2**62 - 1), opaque)))
def test_transport_parameters_round_trip(parameters):
    def varint(number):
        size = next(size for size in (0, 1, 2, 3) if number < 1 << (8 << size) - 2)
        return (number | size << (8 << size) - 2).to_bytes(1 << size, "big")

    body = b"".join(varint(number) + varint(len(value)) + value for number, value in parameters)
    assert client_extension(57, body).quic_transport_parameters == parameters


@given(st.binary(max_size=300))
def test_any_bytes_are_a_hello_or_a_wire_error(data):
    for hello_class, encoded in ((ClientHello, message(1, data)), (ServerHello, message(2, data))):
        try:
            hello = hello_class.parse(encoded)
        except WireError:
            continue
        assert hello.to_bytes() == encoded


@given(st.sampled_from([case[:2] + case[2:3] + case[4:5] for case in CASES]), opaque)
def test_any_bytes_are_a_body_or_a_wire_error(case, body):
    hello_class, encode, number, attribute = case
    hello = hello_class.parse(encode(extension(number, body)))
    try:
        getattr(hello, attribute)
    except WireError as error:
        assert error.alert in (50, 112)


def test_long_extensions():
    assert ClientHello.parse(client_hello(extension(21, bytes(60000)))).padding == 60000
