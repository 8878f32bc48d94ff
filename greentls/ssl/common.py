"""What an SSLSocket and a BIOConnection have in common: facts about the connection, and the notice of how its handshake
ended, which goes to the context's counters and to greentls.events.

The names are the standard library's, as far as it has them.
"""

from __future__ import annotations

import ssl as _stdlib_ssl
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

from cryptography.hazmat.primitives import hashes

from greentls import events
from greentls.certificates import CertificateChain, read_certificate
from greentls.core.connection import Connection
from greentls.core.early_data import server_connection
from greentls.core.session import Session
from greentls.errors import TLSError, WireError
from greentls.sessions.stored import SessionLookup
from greentls.ssl.compiled import compile
from greentls.ssl.context import PassedThrough, SSLContext
from greentls.ssl.errors import as_stdlib
from greentls.ssl.peercert import PeerCertificate, peer_certificate

__all__ = ["CHANNEL_BINDING_TYPES", "Common"]

CHANNEL_BINDING_TYPES = ["tls-unique", "tls-exporter", "tls-server-end-point"]


class Common:
    """Over a Connection, whose settings are self._context."""

    server_side: bool
    server_hostname: str | None
    _context: SSLContext
    _connection: Connection
    _takes_early_data = False  # it has a way to tell early data from other data
    _handshake_began = 0.0  # by perf_counter()
    _handshake_told = False  # its end has been counted
    _before_handshake = False  # somebody is busy with what comes before OpenSSL

    def _replace_connection(self, connection: Connection) -> None:
        """Before the handshake: another one takes its place, with what was received so far."""
        self._connection = connection

    def _as_stdlib(self, error: TLSError | WireError) -> _stdlib_ssl.SSLError:
        """The standard library's error, to be raised from ours: as its cause, ours needs no traceback of its own."""
        error.__traceback__ = None
        return as_stdlib(error, self.server_hostname)

    def _peer_address(self) -> object:
        """None if it has none, or it is not known."""
        return None

    def _resuming(self) -> AbstractContextManager[None]:
        """Surrounds a client's handshake. Its session is looked for by the peer's address, else by the server name."""
        sessions = self._context.client_sessions
        if sessions is None or self.server_side:
            return nullcontext()
        address = self._peer_address()
        if not address and not self.server_hostname:
            return nullcontext()
        return sessions.resuming(self._connection, address, self._context.callback_timeout)

    # -- how handshakes end --------------------------------------------------------------------------------------------

    def _handshake(self) -> PassedThrough | None:
        """Does the handshake, or a step of it."""
        raise NotImplementedError  # each subclass has its transport

    def _observed(self) -> PassedThrough | None:
        """_handshake(), whose end is counted, and told to greentls.events, once."""
        if self._handshake_told or self._before_handshake or self._connection.busy:
            return self._handshake()
        if not self._handshake_began:
            self._handshake_began = perf_counter()
        try:
            result = self._handshake()
        except (_stdlib_ssl.SSLWantReadError, _stdlib_ssl.SSLWantWriteError):
            raise
        except BaseException as error:
            self._tell(error)
            raise
        if self._connection.established:  # and not passed through; it may be another connection than before
            self._tell(None)
        return result

    def _tell(self, error: BaseException | None) -> None:
        self._handshake_told = True
        connection, counters = self._connection, self._context.counters
        resumption, lookup = self.resumption, connection.handshake.session_lookup
        counters["failed" if error is not None else resumption or ""] += 1
        if lookup is not None:
            counters[f"lookup {lookup.outcome}"] += 1
        if events.handler is not None:
            events.emit(
                "handshake",
                side="server" if self.server_side else "client",
                error=error,
                seconds=perf_counter() - self._handshake_began,
                server_name=connection.server_name if self.server_side else self.server_hostname,
                resumption=resumption,
                version=connection.version,
                cipher=(connection.cipher or (None,))[0],
                alpn=connection.alpn_protocol.decode("latin-1") or None,
                early_data=connection.early_data_accepted,
                lookup=None if lookup is None else lookup._asdict(),
                hooks=self.hook_seconds,
            )

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def context(self) -> SSLContext:
        return self._context

    @context.setter
    def context(self, context: SSLContext) -> None:
        """In an sni_callback, the handshake goes on with another context's certificates, ALPN and trust; before a
        server's handshake, with all of its settings, versions and sessions included."""
        if not issubclass(type(context), SSLContext):
            raise TypeError("The value must be a SSLContext")
        config = compile(context, self.server_side)
        if self._connection.started or not self.server_side:
            self._connection.switch_config(config)
        else:
            connection = server_connection(config, self._connection.owner, self._takes_early_data)
            connection.take_over(self._connection)
            self._replace_connection(connection)
        self._context = context

    @property
    def session(self) -> Session | None:
        """The session that a later connection can resume: give it to wrap_socket(session=...) of any context."""
        session = self._connection.session
        return session if session is not None and session.id else None

    @session.setter
    def session(self, session: Session) -> None:
        """A client sets the session to resume before its handshake. Raises TypeError, ValueError."""
        if not isinstance(session, Session):
            raise TypeError("Value is not a SSLSession.")
        if self.server_side:
            raise ValueError("Cannot set session for server-side SSLSocket.")
        if self._connection.established:
            raise ValueError("Cannot set session after handshake.")
        self._connection.offer(session)

    @property
    def session_reused(self) -> bool | None:
        """Whether the handshake resumed a session. None before it has begun."""
        return self._connection.session_reused if self._connection.started else None

    @property
    def session_lookup(self) -> SessionLookup | None:
        """How the last lookup in the session store ended: .store, .outcome, .seconds. None if there was none."""
        return self._connection.handshake.session_lookup

    @property
    def certificate_chain(self) -> CertificateChain | None:
        """The certificate that was chosen at a server; before the choice, the one that was loaded last."""
        return self._connection.certificate_chain

    @property
    def hook_seconds(self) -> dict[str, float]:
        """Seconds that each hook has taken, by its name; hooks that were not called are not in it."""
        return dict(self._connection.handshake.hook_seconds or ())

    @property
    def resumption(self) -> str | None:
        """How the connection came about; None before the handshake is finished.

        "full": a full handshake. "session_id": resumed by its id (TLS 1.2, with a session store). "stateful": resumed
        by a TLS 1.3 ticket that a server looked up in its session store; a client cannot tell it from "ticket".
        "ticket": resumed by a ticket that holds the session. "psk": by an external pre-shared key.
        """
        connection = self._connection
        if not connection.established:
            return None
        handshake = connection.handshake
        if not (connection.resumed if connection.finished else connection.session_reused):
            return "psk" if handshake.external_psk and not connection.tls13 else "full"
        if handshake.external_psk:
            return "psk"
        if self.server_side:
            lookup = handshake.session_lookup
            found = lookup is not None and lookup.outcome == "hit"
            return ("stateful" if connection.tls13 else "session_id") if found else "ticket"
        session = connection.session
        return "session_id" if session is not None and not session.has_ticket else "ticket"

    @property
    def handshake_finished(self) -> bool:
        """False while a server that accepted early data has not received the client's Finished: what it has read so far
        may be a replay (max_early_data). do_handshake() waits for the Finished."""
        return self._connection.finished

    @property
    def early_data(self) -> bytes:
        """At a server, the early data received so far; at a client, the early data to send."""
        return self._connection.early_data

    @early_data.setter
    def early_data(self, data: bytes) -> None:
        """A client sets it before its handshake. It is sent along with the ClientHello if the session to be resumed
        allows it, else not at all; whoever sees it may replay it. After the handshake early_data_accepted says whether
        it arrived.

        With client_sessions the session is chosen now, which may wait for their store. Raises ValueError for more bytes
        than the session allows.
        """
        connection = self._connection
        if self.server_side or connection.started:
            raise ValueError("early_data is set at a client, before the handshake")
        with self._resuming():
            limit = connection.early_data_limit
        if len(data) > limit > 0:
            raise ValueError(f"{len(data)} bytes of early data; the session allows {limit}")
        connection.offer_early_data(bytes(data) if limit else b"")

    @property
    def early_data_accepted(self) -> bool | None:
        """Whether the server accepted the early data. None if none was sent, and before the handshake. Unless it is
        True, the data have to be sent again now."""
        return self._connection.early_data_accepted

    @property
    def server_name(self) -> str | None:
        """The server_name (RFC 6066) that the client sent, in lower case, or None. Callbacks see it, too."""
        return self._connection.server_name

    def version(self) -> str | None:
        """ "TLSv1.3", ...; None before the handshake."""
        return self._connection.version

    def cipher(self) -> tuple[str, str, int] | None:
        """(name, the version that defines it, secret bits); None before the handshake."""
        return self._connection.cipher

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """At a server, the ciphers that both sides have; None at a client, and before the handshake."""
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
        """Bytes that can be read without waiting for the peer. Ciphertext counts: it is not in the kernel any more, so
        to poll the descriptor for it would wait in vain."""
        return self._connection.pending or self._connection.unread

    def getpeercert(self, binary_form: bool = False) -> PeerCertificate | bytes | None:
        """The peer's certificate as DER, or as the standard library's dict, which is empty unless it was verified.

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
        """DER of the peer's certificate and of the chain up to the trust anchor.

        Without verification, and on a resumption, which verifies nothing, it is the same as get_unverified_chain().
        """
        if self._context.verify_mode == _stdlib_ssl.CERT_NONE:  # OpenSSL builds one all the same
            return self.get_unverified_chain()
        return self._connection.verified_chain or self.get_unverified_chain()

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """Bytes that tie an authentication inside of TLS to this connection: RFC 5929, for "tls-exporter" RFC 9266.

        None before the handshake. Raises ValueError for a type that is not one of CHANNEL_BINDING_TYPES.
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
        return connection.verify_data(ours=connection.session_reused == self.server_side) or None

    def export_keying_material(self, label: str | bytes, length: int, context: bytes | None = None) -> bytes:
        """length bytes that are the same at both ends of this connection, and known to nobody else (RFC 5705, RFC 8446
        7.5).

        label: their purpose; IANA keeps a list, others begin with "EXPERIMENTAL". context: further bytes on which both
        ends must agree; under TLS 1.2 b"" differs from None. Raises ValueError before the handshake, and for a label or
        a length that OpenSSL refuses.
        """
        name = label.encode("ascii") if isinstance(label, str) else label
        return self._connection.export_keying_material(name, length, context)

    def verify_client_post_handshake(self) -> None:
        """Asks a TLS 1.3 client for its certificate. The request goes out with the next write, the answer comes with a
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
