"""SSLContext: the standard library's, compiled into a Context when a connection needs one.

The base class holds and checks what it can: versions, options, verify mode, ciphers. It never makes a connection. What
it would not give back (certificates, keys, trust anchors, protocols) is remembered here as it was given. A change after
a connection was made compiles a new Context for the next one: callers set attributes of a used context every day, and
the connections that exist must not notice.
"""

from __future__ import annotations

import os
import ssl as _stdlib_ssl
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from cryptography import x509

from greentls.bridge import Hooks
from greentls.certificates import CertificateChain, Password
from greentls.connection import Connection
from greentls.context import (
    SESSION_LIFETIME,
    VERIFY_FAIL_IF_NO_PEER_CERT,
    VERIFY_NONE,
    VERIFY_PEER,
    Context,
    TrustAnchors,
)
from greentls.errors import ConfigurationError
from greentls.session import Session
from greentls.session_cache import SessionCache
from greentls.ssl.deadline import Deadline
from greentls.ssl.plain import PlainSocket
from greentls.stores import SessionStore
from greentls.wire import ClientHello

__all__ = ["SSLContext"]

# gevent replaces ssl.SSLContext when it patches; the class that C knows is the one the standard library defined.
_Base: Any = next(each for each in _stdlib_ssl.SSLContext.__mro__ if each.__module__ == "ssl")
_C: Any = _Base.__mro__[1]  # _ssl._SSLContext

CALLBACK_TIMEOUT = 1.0  # seconds: longer than any healthy store or database takes, shorter than a person waits
_SPEAKS_TLS = b"This port speaks TLS: the URL has to begin with https:\n"
PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(_SPEAKS_TLS), _SPEAKS_TLS)
)
HANDSHAKE_TIMEOUT = 60.0  # seconds for a whole handshake: what nginx gives, and no peer holds a greenlet for ever


def _property(name: str, kind: Callable[[Any], Any]) -> property:
    """The base's attribute, set through C: the standard library's own setters recurse once gevent has patched ssl."""
    attribute = getattr(_C, name)

    def get(self: SSLContext) -> Any:
        return kind(attribute.__get__(self))

    def set(self: SSLContext, value: Any) -> None:
        attribute.__set__(self, value)

    return property(get, set, doc=attribute.__doc__)


class SSLContext(_Base):  # type: ignore[misc]
    """ssl.SSLContext with answers that may wait.

    session_store: a SessionStore (greentls.open_store()), None: sessions live in tickets that only this process can
    open. sni_callback(sock, server_name, context): None, or an alert's number to refuse with; may set sock.context.
    alpn_callback(sock, offered): one of the offered protocols, or None. client_hello_callback(sock, hello): asked
    before OpenSSL has seen a byte; None, another SSLContext to go on with, an alert's number to refuse with, or
    sock.pass_through(). callback_timeout, handshake_timeout: seconds, None for ever. plain_http_answer: bytes for a
    client that speaks HTTP without TLS, None for nothing. session_id_context: bytes; sessions resume only where it is
    the same. By default it is made from the certificates' names, the verify mode and the trust anchors.
    """

    options = _property("options", lambda value: _stdlib_ssl.Options(value))
    verify_flags = _property("verify_flags", lambda value: _stdlib_ssl.VerifyFlags(value))
    verify_mode = _property("verify_mode", lambda value: _stdlib_ssl.VerifyMode(value))
    minimum_version = _property("minimum_version", lambda value: _stdlib_ssl.TLSVersion(value))
    maximum_version = _property("maximum_version", lambda value: _stdlib_ssl.TLSVersion(value))

    def __init__(self, protocol: int | None = None) -> None:
        self._compiled: dict[bool, Context] = {}
        self._chains: list[CertificateChain] = []
        self._trust = TrustAnchors()
        self._ciphers = ""
        self._alpn: tuple[bytes, ...] = ()
        self._cache: SessionCache | None = None
        self._sni_callback: Any = None
        self.alpn_callback: Callable[[Any, list[str]], str | None] | None = None
        self.client_hello_callback: Callable[[Any, ClientHello], SSLContext | PlainSocket | int | None] | None = None
        self.plain_http_answer: bytes | None = PLAIN_HTTP_ANSWER
        self.callback_timeout: float | None = CALLBACK_TIMEOUT
        self.handshake_timeout: float | None = HANDSHAKE_TIMEOUT
        self.session_id_context = b""
        self.session_lifetime = SESSION_LIFETIME

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._changed()

    def _changed(self) -> None:
        self.__dict__["_compiled"] = {}

    # -- certificates, trust, ciphers, protocols -----------------------------------------------------------------------

    def load_cert_chain(
        self,
        certfile: str | os.PathLike[str],
        keyfile: str | os.PathLike[str] | None = None,
        password: Password = None,
    ) -> None:
        """As the standard library's. A second pair with another kind of key (ECDSA beside RSA) is added.

        Raises ConfigurationError that names the file, OSError if it cannot be read.
        """
        chain = CertificateChain.load(certfile, keyfile, password)
        self._chains = [each for each in self._chains if type(each.key) is not type(chain.key)] + [chain]

    def load_verify_locations(
        self,
        cafile: str | os.PathLike[str] | None = None,
        capath: str | os.PathLike[str] | None = None,
        cadata: str | bytes | None = None,
    ) -> None:
        """As the standard library's, which also checks what it is given."""
        super().load_verify_locations(cafile, capath, cadata)
        trust = self._trust
        if cafile is not None:
            trust = replace(trust, files=(*trust.files, os.fspath(cafile)))
        if capath is not None:
            trust = replace(trust, directories=(*trust.directories, os.fspath(capath)))
        if cadata is not None:
            trust = replace(trust, certificates=(*trust.certificates, *_certificates(cadata)))
        self._trust = trust

    def set_default_verify_paths(self) -> None:
        """The trust anchors that the standard library's OpenSSL would use, or SSL_CERT_FILE and SSL_CERT_DIR."""
        paths = _stdlib_ssl.get_default_verify_paths()
        super().set_default_verify_paths()
        if paths.cafile or paths.capath:
            self.load_verify_locations(paths.cafile, paths.capath)

    def load_default_certs(self, purpose: Any = _stdlib_ssl.Purpose.SERVER_AUTH) -> None:
        self.set_default_verify_paths()

    def set_ciphers(self, ciphers: str) -> None:
        super().set_ciphers(ciphers)
        self._ciphers = ciphers

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        super().set_alpn_protocols(list(alpn_protocols))
        self._alpn = tuple(protocol.encode("ascii") for protocol in alpn_protocols)

    # -- answers -------------------------------------------------------------------------------------------------------

    @property
    def sni_callback(self) -> Callable[[Any, str | None, SSLContext], int | None] | None:
        return self._sni_callback  # type: ignore[no-any-return]

    @sni_callback.setter
    def sni_callback(self, callback: Callable[[Any, str | None, SSLContext], int | None] | None) -> None:
        if callback is not None and not callable(callback):
            raise TypeError("not a callable object")
        self._sni_callback = callback

    @property
    def session_store(self) -> SessionStore | None:
        return self._cache.store if self._cache else None

    @session_store.setter
    def session_store(self, store: SessionStore | None) -> None:
        self._cache = SessionCache(store) if store is not None else None

    def drain_sessions(self, timeout: float | None = None) -> bool:
        """Waits until the store has the sessions of the connections so far. False: not within timeout seconds."""
        return self._cache.drain(timeout) if self._cache else True

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
        from greentls.ssl.socket import SSLSocket

        return SSLSocket._wrap(
            self, sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, session
        )

    def compile(self, server_side: bool) -> Context:
        """The Context of these settings. Raises ConfigurationError, UnsupportedOpenSSL."""
        context = self._compiled.get(server_side)
        if context is None:
            context = self._compiled[server_side] = self._compile(server_side)
        return context

    def _compile(self, server_side: bool) -> Context:
        if server_side and not (self._chains or self._sni_callback or self.client_hello_callback):
            raise ConfigurationError("SSLContext", "a server needs a certificate", "call load_cert_chain()")
        mode = VERIFY_NONE
        if self.verify_mode != _stdlib_ssl.CERT_NONE:
            mode = VERIFY_PEER
            if server_side and self.verify_mode == _stdlib_ssl.CERT_REQUIRED:
                mode |= VERIFY_FAIL_IF_NO_PEER_CERT
        return Context(
            server_side=server_side,
            certificates=tuple(self._chains),
            trust=self._trust,
            minimum_version=max(0, self.minimum_version),  # MINIMUM_SUPPORTED and MAXIMUM_SUPPORTED are negative
            maximum_version=max(0, self.maximum_version),
            options=int(self.options) & 0xFFFFFFFF,
            verify_mode=mode,
            verify_flags=int(self.verify_flags),
            ciphers=self._ciphers,
            alpn_protocols=self._alpn,
            hooks=self._hooks(server_side),
            session_id_context=self.session_id_context,
            session_lifetime=self.session_lifetime,
            num_tickets=self.num_tickets if server_side and self.num_tickets != 2 else None,
        )

    def _ask_client_hello_callback(self, sock: Any, hello: ClientHello) -> SSLContext | PlainSocket | int | None:
        """What it answers, in time and of a kind that it may; raises what it raises, TimeoutError or TypeError."""
        callback = self.client_hello_callback
        if callback is None:
            return None
        with Deadline(self.callback_timeout, "client_hello_callback gave no answer in {} s"):
            answer = callback(sock, hello)
        if answer is None or isinstance(answer, SSLContext | PlainSocket):
            return answer
        return _alert(answer, "client_hello_callback")

    def _hooks(self, server_side: bool) -> Hooks:
        if not server_side:
            return Hooks()
        hooks = Hooks()
        if self._cache:
            self._cache.timeout = self.callback_timeout
            hooks = self._cache.hooks
        me = weakref.ref(self)  # the Context must not keep alive what keeps it
        if self._sni_callback is not None:
            hooks = replace(hooks, servername=_servername_hook(me, self._sni_callback, self.callback_timeout))
        if self.alpn_callback is not None:
            hooks = replace(hooks, alpn=_alpn_hook(self.alpn_callback, self.callback_timeout))
        elif self._alpn:
            hooks = replace(hooks, alpn=_alpn_choice(self._alpn))
        return hooks


def _certificates(data: str | bytes) -> list[x509.Certificate]:
    if isinstance(data, str):
        return x509.load_pem_x509_certificates(data.encode("ascii"))
    certificates = []
    while data:
        length = _der_length(data)
        certificates.append(x509.load_der_x509_certificate(data[:length]))
        data = data[length:]
    return certificates


def _der_length(data: bytes) -> int:
    """Bytes of the DER element that data begins with (X.690 8.1.3)."""
    if len(data) < 2 or data[1] < 0x80:
        return 2 + data[1] if len(data) > 1 else len(data)
    octets = data[1] & 0x7F
    return 2 + octets + int.from_bytes(data[2 : 2 + octets], "big")


def _alert(answer: object, who: str) -> int:
    """The alert's number. Raises TypeError."""
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 < answer < 256:
        raise TypeError(f"{who} answered {answer!r}: neither None nor an alert's number")
    return answer


def _servername_hook(
    context: weakref.ref[SSLContext], callback: Callable[..., int | None], timeout: float | None
) -> Callable[[Connection, str | None], int | None]:
    def servername(connection: Connection, name: str | None) -> int | None:
        with Deadline(timeout, "sni_callback gave no answer in {} s"):
            refusal = callback(connection.owner(), name, context())
        return None if refusal is None else _alert(refusal, "sni_callback")

    return servername


def _alpn_hook(
    callback: Callable[[Any, list[str]], str | None], timeout: float | None
) -> Callable[[Connection, Sequence[bytes]], bytes | None]:
    def alpn(connection: Connection, offered: Sequence[bytes]) -> bytes | None:
        with Deadline(timeout, "alpn_callback gave no answer in {} s"):
            chosen = callback(connection.owner(), [each.decode("latin-1") for each in offered])
        return None if chosen is None else chosen.encode("latin-1")

    return alpn


def _alpn_choice(ours: Sequence[bytes]) -> Callable[[Connection, Sequence[bytes]], bytes | None]:
    def alpn(connection: Connection, offered: Sequence[bytes]) -> bytes | None:
        return next((protocol for protocol in ours if protocol in offered), None)

    return alpn
