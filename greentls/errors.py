"""Every error that greentls raises of its own accord.

    GreenTLSError
    +-- ConfigurationError    a setting, file or URL that cannot be used   (also ValueError)
    +-- UnsupportedOpenSSL    a function that this OpenSSL does not have, or hides
    +-- ConcurrentUseError    a second operation on a connection that is inside one   (also RuntimeError)
    +-- WrongThreadError      an operation in a thread, or in the hub, where it cannot wait   (also RuntimeError)
    +-- OCSPError             an OCSP response that cannot be relied on
    |   +-- ResponderUnavailable  the responder cannot be reached, or has no answer
    |   +-- StapleRequired    a server's handshake that must not go on without an OCSP response
    +-- SealError             what a store answered does not open: another fleet's, damaged, or forged
    +-- WireError             bytes that are not what the RFC says   (also ValueError)
    +-- SigningError          a signing key cannot be asked, or its answer is no signature
    +-- TooManyCalls          a certificate source would have to be asked more often than it may be
    +-- TLSError              what OpenSSL said
        +-- CertificateError  the peer's certificate chain was refused
        +-- UnexpectedEOF     the peer's ciphertext ended without close_notify
        +-- ConnectionDead    an earlier operation on this connection failed for good
        +-- WouldBlock        a non-blocking socket would have to be waited for

    WantRead                  not an error: more ciphertext, please

An error holds facts; the sentence is made in ``__str__``. Whatever a user's callback raises is not wrapped: it reaches
the caller of the operation as itself, with the TLSError that OpenSSL made of it as its ``__cause__``.
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
    """The root: everything that greentls raises of its own accord."""


class ConfigurationError(GreenTLSError, ValueError):
    """A setting that cannot be used.

    subject: what was looked at ("certificate file /etc/x.pem"). problem: what is wrong with it. remedy: what to do.
    """

    def __init__(self, subject: str, problem: str, remedy: str = "") -> None:
        super().__init__(subject, problem, remedy)
        self.subject, self.problem, self.remedy = subject, problem, remedy

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


class UnsupportedOpenSSL(GreenTLSError):
    """This OpenSSL does not have a function, or cryptography's build of it hides the function.

    function: its C name. problem: why it cannot be had. versions: cryptography's and OpenSSL's. remedy: what to do.
    """

    def __init__(self, function: str, problem: str, versions: str, remedy: str) -> None:
        super().__init__(function, problem, versions, remedy)
        self.function, self.problem, self.versions, self.remedy = function, problem, versions, remedy

    def __str__(self) -> str:
        return f"{self.function}: {self.problem} ({self.versions}); {self.remedy}"


class ConcurrentUseError(GreenTLSError, RuntimeError):
    """A second operation entered a connection whose first one still waits inside OpenSSL."""


class WrongThreadError(GreenTLSError, RuntimeError):
    """An operation in another thread than the connection's, or in the hub, which must never wait."""


class OCSPError(GreenTLSError):
    """An OCSP response that cannot be relied on. problem: what is wrong with it, as half a sentence."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"OCSP response: {self.problem}"


class ResponderUnavailable(OCSPError):
    """The responder cannot be reached, or has no answer at the moment: so nobody has said anything bad."""

    def __str__(self) -> str:
        return f"OCSP responder: {self.problem}"


class StapleRequired(OCSPError):
    """A handshake that must not go on without an OCSP response: the one failure of an ocsp_callback that refuses."""

    def __str__(self) -> str:
        return f"no OCSP response to staple: {self.problem}"


class SealError(GreenTLSError):
    """What a store answered does not open. store: its name. kind: "session" or "value"."""

    def __init__(self, store: str, kind: str) -> None:
        super().__init__(store, kind)
        self.store, self.kind = store, kind

    def __str__(self) -> str:
        return f"store {self.store}: a {self.kind} does not open: another fleet's, damaged, or forged"


class SigningError(GreenTLSError):
    """A signing key that cannot be asked, or whose answer is no signature.

    algorithm: the signature's, by the name of RFC 8446 4.2.3. problem: what is wrong.
    """

    def __init__(self, algorithm: str, problem: str) -> None:
        super().__init__(algorithm, problem)
        self.algorithm, self.problem = algorithm, problem

    def __str__(self) -> str:
        return f"signing key, {self.algorithm}: {self.problem}"


class WireError(GreenTLSError, ValueError):
    """Bytes that are not what the RFC says.

    field: the RFC's name of the field. got, expected: facts about it, as short texts. alert: the AlertDescription
    (int, RFC 8446 section 6) that the RFC asks for.
    """

    def __init__(self, field: str, got: str, expected: str, alert: int) -> None:
        super().__init__(field, got, expected, alert)
        self.field, self.got, self.expected, self.alert = field, got, expected, alert

    def __str__(self) -> str:
        return f"{self.field}: {self.got}, {self.expected}"


class TooManyCalls(GreenTLSError):
    """A server name is not known, and is not asked about at the moment; problem says why."""

    def __init__(self, server_name: str, problem: str) -> None:
        super().__init__(server_name, problem)
        self.server_name, self.problem = server_name, problem

    def __str__(self) -> str:
        return f"certificates: {self.server_name}: {self.problem}"


class TLSError(GreenTLSError):
    """What OpenSSL said of an operation.

    operation: "do_handshake", "read", ... library, reason: OpenSSL's texts of the last queued error ("SSL routines",
    "no shared cipher"), empty if it queued none. code: that error as OpenSSL packs it, 0 if none. details: the reasons
    of the errors before it, oldest first.
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
    """The peer's ciphertext ended without close_notify: what was read may have been cut short."""

    def __str__(self) -> str:
        return f"{self.operation}: the peer closed the transport without close_notify"


class ConnectionDead(TLSError):
    """An earlier operation on this connection failed for good; reason says how."""


class WouldBlock(TLSError):
    """A non-blocking socket would have to be waited for; operation says to do what: "read" or "write"."""

    def __str__(self) -> str:
        return f"The operation did not complete ({self.operation})"


class WantRead(Exception):
    """More ciphertext, please: call receive_data() and repeat the operation."""
