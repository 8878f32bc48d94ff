"""Every error that greentls itself raises:

.. code-block:: text

    GreenTLSError
    +-- ConfigurationError    a setting, file or URL that cannot be used   (also ValueError)
    +-- UnsupportedOpenSSL    a function that this OpenSSL does not have, or hides
    +-- ConcurrentUseError    a second operation on a connection while one runs   (also RuntimeError)
    +-- WrongThreadError      an operation in another thread, or in the hub   (also RuntimeError)
    +-- OCSPError             an OCSP response that is not valid
    |   +-- ResponderUnavailable  the responder cannot be reached, or has no answer
    |   +-- StapleRequired    a server's handshake needs an OCSP response and has none
    +-- SealError             a store's bytes do not open: another fleet's, damaged, or forged
    +-- WireError             bytes that violate the RFC   (also ValueError)
    +-- SigningError          a signing key cannot be asked, or its answer is no signature
    +-- TooManyCalls          a certificate source would be called more often than it may be
    +-- TLSError              an error of OpenSSL's
        +-- CertificateError  the peer's certificate chain was refused
        +-- UnexpectedEOF     the peer's ciphertext ended without close_notify
        +-- ConnectionDead    an earlier operation on this connection failed for good
        +-- WouldBlock        an operation on a non-blocking socket would have to wait

    WantRead                  not an error: the operation needs more ciphertext

An error holds facts, and ``__str__`` makes the sentence. An exception from a user's callback is not wrapped: it reaches
the caller of the operation as itself, with OpenSSL's TLSError as its ``__cause__``.
"""

from __future__ import annotations

__all__ = [
    "CertificateError",
    "ConcurrentUseError",
    "ConfigurationError",
    "ConnectionDead",
    "GreenTLSError",
    "OCSPError",
    "ResponderUnavailable",
    "SealError",
    "SigningError",
    "StapleRequired",
    "TLSError",
    "TooManyCalls",
    "UnexpectedEOF",
    "UnsupportedOpenSSL",
    "WantRead",
    "WireError",
    "WouldBlock",
    "WrongThreadError",
]


class GreenTLSError(Exception):
    """The base class of every error that greentls itself raises."""


class ConfigurationError(GreenTLSError, ValueError):
    """A setting that cannot be used.

    subject: the setting or file ("certificate file /etc/x.pem"). problem: what is wrong. remedy: what to do. reason:
    OpenSSL's word for it, if it is OpenSSL that refuses.
    """

    reason = ""

    def __init__(self, subject: str, problem: str, remedy: str = "") -> None:
        super().__init__(subject, problem, remedy)
        self.subject, self.problem, self.remedy = subject, problem, remedy

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


class UnsupportedOpenSSL(GreenTLSError):
    """This OpenSSL lacks a function, or cryptography's build of it hides the function.

    function: its C name. problem: why it is out of reach. versions: cryptography's and OpenSSL's. remedy: what to do.
    """

    def __init__(self, function: str, problem: str, versions: str, remedy: str) -> None:
        super().__init__(function, problem, versions, remedy)
        self.function, self.problem, self.versions, self.remedy = function, problem, versions, remedy

    def __str__(self) -> str:
        return f"{self.function}: {self.problem} ({self.versions}); {self.remedy}"


class ConcurrentUseError(GreenTLSError, RuntimeError):
    """A second operation was called on a connection while the first one waits inside OpenSSL."""


class WrongThreadError(GreenTLSError, RuntimeError):
    """An operation was called in another thread than the connection's, or in the hub, which must never wait."""


class OCSPError(GreenTLSError):
    """An OCSP response that is not valid. problem: what is wrong, as a part of a sentence."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"OCSP response: {self.problem}"


class ResponderUnavailable(OCSPError):
    """The responder cannot be reached or has no answer now. This says nothing about the certificate."""

    def __str__(self) -> str:
        return f"OCSP responder: {self.problem}"


class StapleRequired(OCSPError):
    """A handshake must not continue without an OCSP response.

    It is the only exception from an ocsp_callback that always refuses the handshake.
    """

    def __str__(self) -> str:
        return f"no OCSP response to staple: {self.problem}"


class SealError(GreenTLSError):
    """Bytes from a store do not open. store: its name. kind: "session" or "value"."""

    def __init__(self, store: str, kind: str) -> None:
        super().__init__(store, kind)
        self.store, self.kind = store, kind

    def __str__(self) -> str:
        return f"store {self.store}: a {self.kind} does not open: another fleet's, damaged, or forged"


class SigningError(GreenTLSError):
    """A signing key cannot be asked, or its answer is not a valid signature.

    algorithm: its name in RFC 8446 4.2.3. problem: what is wrong.
    """

    def __init__(self, algorithm: str, problem: str) -> None:
        super().__init__(algorithm, problem)
        self.algorithm, self.problem = algorithm, problem

    def __str__(self) -> str:
        return f"signing key, {self.algorithm}: {self.problem}"


class WireError(GreenTLSError, ValueError):
    """Bytes that violate the RFC.

    field: the RFC's name of the field. got, expected: short texts about it. alert: the AlertDescription (int, RFC 8446
    section 6) that the RFC asks for.
    """

    def __init__(self, field: str, got: str, expected: str, alert: int) -> None:
        super().__init__(field, got, expected, alert)
        self.field, self.got, self.expected, self.alert = field, got, expected, alert

    def __str__(self) -> str:
        return f"{self.field}: {self.got}, {self.expected}"


class TooManyCalls(GreenTLSError):
    """A certificate source may not be called for an unknown server name now. problem: the reason."""

    def __init__(self, server_name: str, problem: str) -> None:
        super().__init__(server_name, problem)
        self.server_name, self.problem = server_name, problem

    def __str__(self) -> str:
        return f"certificates: {self.server_name}: {self.problem}"


class TLSError(GreenTLSError):
    """An operation failed in OpenSSL.

    operation: "do_handshake", "read", ... library, reason: OpenSSL's texts for the last queued error ("SSL routines",
    "no shared cipher"), or empty. code: OpenSSL's packed number of that error, or 0. details: the reasons of earlier
    errors, oldest first.
    """

    def __init__(
        self, operation: str, library: str = "", reason: str = "", code: int = 0, details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(operation, library, reason, code, details)
        self.operation, self.library, self.reason, self.code, self.details = operation, library, reason, code, details

    def __str__(self) -> str:
        said = ": ".join(part for part in (self.library, self.reason) if part) or "OpenSSL gave no reason"
        return f"{self.operation}: {said}" + "".join(f"; {detail}" for detail in self.details)


class CertificateError(TLSError):
    """The peer's certificate chain was refused. verify_code, verify_message: OpenSSL's X509_V_ERR_*."""

    verify_code: int = 0
    verify_message: str = ""

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.verify_message} (verify code {self.verify_code})"


class UnexpectedEOF(TLSError):
    """The peer's ciphertext ended without close_notify, so the data may be truncated."""

    def __str__(self) -> str:
        return f"{self.operation}: the peer closed the transport without close_notify"


class ConnectionDead(TLSError):
    """An earlier operation made this connection unusable. reason: how it failed."""


class WouldBlock(TLSError):
    """An operation on a non-blocking socket would have to wait. operation: for "read" or "write"."""

    def __str__(self) -> str:
        return f"The operation did not complete ({self.operation})"


class WantRead(Exception):
    """The operation needs more ciphertext: call receive_data() and repeat it."""
