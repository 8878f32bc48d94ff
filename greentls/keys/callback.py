"""Callback: a signing key that is a function."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from greentls.errors import ConfigurationError
from greentls.hub import as_function
from greentls.keys.algorithms import PublicKey, algorithms_of
from greentls.keys.signer import MAX_WAITING

__all__ = ["Callback"]


class Callback:
    """A SigningKey that calls a function for each signature: sign(data, algorithm) -> bytes, which may wait.

    public_key: an object of cryptography's. algorithms: those that the function supports, by the names of RFC 8446
    4.2.3; None: all that TLS has for such a key. max_waiting: signatures that may be outstanding at once; handshakes
    beyond that are refused. Raises ConfigurationError.
    """

    def __init__(
        self,
        public_key: PublicKeyTypes,
        sign: Callable[[bytes, str], bytes],
        *,
        algorithms: Collection[str] | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        known = algorithms_of(public_key)
        self.algorithms = known if algorithms is None else tuple(algorithms)
        self.public_key = cast(PublicKey, public_key)  # algorithms_of() has refused other kinds
        self.sign, self.max_waiting = as_function(sign), max_waiting
        if unknown := sorted({*self.algorithms}.difference(known)):
            raise ConfigurationError(
                f"algorithm {unknown[0]!r}", "this key cannot sign with it", f"known are {', '.join(known)}"
            )
        if not self.algorithms:
            raise ConfigurationError("algorithms", "there are none", f"known are {', '.join(known)}")
