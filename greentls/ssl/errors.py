"""Makes the standard library's ssl errors from ours. Programs catch those, match their texts, and look at library and
reason, which are None for an error that does not come from OpenSSL."""

from __future__ import annotations

import re
import ssl as _stdlib_ssl
from typing import TypeVar

from greentls.errors import CertificateError, ConfigurationError, TLSError, UnexpectedEOF, WireError, WouldBlock

__all__ = ["as_stdlib", "configuration_error", "ssl_error", "want_read"]

_Error = TypeVar("_Error", bound=_stdlib_ssl.SSLError)


def as_stdlib(error: TLSError | WireError, server_hostname: str | None = None) -> _stdlib_ssl.SSLError:
    """The ssl.SSLError that the standard library would have raised."""
    if isinstance(error, WireError):  # in a hello that was read before OpenSSL
        return ssl_error(f"[SSL: BAD_CLIENT_HELLO] {error} (greentls)", "SSL", "BAD_CLIENT_HELLO")
    if isinstance(error, WouldBlock) and error.operation == "read":
        return want_read()
    if isinstance(error, WouldBlock):
        text = "The operation did not complete (write)"
        return _made(_stdlib_ssl.SSLWantWriteError, _stdlib_ssl.SSL_ERROR_WANT_WRITE, text)
    if isinstance(error, UnexpectedEOF):
        reason = "UNEXPECTED_EOF_WHILE_READING"
        text = f"[SSL: {reason}] EOF occurred in violation of protocol (greentls)"
        return _made(_stdlib_ssl.SSLEOFError, _stdlib_ssl.SSL_ERROR_EOF, text, "SSL", reason)
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
    text = f"{text}: {message} (greentls)"
    refused = _made(_stdlib_ssl.SSLCertVerificationError, _stdlib_ssl.SSL_ERROR_SSL, text, library, reason)
    refused.verify_code, refused.verify_message = error.verify_code, message
    return refused


# The standard library has the names of OpenSSL's headers, as SSLV3_ALERT_BAD_CERTIFICATE. The text was that name in
# small letters up to OpenSSL 3.1, then "ssl/tls alert bad certificate", in OpenSSL 4 "tls alert bad certificate".
_SSLV3_ALERT = re.compile("^(ssl/)?tls alert")

# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH have sentences of the standard library's own.
_MISMATCHES = {62: "Hostname", 64: "IP address"}


def ssl_error(text: str, library: str | None = None, reason: str | None = None) -> _stdlib_ssl.SSLError:
    """An ssl.SSLError; without library and reason if it does not come from OpenSSL."""
    return _made(_stdlib_ssl.SSLError, _stdlib_ssl.SSL_ERROR_SSL, text, library, reason)


def configuration_error(error: ConfigurationError, reason: str) -> _stdlib_ssl.SSLError:
    """Words a refused setting as the standard library does, and adds what was refused and why.

    reason: OpenSSL's name of it, "PEM_LIB" for example.
    """
    words = reason.replace("_", " ").lower().replace("pem", "PEM")
    return ssl_error(f"[SSL: {reason}] {words}: {error} (greentls)", "SSL", reason)


def want_read() -> _stdlib_ssl.SSLError:
    """Makes the error that says that more ciphertext is needed."""
    text = "The operation did not complete (read)"
    return _made(_stdlib_ssl.SSLWantReadError, _stdlib_ssl.SSL_ERROR_WANT_READ, text)


def _made(kind: type[_Error], number: int, text: str, library: str | None = None, reason: str | None = None) -> _Error:
    error = kind(number, text)
    vars(error).update(library=library, reason=reason)  # None, too, which typeshed does not know
    return error
