"""Whether a certificate was revoked, as hooks: a server's ocsp_callback, and a client's check of what it is shown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greentls.certificates import read_certificate
from greentls.core.connection import Connection
from greentls.errors import ResponderUnavailable, StapleRequired
from greentls.log_limit import Trouble
from greentls.ocsp.client_check import Mode, vouched_until
from greentls.ssl.hooks.callbacks import shown
from greentls.ssl.hooks.deadline import Asking

__all__ = ["OCSPCallback", "OCSPCheck"]

log = logging.getLogger("greentls.ocsp")


@dataclass(frozen=True)
class OCSPCallback:
    """A failure is no staple and a line in the log, unless the certificate is worthless without, or the callback says
    StapleRequired."""

    callback: Callable[[Any], bytes | None]
    timeout: float | None
    trouble: Trouble = field(default_factory=Trouble, compare=False)

    def __call__(self, connection: Connection, _: bytes | None) -> bytes | None:
        chain = connection.certificate_chain
        must_staple = chain is not None and chain.must_staple
        try:
            with Asking(connection, "ocsp_callback", self.timeout):
                staple = self.callback(connection.owner())
            if staple is not None and not (isinstance(staple, bytes) and staple):
                raise TypeError(f"ocsp_callback answered {shown(staple)}: neither None nor a DER response")
        except Exception as error:
            if must_staple or isinstance(error, StapleRequired):
                raise
            self.trouble.count += 1
            if self.trouble.may_be_said():
                # as text: a handler that keeps its records would keep the traceback, and the connection in it
                log.warning("ocsp_callback: no staple: %s (%d so far)", repr(error), self.trouble.count)
            return None
        if staple is None and must_staple:
            raise StapleRequired("the certificate is worthless without one, and ocsp_callback answered None")
        return staple


@dataclass(frozen=True)
class OCSPCheck:
    """A client's: refuses the server whose certificate was revoked. That nobody says anything is a line in the log."""

    mode: Mode
    timeout: float | None
    trouble: Trouble = field(default_factory=Trouble, compare=False)

    def __call__(self, connection: Connection, staple: bytes | None) -> None:
        chain = [read_certificate(each) for each in connection.verified_chain[:2]]
        try:
            with Asking(connection, "ocsp", None):  # whose end would be no answer, and that is not refused
                connection.vouched_until = vouched_until(self.mode, chain, staple, self.timeout)
        except ResponderUnavailable as error:
            self.trouble.count += 1
            if self.trouble.may_be_said():
                log.warning("a server's certificate is not checked: %s (%d so far)", str(error), self.trouble.count)
