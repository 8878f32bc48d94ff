"""Config: settings, certificates and hooks, compiled into an SSL_CTX that never changes again.

A Config is made whole by its constructor. OpenSSL does not synchronise a change of an SSL_CTX with handshakes that are
suspended in one of its callbacks, so there are no setters: other settings are another Config, and connections keep the
one they began with.

Sessions. With session hooks the Config keeps sessions outside OpenSSL only: TLS 1.2 session ids and TLS 1.3 *stateful*
tickets (OP_NO_TICKET), no internal cache (which would answer before the hook, and whose overflow calls back under
OpenSSL's lock). Without them the client keeps its session itself, in a ticket that is sealed by Hooks.ticket_key or, if
there is none, by a key that this Config's SSL_CTX has made for itself.

A resumption asks a peer for nothing but the session's secret. So a session is bound to every setting that decides
whether the peer would have been accepted in a full handshake. Settings that do not bind it are listed below, each with
its reason (NOT_IN_IDENTITY, NOT_IN_SCOPE); a setting that is listed nowhere binds it. Trust anchors in files
count by content, directories by path.

- A server's sessions are bound by the session-id context, a digest: OpenSSL refuses a session of another one. Instead
  of the certificates themselves their names are in it, so that all workers of a site agree on it, and a renewed
  certificate keeps its sessions; a session_id_context that is given takes the place of the names, and of nothing else.
  Each connection adds the server name: Connection.session_id_context.
- A client's sessions are bound to the Config's session_scope, if a new_session hook wants them: a digest, and the
  hooks that have a say. Configs with an equal scope may resume each other's sessions; the digest is the same in every
  process where the trust anchors are. A session that is handed over instead is judged by itself: Connection.offer().
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from greentls.certificates import CertificateChain
from greentls.core import callbacks
from greentls.core.hooks import Hooks
from greentls.errors import ConfigurationError
from greentls.openssl import contexts
from greentls.openssl.library import SSL_CTX, pointer

__all__ = ["Config", "TrustAnchors"]

VERIFY_NONE, VERIFY_PEER, VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_POST_HANDSHAKE = 0, 1, 2, 8  # SSL_CTX_set_verify(3)
CRL_CHECK = 4  # X509_VERIFY_PARAM_set_flags(3): of the peer's own certificate; 8 besides: of all

# Seconds for which a session may be resumed. RFC 5246 F.1.4 suggests a day at most, RFC 8446 4.6.1 allows 7 days;
# OpenSSL's own default, kept here, is two hours.
SESSION_LIFETIME = 7200

# Bytes: what OpenSSL receives at most, or skips where it refuses (SSL_CTX_set_recv_max_early_data(3)). No more has room
# in the ten segments that a client sends before it hears of the server (RFC 6928).
MAX_EARLY_DATA = 16384

# Renegotiation lets a TLS 1.2 client restart the handshake, hooks and all, at will; compression leaks (CRIME).
_ALWAYS = contexts.OP_NO_COMPRESSION | contexts.OP_NO_RENEGOTIATION


def two_places(subject: str) -> ConfigurationError:
    return ConfigurationError(
        subject, "a session is kept in a store, or by the client in a ticket", "choose one of the two"
    )


@dataclass(frozen=True)
class TrustAnchors:
    """The certificates that a peer's chain may end in (SSL_CTX_load_verify_locations(3))."""

    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    certificates: tuple[x509.Certificate, ...] = ()

    def feed(self, digest: hashlib._Hash) -> None:
        """Feeds the trust anchors to a hash: files by their content, directories not at all."""
        for path in self.files:
            with open(path, "rb") as file:
                digest.update(hashlib.sha256(file.read()).digest())
        for anchor in self.certificates:
            digest.update(anchor.public_bytes(Encoding.DER))


@dataclass(frozen=True, kw_only=True, eq=False)
class Config:
    """Everything that connections of one kind share.

    Raises ConfigurationError for a setting that OpenSSL refuses, UnsupportedOpenSSL for one that this OpenSSL lacks or
    hides. Versions, options and verify settings are OpenSSL's numbers, the same as in the standard library's ssl.
    """

    server_side: bool
    certificates: Sequence[CertificateChain] = ()  # one per kind of key
    trust: TrustAnchors = TrustAnchors()
    crls: Sequence[x509.CertificateRevocationList] = ()  # if there are any, the peer's issuer must have one here
    minimum_version: int = 0x0303  # TLS 1.2
    maximum_version: int = 0  # 0: the highest
    options: int = 0
    verify_mode: int = VERIFY_NONE
    verify_flags: int = 0
    ciphers: str = ""  # TLS 1.2 and below, OpenSSL's syntax; empty: the default
    ciphersuites: str = ""  # TLS 1.3
    groups: str = ""
    signature_algorithms: str = ""  # that the peer may sign with, and this side; empty: the default
    client_signature_algorithms: str = ""  # the same for a client's certificate; empty: as the one before
    alpn_protocols: Sequence[bytes] = ()  # a client's offer; a server chooses by Hooks.alpn
    hooks: Hooks = field(default_factory=Hooks)
    psk_identity_hint: bytes = b""  # a server's, TLS 1.2 (RFC 4279 5.2)
    dh_parameters: str = ""  # a PEM file, for TLS 1.2 without elliptic curves
    post_handshake_auth: bool = False  # RFC 8446 4.6.2: a client offers it, a server may ask
    hostname_checks_common_name: bool = True  # of a certificate without alternative names
    session_id_context: bytes = b""  # empty: see the module's docstring
    session_lifetime: int = SESSION_LIFETIME  # seconds
    num_tickets: int | None = None  # TLS 1.3, per full handshake; None: OpenSSL's default, two
    max_early_data: int = 0  # a server's, bytes (RFC 8446 2.3); 0: none is taken. Hooks.early_data decides
    ssl_context: SSL_CTX = field(init=False, repr=False)
    session_scope: tuple[bytes, Hooks] | None = field(init=False, repr=False, default=None)
    address: int = field(init=False, repr=False)  # of the SSL_CTX
    #: By server_name extension: the name, and the session-id context of a server's connections. greentls.core.callbacks
    #: keeps it. None with hooks that have a say in it.
    bindings: dict[bytes | None, tuple[str | None, bytes]] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        context = contexts.new()
        object.__setattr__(self, "ssl_context", context)
        object.__setattr__(self, "address", pointer(context))
        object.__setattr__(self, "bindings", None if self.hooks.servername or self.hooks.psk_server else {})
        contexts.set_versions(context, self.minimum_version, self.maximum_version)
        contexts.set_options(context, _ALWAYS | self.options)
        if ciphers := self._cipher_list():  # with the security level, for certificates and trust anchors
            contexts.set_cipher_list(context, ciphers)
        self._set_certificates(context)
        self._set_trust(context)
        if self.ciphersuites:
            contexts.set_ciphersuites(context, self.ciphersuites)
        if self.groups:
            contexts.set_groups(context, self.groups)
        if self.signature_algorithms:
            contexts.set_signature_algorithms(context, self.signature_algorithms)
        if self.client_signature_algorithms:
            contexts.set_signature_algorithms(context, self.client_signature_algorithms, of_clients=True)
        if self.alpn_protocols and not self.server_side:
            contexts.set_alpn_protocols(context, self.alpn_protocols)
        if self.psk_identity_hint:
            contexts.set_psk_identity_hint(context, self.psk_identity_hint)
        if self.dh_parameters:
            with open(self.dh_parameters, "rb") as file:
                contexts.set_dh_parameters(context, file.read())
        self._set_sessions(context)
        if self.max_early_data:
            self._set_early_data(context)
        verify_mode = self.verify_mode
        if self.post_handshake_auth and not self.server_side:
            contexts.set_post_handshake_auth(context)
        elif self.post_handshake_auth and verify_mode:
            verify_mode |= VERIFY_POST_HANDSHAKE
        callbacks.install(self, context, self.hooks, self.server_side, verify_mode)

    def _cipher_list(self) -> str:
        """Returns the ciphers. If a key can only sign, it leaves out those in which the server decrypts."""
        if not any(chain.signer for chain in self.certificates):
            return self.ciphers
        return f"{self.ciphers or 'DEFAULT'}:!kRSA:!kRSAPSK"

    def _set_certificates(self, context: SSL_CTX) -> None:
        for chain in self.certificates:
            try:
                contexts.use_certificate(context, chain.der, chain.private_key)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"certificate for {', '.join(chain.names)}", error.problem, error.remedy
                ) from None
            contexts.add_chain(context, chain.intermediates, shared=len(self.certificates) == 1)

    def _set_trust(self, context: SSL_CTX) -> None:
        for cafile in self.trust.files:
            contexts.load_trust_anchors(context, cafile, None)
        for capath in self.trust.directories:
            contexts.load_trust_anchors(context, None, capath)
        for certificate in self.trust.certificates:
            contexts.add_trust_anchor(context, certificate)
        contexts.set_verify_flags(context, self.verify_flags | (CRL_CHECK if self.crls else 0))
        for crl in self.crls:
            contexts.add_crl(context, crl)

    def _set_sessions(self, context: SSL_CTX) -> None:
        if not 0 < self.session_lifetime < 1 << 31:
            raise ConfigurationError(f"session_lifetime {self.session_lifetime}", "not a number of seconds above 0")
        contexts.set_session_lifetime(context, self.session_lifetime)
        if not self.server_side:
            if self.hooks.new_session:
                object.__setattr__(self, "session_scope", self._scope())
                contexts.keep_sessions_outside(context, server_side=False)
            return
        identity = self._identity()
        object.__setattr__(self, "session_id_context", identity)
        contexts.set_session_id_context(context, identity)
        # Also without hooks: a connection that was switched here asks this Config whether it may have a session id.
        contexts.keep_sessions_outside(context, server_side=True)
        if self.hooks.get_session or self.hooks.new_session or self.hooks.store_session:
            if self.hooks.ticket_key:
                raise two_places("Hooks.ticket_key beside session hooks")
            contexts.set_options(context, contexts.OP_NO_TICKET)
        if self.hooks.ticket_key and self.options & contexts.OP_NO_TICKET:
            raise ConfigurationError(
                "ticket keys with OP_NO_TICKET", "there would be no tickets", "leave out one of them"
            )
        if self.num_tickets is not None:
            contexts.set_num_tickets(context, self.num_tickets)

    def _set_early_data(self, context: SSL_CTX) -> None:
        subject = f"max_early_data {self.max_early_data}"
        if not 0 < self.max_early_data <= MAX_EARLY_DATA:
            raise ConfigurationError(subject, f"not a number of bytes up to {MAX_EARLY_DATA}")
        if not self.server_side or self.hooks.early_data is None:
            raise ConfigurationError(subject, "nobody tells what is a replay", "a server needs Hooks.early_data")
        if self.verify_mode or self.hooks.verify:
            raise ConfigurationError(
                subject,
                "early data comes before anything is known of the client's certificate",
                "leave it off where clients are verified",
            )
        if self.hooks.psk_server:
            raise ConfigurationError(
                subject, "a pre-shared key has no age by which to refuse an old copy", "leave one of the two off"
            )
        contexts.set_max_early_data(context, self.max_early_data)
        # OpenSSL's own guard wants sessions in its internal cache, each for one use, in one process.
        contexts.set_options(context, contexts.OP_NO_ANTI_REPLAY)

    @property
    def session_stats(self) -> dict[str, int]:
        """SSL_CTX_sess_number(3) and its kin, by the standard library's names. Raises UnsupportedOpenSSL."""
        return contexts.session_stats(self.ssl_context)

    @property
    def ca_certificates(self) -> list[bytes]:
        """DER of the loaded trust anchors. Those of a directory are loaded when they are needed."""
        return contexts.ca_certificates(self.ssl_context)

    def _identity(self) -> bytes:
        names = sorted(chain.names for chain in self.certificates)
        digest = self._digest(b"greentls session-id context 3", NOT_IN_IDENTITY)
        digest.update(_canonical(self.session_id_context or names))
        hooks = (each.name for each in fields(self.hooks) if each.name not in HOOKS_NOT_IN_IDENTITY)
        digest.update(_canonical([name for name in hooks if getattr(self.hooks, name) is not None]))
        return digest.digest()  # 32 bytes: SSL_MAX_SID_CTX_LENGTH

    def _scope(self) -> tuple[bytes, Hooks]:
        digest = self._digest(b"greentls session scope 2", NOT_IN_SCOPE)
        silent = dict.fromkeys(
            ("get_session", "new_session", "store_session", "remove_session", "keylog", "message", "sign")
        )
        return digest.digest(), replace(self.hooks, **silent)

    def _digest(self, purpose: bytes, without: Collection[str]) -> hashlib._Hash:
        digest = hashlib.sha256(purpose)
        for each in fields(self):
            if each.name not in without:
                digest.update(each.name.encode() + b"=" + _canonical(getattr(self, each.name)) + b"\n")
        return digest

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Config holds keys and C pointers: make it anew in the other process")


# Settings that do not bind a server's sessions by their value, and why.
NOT_IN_IDENTITY = {
    "certificates": "their names bind it: a renewed certificate keeps its sessions",
    "hooks": "whether there is one binds it: HOOKS_NOT_IN_IDENTITY",
    "session_id_context": "takes the place of the certificates' names",
    "alpn_protocols": "a client's; the protocol is chosen anew in each handshake",
    "hostname_checks_common_name": "a client's; a server expects no name",
    "psk_identity_hint": "tells a client which key to take; the key itself proves the peer",
    "dh_parameters": "judged by the client; a path, which says nothing of the content",
    "session_lifetime": "written into the session when it is made",
    "num_tickets": "how many copies a client gets",
    "max_early_data": "written into the session; a resumption is held to the lower one, and the hook is asked",
    "ssl_context": "made of the others",
    "session_scope": "made of the others",
    "address": "made of the others",
    "bindings": "made of the others, and of what clients ask for",
}
# Hooks whose absence, when the session was made, does not matter to a server that has them, and why.
HOOKS_NOT_IN_IDENTITY = {
    "servername": "asked in each handshake, before OpenSSL looks for a session",
    "alpn": "asked in each handshake",
    "get_session": "where sessions lie",
    "new_session": "where sessions lie",
    "store_session": "where sessions lie",
    "remove_session": "where sessions lie",
    "ticket_key": "where sessions lie",
    "ocsp": "a server's own staple, which nobody wants in a resumption",
    "early_data": "asked for each first flight",
    "keylog": "looks on",
    "message": "looks on",
    "sign": "how this side's own key is asked",
    "psk_client": "a client's",
}
# Settings that do not bind a client's sessions by their value, and why.
NOT_IN_SCOPE = {
    "hooks": "compared as themselves, those that only look on left out",
    "session_id_context": "a server's",
    "session_lifetime": "written into the session when it is made",
    "num_tickets": "a server's",
    "ssl_context": "made of the others",
    "session_scope": "made of the others",
    "address": "made of the others",
    "bindings": "made of the others, and of what clients ask for",
}


def _canonical(value: object) -> bytes:
    """Returns bytes that are equal for values of equal meaning, in any process."""
    if isinstance(value, int):  # an enum too, whose repr() is another one in each Python
        return b"%d" % value
    if isinstance(value, str | bytes | float | None):
        return repr(value).encode()
    if isinstance(value, tuple | list):
        return b"(" + b",".join(map(_canonical, value)) + b")"
    if isinstance(value, CertificateChain):
        return _canonical([value.certificate, *value.intermediates])
    if isinstance(value, TrustAnchors):
        digest = hashlib.sha256(repr((len(value.files), value.directories)).encode())
        value.feed(digest)
        return digest.hexdigest().encode()
    if isinstance(value, x509.Certificate | x509.CertificateRevocationList):
        return hashlib.sha256(value.public_bytes(Encoding.DER)).hexdigest().encode()
    return os.urandom(32).hex().encode()  # its meaning is unknown: equal to nothing else
