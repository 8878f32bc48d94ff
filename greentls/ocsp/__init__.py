"""OCSP (RFC 6960): whether a certificate was revoked, by its issuer's responder, and stapled into the handshake."""

from greentls.ocsp.response import CheckedResponse, check_response

__all__ = ["CheckedResponse", "check_response"]
