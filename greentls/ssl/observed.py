"""What became of a handshake: on the connection, in its context's counters, and to greentls.events."""

from __future__ import annotations

import ssl as _stdlib_ssl
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from greentls import events
from greentls.core.connection import Connection

if TYPE_CHECKING:
    from greentls.ssl.context import SSLContext

__all__ = ["Observed"]

Result = TypeVar("Result")


class Observed:
    """Over self._connection and self._context."""

    server_side: bool
    server_hostname: str | None
    _context: SSLContext
    _began = 0.0  # when the handshake did, by perf_counter()
    _ended = False  # the handshake has
    _greeting = False  # somebody is at what comes before OpenSSL

    @property
    def _connection(self) -> Connection:
        raise NotImplementedError  # what is observed knows where its connection is

    @property
    def hook_seconds(self) -> dict[str, float]:
        """How long each hook took that was asked, by its name."""
        return dict(self._connection.hook_seconds or ())

    @property
    def resumption(self) -> str | None:
        """How the connection came about: "full"; or resumed by its "session_id" (TLS 1.2, with a session store) or a
        "ticket", which at a server is "stateful" if it was looked up in the session store (TLS 1.3); or by an external
        "psk". None before the handshake is finished. A client cannot tell what is in a TLS 1.3 ticket."""
        connection = self._connection
        if not connection.established:
            return None
        reused = connection.session_reused
        if connection.external_psk and (reused or not connection.tls13):
            return "psk"
        if not reused:
            return "full"
        if self.server_side:
            found = connection.session_lookup is not None and connection.session_lookup.outcome == "hit"
            return ("stateful" if connection.tls13 else "session_id") if found else "ticket"
        session = connection.session
        return "session_id" if session is not None and not session.has_ticket else "ticket"

    def _observed(self, handshake: Callable[[], Result]) -> Result:
        """The handshake, or a step of it; its end is counted and told, once."""
        connection = self._connection
        if self._ended or self._greeting or connection.busy:
            return handshake()
        self._began = self._began or perf_counter()
        try:
            result = handshake()
        except (_stdlib_ssl.SSLWantReadError, _stdlib_ssl.SSLWantWriteError):
            raise
        except BaseException as error:
            self._tell(error)
            raise
        if self._connection.established:  # and not passed through; it may be another connection than before
            self._tell(None)
        return result

    def _tell(self, error: BaseException | None) -> None:
        self._ended = True
        connection, counters = self._connection, self._context.counters
        resumption, lookup = self.resumption, connection.session_lookup
        counters["failed" if error is not None else resumption or ""] += 1
        if lookup is not None:
            counters[f"lookup {lookup.outcome}"] += 1
        if events.handler is not None:
            events.emit(
                "handshake",
                side="server" if self.server_side else "client",
                error=error,
                seconds=perf_counter() - self._began,
                server_name=connection.server_name if self.server_side else self.server_hostname,
                resumption=resumption,
                version=connection.version,
                cipher=(connection.cipher or (None,))[0],
                alpn=connection.alpn_protocol.decode("latin-1") or None,
                early_data=connection.early_data_accepted,
                lookup=None if lookup is None else lookup._asdict(),
                hooks=self.hook_seconds,
            )
