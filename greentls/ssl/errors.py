"""The standard library's ssl errors, made from ours: callers catch those, match their texts, and look at library and
reason, which are None where OpenSSL has said nothing."""

from __future__ import annotations

import re
import ssl as _stdlib_ssl
from typing import Any

from greentls.errors import CertificateError, ConfigurationError, TLSError, UnexpectedEOF, WireError, WouldBlock

__all__ = ["as_stdlib", "configuration_error", "ssl_error", "want_read"]


def as_stdlib(error: TLSError | WireError, server_hostname: str | None = None) -> _stdlib_ssl.SSLError:
    """The ssl.SSLError that the standard library would have raised."""
    if isinstance(error, WireError):  # of a hello that was read before OpenSSL
        return ssl_error(f"[SSL: BAD_CLIENT_HELLO] {error} (greentls)", "SSL", "BAD_CLIENT_HELLO")
    if isinstance(error, WouldBlock):
        return want_read() if error.operation == "read" else _want_write()
    if isinstance(error, UnexpectedEOF):
        return _unexpected_eof()
    reason = _SSLV3_ALERT.sub("sslv3 alert", error.reason).upper().replace(" ", "_")
    library = error.library.removesuffix(" routines")
    text = f"[{library}: {reason}] {error.reason}" if library else str(error)
    if library and not reason:  # an alert that has no name
        text = f"[{library}] unknown error"
    if not isinstance(error, CertificateError):
        return ssl_error(f"{text} (greentls)", library, reason or None)
    message = error.verify_message
    if error.verify_code in _MISMATCHES:
        message = f"{_MISMATCHES[error.verify_code]} mismatch, certificate is not valid for '{server_hostname}'."
    refused = _stdlib_ssl.SSLCertVerificationError(_stdlib_ssl.SSL_ERROR_SSL, f"{text}: {message} (greentls)")
    refused.verify_code, refused.verify_message = error.verify_code, message
    return _said_by(refused, library, reason)


# The standard library has the names of OpenSSL's headers, as SSLV3_ALERT_BAD_CERTIFICATE. The text was that name in
# small letters up to OpenSSL 3.1, then "ssl/tls alert bad certificate", in OpenSSL 4 "tls alert bad certificate".
_SSLV3_ALERT = re.compile("^(ssl/)?tls alert")

# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH have sentences of the standard library's own.
_MISMATCHES = {62: "Hostname", 64: "IP address"}


def ssl_error(text: str, library: str | None = None, reason: str | None = None) -> _stdlib_ssl.SSLError:
    """An ssl.SSLError of OpenSSL's, or of nobody's."""
    return _said_by(_stdlib_ssl.SSLError(_stdlib_ssl.SSL_ERROR_SSL, text), library, reason)


def configuration_error(error: ConfigurationError, reason: str) -> _stdlib_ssl.SSLError:
    """As the standard library words a refused setting, followed by what was refused and why.

    reason: OpenSSL's name of it, "PEM_LIB" for example.
    """
    words = reason.replace("_", " ").lower().replace("pem", "PEM")
    return ssl_error(f"[SSL: {reason}] {words}: {error} (greentls)", "SSL", reason)


def want_read() -> _stdlib_ssl.SSLError:
    """More ciphertext, please."""
    text = "The operation did not complete (read)"
    return _said_by(_stdlib_ssl.SSLWantReadError(_stdlib_ssl.SSL_ERROR_WANT_READ, text))


def _want_write() -> _stdlib_ssl.SSLError:
    text = "The operation did not complete (write)"
    return _said_by(_stdlib_ssl.SSLWantWriteError(_stdlib_ssl.SSL_ERROR_WANT_WRITE, text))


def _unexpected_eof() -> _stdlib_ssl.SSLError:
    reason = "UNEXPECTED_EOF_WHILE_READING"
    text = f"[SSL: {reason}] EOF occurred in violation of protocol (greentls)"
    return _said_by(_stdlib_ssl.SSLEOFError(_stdlib_ssl.SSL_ERROR_EOF, text), "SSL", reason)


def _said_by(
    error: _stdlib_ssl.SSLError, library: str | None = None, reason: str | None = None
) -> _stdlib_ssl.SSLError:
    facts: Any = error  # typeshed has str for both, where there may be None
    facts.library, facts.reason = library, reason
    return error
