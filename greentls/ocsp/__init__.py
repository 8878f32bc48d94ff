"""OCSP (RFC 6960): whether a certificate was revoked, by its issuer's responder, and stapled into the handshake.

response: what a response says, and whether to believe it. fetch: asking a responder. stapler: having the answer ready.
"""

from greentls.ocsp.response import CheckedResponse, check_response
from greentls.ocsp.stapler import StapleFacts, Stapler

__all__ = ["CheckedResponse", "StapleFacts", "Stapler", "check_response"]
