"""A drop-in for the standard library's ssl whose callbacks may wait: ``import greentls.ssl as ssl``.

Every name of the running Python's ssl module is here. SSLContext, SSLSocket and SSLSession are ours; constants, enums,
exceptions and other functions are the standard library's. Functions that make contexts are the standard library's code
over the names of this module. SSLObject and MemoryBIO are the standard library's; SSLContext.wrap_bio() puts a
BIOConnection of ours inside of the SSLObject.
"""

from __future__ import annotations

import functools
import ssl as _stdlib_ssl
import sys
import types
from typing import TYPE_CHECKING, Any

from greentls.core.session import Session as SSLSession
from greentls.hub import unpatched
from greentls.lazy import at_first_use
from greentls.ssl import compiled
from greentls.ssl.common import CHANNEL_BINDING_TYPES as CHANNEL_BINDING_TYPES
from greentls.ssl.context import SSLContext as SSLContext
from greentls.ssl.replacement import with_globals

if TYPE_CHECKING:
    from gevent.socket import create_connection as create_connection

    from greentls.ssl.memorybio import BIOConnection
    from greentls.ssl.socket import SSLSocket as SSLSocket

    def create_default_context(
        purpose: _stdlib_ssl.Purpose = ...,
        *,
        cafile: str | None = None,
        capath: str | None = None,
        cadata: str | bytes | None = None,
    ) -> SSLContext:
        """The standard library's."""

    def __getattr__(name: str) -> Any:  # Any: whatever else the running Python's ssl has
        """The standard library's names, for type checkers."""


def _wrap_bio(
    context: SSLContext,
    incoming: _stdlib_ssl.MemoryBIO,
    outgoing: _stdlib_ssl.MemoryBIO,
    server_side: bool = False,
    server_hostname: str | None = None,
    *,
    owner: _stdlib_ssl.SSLObject,
    session: SSLSession | None = None,
) -> BIOConnection:
    """The _sslobj of an ssl.SSLObject, for which the standard library's SSLContext.wrap_bio() calls."""
    from greentls.ssl.memorybio import BIOConnection

    return BIOConnection(context, incoming, outgoing, server_side, server_hostname, owner, session)


class _SocketClass:
    """SSLContext.sslsocket_class, until it is asked for: a program under asyncio has no gevent."""

    def __get__(self, context: SSLContext | None, owner: type[SSLContext]) -> type[SSLSocket]:
        from greentls.ssl.socket import SSLSocket

        SSLContext.sslsocket_class = SSLSocket
        return owner.sslsocket_class  # type: ignore[no-any-return]  # a user's subclass may have another


# What an SSLContext makes is defined above it.
SSLContext.compile = compiled.compile
SSLContext.sslsocket_class = _SocketClass()
SSLContext._wrap_bio = _wrap_bio

if not TYPE_CHECKING:

    def create_connection(*arguments, **options):
        """socket.create_connection(): gevent's, which waits in the hub."""
        from gevent.socket import create_connection

        return create_connection(*arguments, **options)


OURS = {
    "CHANNEL_BINDING_TYPES": CHANNEL_BINDING_TYPES,
    "SSLContext": SSLContext,
    "SSLSession": SSLSession,
    "create_connection": create_connection,
}
AT_FIRST_USE = {"socket": "SSLSocket"}


def _names() -> dict[str, object]:
    """The standard library's names as they are here."""
    names: dict[str, object] = {}
    for name in vars(_stdlib_ssl):
        if name.startswith("__") or f"{__name__}.{name}" in sys.modules or name in AT_FIRST_USE.values():
            continue
        # not gevent's, if gevent has patched ssl
        value = OURS[name] if name in OURS else unpatched("ssl", name)
        if isinstance(value, types.FunctionType) and _MAKERS & {value.__name__, *value.__code__.co_names}:
            value = _over_here(value)
        names[name] = value
    return names


_MAKERS = {"SSLContext", "_create_unverified_context", "_create_stdlib_context"}


@functools.cache  # a function that has two names stays one function
def _over_here(function: types.FunctionType) -> types.FunctionType:
    return with_globals(function, globals())


globals().update(_names())
if not TYPE_CHECKING:
    __getattr__, __dir__ = at_first_use(__name__, AT_FIRST_USE)
