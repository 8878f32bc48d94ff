"""Hooks about revoked certificates: a server's ocsp_callback, and a client's check of the server's certificate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from greentls.certificates import read_certificate
from greentls.core.hooks import HookConnection
from greentls.errors import ResponderUnavailable, StapleRequired
from greentls.log_limit import LogLimit
from greentls.ocsp.client_check import Mode, vouched_until
from greentls.ssl.context import Sock
from greentls.ssl.hooks.callbacks import kind_of
from greentls.ssl.hooks.deadline import HookDeadline

__all__ = ["OCSPCallback", "OCSPCheck"]

log = logging.getLogger("greentls.ocsp")


@dataclass(frozen=True)
class OCSPCallback:
    """Asks a server's ocsp_callback for the staple.

    If it fails, there is no staple, and a line in the log. If the certificate demands a staple, or the callback raises
    StapleRequired, the handshake is refused.
    """

    callback: Callable[[Sock], bytes | None]
    timeout: float | None
    trouble: LogLimit = field(default_factory=LogLimit, compare=False)

    def __call__(self, connection: HookConnection, _: bytes | None) -> bytes | None:
        chain = connection.certificate_chain
        must_staple = chain is not None and chain.must_staple
        try:
            with HookDeadline(connection, "ocsp_callback", self.timeout):
                staple = self.callback(connection.owner())
            if staple is not None and not (isinstance(staple, bytes) and staple):
                raise TypeError(f"ocsp_callback answered {kind_of(staple)}: neither None nor a DER response")
        except Exception as error:
            if must_staple or isinstance(error, StapleRequired):
                raise
            self.trouble.count += 1
            if self.trouble.allows():
                # As text: a handler that keeps its records would keep the traceback, and the connection with it.
                log.warning("ocsp_callback: no staple: %s (%d so far)", repr(error), self.trouble.count)
            return None
        if staple is None and must_staple:
            raise StapleRequired("the certificate is worthless without one, and ocsp_callback answered None")
        return staple


@dataclass(frozen=True)
class OCSPCheck:
    """Refuses a server whose certificate was revoked. If nobody knows, the mode "check" logs a line and goes on."""

    mode: Mode
    timeout: float | None
    trouble: LogLimit = field(default_factory=LogLimit, compare=False)

    def __call__(self, connection: HookConnection, staple: bytes | None) -> None:
        chain = [read_certificate(each) for each in connection.verified_chain[:2]]
        try:
            # No deadline here: fetching has its own, and "no answer" is accepted.
            with HookDeadline(connection, "ocsp", None):
                connection.handshake.vouch(vouched_until(self.mode, chain, staple, self.timeout))
        except ResponderUnavailable as error:
            self.trouble.count += 1
            if self.trouble.allows():
                log.warning("a server's certificate is not checked: %s (%d so far)", str(error), self.trouble.count)
