"""SSLContext: the standard library's, compiled into a Config when a connection needs one.

The base class holds and checks what it can: versions, options, verify mode, ciphers. It never makes a connection. What
it would not give back (certificates, keys, trust anchors, protocols) is remembered here as it was given. A change after
a connection was made compiles a new Config for the next one: callers set attributes of a used context every day, and
the connections that exist must not notice.
"""

from __future__ import annotations

import os
import ssl as _stdlib_ssl
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from cryptography import x509
from OpenSSL import SSL

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
from greentls.core.config import (
    SESSION_LIFETIME,
    VERIFY_FAIL_IF_NO_PEER_CERT,
    VERIFY_NONE,
    VERIFY_PEER,
    Config,
    TrustAnchors,
    two_places,
)
from greentls.core.connection import Connection
from greentls.core.early_data import connection_for
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConfigurationError
from greentls.openssl import client_hello, connections, contexts
from greentls.sessions.client import ClientSessions
from greentls.sessions.server import SessionCache
from greentls.ssl.errors import ssl_error
from greentls.ssl.hooks import callbacks as make
from greentls.ssl.hooks.deadline import Asking
from greentls.ssl.hooks.replay_guard import ReplayGuard
from greentls.ssl.peercert import peer_certificate
from greentls.ssl.plain_socket import PlainSocket
from greentls.ssl.replacement import StandIn
from greentls.stores import SessionStore
from greentls.strategy import STRATEGIES
from greentls.tickets import TicketKeys
from greentls.wire import ClientHello

if TYPE_CHECKING:
    from greentls.ocsp.client_check import Mode

__all__ = ["SSLContext"]

# gevent replaces ssl.SSLContext when it patches, and so do we; the class that C knows is the standard library's own.
_Base: Any = next(each for each in _stdlib_ssl.SSLContext.__mro__ if each.__module__ == "ssl")
_C: Any = _Base.__mro__[1]  # _ssl._SSLContext

Path = str | bytes | os.PathLike[str]

CALLBACK_TIMEOUT = 1.0  # seconds: longer than any healthy store or database takes, shorter than a person waits
_SPEAKS_TLS = b"This port speaks TLS: the URL has to begin with https:\n"
PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(_SPEAKS_TLS), _SPEAKS_TLS)
)
MAX_CONTEXTS = 1024  # compiled for what the certificates' source answers: 25 KiB each, and 0.5 ms to make it anew
HANDSHAKE_TIMEOUT = 60.0  # seconds for a whole handshake: what nginx gives, and no peer holds a greenlet for ever

# Protocols that are one version each.
_VERSIONS = {
    _stdlib_ssl.PROTOCOL_TLSv1: _stdlib_ssl.TLSVersion.TLSv1,
    _stdlib_ssl.PROTOCOL_TLSv1_1: _stdlib_ssl.TLSVersion.TLSv1_1,
    _stdlib_ssl.PROTOCOL_TLSv1_2: _stdlib_ssl.TLSVersion.TLSv1_2,
}


# What is left as the standard library has it, and why that does no harm. What else a newer Python's SSLContext has is
# absent here, as in an older one: a setter that reached the base class only would be obeyed by nobody, in silence.
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


class _Absent:
    """An attribute of the base class that is none of ours: there is no getting and no setting it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.message = f"{owner.__name__} has no {name}: it is of a newer ssl than greentls knows"

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise AttributeError(self.message)

    def __set__(self, instance: Any, value: Any) -> NoReturn:
        raise AttributeError(self.message)


def hide_unknown(cls: type, base: type) -> None:
    """What base has in public, and cls neither defines nor INHERITED lists, becomes absent."""
    own = {name for each in cls.__mro__ if not issubclass(base, each) for name in vars(each)}
    for name in dir(base):
        if not name.startswith("_") and name not in own and name not in INHERITED:
            absent = _Absent()
            setattr(cls, name, absent)
            absent.__set_name__(cls, name)


def _property(name: str, kind: Callable[[Any], Any]) -> property:
    """The base's attribute, set through C: the standard library's own setters recurse once ssl has been patched."""
    attribute = getattr(_C, name)

    def get(self: SSLContext) -> Any:
        return kind(attribute.__get__(self))

    def set(self: SSLContext, value: Any) -> None:
        attribute.__set__(self, value)

    return property(get, set, doc=attribute.__doc__)


class SSLContext(_Base, metaclass=StandIn):  # type: ignore[misc]  # _Base is found at run time
    """ssl.SSLContext with answers that may wait.

    certificates: a CertificateSource (greentls.certificates.Directory, Callback), asked for those of each server name.
    session_store: a SessionStore (greentls.open_store()), None: sessions live in tickets. ticket_keys: a TicketKeys
    that they are sealed with, None: by a key that only this process has. sni_callback(sock, server_name, context):
    None, or an alert's number to refuse with; may set sock.context. alpn_callback(sock, offered): one of the offered
    protocols, or None. ocsp_callback(sock): the DER OCSP response to staple, or None; typically a
    greentls.ocsp.Stapler. client_hello_callback(sock, hello): asked before OpenSSL has seen a byte; None, another
    SSLContext to go on with, an alert's number to refuse with, or sock.pass_through(). verify_callback(sock, chain,
    resumed=...): asked about the peer's certificate once OpenSSL has found it good, and on resumptions; returns None,
    or raises to refuse. keylog_callback(sock, line): the lines of keylog_filename. callback_timeout, handshake_timeout:
    seconds, None for ever. plain_http_answer: bytes for a client that speaks HTTP without TLS, None for nothing.
    read_ahead: False leaves what is behind the record that is being read to the kernel, where select() sees it; that
    costs a second system call for each record.
    session_id_context: bytes; sessions resume only where it is the same, and so are the settings that decide which
    clients are accepted. By default the certificates' names take its place.
    max_early_data: a server's, bytes that a resuming client may send before the handshake (0-RTT), 0 for none: they can
    be a copy of what a client sent before, see sock.handshake_finished. replay_guard: a store that all servers share,
    with add() (SharedValues), None for the session_store: what it has seen, or cannot tell, is refused as early data.
    client_sessions: a ClientSessions, from which connections resume and in which they leave their sessions; None: they
    resume what they are given as wrap_socket(session=...). As an attribute of the class it is every context's default.
    """

    client_sessions: ClientSessions | None = None
    _stands_in_for = (_Base,)

    options = _property("options", lambda value: _stdlib_ssl.Options(value))
    verify_flags = _property("verify_flags", lambda value: _stdlib_ssl.VerifyFlags(value))
    verify_mode = _property("verify_mode", lambda value: _stdlib_ssl.VerifyMode(value))
    minimum_version = _property("minimum_version", lambda value: _stdlib_ssl.TLSVersion(value))
    maximum_version = _property("maximum_version", lambda value: _stdlib_ssl.TLSVersion(value))

    def __init__(self, protocol: int | None = None, *_: Any, **__: Any) -> None:
        self._changes = 0
        self._compiled: dict[bool, tuple[Any, Any, Config]] = {}  # changes when compiled, settings, Config
        self._by_certificates = _ByCertificates()
        self._contexts: weakref.WeakSet[Config] = weakref.WeakSet()  # those in use
        self._chains: list[CertificateChain] = []
        self._trust = TrustAnchors()
        self._stamps: dict[str, tuple[int, int]] = {}  # of files with trust anchors: when changed, how long
        self._ciphers: str = _stdlib_ssl._DEFAULT_CIPHERS
        self._alpn: tuple[bytes, ...] = ()
        self._ciphersuites = ""
        self._groups = ""
        self._server_sigalgs = self._client_sigalgs = ""
        self._dh_parameters = ""
        self._psk_client: Any = None
        self._psk_server: Any = None
        self._psk_identity_hint = b""
        self._message_callback: Callable[..., Any] | None = None
        self._cache: SessionCache | None = None
        self._strategy = "coroutine"
        #: What became of handshakes: "full", "session_id", "ticket", "stateful", "psk", "failed"; and of lookups:
        #: "lookup hit", "lookup miss" and so on, as in SessionLookup.
        self.counters: Counter[str] = Counter()
        self._ticket_keys: TicketKeys | None = None
        self._sni_callback: Callable[[Any, str | None, SSLContext], int | None] | None = None
        self._verify_callback: Callable[..., None] | None = None
        self._keylog_callback: Callable[[Any, bytes], object] | None = None
        self.certificates: CertificateSource | None = None
        self.alpn_callback: Callable[[Any, list[str]], str | None] | None = None
        self._ocsp: Mode | None = None
        self._crls: tuple[x509.CertificateRevocationList, ...] = ()
        self.ocsp_callback: Callable[[Any], bytes | None] | None = None
        self.client_hello_callback: Callable[[Any, ClientHello], SSLContext | PlainSocket | int | None] | None = None
        self.plain_http_answer: bytes | None = PLAIN_HTTP_ANSWER
        self.callback_timeout: float | None = CALLBACK_TIMEOUT
        self.handshake_timeout: float | None = HANDSHAKE_TIMEOUT
        self.session_id_context = b""
        self.session_lifetime = SESSION_LIFETIME
        self.read_ahead = True
        self.max_early_data = 0
        self.replay_guard: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if "_changes" in self.__dict__:  # not so where a subclass, truststore's, leaves __init__() out
            self.__dict__["_changes"] += 1

    # -- certificates and trust ----------------------------------------------------------------------------------------

    def load_cert_chain(
        self,
        certfile: Certificates,
        keyfile: Path | Any = None,
        password: Password = None,
    ) -> None:
        """As the standard library's, and besides paths it takes PEM text or bytes, DER bytes, and cryptography's
        objects. A second pair with another kind of key (ECDSA beside RSA) is added.

        Raises ssl.SSLError for what is no certificate, no key or no pair, OSError for a file that cannot be read.
        """
        refusal, secret = None, _Password(password)
        if is_path(certfile) and (keyfile is None or is_path(keyfile)):
            try:  # for the standard library's errors, and its ways with a password
                super().load_cert_chain(certfile, keyfile, secret if callable(password) else password)
            except _stdlib_ssl.SSLError as error:
                refusal = error  # its OpenSSL is older, and may not know the key's kind
        try:
            chain = CertificateChain.load(certfile, keyfile, secret.answer)
            chain.check(f"certificate for {', '.join(chain.names)}", ciphers=self._ciphers)
        except ConfigurationError as error:
            raise _refused(error, getattr(refusal, "reason", None) or "PEM_LIB") from error
        self._chains = [each for each in self._chains if type(each.key) is not type(chain.key)] + [chain]

    def load_verify_locations(
        self, cafile: Path | None = None, capath: Path | None = None, cadata: str | bytes | None = None
    ) -> None:
        """As the standard library's, which also checks what it is given. A file that has not changed since it was
        loaded costs nothing."""
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
        """Certificate revocation lists: the peer's certificate must not be in that of its issuer, which must be among
        them, and of this time. With VERIFY_CRL_CHECK_CHAIN in verify_flags the same holds for every CA of the chain.

        May be set to a path, PEM or DER, one of cryptography's objects, a list of these, or None. Raises ssl.SSLError
        for what is none, OSError.
        """
        return self._crls

    @crl.setter
    def crl(self, source: CRLs) -> None:
        try:
            self._crls = load_crls(source)
        except ConfigurationError as error:
            raise _refused(error, "PEM_LIB") from error

    def get_ca_certs(self, binary_form: bool = False) -> list[Any]:
        """As the standard library's, with those of a directory that handshakes have needed so far."""
        known = super().get_ca_certs(True)
        more = {each for context in self._contexts if self._trust.directories for each in context.ca_certificates}
        new = sorted(more.difference(known))
        if binary_form:
            return [*known, *new]
        return [*super().get_ca_certs(), *map(peer_certificate, new)]

    def set_default_verify_paths(self) -> None:
        """The trust anchors that the standard library's OpenSSL would use, or SSL_CERT_FILE and SSL_CERT_DIR."""
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
        """TLS 1.3 cipher suites, colon-separated. As the standard library's of Python 3.15, as the next three; but what
        is known is what cryptography's OpenSSL knows. Raises ssl.SSLError."""
        _check(contexts.set_ciphersuites, ciphersuites)
        self._ciphersuites = ciphersuites

    def set_groups(self, groups: str, /) -> None:
        """Key-exchange groups, colon-separated, best first."""
        _check(contexts.set_groups, groups)
        self._groups = groups

    def set_server_sigalgs(self, sigalgs: str, /) -> None:
        """Signature algorithms of the handshake, colon-separated, best first."""
        _check(contexts.set_signature_algorithms, sigalgs)
        self._server_sigalgs = sigalgs

    def set_client_sigalgs(self, sigalgs: str, /) -> None:
        """Those of a client's certificate, if they differ from set_server_sigalgs()."""
        _check(contexts.set_signature_algorithms, sigalgs)
        self._client_sigalgs = sigalgs

    def load_dh_params(self, path: Path) -> None:
        super().load_dh_params(path)
        self._dh_parameters = os.fsdecode(path)

    # -- answers -------------------------------------------------------------------------------------------------------

    @property
    def sni_callback(self) -> Callable[[Any, str | None, SSLContext], int | None] | None:
        return self._sni_callback

    @sni_callback.setter
    def sni_callback(self, callback: Callable[[Any, str | None, SSLContext], int | None] | None) -> None:
        if callback is not None:
            if not callable(callback):
                raise TypeError("not a callable object")
            self._must_not_be(_stdlib_ssl.PROTOCOL_TLS_CLIENT, "sni_callback")
        self._sni_callback = callback

    @property
    def verify_callback(self) -> Callable[..., None] | None:
        return self._verify_callback

    @verify_callback.setter
    def verify_callback(self, callback: Callable[..., None] | None) -> None:
        if callback is not None:
            make.check_verify_callback(callback)
        self._verify_callback = callback

    @property
    def keylog_callback(self) -> Callable[[Any, bytes], object] | None:
        return self._keylog_callback

    @keylog_callback.setter
    def keylog_callback(self, callback: Callable[[Any, bytes], object] | None) -> None:
        self._keylog_callback = _callable_or_none(callback)

    @property
    def ocsp(self) -> Mode | None:
        """A client's: "require" refuses a server that does not staple a good OCSP response; "check" does with what it
        gets, and else asks the responder. Raises ConfigurationError for anything else than these and None."""
        return self._ocsp

    @ocsp.setter
    def ocsp(self, mode: Mode | None) -> None:
        if mode is not None:
            from greentls.ocsp.client_check import MODES

            if mode not in MODES:
                raise ConfigurationError(f"ocsp {mode!r}", "no such mode", f"known are None, {', '.join(MODES)}")
            self._must_not_be(_stdlib_ssl.PROTOCOL_TLS_SERVER, "ocsp")
        self._ocsp = mode

    @property
    def _msg_callback(self) -> Callable[..., Any] | None:
        return self._message_callback

    @_msg_callback.setter
    def _msg_callback(self, callback: Callable[..., Any] | None) -> None:
        if callback is not None and not callable(callback):
            raise TypeError(f"{callback} is not callable.")
        self._message_callback = callback

    def set_psk_client_callback(self, callback: Callable[[str | None], tuple[str | None, bytes]] | None) -> None:
        """callback(the server's hint): (identity, key). As the standard library's of Python 3.13."""
        self._must_not_be(_stdlib_ssl.PROTOCOL_TLS_SERVER, "PSK client callback")
        self._psk_client = _callable_or_none(callback)

    def set_psk_server_callback(
        self, callback: Callable[[str | None], bytes] | None, identity_hint: str | None = None
    ) -> None:
        """callback(the client's identity): the key, empty if there is none."""
        self._must_not_be(_stdlib_ssl.PROTOCOL_TLS_CLIENT, "PSK server callback")
        self._psk_server = _callable_or_none(callback)
        self._psk_identity_hint = (identity_hint or "").encode()

    def _must_not_be(self, protocol: Any, what: str) -> None:
        if self.protocol == protocol:
            raise ssl_error(f"Cannot add {what} to a {protocol.name} context")

    @property
    def strategy(self) -> str:
        """How handshakes wait for callbacks: one of greentls.strategy.STRATEGIES. Raises ValueError for another."""
        return self._strategy

    @strategy.setter
    def strategy(self, name: str) -> None:
        if name not in STRATEGIES:
            raise ConfigurationError(f"strategy {name!r}", "no such strategy", f"known are {', '.join(STRATEGIES)}")
        self._strategy = name

    @property
    def session_store(self) -> SessionStore | None:
        return self._cache.store if self._cache else None

    @session_store.setter
    def session_store(self, store: SessionStore | None) -> None:
        if store is not None and self._ticket_keys is not None:
            raise two_places("SSLContext.session_store beside ticket_keys")
        if store is not self.session_store:
            self._cache = SessionCache(store) if store is not None else None

    @property
    def ticket_keys(self) -> TicketKeys | None:
        return self._ticket_keys

    @ticket_keys.setter
    def ticket_keys(self, keys: TicketKeys | None) -> None:
        if keys is not None:
            if not isinstance(keys, TicketKeys):
                raise TypeError(f"a {type(keys).__name__} is not a TicketKeys")
            self._must_not_be(_stdlib_ssl.PROTOCOL_TLS_CLIENT, "ticket keys")
            if self._cache is not None:
                raise two_places("SSLContext.ticket_keys beside session_store")
        self._ticket_keys = keys

    def drain_sessions(self, timeout: float | None = None) -> bool:
        """Waits until the store has the sessions of the connections so far. False: not within timeout seconds."""
        return self._cache.drain(timeout) if self._cache else True

    def session_stats(self) -> dict[str, int]:
        """As the standard library's, over the connections of all settings that are in use."""
        total: Counter[str] = Counter(dict.fromkeys(super().session_stats(), 0))
        for context in self._contexts:
            total.update(context.session_stats)
        return dict(total)

    # -- connections ---------------------------------------------------------------------------------------------------

    def wrap_socket(
        self,
        sock: Any,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: Session | None = None,
    ) -> Any:
        """An SSLSocket that owns sock's descriptor from now on; sock is detached. Does the handshake, unless told not
        to. Raises as SSLSocket.do_handshake(). What client_hello_callback passed through is a PlainSocket instead."""
        return self.sslsocket_class._create(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, self, session
        )

    def _wrap_bio(
        self,
        incoming: Any,
        outgoing: Any,
        server_side: bool = False,
        server_hostname: str | None = None,
        *,
        owner: Any = None,
        session: Session | None = None,
    ) -> Any:
        """The _sslobj of an ssl.SSLObject: the base's wrap_bio() makes one of it."""
        from greentls.ssl.memorybio import BIOConnection

        return BIOConnection(self, incoming, outgoing, server_side, server_hostname, owner, session)

    def connection(
        self,
        server_side: bool,
        server_hostname: str | None,
        session: Session | None,
        owner: Any,
        early_data: bool = False,
    ) -> Connection:
        """A Connection of these settings. owner: whom the callbacks get. early_data: may be taken, as max_early_data
        says. Raises ValueError, TypeError, ssl.SSLError."""
        if server_hostname is not None:
            if not server_hostname or server_hostname.startswith("."):
                raise ValueError("server_hostname cannot be an empty string or start with a leading dot.")
            if "\0" in server_hostname:
                raise TypeError("argument must be encoded string without null bytes")
            if len(server_hostname) > connections.MAX_SERVER_NAME:
                raise ssl_error(
                    f"[SSL: SSL3_EXT_INVALID_SERVERNAME] ssl3 ext invalid servername: {len(server_hostname)} bytes",
                    "SSL",
                    "SSL3_EXT_INVALID_SERVERNAME",
                )
        if session is not None and not isinstance(session, Session):
            raise TypeError("Value is not a SSLSession.")
        if not self.has_side(server_side):
            side = "server" if server_side else "client"
            raise ssl_error(f"Cannot create a {side} socket with a {self.protocol.name} context")
        try:
            context = self.compile(server_side)
        except ConfigurationError as error:
            raise _refused(error, "BAD_CONFIGURATION") from error
        if server_side:
            connection = connection_for(context, early_data)(context)
        else:
            connection = Connection(
                context, server_hostname=server_hostname, verify_hostname=self.check_hostname, session=session
            )
        connection.owner = weakref.ref(owner)
        return connection

    def has_side(self, server_side: bool) -> bool:
        """Whether this context makes servers (True), or clients (False)."""
        refused = _stdlib_ssl.PROTOCOL_TLS_CLIENT if server_side else _stdlib_ssl.PROTOCOL_TLS_SERVER
        protocol: int = _C.protocol.__get__(self)  # the number: to make an enum of it for each connection is slow
        return protocol != refused

    def compile(self, server_side: bool, certificates: tuple[CertificateChain, ...] | None = None) -> Config:
        """The Config of these settings, with other certificates if there are any. Raises ConfigurationError,
        UnsupportedOpenSSL."""
        changes, known, context = self._compiled.get(server_side, (None, None, None))
        now = self._changes, self.client_sessions  # which may be the class's
        if context is None or changes != now:
            settings = self._settings(server_side)
            if context is None or settings != known:
                context = Config(**settings[0])
                self._contexts.add(context)
            self._compiled[server_side] = now, settings, context
        if certificates is None:
            return context
        other = self._by_certificates.get(context, certificates)
        if other is None:
            _, (settings, _), _ = self._compiled[server_side]
            other = Config(**{**settings, "certificates": certificates})
            self._by_certificates.put(context, certificates, other)
            self._contexts.add(other)
        return other

    def has_certificate(self) -> bool:
        """load_cert_chain() has been called."""
        return bool(self._chains)

    def check_server(self) -> None:
        """Raises ssl.SSLError unless there is something that a server can show, or may have been told to do without;
        it would be told "no shared cipher"."""
        callbacks = self._sni_callback, self.client_hello_callback, self._psk_server, self.certificates
        known = self._chains or any(each is not None for each in callbacks)
        if not known and self._ciphers == _stdlib_ssl._DEFAULT_CIPHERS:
            error = ConfigurationError("SSLContext", "a server needs a certificate", "call load_cert_chain()")
            raise _refused(error, "NO_CERTIFICATE_ASSIGNED") from error

    def _settings(self, server_side: bool) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
        """Config's, and what else tells whether it would be the same. Raises ConfigurationError."""
        if server_side and self._verify_callback and self.verify_mode == _stdlib_ssl.CERT_NONE:
            problem = "a server asks for no certificate while verify_mode is CERT_NONE"
            raise ConfigurationError("verify_callback", problem, "set verify_mode to CERT_REQUIRED or CERT_OPTIONAL")
        mode = VERIFY_NONE
        if self.verify_mode != _stdlib_ssl.CERT_NONE:
            mode = VERIFY_PEER
            if server_side and self.verify_mode == _stdlib_ssl.CERT_REQUIRED:
                mode |= VERIFY_FAIL_IF_NO_PEER_CERT
        elif self._crls or (self._ocsp and not server_side):
            raise ConfigurationError("SSLContext", "crl and ocsp look at a verified chain", "set verify_mode")
        fixed = _VERSIONS.get(self.protocol)
        settings = {
            "server_side": server_side,
            "certificates": tuple(self._chains),
            "trust": self._trust,
            "crls": self._crls,
            "minimum_version": fixed or _in_use(self.minimum_version),
            "maximum_version": fixed or _in_use(self.maximum_version),
            "options": int(self.options),
            "verify_mode": mode,
            "verify_flags": int(self.verify_flags),
            "ciphers": self._ciphers,
            "ciphersuites": self._ciphersuites,
            "groups": self._groups,
            "signature_algorithms": self._server_sigalgs,
            "client_signature_algorithms": self._client_sigalgs,
            "alpn_protocols": self._alpn,
            "psk_identity_hint": self._psk_identity_hint if server_side else b"",
            "dh_parameters": self._dh_parameters,
            "post_handshake_auth": bool(self.post_handshake_auth),
            "hostname_checks_common_name": self.hostname_checks_common_name,
            "hooks": self._hooks(server_side),
            "session_id_context": self.session_id_context,
            "session_lifetime": self.session_lifetime,
            "max_early_data": self.max_early_data if server_side else 0,
            "num_tickets": self.num_tickets if server_side and self.num_tickets != 2 else None,
        }
        return settings, self._stamps

    def _ask_client_hello_callback(
        self, connection: Connection, hello: ClientHello
    ) -> SSLContext | PlainSocket | int | None:
        """What it answers, in time and of a kind that it may; raises what it raises, TimeoutError or TypeError.
        UnsupportedOpenSSL where a second hello could not be compared with this one."""
        callback = self.client_hello_callback
        if callback is None:
            return None
        client_hello.need()
        with Asking(connection, "client_hello_callback", self.callback_timeout):
            answer = callback(connection.owner(), hello)
        if answer is None or issubclass(type(answer), SSLContext | PlainSocket):
            return answer
        return make.alert(answer, "client_hello_callback")

    def _hooks(self, server_side: bool) -> Hooks:
        hooks = Hooks()
        if server_side and self._cache:
            self._cache.timeout = self.callback_timeout
            hooks = self._cache.hooks
        elif not server_side and self.client_sessions is not None:
            hooks = Hooks(new_session=self.client_sessions.collect)
        if self.keylog_filename or self._keylog_callback:
            keylog = make.KeyLog(self.keylog_filename, self._keylog_callback, self.callback_timeout)
            hooks = replace(hooks, keylog=keylog)
        if self._verify_callback:
            hooks = replace(hooks, verify=make.VerifyCallback(self._verify_callback, self.callback_timeout))
        if self._message_callback:
            hooks = replace(hooks, message=make.MessageCallback(self._message_callback))
        if not server_side:
            if self._ocsp is not None:
                from greentls.ssl.hooks import revocation

                hooks = replace(hooks, ocsp=revocation.OCSPCheck(self._ocsp, self.callback_timeout))
            if self._psk_client:
                hooks = replace(hooks, psk_client=make.PSKClient(self._psk_client, self.callback_timeout))
            return hooks
        if self.max_early_data:
            guard = self.session_store if self.replay_guard is None else self.replay_guard
            hooks = replace(hooks, early_data=ReplayGuard(guard, self.callback_timeout))
        if self._psk_server:
            hooks = replace(hooks, psk_server=make.PSKServer(self._psk_server, self.callback_timeout))
        if self._ticket_keys is not None:
            hooks = replace(hooks, ticket_key=make.TicketKeyChoice(self._ticket_keys, self.callback_timeout))
        if self._sni_callback is not None or self.certificates is not None:
            chooser = make.ServerName(weakref.ref(self), self._sni_callback, self.certificates, self.callback_timeout)
            hooks = replace(hooks, servername=chooser)
        if self.alpn_callback is not None:
            hooks = replace(hooks, alpn=make.ALPNCallback(self.alpn_callback, self.callback_timeout))
        elif self._alpn:
            hooks = replace(hooks, alpn=make.ALPNChoice(self._alpn))
        if self.ocsp_callback is not None:
            from greentls.ssl.hooks import revocation

            hooks = replace(hooks, ocsp=revocation.OCSPCallback(self.ocsp_callback, self.callback_timeout))
        return hooks


hide_unknown(SSLContext, _Base)


class _ByCertificates:
    """Configs that differ from one in their certificates only; those used last are kept.

    A renewed certificate is another key here, and so another Context. The first one stays, and with it whatever
    sessions hang on: the store's hooks and the keys of tickets.
    """

    def __init__(self) -> None:
        self._first: Config | None = None
        self._others: OrderedDict[tuple[CertificateChain, ...], Config] = OrderedDict()

    def get(self, first: Config, certificates: tuple[CertificateChain, ...]) -> Config | None:
        other = self._others.get(certificates) if first is self._first else None
        if other is not None:
            self._others.move_to_end(certificates)
        return other

    def put(self, first: Config, certificates: tuple[CertificateChain, ...], other: Config) -> None:
        if first is not self._first:
            self._first = first
            self._others.clear()
        self._others[certificates] = other
        if len(self._others) > MAX_CONTEXTS:
            self._others.popitem(last=False)


class _Password:
    """Asks the user's function once, and keeps its answer for the second who needs it."""

    def __init__(self, given: Password) -> None:
        self.answer = given

    def __call__(self) -> Any:
        if callable(self.answer):
            self.answer = self.answer()
        return self.answer


def _in_use(version: int) -> int:
    """0, no bound, for MINIMUM_SUPPORTED and MAXIMUM_SUPPORTED, and for SSLv3, which OpenSSL 4 knows nothing of."""
    return version if version > _stdlib_ssl.TLSVersion.SSLv3 else 0


def _refused(error: ConfigurationError, reason: str) -> _stdlib_ssl.SSLError:
    """As the standard library says it, and what it is about, and why."""
    words = reason.replace("_", " ").lower().replace("pem", "PEM")
    return ssl_error(f"[SSL: {reason}] {words}: {error} (greentls)", "SSL", reason)


def _check(setter: Callable[[SSL.Context, str], None], names: str) -> None:
    """Raises TypeError, ssl.SSLError."""
    if not isinstance(names, str):
        raise TypeError(f"{type(names).__name__} is not a string of names")
    try:
        setter(SSL.Context(SSL.TLS_METHOD), names)
    except ConfigurationError as error:
        raise ssl_error(f"{error} (greentls)") from error


def _callable_or_none(callback: Any) -> Any:
    if callback is not None and not callable(callback):
        raise TypeError("callback must be callable")
    return callback


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None  # the standard library's error is the one that callers know
    return found.st_mtime_ns, found.st_size
