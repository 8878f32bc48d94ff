"""Hooks: a Config's answers to OpenSSL's questions. HookConnection: what a hook sees of the connection that asks.

Each hook may wait, and whatever it raises refuses the connection. Only remove_session is different: see there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from greentls.core.handshake import Handshake
from greentls.core.session import Session
from greentls.openssl.facts import Found

if TYPE_CHECKING:
    from greentls.certificates import CertificateChain
    from greentls.keys.signer import Signer
    from greentls.tickets import TicketKey

__all__ = ["HookConnection", "Hooks", "Owner"]


Owner = Callable[[], Any]  # returns what a connection belongs to, None if that is gone. Any: core does not know it


class HookConnection(Protocol):
    """A connection as its hooks, and the bridge, see it."""

    server_side: bool
    owner: Owner
    #: What this handshake has found out so far, and what the hooks add to it.
    handshake: Handshake

    @property
    def hooks(self) -> Hooks: ...

    @property
    def verify_hooks(self) -> Sequence[Callable[[HookConnection, list[bytes], bool], None]]: ...

    @property
    def session_hooks(self) -> Hooks: ...

    @property
    def session_id_context(self) -> bytes:
        """The value that a server's sessions are bound to."""

    @property
    def bindings(self) -> dict[bytes | None, tuple[str | None, bytes]] | None:
        """Config.bindings; None once the Config was switched."""

    @property
    def session_reused(self) -> bool: ...

    @property
    def vouched_until(self) -> float | None:
        """Expiry of the OCSP response that confirmed the peer's certificate for this connection's sessions."""

    @property
    def certificate_chain(self) -> CertificateChain | None:
        """This side's own, which OpenSSL has chosen."""

    @property
    def verified_chain(self) -> list[bytes]:
        """DER of the chain that was built for the peer's certificate."""

    def switch_config(self, config: Any) -> None:  # Any: Config knows the hooks, and not they it
        """Switches to another Config. For the servername hook."""


@dataclass(frozen=True, repr=False)  # no repr: that of a functools.partial shows the keys that it was given
class Hooks:
    """The hooks of one Config; the connection that asks is the first argument of each.

    When the servername hook switches to another Config (SSL_set_SSL_CTX(3)), the session hooks of the first Config stay
    in force, the verify hooks of both are asked, and all others come from the new one.
    """

    #: (connection, server_name or None) -> None, or the number of the alert to refuse with. Asked in every handshake,
    #: before OpenSSL looks for a session; may switch the Config. The name is what the client wrote, unchecked.
    servername: Callable[[HookConnection, str | None], int | None] | None = None
    #: (connection, the client's protocols) -> one of them, or None to go on without ALPN
    alpn: Callable[[HookConnection, Sequence[bytes]], bytes | None] | None = None
    #: (connection, session id) -> the Session, also as facts.parse() has it, or None: a full handshake
    get_session: Callable[[HookConnection, bytes], Session | Found | None] | None = None
    #: (connection, Session). The Session is OpenSSL's own, and empty once the hook has returned: copy() may be kept.
    new_session: Callable[[HookConnection, Session], None] | None = None
    #: The same for a store, and cheaper: (connection, the session's id, its id context, its expiry in seconds since the
    #: epoch, its DER, whether this connection has resumed another session).
    store_session: Callable[[HookConnection, bytes, bytes, int, bytes, bool], None] | None = None
    #: (session id, session-id context). Has no connection. OpenSSL may call it under its own lock, from the garbage
    #: collector or at the interpreter's exit, so it must neither wait nor raise.
    remove_session: Callable[[bytes, bytes], None] | None = None
    #: (connection, the name of the key that a ticket was sealed with, or None for a new ticket) -> (a key, whether the
    #: client is to get another ticket), or None: a full handshake, or no ticket.
    ticket_key: Callable[[HookConnection, bytes | None], tuple[TicketKey, bool] | None] | None = None
    #: server: (connection, None) -> a DER OCSP response or None. client: (connection, the peer's response or None) ->
    #: None. A client asks once the chain has been verified, and not on a resumption. The hook tells until when the
    #: response holds (connection.handshake.vouch()): without that no later connection resumes this one's sessions.
    ocsp: Callable[[HookConnection, bytes | None], bytes | None] | None = None
    #: (connection, ClientHello.random) -> whether early data is accepted; if not, the handshake goes on without. Asked
    #: after OpenSSL has checked the binder and the ticket's age (RFC 8446 8.2), and only where no client is verified.
    early_data: Callable[[HookConnection, bytes], bool] | None = None
    #: (connection, DER certificates, the peer's first; resumed?). Raises to refuse. Asked after all of OpenSSL's own
    #: checks have passed, and again for each resumption, with what the session knows. Not asked where the peer has no
    #: certificate. If the verify mode asks for no checks, it gets the certificates as they came, unchecked.
    verify: Callable[[HookConnection, list[bytes], bool], None] | None = None
    #: (connection). Before a certificate is chosen: SSL_CTX_set_cert_cb(3).
    certificate: Callable[[HookConnection], None] | None = None
    #: (connection, one line for an SSLKEYLOGFILE): secrets.
    keylog: Callable[[HookConnection, bytes], None] | None = None
    #: (connection, the server's hint or None) -> (identity, key) of a pre-shared key, or None to go on without one.
    psk_client: Callable[[HookConnection, str | None], tuple[str | None, bytes] | None] | None = None
    #: (connection, the client's identity) -> its key, empty if it is unknown. Asked twice after a HelloRetryRequest.
    psk_server: Callable[[HookConnection, str], bytes] | None = None
    #: (connection, the certificate's Signer, message, algorithm) -> the signature, which is signer.sign(message,
    #: algorithm): for a deadline around that.
    sign: Callable[[HookConnection, Signer, bytes, str], bytes] | None = None
    #: (connection, sent?, version, content type, message): SSL_CTX_set_msg_callback(3).
    message: Callable[[HookConnection, bool, int, int, bytes], None] | None = None
