"""The standard library's ssl errors, made from ours: callers catch those, and match their texts."""

from __future__ import annotations

import ssl as _stdlib_ssl

from greentls.errors import CertificateError, TLSError, UnexpectedEOF, WireError, WouldBlock

__all__ = ["as_stdlib"]


def as_stdlib(error: TLSError | WireError, server_hostname: str | None = None) -> _stdlib_ssl.SSLError:
    """The ssl.SSLError that the standard library would have raised."""
    if isinstance(error, WireError):  # of a hello that was read before OpenSSL
        malformed = _stdlib_ssl.SSLError(_stdlib_ssl.SSL_ERROR_SSL, f"[SSL: BAD_CLIENT_HELLO] {error} (greentls)")
        malformed.library, malformed.reason = "SSL", "BAD_CLIENT_HELLO"
        return malformed
    if isinstance(error, WouldBlock):
        if error.operation == "read":
            return _stdlib_ssl.SSLWantReadError(_stdlib_ssl.SSL_ERROR_WANT_READ, str(error))
        return _stdlib_ssl.SSLWantWriteError(_stdlib_ssl.SSL_ERROR_WANT_WRITE, str(error))
    if isinstance(error, UnexpectedEOF):
        return _stdlib_ssl.SSLEOFError(_stdlib_ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol (greentls)")
    reason = error.reason.upper().replace(" ", "_")
    library = error.library.removesuffix(" routines")
    text = f"[{library}: {reason}] {error.reason}" if library else str(error)
    if isinstance(error, CertificateError):
        message = error.verify_message
        if error.verify_code in _MISMATCHES:
            message = f"{_MISMATCHES[error.verify_code]} mismatch, certificate is not valid for '{server_hostname}'."
        refused = _stdlib_ssl.SSLCertVerificationError(_stdlib_ssl.SSL_ERROR_SSL, f"{text}: {message} (greentls)")
        refused.verify_code, refused.verify_message = error.verify_code, message
        result: _stdlib_ssl.SSLError = refused
    else:
        result = _stdlib_ssl.SSLError(_stdlib_ssl.SSL_ERROR_SSL, f"{text} (greentls)")
    result.library, result.reason = library, reason
    return result


# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH have sentences of the standard library's own.
_MISMATCHES = {62: "Hostname", 64: "IP address"}
