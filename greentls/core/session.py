"""Session: what a later handshake resumes. An SSL_SESSION with its bytes; it holds the master secret."""

from __future__ import annotations

import time

from greentls.errors import ConfigurationError
from greentls.openssl import sessions
from greentls.openssl.library import SSL_SESSION

__all__ = ["Session"]

TLS13 = 0x0304


class Session:
    """An SSL_SESSION that this object owns. Immutable; usable with any connection whose settings fit.

    d2i_SSL_SESSION(3), SSL_SESSION_get_id(3), SSL_SESSION_get_time(3).
    """

    __slots__ = ("__weakref__", "_id", "pointer", "vouched_until")

    def __init__(self, pointer: SSL_SESSION, vouched_until: float | None = None) -> None:
        self.pointer = pointer  # cffi, owned: only the bridge and openssl/ may look inside
        self._id: bytes | None = None
        #: Expiry of the OCSP response that confirmed the peer's certificate, seconds since the epoch; None if there was
        #: none. to_bytes() leaves it out. A client that checks OCSP resumes nothing later than that.
        self.vouched_until = vouched_until

    @classmethod
    def from_bytes(cls, data: bytes, vouched_until: float | None = None) -> Session:
        """The inverse of to_bytes(). Raises ConfigurationError if the bytes are not a session.

        The writer of the bytes knows the secret in them, and chose the certificate in them: take them only from a store
        that nobody else can write to.
        """
        pointer = sessions.from_bytes(data)
        if pointer is None:
            raise ConfigurationError("session", f"these {len(data)} bytes are not an SSL_SESSION")
        return cls(pointer, vouched_until)

    def copy(self) -> Session:
        """The same session, to keep: it has a reference of its own to what OpenSSL holds."""
        return Session(sessions.shared(self.pointer), self.vouched_until)

    def to_bytes(self) -> bytes:
        """DER, with the peer's certificate but not its chain. The master secret is in it in clear: seal it before it
        leaves the process."""
        return sessions.to_bytes(self.pointer)

    def __bytes__(self) -> bytes:
        return self.to_bytes()

    def __repr__(self) -> str:
        return f"<Session {self.id.hex()[:16]}>"

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Session) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> bytes:
        """Empty if it has none, as a TLS 1.2 ticket has none at the server."""
        if self._id is None:
            self._id = sessions.session_id(self.pointer)
        return self._id

    @property
    def id_context(self) -> bytes:
        """What it is bound to at the server that made it: Connection.session_id_context. Empty for a client's."""
        return sessions.id_context(self.pointer)

    @property
    def server_name(self) -> str | None:
        """The name that the server acknowledged, or None (RFC 6066 3)."""
        return sessions.server_name(self.pointer)

    @property
    def alpn_protocol(self) -> bytes:
        """The protocol that was agreed on, b"" for none."""
        return sessions.alpn_protocol(self.pointer)

    @property
    def made(self) -> int:
        """When the handshake that it comes from began, seconds since the epoch."""
        return sessions.times(self.pointer)[0]

    time = made  # ssl.SSLSession's word

    @property
    def timeout(self) -> int:
        """Seconds after made for which OpenSSL keeps it: ssl.SSLSession's word."""
        return sessions.times(self.pointer)[1]

    @property
    def expires(self) -> int:
        """When the server that made it forgets it, seconds since the epoch. For a client: made + lifetime."""
        return sum(sessions.times(self.pointer))

    @property
    def lifetime(self) -> int:
        """Seconds after made for which it may be resumed: the timeout, or the server's hint if that is shorter."""
        timeout = self.timeout
        return min(timeout, self.ticket_lifetime_hint or timeout)

    @property
    def has_ticket(self) -> bool:
        return sessions.ticket(self.pointer)[0]

    @property
    def ticket_lifetime_hint(self) -> int:
        """Seconds that the server gives it, 0 for unspecified (RFC 5077 3.3)."""
        return sessions.ticket(self.pointer)[1]

    @property
    def max_early_data(self) -> int:
        """Bytes that a client may send early (RFC 8446 4.2.10) to the server that the session is from; 0: none."""
        return sessions.max_early_data(self.pointer)

    @property
    def remaining(self) -> float:
        """Seconds for which it may still be resumed; none left: zero or less."""
        return self.made + self.lifetime - time.time()

    @property
    def single_use(self) -> bool:
        """A TLS 1.3 ticket: an eavesdropper recognises a client that offers it twice (RFC 8446 C.4)."""
        return sessions.version(self.pointer) >= TLS13

    @property
    def vouched_for(self) -> bool:
        """An OCSP response has vouched for the peer's certificate, and is still good."""
        return self.vouched_until is not None and time.time() < self.vouched_until

    @property
    def resumable(self) -> bool:
        """False for a TLS 1.3 session before its ticket has come."""
        return sessions.resumable(self.pointer)
