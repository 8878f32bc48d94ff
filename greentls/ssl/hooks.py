"""From an SSLContext's callbacks to the bridge's hooks: with a socket for a connection, and a deadline.

Equal settings make equal hooks, so that an attribute that is set to what it was compiles no new Context.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greentls.connection import Connection
from greentls.ssl.deadline import Deadline

if TYPE_CHECKING:
    from greentls.ssl.context import SSLContext

__all__ = ["ALPNCallback", "ALPNChoice", "KeyLog", "MessageCallback", "PSKClient", "PSKServer", "SNICallback", "alert"]


def alert(answer: object, who: str) -> int:
    """The alert's number. Raises TypeError."""
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 < answer < 256:
        raise TypeError(f"{who} answered {answer!r}: neither None nor an alert's number")
    return answer


@dataclass(frozen=True)
class SNICallback:
    context: weakref.ref[SSLContext]  # the Context must not keep alive what keeps it
    callback: Callable[[Any, str | None, SSLContext | None], int | None]
    timeout: float | None

    def __call__(self, connection: Connection, name: str | None) -> int | None:
        with Deadline(self.timeout, "sni_callback gave no answer in {} s"):
            refusal = self.callback(connection.owner(), name, self.context())
        return None if refusal is None else alert(refusal, "sni_callback")


@dataclass(frozen=True)
class ALPNCallback:
    callback: Callable[[Any, list[str]], str | None]
    timeout: float | None

    def __call__(self, connection: Connection, offered: Sequence[bytes]) -> bytes | None:
        with Deadline(self.timeout, "alpn_callback gave no answer in {} s"):
            chosen = self.callback(connection.owner(), [each.decode("latin-1") for each in offered])
        return None if chosen is None else chosen.encode("latin-1")


@dataclass(frozen=True)
class ALPNChoice:
    """The first of ours that the client offers, too."""

    ours: tuple[bytes, ...]

    def __call__(self, connection: Connection, offered: Sequence[bytes]) -> bytes | None:
        return next((protocol for protocol in self.ours if protocol in offered), None)


@dataclass(frozen=True)
class KeyLog:
    """Appends lines to an SSLKEYLOGFILE; other processes may append to the same."""

    path: str

    def __call__(self, connection: Connection, line: bytes) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line + b"\n")
        finally:
            os.close(file)


@dataclass(frozen=True)
class MessageCallback:
    """callback: as the standard library's context keeps it, which takes numbers and gives the user enums."""

    callback: Callable[[Any, str, int, int, int, bytes], Any]

    def __call__(self, connection: Connection, sent: bool, version: int, content_type: int, message: bytes) -> None:
        kind = _MESSAGE_TYPES.get(content_type, _no_type)
        if content_type == _HEADER:
            version = message[1] << 8 | message[2]
        self.callback(
            connection.owner(), "write" if sent else "read", version, content_type, kind(message), bytes(message)
        )


def _no_type(message: bytes) -> int:
    return -1


# SSL_CTX_set_msg_callback(3): content types of records, and two of OpenSSL's own.
_HEADER, _INNER_CONTENT_TYPE = 0x100, 0x101
_MESSAGE_TYPES: dict[int, Callable[[bytes], int]] = {
    20: lambda message: 0x0101,  # a ChangeCipherSpec, which the standard library numbers so
    21: lambda message: message[1],
    22: lambda message: message[0],
    _HEADER: lambda message: message[0],
    _INNER_CONTENT_TYPE: lambda message: message[0],
}


@dataclass(frozen=True)
class PSKClient:
    callback: Callable[[str | None], tuple[str | None, bytes]]

    def __call__(self, connection: Connection, hint: str | None) -> tuple[str | None, bytes]:
        return self.callback(hint)


@dataclass(frozen=True)
class PSKServer:
    callback: Callable[[str | None], bytes]

    def __call__(self, connection: Connection, identity: str | None) -> bytes:
        return self.callback(identity)
