"""Asks an OCSP responder by HTTP (RFC 6960 A.1)."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from greentls.errors import ResponderUnavailable
from greentls.hub import Deadline, here
from greentls.ocsp.response import MAX_RESPONSE

__all__ = ["fetch"]


def fetch(url: str, request: bytes, timeout: float | None) -> bytes:
    """Sends a DER request to a responder. Returns the body of its answer, unchecked, MAX_RESPONSE + 1 bytes at most.

    timeout: seconds for all of it, None for no limit. Follows no redirect and uses no proxy. Waits. Raises
    ResponderUnavailable.
    """
    try:
        with Deadline(timeout, "no answer in {} s"):
            return _post(url, request, timeout)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ResponderUnavailable(f"{url}: {error or type(error).__name__}") from error


def _post(url: str, request: bytes, timeout: float | None) -> bytes:
    parts = urlsplit(url)
    if parts.scheme.lower() != "http" or not parts.hostname:
        # https would need a check of the responder's certificate, perhaps by the same responder (RFC 5280 8)
        raise ResponderUnavailable(f"{url}: not an http:// URL")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Connection(parts.hostname, parts.port or 80, timeout=timeout)
    try:
        connection.request("POST", path, request, {"Content-Type": "application/ocsp-request"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ResponderUnavailable(f"{url}: HTTP status {answer.status} {answer.reason[:100]}")
        return answer.read(MAX_RESPONSE + 1)
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = here().socket.create_connection((self.host, self.port), self.timeout)
