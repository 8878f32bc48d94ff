"""SSLContext: the standard library's, with more settings, and with callbacks that may wait.

The base class, the standard library's own, holds and checks what it can: versions, options, verify mode, ciphers. It
never makes a connection. What it would not give back (certificates, keys, trust anchors, protocols) is kept here as it
was given. greentls.ssl.compiled makes a Config of all of it when a connection needs one, and reads for that what this
class keeps under names with an underscore.
"""

from __future__ import annotations

import inspect
import os
import socket as _stdlib_socket
import ssl as _stdlib_ssl
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from greentls.certificates import (
    CertificateChain,
    Certificates,
    CertificateSource,
    CRLs,
    Password,
    is_path,
    load_crls,
    parse_certificates,
)
from greentls.core.config import SESSION_LIFETIME, Config, TrustAnchors, two_places
from greentls.core.connection import Connection
from greentls.core.session import Session
from greentls.errors import ConfigurationError
from greentls.hub.coroutines import MayWait
from greentls.keys import KeySource, SigningKey
from greentls.openssl import contexts
from greentls.openssl.library import SSL_CTX
from greentls.sessions.client import ClientSessions
from greentls.sessions.server import SessionCache
from greentls.ssl.errors import configuration_error, ssl_error
from greentls.ssl.peercert import peer_certificate
from greentls.ssl.replacement import STDLIB_CONTEXT, Replacement, hide_unknown, through_c
from greentls.stores import SessionStore, SharedValues
from greentls.strategy import STRATEGIES
from greentls.tickets import TicketKeys
from greentls.wire import ClientHello

if TYPE_CHECKING:
    from greentls.ocsp.client_check import Mode

__all__ = ["PassedThrough", "SSLContext", "Sock"]

Path = str | bytes | os.PathLike[str]
#: What callbacks are called with: an SSLSocket, or an ssl.SSLObject.
Sock = Any  # a user's callback names the one that it gets
SNICallback = Callable[[Sock, str | None, "SSLContext"], MayWait[int | None]]
ClientHelloCallback = Callable[[Sock, ClientHello], MayWait["SSLContext | PassedThrough | int | None"]]

CALLBACK_TIMEOUT = 1.0  # seconds: longer than any healthy store or database takes, shorter than a person waits
HANDSHAKE_TIMEOUT = 60.0  # seconds for a whole handshake, as in nginx: no peer holds a greenlet for ever
_SPEAKS_TLS = b"This port speaks TLS: the URL has to begin with https:\n"
PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(_SPEAKS_TLS), _SPEAKS_TLS)
)

# What is left as the standard library has it, and why that does no harm. Whatever else a newer Python's SSLContext has
# is absent here, as in an older Python: nobody would obey a setter that reaches the base class only.
INHERITED = {
    "cert_store_stats": "counts what load_verify_locations() has told the base, too",
    "check_hostname": "kept by the base, read for each connection",
    "get_ciphers": "of the base, which is told by set_ciphers(); what its OpenSSL makes of them",
    "get_groups": "what the base's OpenSSL implements; it says nothing of settings",
    "hostname_checks_common_name": "kept by the base, read when a Config is compiled",
    "keylog_filename": "kept by the base, read when a Config is compiled",
    "load_default_certs": "calls set_default_verify_paths()",
    "num_tickets": "kept by the base, read when a Config is compiled",
    "post_handshake_auth": "kept by the base, read when a Config is compiled",
    "protocol": "set once, by the constructor of the base",
    "security_level": "cannot be set but by set_ciphers()",
    "set_npn_protocols": "does nothing in the base either: no OpenSSL has NPN any more",
    "set_servername_callback": "sets sni_callback",
    "sslobject_class": "the base's wrap_bio() makes one of what _wrap_bio() gives",
    "wrap_bio": "calls _wrap_bio()",
}


class PassedThrough:
    """A connection whose TLS ends somewhere else: a client_hello_callback's answer, by SSLSocket.pass_through()."""

    __slots__ = ()


class SSLContext(STDLIB_CONTEXT, metaclass=Replacement):  # type: ignore[misc]  # its base is found at run time
    """ssl.SSLContext, whose callbacks may wait.

    Called in a handshake:

    - certificates: a CertificateSource (greentls.certificates.Directory, Callback), which is asked for the certificates
      of each server name.
    - session_store: a SessionStore (greentls.open_store()). None: sessions live in tickets.
    - ticket_keys: the TicketKeys that tickets are sealed with. None: a key that only this process has.
    - sni_callback(sock, server_name, context): answers None, or an alert's number to refuse with; may set sock.context.
    - alpn_callback(sock, offered): answers one of the offered protocols, or None.
    - ocsp_callback(sock): answers the DER OCSP response to staple, or None; typically a greentls.ocsp.Stapler.
    - client_hello_callback(sock, hello): called before OpenSSL has seen a byte; answers None, another SSLContext to go
      on with, an alert's number to refuse with, or sock.pass_through().
    - verify_callback(sock, chain, resumed=...): called once OpenSSL has found the peer's certificate good, and on
      resumptions; answers None, or raises to refuse.
    - keylog_callback(sock, line): gets the lines of keylog_filename.
    - replay_guard: a store that all servers share, with add() (SharedValues). None: the session_store. What it has seen
      before, or cannot tell, is refused as early data.
    - client_sessions: the ClientSessions from which a client's connections resume, and in which they leave their
      sessions. None: they resume what they are given as wrap_socket(session=...). As an attribute of the class it is
      every context's default.

    Other settings:

    - callback_timeout, handshake_timeout: seconds, None for ever.
    - plain_http_answer: bytes for a client that speaks HTTP without TLS, None for nothing.
    - read_ahead: False leaves what follows the record that is being read in the kernel, where select() sees it. That
      costs a second system call for each record.
    - session_id_context: bytes. Sessions resume only where it is the same, and so are the settings that decide which
      clients are accepted. Empty: the certificates' names take its place.
    - session_lifetime: seconds.
    - max_early_data: a server's, the bytes that a resuming client may send before the handshake is finished (0-RTT);
      0 for none. They may be a copy of what a client sent before: see sock.handshake_finished.
    """

    client_sessions: ClientSessions | None = None
    _replaces = (STDLIB_CONTEXT,)
    # _changes when a server's socket was made, and the class and the Config of its Connection. As long as nothing is
    # set, the next one's are the same.
    _server: tuple[int, type[Connection], Config] | None = None

    # The base has properties of these names, which would make its own connections call them.
    sni_callback: SNICallback | None = None
    _msg_callback: Callable[..., object] | None = None

    # Both are defined above this module, which cannot import them: greentls.ssl puts them here.
    compile: ClassVar[Callable[..., Config]]
    sslsocket_class: Any  # SSLSocket, whose module lies above this one, or a user's subclass

    options = through_c("options", _stdlib_ssl.Options)
    verify_flags = through_c("verify_flags", _stdlib_ssl.VerifyFlags)
    verify_mode = through_c("verify_mode", _stdlib_ssl.VerifyMode)
    minimum_version = through_c("minimum_version", _stdlib_ssl.TLSVersion)
    maximum_version = through_c("maximum_version", _stdlib_ssl.TLSVersion)

    def __init__(self, protocol: int | None = None, *_: object, **__: object) -> None:
        self._changes = 0
        self._compiled: dict[bool, Any] = {}  # Any: greentls.ssl.compiled keeps its own here, by server_side
        self._configs: weakref.WeakSet[Config] = weakref.WeakSet()  # those that connections use
        self._chains: list[CertificateChain] = []
        self._trust = TrustAnchors()
        self._stamps: dict[str, tuple[int, int]] = {}  # by file of trust anchors: when it changed, its size
        self._crls: tuple[x509.CertificateRevocationList, ...] = ()
        self._ciphers: str = _stdlib_ssl._DEFAULT_CIPHERS
        self._alpn: tuple[bytes, ...] = ()
        self._ciphersuites = self._groups = self._server_sigalgs = self._client_sigalgs = ""
        self._dh_parameters = ""
        self._psk_client: Callable[[str | None], tuple[str | None, bytes]] | None = None
        self._psk_server: Callable[[str | None], bytes] | None = None
        self._psk_identity_hint = b""
        self._cache: SessionCache | None = None
        #: How handshakes ended: "full", "session_id", "ticket", "stateful", "psk", "failed"; and lookups: "lookup hit",
        #: "lookup miss" and so on, as in SessionLookup.
        self.counters: Counter[str] = Counter()
        #: How handshakes wait for callbacks: one of greentls.strategy.STRATEGIES. Raises ConfigurationError.
        self.strategy = "coroutine"
        #: How a client checks that the server's certificate is not revoked. "require": the server must staple a good
        #: OCSP response. "check": without a staple the responder is asked. None: not at all. Raises ConfigurationError.
        self.ocsp: Mode | None = None
        self.certificates: CertificateSource | None = None
        self.ticket_keys: TicketKeys | None = None
        self.verify_callback: Callable[..., MayWait[None]] | None = None
        self.keylog_callback: Callable[[Sock, bytes], object] | None = None
        self.alpn_callback: Callable[[Sock, list[str]], MayWait[str | None]] | None = None
        self.ocsp_callback: Callable[[Sock], MayWait[bytes | None]] | None = None
        self.client_hello_callback: ClientHelloCallback | None = None
        self.plain_http_answer: bytes | None = PLAIN_HTTP_ANSWER
        self.callback_timeout: float | None = CALLBACK_TIMEOUT
        self.handshake_timeout: float | None = HANDSHAKE_TIMEOUT
        self.session_id_context = b""
        self.session_lifetime = SESSION_LIFETIME
        self.read_ahead = True
        self.max_early_data = 0
        self.replay_guard: SharedValues | None = None

    def __setattr__(self, name: str, value: object) -> None:
        check = _CHECKS.get(name)
        if check is not None:
            check(self, value)
        super().__setattr__(name, value)
        if "_changes" in self.__dict__:  # a subclass that leaves out __init__(), as truststore's does, has none
            self.__dict__["_changes"] += 1

    # -- certificates and trust ----------------------------------------------------------------------------------------

    def load_cert_chain(
        self,
        certfile: Certificates,
        keyfile: Path | PrivateKeyTypes | SigningKey | KeySource | None = None,
        password: Password = None,
    ) -> None:
        """Loads a certificate with its private key. A second pair with another kind of key (ECDSA beside RSA) is added.

        certfile, keyfile: paths as in the standard library, or PEM text or bytes, DER bytes, or cryptography's objects.
        In the key's place may stand a greentls.keys.SigningKey, or a KeySource that has it. Raises ssl.SSLError if
        there is no certificate, no key, or if they are no pair; OSError for a file that cannot be read.
        """
        refusal, secret = None, _Password(password)
        if is_path(certfile) and (keyfile is None or is_path(keyfile)):
            try:  # for the standard library's errors, and its ways with a password
                super().load_cert_chain(certfile, keyfile, secret if callable(password) else password)
            except _stdlib_ssl.SSLError as error:
                refusal = error  # not final: its OpenSSL is older, and may not know this kind of key
        try:
            chain = CertificateChain.load(certfile, keyfile, secret.answer)
            chain.check(f"certificate for {', '.join(chain.names)}", ciphers=self._ciphers)
        except ConfigurationError as error:
            reason = error.reason.upper().replace(" ", "_") or getattr(refusal, "reason", None) or "PEM_LIB"
            raise configuration_error(error, reason) from error
        self._chains = [each for each in self._chains if each.kind is not chain.kind] + [chain]

    def load_verify_locations(
        self, cafile: Path | None = None, capath: Path | None = None, cadata: str | bytes | None = None
    ) -> None:
        """Loads trust anchors, as the standard library's method does. To load a file again that has not changed since
        costs nothing."""
        file = None if cafile is None else os.fsdecode(cafile)
        stamp = _stamp(file) if file else None
        known = stamp is not None and self._stamps.get(file or "") == stamp
        if known and capath is None and cadata is None:
            return
        super().load_verify_locations(cafile, capath, cadata)
        trust = self._trust
        if file is not None and stamp is not None:
            trust = replace(trust, files=(*(each for each in trust.files if each != file), file))
            self._stamps = {**self._stamps, file: stamp}
        if capath is not None and (directory := os.fsdecode(capath)) not in trust.directories:
            trust = replace(trust, directories=(*trust.directories, directory))
        if cadata is not None:
            new = [each for each in parse_certificates(cadata) if each not in trust.certificates]
            trust = replace(trust, certificates=(*trust.certificates, *new))
        self._trust = trust

    @property
    def crl(self) -> tuple[x509.CertificateRevocationList, ...]:
        """Certificate revocation lists. One of them must be of the issuer of the peer's certificate, be valid now, and
        not list the certificate. With VERIFY_CRL_CHECK_CHAIN in verify_flags the same holds for every CA of the chain.

        Set it to a path, PEM or DER, one of cryptography's objects, a list of these, or None. Raises ssl.SSLError for
        something else, OSError for a file that cannot be read.
        """
        return self._crls

    @crl.setter
    def crl(self, source: CRLs) -> None:
        try:
            self._crls = load_crls(source)
        except ConfigurationError as error:
            raise configuration_error(error, "PEM_LIB") from error

    def get_ca_certs(self, binary_form: bool = False) -> list[Any]:  # Any: of bytes, or of getpeercert()'s dicts
        """The trust anchors, as in the standard library; of a directory those that handshakes have needed so far."""
        known = super().get_ca_certs(True)
        more = {each for config in self._configs if self._trust.directories for each in config.ca_certificates}
        new = sorted(more.difference(known))
        if binary_form:
            return [*known, *new]
        return [*super().get_ca_certs(), *map(peer_certificate, new)]

    def set_default_verify_paths(self) -> None:
        """Loads the trust anchors that the standard library's OpenSSL would use, or SSL_CERT_FILE and SSL_CERT_DIR."""
        paths = _stdlib_ssl.get_default_verify_paths()
        super().set_default_verify_paths()
        if paths.cafile or paths.capath:
            self.load_verify_locations(paths.cafile, paths.capath)

    # -- what both sides can do ----------------------------------------------------------------------------------------

    def set_ciphers(self, ciphers: str) -> None:
        super().set_ciphers(ciphers)
        self._ciphers = ciphers

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        protocols = list(alpn_protocols)
        super().set_alpn_protocols(protocols)
        self._alpn = tuple(protocol.encode("ascii") for protocol in protocols)

    def set_ecdh_curve(self, name: str | bytes) -> None:
        super().set_ecdh_curve(name)
        self._groups = os.fsdecode(name)

    def set_ciphersuites(self, ciphersuites: str, /) -> None:
        """Sets the TLS 1.3 cipher suites, colon-separated. Raises ssl.SSLError if cryptography's OpenSSL does not know
        one of them. This method and the next three are of Python 3.15's ssl."""
        _check(contexts.set_ciphersuites, ciphersuites)
        self._ciphersuites = ciphersuites

    def set_groups(self, groups: str, /) -> None:
        """Sets the key-exchange groups, colon-separated, best first. Raises ssl.SSLError."""
        _check(contexts.set_groups, groups)
        self._groups = groups

    def set_server_sigalgs(self, sigalgs: str, /) -> None:
        """Sets the signature algorithms of the handshake, colon-separated, best first. Raises ssl.SSLError."""
        _check(contexts.set_signature_algorithms, sigalgs)
        self._server_sigalgs = sigalgs

    def set_client_sigalgs(self, sigalgs: str, /) -> None:
        """Sets the signature algorithms for a client's certificate, if they differ. Raises ssl.SSLError."""
        _check(contexts.set_signature_algorithms, sigalgs)
        self._client_sigalgs = sigalgs

    def load_dh_params(self, path: Path) -> None:
        super().load_dh_params(path)
        self._dh_parameters = os.fsdecode(path)

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def set_psk_client_callback(self, callback: Callable[[str | None], tuple[str | None, bytes]] | None) -> None:
        """callback(the server's hint) answers (identity, key). Of Python 3.13's ssl, as the next one."""
        self._must_not_be(_stdlib_ssl.PROTOCOL_TLS_SERVER, "PSK client callback")
        _check_callable(callback)
        self._psk_client = callback

    def set_psk_server_callback(
        self, callback: Callable[[str | None], bytes] | None, identity_hint: str | None = None
    ) -> None:
        """callback(the client's identity) answers the key; b"" if there is none."""
        self._must_not_be(_stdlib_ssl.PROTOCOL_TLS_CLIENT, "PSK server callback")
        _check_callable(callback)
        self._psk_server = callback
        self._psk_identity_hint = (identity_hint or "").encode()

    def _must_not_be(self, protocol: _stdlib_ssl._SSLMethod, what: str) -> None:
        if self.protocol == protocol:
            raise ssl_error(f"Cannot add {what} to a {protocol.name} context")

    @property
    def session_store(self) -> SessionStore | None:
        return self._cache.store if self._cache else None

    @session_store.setter
    def session_store(self, store: SessionStore | None) -> None:
        if store is not None and self.ticket_keys is not None:
            raise two_places("SSLContext.session_store beside ticket_keys")
        if store is not self.session_store:
            self._cache = SessionCache(store) if store is not None else None

    def drain_sessions(self, timeout: float | None = None) -> bool:
        """Waits until the store has the sessions of the connections so far, timeout seconds at most. Returns whether it
        has them."""
        return self._cache.drain(timeout) if self._cache else True

    def session_stats(self) -> dict[str, int]:
        """OpenSSL's counts, as in the standard library, over all settings that connections use."""
        total: Counter[str] = Counter(dict.fromkeys(super().session_stats(), 0))
        for config in self._configs:
            total.update(config.session_stats)
        return dict(total)

    # -- connections ---------------------------------------------------------------------------------------------------

    def wrap_socket(
        self,
        sock: _stdlib_socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: Session | None = None,
    ) -> Any:  # an SSLSocket: its module lies above this one
        """Makes an SSLSocket, which owns sock's descriptor from now on; sock is detached.

        If sock is connected and do_handshake_on_connect is true, this does the handshake: it waits, and raises, as
        SSLSocket.do_handshake() does. If a client_hello_callback passes the connection through, the answer is its
        PlainSocket instead.
        """
        return self.sslsocket_class._create(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, self, session
        )


hide_unknown(SSLContext, STDLIB_CONTEXT, INHERITED)


class _Password:
    """Calls the user's function once, and keeps its answer for the second one who needs it."""

    def __init__(self, given: Password) -> None:
        self.answer = given

    def __call__(self) -> Password:
        if callable(self.answer):
            self.answer = self.answer()
        return self.answer


def _check(setter: Callable[[SSL_CTX, str], None], names: str) -> None:
    """Raises TypeError, ssl.SSLError."""
    if not isinstance(names, str):
        raise TypeError(f"{type(names).__name__} is not a string of names")
    try:
        setter(contexts.new(), names)
    except ConfigurationError as error:
        raise ssl_error(f"{error} (greentls)") from error


def _check_callable(callback: object) -> None:
    """Raises TypeError."""
    if callback is not None and not callable(callback):
        raise TypeError("callback must be callable")


def _check_sni_callback(context: SSLContext, callback: SNICallback | None) -> None:
    if callback is not None:
        if not callable(callback):
            raise TypeError("not a callable object")
        context._must_not_be(_stdlib_ssl.PROTOCOL_TLS_CLIENT, "sni_callback")


def _check_verify_callback(_: SSLContext, callback: Callable[..., MayWait[None]] | None) -> None:
    """One that cannot be called would refuse every connection."""
    try:
        if callback is not None:
            inspect.signature(callback).bind(None, [], resumed=False)
    except ValueError:
        pass  # the signature of a builtin is not known
    except TypeError as error:
        raise TypeError(f"verify_callback is called with (sock, chain, resumed=...): {error}") from None


def _check_message_callback(_: SSLContext, callback: Callable[..., object] | None) -> None:
    if callback is not None and not callable(callback):
        raise TypeError(f"{callback} is not callable.")


def _check_ocsp(context: SSLContext, mode: Mode | None) -> None:
    if mode is not None:
        from greentls.ocsp.client_check import MODES

        if mode not in MODES:
            raise ConfigurationError(f"ocsp {mode!r}", "no such mode", f"known are None, {', '.join(MODES)}")
        context._must_not_be(_stdlib_ssl.PROTOCOL_TLS_SERVER, "ocsp")


def _check_strategy(_: SSLContext, name: str) -> None:
    if name not in STRATEGIES:
        raise ConfigurationError(f"strategy {name!r}", "no such strategy", f"known are {', '.join(STRATEGIES)}")


def _check_ticket_keys(context: SSLContext, keys: TicketKeys | None) -> None:
    if keys is not None:
        if not isinstance(keys, TicketKeys):
            raise TypeError(f"a {type(keys).__name__} is not a TicketKeys")
        context._must_not_be(_stdlib_ssl.PROTOCOL_TLS_CLIENT, "ticket keys")
        if context._cache is not None:
            raise two_places("SSLContext.ticket_keys beside session_store")


# What is checked when it is set.
_CHECKS: dict[str, Callable[[SSLContext, Any], None]] = {  # Any: each of its own type
    "_msg_callback": _check_message_callback,
    "keylog_callback": lambda _, callback: _check_callable(callback),
    "ocsp": _check_ocsp,
    "sni_callback": _check_sni_callback,
    "strategy": _check_strategy,
    "ticket_keys": _check_ticket_keys,
    "verify_callback": _check_verify_callback,
}


def _stamp(path: str) -> tuple[int, int] | None:
    """When the file was changed, and its size. None if there is no such file: the standard library raises for it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
