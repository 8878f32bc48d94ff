"""Alerts, and the handshake messages besides the hellos that TLS 1.2 and older send in clear.

Each parse() takes a whole message with its header, and to_bytes() is its inverse, byte for byte. TLS 1.3's messages of
these types have other bodies and are encrypted, so they never get here.
"""

from __future__ import annotations

from dataclasses import dataclass

from greentls.errors import WireError
from greentls.wire.handshake import HEADER_SIZE, message_bytes, opaque, open_message, uint16s
from greentls.wire.reader import Reader
from greentls.wire.registry import (
    AlertDescription,
    AlertLevel,
    CertificateStatusType,
    ECCurveType,
    HandshakeType,
    NamedGroup,
    name,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """RFC 5246 7.4.2. certificate_list: DER, the sender's own certificate first."""

    certificate_list: tuple[bytes, ...]

    @classmethod
    def parse(cls, message: bytes) -> Certificate:
        """Raises WireError."""
        body = open_message(message, HandshakeType.certificate, "Certificate")
        certificate_list = body.opaques(3, "certificate_list", 3, "ASN.1Cert")
        body.finish()
        return cls(certificate_list)

    def to_bytes(self) -> bytes:
        return message_bytes(HandshakeType.certificate, _opaques(3, self.certificate_list, 3))


@dataclass(frozen=True, slots=True)
class ServerECDHParams:
    """RFC 8422 5.4. named_curve: a NamedGroup. public: the point."""

    named_curve: int
    public: bytes

    def to_bytes(self) -> bytes:
        return bytes((ECCurveType.named_curve,)) + self.named_curve.to_bytes(2, "big") + opaque(1, self.public)


@dataclass(frozen=True, slots=True)
class ServerDHParams:
    """RFC 5246 7.4.3: big-endian numbers."""

    dh_p: bytes
    dh_g: bytes
    dh_Ys: bytes

    def to_bytes(self) -> bytes:
        return opaque(2, self.dh_p) + opaque(2, self.dh_g) + opaque(2, self.dh_Ys)


@dataclass(frozen=True, slots=True)
class ServerKeyExchange:
    """RFC 5246 7.4.3. rest: the signature, in TLS 1.2 with its SignatureScheme in front.

    The form of the message depends on the cipher suite, which the message does not contain. ECDHE's form starts with a
    curve type and a known group, DHE's with the length of a prime; nothing fits both. For any other form (PSK hints,
    SRP, explicit curves) params is None, and rest has all the bytes.
    """

    params: ServerECDHParams | ServerDHParams | None
    rest: bytes

    @classmethod
    def parse(cls, message: bytes) -> ServerKeyExchange:
        """Raises WireError if message is not a ServerKeyExchange."""
        body = open_message(message, HandshakeType.server_key_exchange, "ServerKeyExchange")
        whole = body.rest()
        for form in (_ecdh_params, _dh_params):
            reader = Reader(whole, "ServerKeyExchange")
            try:
                params = form(reader)
            except WireError:
                continue
            if params is not None:
                return cls(params, reader.rest())
        return cls(None, whole)

    def to_bytes(self) -> bytes:
        params = b"" if self.params is None else self.params.to_bytes()
        return message_bytes(HandshakeType.server_key_exchange, params + self.rest)


def _ecdh_params(body: Reader) -> ServerECDHParams | None:
    curve_type, named_curve = body.u8("curve_type"), body.u16("named_curve")
    if curve_type != ECCurveType.named_curve or named_curve not in _NAMED_GROUPS:
        return None
    return ServerECDHParams(named_curve, body.opaque(1, "public"))


def _dh_params(body: Reader) -> ServerDHParams | None:
    params = ServerDHParams(body.opaque(2, "dh_p"), body.opaque(2, "dh_g"), body.opaque(2, "dh_Ys"))
    return params if params.dh_p and params.dh_g and params.dh_Ys else None


_NAMED_GROUPS = frozenset(map(int, NamedGroup))


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """RFC 5246 7.4.4. certificate_types: ClientCertificateType. certificate_authorities: DER of DistinguishedNames.

    supported_signature_algorithms: SignatureScheme; None before TLS 1.2, which introduced the field.
    """

    certificate_types: tuple[int, ...]
    supported_signature_algorithms: tuple[int, ...] | None
    certificate_authorities: tuple[bytes, ...]

    @classmethod
    def parse(cls, message: bytes) -> CertificateRequest:
        """Raises WireError."""
        body = open_message(message, HandshakeType.certificate_request, "CertificateRequest")
        certificate_types = tuple(body.opaque(1, "certificate_types"))
        # Two vectors follow, the first of which is optional. A vector that fills the message is the second one.
        vectors = message[HEADER_SIZE + 1 + len(certificate_types) :]
        fills = int.from_bytes(vectors[:2], "big") == len(vectors) - 2
        algorithms = None if fills else body.u16s(2, "supported_signature_algorithms")
        certificate_authorities = body.opaques(2, "certificate_authorities", 2, "DistinguishedName")
        body.finish()
        return cls(certificate_types, algorithms, certificate_authorities)

    def to_bytes(self) -> bytes:
        algorithms = self.supported_signature_algorithms
        return message_bytes(
            HandshakeType.certificate_request,
            opaque(1, bytes(self.certificate_types))
            + (b"" if algorithms is None else uint16s(2, algorithms))
            + _opaques(2, self.certificate_authorities, 2),
        )


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """RFC 6066 8, RFC 6961 2.2. status_type: a CertificateStatusType.

    responses: DER of one OCSPResponse, or with ocsp_multi of one for each certificate; empty for a missing one.
    """

    status_type: int
    responses: tuple[bytes, ...]

    @classmethod
    def parse(cls, message: bytes) -> CertificateStatus:
        """Raises WireError, also for an unknown status_type, whose form is unknown."""
        body = open_message(message, HandshakeType.certificate_status, "CertificateStatus")
        status_type = body.u8("status_type")
        if status_type == CertificateStatusType.ocsp:
            responses: tuple[bytes, ...] = (body.opaque(3, "OCSPResponse"),)
        elif status_type == CertificateStatusType.ocsp_multi_RESERVED:
            responses = body.opaques(3, "ocsp_response_list", 3, "OCSPResponse")
        else:
            raise WireError("status_type", str(status_type), "1 or 2 expected", AlertDescription.decode_error)
        body.finish()
        return cls(status_type, responses)

    def to_bytes(self) -> bytes:
        if self.status_type == CertificateStatusType.ocsp:
            response = opaque(3, self.responses[0])
        else:
            response = _opaques(3, self.responses, 3)
        return message_bytes(HandshakeType.certificate_status, bytes((self.status_type,)) + response)


@dataclass(frozen=True, slots=True)
class NewSessionTicket:
    """RFC 5077 3.3. ticket_lifetime_hint: seconds, 0 for none."""

    ticket_lifetime_hint: int
    ticket: bytes

    @classmethod
    def parse(cls, message: bytes) -> NewSessionTicket:
        """Raises WireError."""
        body = open_message(message, HandshakeType.new_session_ticket, "NewSessionTicket")
        ticket = cls(body.u32("ticket_lifetime_hint"), body.opaque(2, "ticket"))
        body.finish()
        return ticket

    def to_bytes(self) -> bytes:
        hint = self.ticket_lifetime_hint.to_bytes(4, "big")
        return message_bytes(HandshakeType.new_session_ticket, hint + opaque(2, self.ticket))


@dataclass(frozen=True, slots=True)
class Finished:
    """RFC 8446 4.4.4. It is encrypted, except under a cipher suite without encryption."""

    verify_data: bytes

    @classmethod
    def parse(cls, message: bytes) -> Finished:
        """Raises WireError."""
        return cls(open_message(message, HandshakeType.finished, "Finished").rest())

    def to_bytes(self) -> bytes:
        return message_bytes(HandshakeType.finished, self.verify_data)


@dataclass(frozen=True, slots=True)
class Alert:
    """RFC 8446 6. It is a record, not a handshake message. level: an AlertLevel. description: an AlertDescription."""

    level: int
    description: int

    @classmethod
    def parse(cls, fragment: bytes) -> Alert:
        """Parses a record's fragment. Raises WireError unless it is exactly one alert, as RFC 8446 5.1 demands."""
        if len(fragment) != 2:
            raise WireError("Alert", f"{len(fragment)} bytes", "2 expected", AlertDescription.decode_error)
        return cls(*fragment)

    def to_bytes(self) -> bytes:
        return bytes((self.level, self.description))

    def __str__(self) -> str:
        return f"{name(AlertLevel, self.level)} {name(AlertDescription, self.description)}"


def _opaques(length_size: int, elements: tuple[bytes, ...], element_length_size: int) -> bytes:
    return opaque(length_size, b"".join(opaque(element_length_size, element) for element in elements))
