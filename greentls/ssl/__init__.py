"""A drop-in for the standard library's ssl whose callbacks may wait: ``import greentls.ssl as ssl``.

Every name of the running Python's ssl module is here: constants, enums, exceptions and functions as they are, ours in
place of SSLContext, SSLSocket and SSLSession. Functions that make contexts are the standard library's own code over the
names of this module. SSLObject and MemoryBIO are the standard library's: an SSLObject of ours has ours inside.
"""

from __future__ import annotations

import functools
import ssl as _stdlib_ssl
import sys
import types
from typing import TYPE_CHECKING, Any

import gevent.monkey
from gevent.socket import create_connection

from greentls.core.session import Session as SSLSession
from greentls.ssl.context import SSLContext as SSLContext
from greentls.ssl.facts import CHANNEL_BINDING_TYPES
from greentls.ssl.socket import SSLSocket as SSLSocket

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The standard library's names, for type checkers."""


SSLContext.sslsocket_class = SSLSocket

OURS = {
    "CHANNEL_BINDING_TYPES": CHANNEL_BINDING_TYPES,
    "SSLContext": SSLContext,
    "SSLSession": SSLSession,
    "SSLSocket": SSLSocket,
    "create_connection": create_connection,
}


def _names() -> dict[str, Any]:
    """The standard library's names as they are here."""
    names = {}
    for name in vars(_stdlib_ssl):
        if name.startswith("__") or f"{__name__}.{name}" in sys.modules:
            continue
        # Not gevent's, if that has patched ssl
        value = OURS[name] if name in OURS else gevent.monkey.get_original("ssl", name)
        if isinstance(value, types.FunctionType) and _MAKERS & {value.__name__, *value.__code__.co_names}:
            value = _over_here(value)
        names[name] = value
    return names


_MAKERS = {"SSLContext", "_create_unverified_context", "_create_stdlib_context"}


@functools.cache  # what has two names here has two there
def _over_here(function: types.FunctionType) -> types.FunctionType:
    """The function, reading its names from this module instead of its own."""
    code, defaults, closure = function.__code__, function.__defaults__, function.__closure__
    made = types.FunctionType(code, globals(), function.__name__, defaults, closure)
    made.__kwdefaults__, made.__doc__, made.__module__ = function.__kwdefaults__, function.__doc__, __name__
    return made


globals().update(_names())
