"""A signature by a SigningKey, as a hook: with a deadline, and with an event."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from greentls import events
from greentls.core.hooks import HookConnection
from greentls.keys import Signer
from greentls.ssl.hooks.deadline import HookDeadline

__all__ = ["Signature"]


@dataclass(frozen=True)
class Signature:
    """Hooks.sign. timeout: seconds for the signature, or None."""

    timeout: float | None

    def __call__(self, connection: HookConnection, signer: Signer, message: bytes, algorithm: str) -> bytes:
        started, failure = perf_counter(), None
        try:
            with HookDeadline(connection, "sign", self.timeout):
                return signer.sign(message, algorithm)
        except BaseException as error:
            failure = error
            raise
        finally:
            if events.handler is not None:
                side, seconds = "server" if connection.server_side else "client", perf_counter() - started
                events.emit("signature", side=side, algorithm=algorithm, seconds=seconds, error=failure)
            del failure  # its traceback holds this frame
