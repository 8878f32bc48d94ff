"""What a TLS connection can tell about itself, by the standard library's names, for sockets and for memory BIOs."""

from __future__ import annotations

import ssl as _stdlib_ssl
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes

from greentls.certificates import CertificateChain, read_certificate
from greentls.core.connection import Connection
from greentls.core.early_data import connection_for
from greentls.core.session import Session
from greentls.errors import TLSError, WireError
from greentls.sessions.stored import SessionLookup
from greentls.ssl.errors import as_stdlib
from greentls.ssl.observed import Observed
from greentls.ssl.peercert import peer_certificate

if TYPE_CHECKING:
    from greentls.ssl.context import SSLContext

__all__ = ["CHANNEL_BINDING_TYPES", "Facts"]

CHANNEL_BINDING_TYPES = ["tls-unique", "tls-exporter", "tls-server-end-point"]


class Facts(Observed):
    """Over self._connection and self._context."""

    _takes_early_data = False  # it is told apart from other data

    def _replace_connection(self, connection: Connection) -> None:
        """Before the handshake: another one takes its place, with what was received so far."""
        raise NotImplementedError  # what has the facts knows where its connection is

    def _as_stdlib(self, error: TLSError | WireError) -> _stdlib_ssl.SSLError:
        """To be raised from the error, which is its cause and needs no traceback of its own then."""
        error.__traceback__ = None
        return as_stdlib(error, self.server_hostname)

    def _peer_address(self) -> Any:
        """None if there is none, or nobody knows."""
        return None

    def _resuming(self) -> AbstractContextManager[None]:
        """Round a client's handshake. Without the peer's address the server name has to do."""
        sessions = self._context.client_sessions
        if sessions is None or self.server_side:
            return nullcontext()
        address = self._peer_address()
        if not address and not self.server_hostname:
            return nullcontext()
        return sessions.resuming(self._connection, address, self._context.callback_timeout)

    @property
    def context(self) -> SSLContext:
        return self._context

    @context.setter
    def context(self, context: SSLContext) -> None:
        """In an sni_callback: the handshake goes on with another context's certificates, ALPN and trust. Before a
        server's handshake: with all of its settings, versions and sessions among them."""
        from greentls.ssl.context import SSLContext

        if not issubclass(type(context), SSLContext):
            raise TypeError("The value must be a SSLContext")
        compiled = context.compile(self.server_side)
        if self._connection.started or not self.server_side:
            self._connection.switch_context(compiled)
        else:
            connection = connection_for(compiled, self._takes_early_data)(compiled)
            connection.owner = self._connection.owner
            connection.hook_seconds = self._connection.hook_seconds
            if unread := self._connection.take_unread():
                connection.receive_data(unread)
            self._replace_connection(connection)
        self._context = context

    @property
    def session(self) -> Session | None:
        """What a later connection can resume: give it to wrap_socket(session=...), of any context that fits."""
        session = self._connection.session
        return session if session is not None and session.id else None

    @session.setter
    def session(self, session: Session) -> None:
        """A client's, before the handshake. Raises TypeError, ValueError."""
        if not isinstance(session, Session):
            raise TypeError("Value is not a SSLSession.")
        if self.server_side:
            raise ValueError("Cannot set session for server-side SSLSocket.")
        if self._connection.established:
            raise ValueError("Cannot set session after handshake.")
        self._connection.offer(session)

    @property
    def session_reused(self) -> bool | None:
        """None before the handshake has begun."""
        return self._connection.session_reused if self._connection.started else None

    @property
    def session_lookup(self) -> SessionLookup | None:
        """What became of the last lookup in the session store: .store, .outcome, .seconds; None if there was none."""
        lookup: SessionLookup | None = self._connection.session_lookup
        return lookup

    @property
    def certificate_chain(self) -> CertificateChain | None:
        """At a server, which of its certificates was chosen; the last one that was loaded before that."""
        return self._connection.certificate_chain

    @property
    def handshake_finished(self) -> bool:
        """False while a server that took early data has not got the client's Finished: what it has read so far may be a
        replay (max_early_data). do_handshake() waits for it."""
        return self._connection.established and not self._connection.unfinished

    @property
    def early_data(self) -> bytes:
        """At a server, what was received as early data so far; at a client, what is sent as such."""
        return self._connection.early_data

    @early_data.setter
    def early_data(self, data: bytes) -> None:
        """A client's, before the handshake: sent along with the ClientHello, so that it may be replayed, if the session
        to be resumed allows it, else not at all. Look at early_data_accepted after the handshake. With client_sessions
        that session is chosen now; their store may be waited for.

        Raises ValueError for more bytes than the session allows.
        """
        connection = self._connection
        if self.server_side or connection.started:
            raise ValueError("early_data is set at a client, before the handshake")
        with self._resuming():
            limit = connection.early_data_limit
        if len(data) > limit > 0:
            raise ValueError(f"{len(data)} bytes of early data; the session allows {limit}")
        connection.early_data = bytes(data) if limit else b""

    @property
    def early_data_accepted(self) -> bool | None:
        """Whether the server took the early data. None if none was sent, and before the handshake. Unless it is True,
        what was meant to be early has to be sent now."""
        return self._connection.early_data_accepted

    @property
    def server_name(self) -> str | None:
        """RFC 6066 server_name that the client sent, in lower case, None if it sent none. In an sni_callback, too."""
        return self._connection.server_name

    def version(self) -> str | None:
        """ "TLSv1.3", ...; None before the handshake."""
        return self._connection.version

    def cipher(self) -> tuple[str, str, int] | None:
        """(name, the version that defines it, secret bits); None before the handshake."""
        return self._connection.cipher

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """At a server, what the client offered of what is accepted here; None at a client, and before the handshake."""
        return self._connection.shared_ciphers

    def group(self) -> str | None:
        """The key-exchange group, None before the handshake."""
        return self._connection.group

    def selected_alpn_protocol(self) -> str | None:
        return self._connection.alpn_protocol.decode("latin-1") or None

    def selected_npn_protocol(self) -> None:
        return None

    def compression(self) -> None:
        return None

    def pending(self) -> int:
        """Bytes that can be read without the peer; ciphertext counts, lest somebody polls the descriptor for it."""
        return self._connection.pending or self._connection.unread

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """The peer's certificate: as DER, or as the standard library's dict, which is empty unless it was verified.

        None if the peer sent none. Raises ValueError before the handshake.
        """
        if not self._connection.established:
            raise ValueError("handshake not done yet")
        certificates = self._connection.peer_certificates
        if not certificates:
            return None
        if binary_form:
            return certificates[0]
        return {} if self._context.verify_mode == _stdlib_ssl.CERT_NONE else peer_certificate(certificates[0])

    def get_unverified_chain(self) -> list[bytes]:
        """DER of the certificates that the peer sent, its own first."""
        return self._connection.peer_certificates

    def get_verified_chain(self) -> list[bytes]:
        """DER of the peer's certificate and those that vouch for it, up to the trust anchor.

        Without verification, and on a resumption, which verifies nothing anew, as get_unverified_chain().
        """
        if self._context.verify_mode == _stdlib_ssl.CERT_NONE:  # OpenSSL builds one all the same
            return self.get_unverified_chain()
        return self._connection.verified_chain or self.get_unverified_chain()

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """What ties an authentication inside of TLS to this connection: RFC 5929, and RFC 9266 for "tls-exporter".

        None before the handshake. Raises ValueError for a type that is none of CHANNEL_BINDING_TYPES.
        """
        if cb_type not in CHANNEL_BINDING_TYPES:
            raise ValueError(f"{cb_type} channel binding type not implemented")
        connection = self._connection
        if not connection.established:
            return None
        if cb_type == "tls-exporter":
            return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")  # RFC 9266 2
        if cb_type == "tls-server-end-point":
            chosen = connection.certificate if self.server_side else next(iter(connection.peer_certificates), None)
            return None if chosen is None else _server_end_point(chosen)
        # The first Finished of the handshake: the client's, or in a resumption the server's.
        return connection.finished(ours=connection.session_reused == self.server_side) or None

    def export_keying_material(self, label: str | bytes, length: int, context: bytes | None = None) -> bytes:
        """length bytes that only the two ends of this connection know (RFC 5705, RFC 8446 7.5), the same at both.

        label: what for; IANA keeps a list, others begin with "EXPERIMENTAL". context: what else both ends must agree
        on; under TLS 1.2 b"" differs from None. Raises ValueError before the handshake and for what cannot be had.
        """
        name = label.encode("ascii") if isinstance(label, str) else label
        return self._connection.export_keying_material(name, length, context)

    def verify_client_post_handshake(self) -> None:
        """Asks a TLS 1.3 client for its certificate; the request goes out with the next write, the answer comes with a
        read. Raises ssl.SSLError if the client did not offer it (post_handshake_auth)."""
        try:
            self._connection.request_client_certificate()
        except TLSError as error:
            raise self._as_stdlib(error) from error


def _server_end_point(der: bytes) -> bytes:
    """RFC 5929 4.1: the certificate's hash by the algorithm of its signature; SHA-256 for MD5, SHA-1 and for none."""
    algorithm = read_certificate(der).signature_hash_algorithm
    if algorithm is None or isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(der)
    return digest.finalize()
