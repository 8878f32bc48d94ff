"""The hooks of the core that call an SSLContext's callbacks, with a socket instead of a connection and a deadline.

A hook gets what it needs from its constructor, and does not hold the SSLContext. Hooks with equal arguments are equal.
So setting an attribute to the value that it has already compiles no new Config.
"""

from __future__ import annotations

import os
import ssl as _stdlib_ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greentls.certificates import CertificateChain, CertificateSource, read_certificate
from greentls.core.config import Config
from greentls.core.hooks import HookConnection
from greentls.ssl.context import Sock, SSLContext
from greentls.ssl.hooks.deadline import HookDeadline
from greentls.tickets import TicketKey, TicketKeys

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
    "kind_of",
]


def kind_of(answer: object) -> str:
    """Describes a wrong answer by its type, because its value may be a secret."""
    return str(answer) if isinstance(answer, int) else f"a {type(answer).__name__}"


def alert(answer: object, who: str) -> int:
    """Returns the answer of a callback if it is an alert's number. Raises TypeError for another answer."""
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 < answer < 256:
        raise TypeError(f"{who} answered {kind_of(answer)}: neither None nor an alert's number")
    return answer


@dataclass(frozen=True)
class ServerName:
    """Calls the sni_callback, which may set sock.context. Then asks the source of certificates of that context.

    compile: makes the Config of a context with other certificates (greentls.ssl.compiled).
    """

    callback: Callable[[Sock, str | None, SSLContext], int | None] | None
    certificates: CertificateSource | None
    timeout: float | None
    compile: Callable[[SSLContext, bool, tuple[CertificateChain, ...]], Config]

    def __call__(self, connection: HookConnection, name: str | None) -> int | None:
        sock, source = connection.owner(), self.certificates
        context: SSLContext = sock.context
        if self.callback is not None:
            with HookDeadline(connection, "sni_callback", self.timeout):
                refusal = self.callback(sock, name, context)
            if refusal is not None:
                return alert(refusal, "sni_callback")
            if sock.context is not context:
                context = sock.context
                source = context.certificates
        if source is None:
            return None
        with HookDeadline(connection, "certificates", self.timeout):
            chains = source.get(name)
        if chains:
            connection.switch_config(self.compile(context, True, tuple(chains)))
            return None
        return None if context._chains else _stdlib_ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


@dataclass(frozen=True)
class ALPNCallback:
    callback: Callable[[Sock, list[str]], str | None]
    timeout: float | None

    def __call__(self, connection: HookConnection, offered: Sequence[bytes]) -> bytes | None:
        with HookDeadline(connection, "alpn_callback", self.timeout):
            chosen = self.callback(connection.owner(), [each.decode("latin-1") for each in offered])
        return None if chosen is None else chosen.encode("latin-1")


@dataclass(frozen=True)
class ALPNChoice:
    """Chooses the first of our protocols that the client offers."""

    ours: tuple[bytes, ...]
    waits = False

    def __call__(self, connection: HookConnection, offered: Sequence[bytes]) -> bytes | None:
        return next((protocol for protocol in self.ours if protocol in offered), None)


@dataclass(frozen=True)
class TicketKeyChoice:
    """Chooses among the TicketKeys. Waits for them at the very first use only, and goes on with a key of this process
    if they do not come."""

    keys: TicketKeys
    timeout: float | None

    def __call__(self, connection: HookConnection, name: bytes | None) -> tuple[TicketKey, bool] | None:
        self.keys.ready(self.timeout)
        return self.keys.opening(name) if name is not None else (self.keys.keys[0], False)


@dataclass(frozen=True)
class VerifyCallback:
    callback: Callable[..., object]
    timeout: float | None

    def __call__(self, connection: HookConnection, chain: list[bytes], resumed: bool) -> None:
        certificates = [read_certificate(each) for each in chain]
        with HookDeadline(connection, "verify_callback", self.timeout):
            answer = self.callback(connection.owner(), certificates, resumed=resumed)
        if answer is not None:  # also for False, by which its author may have meant no
            raise TypeError(f"verify_callback answered {kind_of(answer)}: None says yes, an exception says no")


@dataclass(frozen=True)
class KeyLog:
    """Appends lines to an SSLKEYLOGFILE, where other processes may append at the same time, and calls a callback."""

    path: str | None
    callback: Callable[[Sock, bytes], object] | None
    timeout: float | None

    def __call__(self, connection: HookConnection, line: bytes) -> None:
        if self.path:
            self.append(self.path, line)
        if self.callback:
            with HookDeadline(connection, "keylog_callback", self.timeout):
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
    """Calls the standard library's _msg_callback with the standard library's enums, or with a number that they lack."""

    callback: Callable[..., object]

    def __call__(self, connection: HookConnection, sent: bool, version: int, content_type: int, message: bytes) -> None:
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
# At which byte of a message its type is, and the standard library's enum of that.
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

    def __call__(self, connection: HookConnection, hint: str | None) -> tuple[str | None, bytes] | None:
        with HookDeadline(connection, "psk_client_callback", self.timeout):
            answer = self.callback(hint)
        connection.handshake.use_external_psk(answer is not None)
        return answer


@dataclass(frozen=True, repr=False)  # a functools.partial shows the keys that it was given
class PSKServer:
    callback: Callable[[str | None], bytes]
    timeout: float | None

    def __call__(self, connection: HookConnection, identity: str) -> bytes:
        with HookDeadline(connection, "psk_server_callback", self.timeout):
            key = self.callback(identity)
        connection.handshake.use_external_psk(bool(key))
        return key
