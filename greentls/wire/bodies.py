"""Parses the bodies of the extensions in ClientHello and ServerHello: one function for each form.

Each function takes a Reader and returns a value. It may leave bytes unread; its caller finishes the Reader. It refuses
only what it cannot read. Empty lists, unknown numbers and GREASE are ordinary values, even where the RFC forbids them,
because OpenSSL decides about them. Texts (server names, protocol names) are decoded as ASCII with surrogateescape, so
.encode("ascii", "surrogateescape") restores the bytes.

Lists of numbers or texts become tuples. Structures become named tuples with the RFC's names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from greentls.errors import WireError
from greentls.wire.reader import Reader
from greentls.wire.registry import AlertDescription, CertificateStatusType, NameType

T = TypeVar("T")


class KeyShareEntry(NamedTuple):
    """RFC 8446 4.2.8. group: a NamedGroup."""

    group: int
    key_exchange: bytes


class PskIdentity(NamedTuple):
    """RFC 8446 4.2.11. obfuscated_ticket_age: milliseconds plus ticket_age_add, modulo 2^32."""

    identity: bytes
    obfuscated_ticket_age: int


class OfferedPsks(NamedTuple):
    """RFC 8446 4.2.11. binders: one for each identity, in the same order."""

    identities: tuple[PskIdentity, ...]
    binders: tuple[bytes, ...]


class OCSPStatusRequest(NamedTuple):
    """RFC 6066 8. responder_id_list: DER of each ResponderID. request_extensions: DER of Extensions, or empty."""

    responder_id_list: tuple[bytes, ...]
    request_extensions: bytes


class CertificateStatusRequest(NamedTuple):
    """RFC 6066 8, RFC 6961 2.2. status_type: a CertificateStatusType. request: bytes if the type is unknown."""

    status_type: int
    request: OCSPStatusRequest | bytes


class TrustedAuthority(NamedTuple):
    """RFC 6066 6. identifier_type: 0 is pre_agreed, 1 key_sha1_hash, 2 x509_name, 3 cert_sha1_hash."""

    identifier_type: int
    identifier: bytes


class UseSRTP(NamedTuple):
    """RFC 5764 4.1.1."""

    protection_profiles: tuple[int, ...]
    srtp_mki: bytes


class TokenBindingParameters(NamedTuple):
    """RFC 8472 2."""

    major: int
    minor: int
    key_parameters_list: tuple[int, ...]


class CachedObject(NamedTuple):
    """RFC 7924 3. type: 1 is cert, 2 is cert_req. hash_value: empty in a ServerHello."""

    type: int
    hash_value: bytes


class TicketRequest(NamedTuple):
    """RFC 9149 3. The numbers of tickets that the client wants."""

    new_session_count: int
    resumption_count: int


class TransportParameter(NamedTuple):
    """RFC 9000 18."""

    id: int
    value: bytes


class ECHClientHello(NamedTuple):
    """RFC 9849 5. type: 0 is outer; 1 is inner and has no other fields; the body of any other type is in payload."""

    type: int
    kdf_id: int = 0
    aead_id: int = 0
    config_id: int = 0
    enc: bytes = b""
    payload: bytes = b""


# One value of a basic type or one vector ----------------------------------------------------------------------------


def empty(body: Reader) -> bool:
    """An extension without content."""
    return True


def unread(body: Reader) -> bool:
    """Like empty(), but skips content: encrypt_then_mac, whose body OpenSSL ignores."""
    body.rest()
    return True


def everything(body: Reader) -> bytes:
    """A body without structure: session_ticket (RFC 5077 3.2), ECH's confirmation in a HelloRetryRequest."""
    return body.rest()


def padding(body: Reader) -> int:
    """RFC 7685 3. Returns the number of bytes."""
    return len(body.rest())


def _read(method: Callable[[Reader, str], T]) -> Callable[[Reader], T]:
    """A body that is one item."""
    return lambda body: method(body, body.name)


def _read_sized(method: Callable[[Reader, int, str], T], length_size: int) -> Callable[[Reader], T]:
    """A body that is one vector, whose length has so many bytes."""
    return lambda body: method(body, length_size, body.name)


number8, number16 = _read(Reader.u8), _read(Reader.u16)
opaque8, opaque16 = _read_sized(Reader.opaque, 1), _read_sized(Reader.opaque, 2)
list8_of_16, list16_of_16 = _read_sized(Reader.u16s, 1), _read_sized(Reader.u16s, 2)


def list8_of_8(body: Reader) -> tuple[int, ...]:
    return tuple(body.opaque(1, body.name))


def list16_of_opaque16(body: Reader) -> tuple[bytes, ...]:
    return body.opaques(2, body.name, 2, "element")


# Names --------------------------------------------------------------------------------------------------------------


def server_name(body: Reader) -> str | None:
    """RFC 6066 3. Returns the first host_name of the list in lower case.

    DNS names have no case (RFC 4343), and a program that chooses by name must not miss another spelling. A name with a
    NUL is refused with unrecognized_name, as OpenSSL does.
    """
    names = body.narrow(2, "server_name")
    found = None
    for _ in names.elements():
        name_type = names.u8("name_type")
        host_name = names.opaque(2, "host_name")
        if name_type == NameType.host_name and found is None:
            found = host_name
    if found is None:
        return None
    if 0 in found:
        raise WireError("server_name", "a NUL in host_name", "none expected", AlertDescription.unrecognized_name)
    return _text(found).lower()


def protocol_names(body: Reader) -> tuple[str, ...]:
    """A ProtocolNameList (RFC 7301 3.1), which ALPS uses too."""
    return tuple(map(_text, body.opaques(2, "protocol_name_list", 1, "ProtocolName")))


def next_protocols(body: Reader) -> tuple[str, ...]:
    """draft-agl-tls-nextprotoneg. The server's list has no length in front."""
    return tuple([_text(each.opaque(1, "protocol")) for each in body.elements()])


def _text(name: bytes) -> str:
    return name.decode("ascii", "surrogateescape")


# Keys (RFC 8446 4.2) ------------------------------------------------------------------------------------------------


def client_shares(body: Reader) -> tuple[KeyShareEntry, ...]:
    shares = body.narrow(2, "client_shares")
    return tuple([KeyShareEntry(each.u16("group"), each.opaque(2, "key_exchange")) for each in shares.elements()])


def server_share(body: Reader) -> KeyShareEntry:
    """A HelloRetryRequest has only the group, so key_exchange is empty."""
    group = body.u16("selected_group")
    return KeyShareEntry(group, body.opaque(2, "key_exchange") if body else b"")


def offered_psks(body: Reader) -> OfferedPsks:
    vector = body.narrow(2, "identities")
    identities = [
        PskIdentity(each.opaque(2, "identity"), each.u32("obfuscated_ticket_age")) for each in vector.elements()
    ]
    return OfferedPsks(tuple(identities), body.opaques(2, "binders", 1, "PskBinderEntry"))


def encrypted_client_hello(body: Reader) -> ECHClientHello:
    kind = body.u8("type")
    if kind == 1:
        return ECHClientHello(kind)
    if kind != 0:
        return ECHClientHello(kind, payload=body.rest())
    return ECHClientHello(
        kind,
        body.u16("kdf_id"),
        body.u16("aead_id"),
        body.u8("config_id"),
        body.opaque(2, "enc"),
        body.opaque(2, "payload"),
    )


# Certificates -------------------------------------------------------------------------------------------------------


def status_request(body: Reader) -> CertificateStatusRequest:
    """RFC 6066 8."""
    return _status_request(body.u8("status_type"), body)


def status_request_v2(body: Reader) -> tuple[CertificateStatusRequest, ...]:
    """RFC 6961 2.2."""
    items = body.narrow(2, "certificate_status_req_list")
    requests = []
    for _ in items.elements():
        status_type = items.u8("status_type")
        request = items.narrow(2, "request")
        requests.append(_status_request(status_type, request))
        request.finish()
    return tuple(requests)


def _status_request(status_type: int, body: Reader) -> CertificateStatusRequest:
    if status_type not in (CertificateStatusType.ocsp, CertificateStatusType.ocsp_multi_RESERVED):
        return CertificateStatusRequest(status_type, body.rest())
    responder_id_list = body.opaques(2, "responder_id_list", 2, "ResponderID")
    return CertificateStatusRequest(
        status_type, OCSPStatusRequest(responder_id_list, body.opaque(2, "request_extensions"))
    )


def trusted_ca_keys(body: Reader) -> tuple[TrustedAuthority, ...]:
    """RFC 6066 6."""
    authorities = body.narrow(2, "trusted_authorities_list")
    found = []
    for _ in authorities.elements():
        identifier_type = authorities.u8("identifier_type")
        if identifier_type == 0:
            identifier = b""
        elif identifier_type == 2:
            identifier = authorities.opaque(2, "DistinguishedName")
        elif identifier_type in (1, 3):
            identifier = authorities.take(20, "SHA1Hash")
        else:
            identifier = authorities.rest()  # its length is unknown, so the next one cannot be found
        found.append(TrustedAuthority(identifier_type, identifier))
    return tuple(found)


def cached_info(body: Reader) -> tuple[CachedObject, ...]:
    """RFC 7924 3, in the form that a client sends."""
    objects = body.narrow(2, "cached_info")
    return tuple([CachedObject(each.u8("type"), each.opaque(1, "hash_value")) for each in objects.elements()])


def cached_info_types(body: Reader) -> tuple[CachedObject, ...]:
    """RFC 7924 3, in the form that a server sends."""
    types = body.narrow(2, "cached_info")
    return tuple([CachedObject(each.u8("type"), b"") for each in types.elements()])


# Others -------------------------------------------------------------------------------------------------------------


def use_srtp(body: Reader) -> UseSRTP:
    """RFC 5764 4.1.1."""
    return UseSRTP(body.u16s(2, "SRTPProtectionProfiles"), body.opaque(1, "srtp_mki"))


def token_binding(body: Reader) -> TokenBindingParameters:
    """RFC 8472 2."""
    return TokenBindingParameters(body.u8("major"), body.u8("minor"), tuple(body.opaque(1, "key_parameters_list")))


def ticket_request(body: Reader) -> TicketRequest:
    """RFC 9149 3."""
    return TicketRequest(body.u8("new_session_count"), body.u8("resumption_count"))


def quic_transport_parameters(body: Reader) -> tuple[TransportParameter, ...]:
    """RFC 9000 18."""
    parameters = []
    for _ in body.elements():
        number = _varint(body, "transport_parameter_id")
        size = _varint(body, "transport_parameter_length")
        parameters.append(TransportParameter(number, body.take(size, "transport_parameter_value")))
    return tuple(parameters)


def _varint(body: Reader, item: str) -> int:
    """RFC 9000 16. The first two bits encode the length: 1, 2, 4 or 8 bytes."""
    first = body.u8(item)
    more = (1 << (first >> 6)) - 1
    return (first & 0x3F) << 8 * more | int.from_bytes(body.take(more, item), "big")
