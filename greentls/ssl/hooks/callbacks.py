"""From an SSLContext's callbacks to the bridge's hooks: with a socket for a connection, and a deadline.

Equal settings make equal hooks, so that an attribute that is set to what it was compiles no new Context.
"""

from __future__ import annotations

import inspect
import os
import ssl as _stdlib_ssl
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greentls.certificates import read_certificate
from greentls.core.connection import Connection
from greentls.ssl.hooks.deadline import Asking
from greentls.tickets import TicketKey, TicketKeys

if TYPE_CHECKING:
    from greentls.certificates import CertificateSource
    from greentls.ssl.context import SSLContext

__all__ = [
    "ALPNCallback",
    "ALPNChoice",
    "KeyLog",
    "MessageCallback",
    "PSKClient",
    "PSKServer",
    "ServerName",
    "TicketKeyChoice",
    "VerifyCallback",
    "alert",
    "check_verify_callback",
    "shown",
]


def shown(answer: object) -> str:
    """An answer of a wrong kind, for a message: which kind, since whatever else it is may be a secret."""
    return str(answer) if isinstance(answer, int) else f"a {type(answer).__name__}"


def alert(answer: object, who: str) -> int:
    """The alert's number. Raises TypeError."""
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 < answer < 256:
        raise TypeError(f"{who} answered {shown(answer)}: neither None nor an alert's number")
    return answer


@dataclass(frozen=True)
class ServerName:
    """First the sni_callback, which may go on with another context; then the certificates of the one that it is."""

    context: weakref.ref[SSLContext]  # the Config must not keep alive what keeps it
    callback: Callable[[Any, str | None, Any], int | None] | None
    certificates: CertificateSource | None
    timeout: float | None

    def __call__(self, connection: Connection, name: str | None) -> int | None:
        sock, source = connection.owner(), self.certificates
        context: Any = self.context()
        if self.callback is not None:
            with Asking(connection, "sni_callback", self.timeout):
                refusal = self.callback(sock, name, context)
            if refusal is not None:
                return alert(refusal, "sni_callback")
            if sock.context is not context:
                context = sock.context
                source = context.certificates
        if source is None:
            return None
        with Asking(connection, "certificates", self.timeout):
            chains = source.get(name)
        if chains:
            connection.switch_context(context.compile(True, tuple(chains)))
            return None
        return None if context.has_certificate() else _stdlib_ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


@dataclass(frozen=True)
class ALPNCallback:
    callback: Callable[[Any, list[str]], str | None]
    timeout: float | None

    def __call__(self, connection: Connection, offered: Sequence[bytes]) -> bytes | None:
        with Asking(connection, "alpn_callback", self.timeout):
            chosen = self.callback(connection.owner(), [each.decode("latin-1") for each in offered])
        return None if chosen is None else chosen.encode("latin-1")


@dataclass(frozen=True)
class ALPNChoice:
    """The first of ours that the client offers, too."""

    ours: tuple[bytes, ...]
    waits = False

    def __call__(self, connection: Connection, offered: Sequence[bytes]) -> bytes | None:
        return next((protocol for protocol in self.ours if protocol in offered), None)


@dataclass(frozen=True)
class TicketKeyChoice:
    """Waits at the very first use only, and goes on with a key of this process's own."""

    keys: TicketKeys
    timeout: float | None

    def __call__(self, connection: Connection, name: bytes | None) -> tuple[TicketKey, bool] | None:
        self.keys.ready(self.timeout)
        return self.keys.opening(name) if name is not None else (self.keys.keys[0], False)


@dataclass(frozen=True)
class VerifyCallback:
    callback: Callable[..., object]
    timeout: float | None

    def __call__(self, connection: Connection, chain: list[bytes], resumed: bool) -> None:
        certificates = [read_certificate(each) for each in chain]
        with Asking(connection, "verify_callback", self.timeout):
            answer = self.callback(connection.owner(), certificates, resumed=resumed)
        if answer is not None:  # False, too, which its author may have meant for a no
            raise TypeError(f"verify_callback answered {shown(answer)}: None says yes, an exception says no")


def check_verify_callback(callback: Callable[..., None]) -> None:
    """Raises TypeError for one that could not be called; it would refuse every connection."""
    try:
        inspect.signature(callback).bind(None, [], resumed=False)
    except ValueError:
        pass  # a builtin does not tell
    except TypeError as error:
        raise TypeError(f"verify_callback is called with (sock, chain, resumed=...): {error}") from None


@dataclass(frozen=True)
class KeyLog:
    """Appends lines to an SSLKEYLOGFILE, to which other processes may append too, and gives them to a callback."""

    path: str | None
    callback: Callable[[Any, bytes], object] | None
    timeout: float | None

    def __call__(self, connection: Connection, line: bytes) -> None:
        if self.path:
            self.append(self.path, line)
        if self.callback:
            with Asking(connection, "keylog_callback", self.timeout):
                self.callback(connection.owner(), line)

    @staticmethod
    def append(path: str, line: bytes) -> None:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line + b"\n")
        finally:
            os.close(file)


@dataclass(frozen=True)
class MessageCallback:
    """The standard library's _msg_callback: with its enums, as far as it has a member for a number."""

    callback: Callable[[Any, str, int, int, int, bytes], Any]

    def __call__(self, connection: Connection, sent: bool, version: int, content_type: int, message: bytes) -> None:
        if content_type == _HEADER:
            version = message[1] << 8 | message[2]
        where, kind = _MESSAGE_TYPES.get(content_type, (None, "_TLSMessageType"))
        if content_type == _CHANGE_CIPHER_SPEC:
            number = _stdlib_ssl._TLSMessageType.CHANGE_CIPHER_SPEC  # type: ignore[attr-defined]  # not in typeshed
        else:
            number = -1 if where is None else message[where]
        self.callback(
            connection.owner(),
            "write" if sent else "read",
            _member("TLSVersion", version),
            _member("_TLSContentType", content_type),
            _member(kind, number),
            message,
        )


def _member(kind: str, number: int) -> int:
    try:
        member: int = getattr(_stdlib_ssl, kind)(number)
    except ValueError:
        return number
    return member


# SSL_CTX_set_msg_callback(3): content types of records, and two of OpenSSL's own.
_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _HEADER, _INNER_CONTENT_TYPE = 20, 21, 22, 0x100, 0x101
# Where in a message its type is, and the standard library's enum of that.
_MESSAGE_TYPES = {
    _ALERT: (1, "_TLSAlertType"),
    _HANDSHAKE: (0, "_TLSMessageType"),
    _HEADER: (0, "_TLSContentType"),
    _INNER_CONTENT_TYPE: (0, "_TLSMessageType"),
}


@dataclass(frozen=True, repr=False)  # a functools.partial shows the keys that it was given
class PSKClient:
    callback: Callable[[str | None], tuple[str | None, bytes] | None]
    timeout: float | None

    def __call__(self, connection: Connection, hint: str | None) -> tuple[str | None, bytes] | None:
        with Asking(connection, "psk_client_callback", self.timeout):
            answer = self.callback(hint)
        connection.external_psk = answer is not None
        return answer


@dataclass(frozen=True, repr=False)  # a functools.partial shows the keys that it was given
class PSKServer:
    callback: Callable[[str | None], bytes]
    timeout: float | None

    def __call__(self, connection: Connection, identity: str) -> bytes:
        with Asking(connection, "psk_server_callback", self.timeout):
            key = self.callback(identity)
        connection.external_psk = bool(key)
        return key
