"""The OpenSSL that cryptography carries: its functions, and the types of what they take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NewType

from cryptography.hazmat.bindings.openssl.binding import Binding

from greentls.openssl import symbols

# C pointers, opaque: nothing but the functions of this floor looks into one.
SSL = NewType("SSL", object)
SSL_CTX = NewType("SSL_CTX", object)
SSL_SESSION = NewType("SSL_SESSION", object)
BIO = NewType("BIO", object)


_binding = Binding()
ffi: Any = _binding.ffi
lib: Any = _binding.lib


@functools.cache
def hidden(name: str, signature: str) -> Any:
    """An OpenSSL function that the binding does not export, as a callable. Raises UnsupportedOpenSSL."""
    return ffi.cast(signature, symbols.address(name))


def pointer(thing: Any) -> int:
    """A C pointer's address, to find Python's side of it."""
    return int(ffi.cast("uintptr_t", thing))


def callback(signature: str, function: Callable[..., Any], fatal: Any, on_error: Callable[..., Any]) -> Any:
    """A C function pointer that lives as long as the caller keeps it.

    fatal: what C gets if the arguments or the result cannot be converted, after on_error(type, value, traceback).
    """
    if fatal is None:
        return ffi.callback(signature, function, onerror=on_error)
    return ffi.callback(signature, function, error=fatal, onerror=on_error)


def text(string: Any) -> str:
    """Empty for NULL."""
    return "" if string == ffi.NULL else ffi.string(string).decode()
