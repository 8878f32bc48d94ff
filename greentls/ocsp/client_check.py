"""A client's check whether the server's certificate is revoked.

A server may staple the response (RFC 6066 8, RFC 8446 4.4.2.1). In the mode "require" it must; the client asks nobody
else. In the mode "check" the client asks the responder itself if there is no staple, while the handshake waits. If
there is no answer at all, it continues, as browsers do. So "check" finds revocations when it can, but not against an
attacker: an attacker who holds a stolen key may also block the responder's answers. "require" withstands that.

Both modes refuse a certificate that is revoked or that the responder does not know, and a response that does not
verify. A certificate that demands a staple (RFC 7633) turns "check" into "require".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from time import perf_counter
from typing import Literal

from cryptography import x509

from greentls import events
from greentls.certificates import demands_staple
from greentls.errors import CertificateError, OCSPError, ResponderUnavailable
from greentls.ocsp.fetch import fetch
from greentls.ocsp.response import CheckedResponse, Status, build_request, check_response, responder_url

__all__ = ["MODES", "Mode", "vouched_until"]

Mode = Literal["require", "check"]
MODES = ("require", "check")

# X509_V_ERR_* (x509_vfy.h)
_REVOKED, _NEEDED, _FAILED, _UNKNOWN = 23, 73, 74, 75


def vouched_until(mode: Mode, chain: Sequence[x509.Certificate], staple: bytes | None, timeout: float | None) -> float:
    """Checks the first certificate of a verified chain. Waits if it asks the responder.

    staple: the server's OCSP response, DER, or None. timeout: seconds for the responder, None for no limit. Returns the
    expiry of the response that calls the certificate good, in seconds since the epoch. Raises CertificateError to
    refuse the server. In the mode "check" it raises ResponderUnavailable if there is no answer.
    """
    if not chain:
        raise _refusal(_NEEDED, "the server has shown no certificate")
    certificate = chain[0]
    issuer = chain[1] if len(chain) > 1 else certificate
    if mode == "require" or demands_staple(certificate):
        return _stapled(certificate, issuer, staple)
    if staple is not None:
        try:
            return _good_until(_checked(staple, certificate, issuer))
        except ResponderUnavailable:  # while its responder is down, Apache staples "try later"
            pass
    url = responder_url(certificate)
    if url is None:
        raise ResponderUnavailable("the certificate names none")
    _check_issued(certificate, issuer)
    request, began = build_request(certificate, issuer), perf_counter()
    try:
        response = _checked(fetch(url, request, timeout), certificate, issuer)
    except Exception as error:
        _tell(began, error=error)
        raise
    _tell(began, response.status)
    return _good_until(response)


def _stapled(certificate: x509.Certificate, issuer: x509.Certificate, staple: bytes | None) -> float:
    """Like vouched_until(), but accepts only a good staple. Raises CertificateError, never ResponderUnavailable.

    An attacker who holds a stolen key chooses the staple, and OCSP errors such as "try later" are not signed.
    """
    if staple is None:
        demanded = ", which its certificate demands" if demands_staple(certificate) else ""
        raise _refusal(_NEEDED, f"the server has sent no OCSP response{demanded}")
    try:
        return _good_until(_checked(staple, certificate, issuer))
    except ResponderUnavailable as error:
        raise _refusal(_FAILED, str(error)) from error


def _tell(began: float, status: Status | None = None, error: Exception | None = None) -> None:
    events.emit(
        "ocsp_fetch",
        side="client",
        names=None,
        status=status,
        seconds=perf_counter() - began,
        next_refresh=None,
        error=error,
    )


def _checked(der: bytes, certificate: x509.Certificate, issuer: x509.Certificate) -> CheckedResponse:
    _check_issued(certificate, issuer)
    try:
        return check_response(der, certificate, issuer, time.time())
    except ResponderUnavailable:
        raise
    except OCSPError as error:
        raise _refusal(_FAILED, str(error)) from error


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    if certificate.issuer != issuer.subject:
        raise ResponderUnavailable("its certificate is a trust anchor, and its issuer is not known")


def _good_until(response: CheckedResponse) -> float:
    if response.status == "revoked":
        raise _refusal(_REVOKED, f"certificate revoked at {response.revocation}")
    if response.status == "unknown":
        raise _refusal(_UNKNOWN, f"{response.responder} does not know the certificate")
    return response.good_until


def _refusal(code: int, sentence: str) -> CertificateError:
    refusal = CertificateError("do_handshake", "SSL routines", "certificate verify failed")
    refusal.verify_code, refusal.verify_message = code, sentence
    return refusal
