"""OCSP (RFC 6960): whether a certificate's issuer has revoked it.

response: reads and verifies a response. fetch: asks a responder. stapler: has a server's responses ready for the
handshake. client_check: checks the certificate that a server has shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greentls.lazy import at_first_use

if TYPE_CHECKING:
    from greentls.ocsp.response import CheckedResponse as CheckedResponse
    from greentls.ocsp.response import check_response as check_response
    from greentls.ocsp.stapler import StapleFacts as StapleFacts
    from greentls.ocsp.stapler import Stapler as Stapler

__all__ = ["CheckedResponse", "StapleFacts", "Stapler", "check_response"]

__getattr__, __dir__ = at_first_use(
    __name__, {"response": "CheckedResponse check_response", "stapler": "StapleFacts Stapler"}
)
