"""Reads and verifies an OCSP response (RFC 6960, and RFC 5019 for servers with many clients).

A response is a signed statement: the certificate with this serial number, from the issuer with this name and this key,
is good (revoked, unknown) as of thisUpdate, and there will be a newer response by nextUpdate. Only the signature and
the subject count, wherever the response comes from: a responder over plain HTTP, a store, a file or a TLS server. So
one function verifies them all, and each refusal says what is wrong.

    check_response(der, certificate, issuer, now) -> CheckedResponse, or raises OCSPError

The issuer has signed the response itself, or a *delegate* has: a certificate in the response that the issuer has signed
for this purpose (id-kp-OCSPSigning, RFC 6960 4.2.2.2). Whether a delegate is revoked is not checked: its issuer gives
it a short lifetime instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from greentls.errors import OCSPError, ResponderUnavailable

__all__ = ["CheckedResponse", "build_request", "check_response", "is_short_lived", "issuer_of", "responder_url"]

# Bytes of a response. Those of public CAs have 500 to 2,500; the longest include a delegate's certificate.
MAX_RESPONSE = 64 << 10

# Seconds by which the responder's clock and ours may differ. OpenSSL's tools allow 300, mozilla::pkix a day.
CLOCK_SKEW = 300

# Seconds after thisUpdate for which a response without nextUpdate is good. "Newer information is available all the
# time" (RFC 6960 4.2.2.1) does not say when the old one expires. nginx and s2n allow an hour, mod_md 12 hours,
# mozilla::pkix a day, GnuTLS 15 days, Envoy nothing. A server must not staple what browsers refuse.
WITHOUT_NEXT_UPDATE = 86_400

# A certificate with this lifetime or less needs no revocation (CA/Browser Forum, Baseline Requirements 1.6.1, from
# 2026-03-15 on; 10 days before that).
SHORT_LIFE = timedelta(days=7)

Status = Literal["good", "revoked", "unknown"]
Extension = TypeVar("Extension", bound=x509.ExtensionType)

_STATUS: dict[ocsp.OCSPCertStatus, Status] = {
    ocsp.OCSPCertStatus.GOOD: "good",
    ocsp.OCSPCertStatus.REVOKED: "revoked",
    ocsp.OCSPCertStatus.UNKNOWN: "unknown",
}
_WORST_FIRST = ("revoked", "unknown", "good")
_WEAK = (hashes.MD5, hashes.SHA1)  # CAs may not sign responses with SHA-1 since June 2022


@dataclass(frozen=True)
class CheckedResponse:
    """What a verified response says of a certificate. Times are seconds since the epoch.

    der: the whole response. responder: the name of its signer. good_until: next_update, or one day after this_update if
    there is none. revoked_at, reason: only of a revoked certificate; the reason is one of RFC 5280 5.3.1, or None.
    """

    der: bytes = field(repr=False)
    status: Status
    this_update: float
    next_update: float | None
    produced_at: float
    responder: str
    revoked_at: float | None = None
    reason: str | None = None

    @property
    def good_until(self) -> float:
        return self.next_update if self.next_update is not None else self.this_update + WITHOUT_NEXT_UPDATE

    @property
    def revocation(self) -> str:
        """When, why and by whom it was revoked."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.revoked_at))
        return f"{when} UTC ({self.reason or 'no reason given'}), says {self.responder}"


def responder_url(certificate: x509.Certificate) -> str | None:
    """The URL of the first HTTP responder in the certificate (RFC 5280 4.2.2.1), None if there is none."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    places = [each.access_location for each in access if each.access_method == AuthorityInformationAccessOID.OCSP]
    urls = [str(place.value) for place in places if isinstance(place, x509.UniformResourceIdentifier)]
    return next((url for url in urls if url.lower().startswith("http://")), None)


def is_short_lived(certificate: x509.Certificate) -> bool:
    """Whether the certificate lives for seven days at most: it expires before a revocation would help."""
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc <= SHORT_LIFE


def build_request(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """A request about a certificate, DER.

    Its certID has SHA-1, the only hash that every responder knows (RFC 5019 2.1.1); it protects nothing. There is no
    nonce, so the responder may answer from its cache.
    """
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())
    return builder.build().public_bytes(Encoding.DER)


def check_response(der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: float) -> CheckedResponse:
    """Verifies an OCSP response about a certificate. now: seconds since the epoch.

    Raises ResponderUnavailable if its responseStatus says that there is no answer. Otherwise raises OCSPError for a
    response that is malformed or too long, has the wrong signer or a wrong signature, is about other certificates, or
    is not valid now. If it has several answers about the certificate, the worst one counts.
    """
    if len(der) > MAX_RESPONSE:
        raise OCSPError(f"it has {len(der)} bytes, {MAX_RESPONSE} are allowed")
    try:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status != ocsp.OCSPResponseStatus.SUCCESSFUL:
            name = response.response_status.name.lower().replace("_", " ")
            raise ResponderUnavailable(f"it answers {name} ({response.response_status.value})")
        for extension in response.extensions:
            if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
                raise OCSPError(f"it has the critical extension {extension.oid.dotted_string}, unknown here")
        responder = _check_signature(response, issuer, now)
        return _answer(response, certificate, issuer, now, responder)
    except OCSPError:
        raise
    except UnsupportedAlgorithm as error:
        raise OCSPError(f"unknown here: {error}") from error
    except Exception as error:  # cryptography reads most fields at their first use, and raises KeyError for some
        raise OCSPError(f"malformed: {error!r}") from error


# -- the signer --------------------------------------------------------------------------------------------------------


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: float) -> str:
    """The name of the signer. Raises OCSPError unless that is the issuer or its delegate."""
    by_name, by_key = response.responder_name, response.responder_key_hash
    who = by_name.rfc4514_string() if by_name is not None else f"key {(by_key or b'').hex()}"

    def is_responder(candidate: x509.Certificate) -> bool:
        if by_name is not None:
            return candidate.subject == by_name
        # by its key: SHA-1 of the subjectPublicKey's bits (RFC 6960 4.2.1)
        return x509.SubjectKeyIdentifier.from_public_key(candidate.public_key()).digest == by_key

    candidates = [each for each in response.certificates if is_responder(each)]
    if is_responder(issuer):
        candidates.insert(0, issuer)
    if not candidates:
        raise OCSPError(f"wrong signer: {who} is neither the issuer nor a certificate in the response")
    problems = []
    for signer in candidates:
        try:
            if signer != issuer and signer.public_key() != issuer.public_key():
                _check_delegate(signer, issuer, now)
            _verify(response, signer.public_key())
            return who
        except OCSPError as error:
            problems.append(error)
    raise problems[-1]


def _check_delegate(signer: x509.Certificate, issuer: x509.Certificate, now: float) -> None:
    who = signer.subject.rfc4514_string()
    try:
        signer.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise OCSPError(f"wrong signer: the issuer has not issued the certificate of {who}") from None
    purposes = _extension(signer, x509.ExtendedKeyUsage) or ()
    if ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        raise OCSPError(f"wrong signer: the certificate of {who} is not for OCSP signing")
    usage = _extension(signer, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise OCSPError(f"wrong signer: the key of {who} is not for signatures")
    if not signer.not_valid_before_utc.timestamp() - CLOCK_SKEW <= now <= signer.not_valid_after_utc.timestamp():
        raise OCSPError(
            f"wrong signer: the certificate of {who} is valid from {signer.not_valid_before_utc:%Y-%m-%d %H:%M:%S} "
            f"to {signer.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
        )


def _verify(response: ocsp.OCSPResponse, key: object) -> None:
    signature, data = response.signature, response.tbs_response_bytes
    try:
        if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, data)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(_hash(response)))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), _hash(response))
        else:
            raise OCSPError(f"signed with a key of an unknown kind, {type(key).__name__}")
    except InvalidSignature:
        raise OCSPError("the signature does not fit") from None


def _hash(response: ocsp.OCSPResponse) -> hashes.HashAlgorithm:
    algorithm = response.signature_hash_algorithm
    if algorithm is None or isinstance(algorithm, _WEAK):
        raise OCSPError(f"signed with {algorithm.name if algorithm else 'no hash'}, which proves nothing")
    return algorithm


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# -- the answer --------------------------------------------------------------------------------------------------------


def _answer(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate, now: float, responder: str
) -> CheckedResponse:
    ours = [each for each in response.responses if _is_about(each, certificate, issuer)]
    if not ours:
        raise OCSPError(
            f"it is not about certificate {certificate.serial_number:x} of {issuer.subject.rfc4514_string()}"
        )
    answers = []
    for single in ours:
        answer = CheckedResponse(
            response.public_bytes(Encoding.DER),
            _STATUS[single.certificate_status],
            single.this_update_utc.timestamp(),
            _timestamp(single.next_update_utc),
            response.produced_at_utc.timestamp(),
            responder,
            _timestamp(single.revocation_time_utc),
            single.revocation_reason.value if single.revocation_reason else None,
        )
        try:
            _check_time(answer, now)
        except OCSPError:
            if len(ours) == 1:
                raise
        else:
            answers.append(answer)
    if not answers:
        raise OCSPError("each of its answers about this certificate is of another time")
    return min(answers, key=lambda each: _WORST_FIRST.index(each.status))


def _is_about(single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the certID is the certificate's. A serial number is unique only together with the issuer."""
    if single.serial_number != certificate.serial_number:
        return False
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm)
    request = builder.build()
    return single.issuer_name_hash == request.issuer_name_hash and single.issuer_key_hash == request.issuer_key_hash


def _check_time(answer: CheckedResponse, now: float) -> None:
    if answer.this_update > now + CLOCK_SKEW:
        raise OCSPError(f"not good yet: thisUpdate is {answer.this_update - now:.0f} s ahead")
    if answer.good_until < answer.this_update:
        raise OCSPError("its nextUpdate is before its thisUpdate")
    if answer.good_until < now - CLOCK_SKEW:
        since = f"its nextUpdate was {now - answer.good_until:.0f} s ago"
        if answer.next_update is None:
            since = f"it has no nextUpdate, and thisUpdate was {now - answer.this_update:.0f} s ago"
        raise OCSPError(f"expired: {since}")


def _timestamp(when: datetime | None) -> float | None:
    return None if when is None else when.timestamp()


def issuer_of(certificate: x509.Certificate, candidates: Iterable[x509.Certificate]) -> x509.Certificate | None:
    """The first of the candidates that has signed the certificate, None if none has."""
    for candidate in candidates:
        try:
            certificate.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return candidate
    return None
