"""OpenSSL's error queue, one per thread (ERR_get_error(3), OSSL_ERR_STATE_save(3))."""

from __future__ import annotations

from collections.abc import Callable
from typing import NewType

from greentls.openssl.library import ffi, have, lib, text

State = NewType("State", object)  # an OSSL_ERR_STATE*, which frees itself
_STATE = "OSSL_ERR_STATE_new", "OSSL_ERR_STATE_save", "OSSL_ERR_STATE_restore", "OSSL_ERR_STATE_free"


# ERR_peek_error(3), which returns 0 for no error, and ERR_clear_error(3). They are called for each operation.
peek: Callable[[], int] = lib.ERR_peek_error
clear: Callable[[], None] = lib.ERR_clear_error


def take() -> list[int]:
    """Empties this thread's error queue; returns the errors, oldest first, as OpenSSL packs them."""
    codes = []
    while code := lib.ERR_get_error():
        codes.append(code)
    return codes


def reason(default: str = "OpenSSL refuses it") -> str:
    """Empties this thread's error queue; returns the oldest error's reason."""
    codes = take()
    return (describe(codes[0])[1] if codes else "") or default


def describe(code: int) -> tuple[str, str]:
    """(library, reason) of a packed error: ("SSL routines", "no shared cipher")."""
    return text(lib.ERR_lib_error_string(code)), text(lib.ERR_reason_error_string(code))


def save() -> State | list[int] | None:
    """Empties this thread's error queue. Returns its content for restore(); None if it was empty."""
    if not lib.ERR_peek_error():
        return None
    if not have(*_STATE):
        return take()  # OpenSSL 3.0 and 3.1 have no such state: file and line are lost, the errors are not
    state: State = ffi.gc(lib.OSSL_ERR_STATE_new(), lib.OSSL_ERR_STATE_free)
    lib.OSSL_ERR_STATE_save(state)
    return state


def restore(saved: State | list[int] | None) -> None:
    """Replaces this thread's error queue by what save() has returned."""
    lib.ERR_clear_error()
    if isinstance(saved, list):
        for code in saved:
            lib.ERR_put_error(code >> 23 & 0xFF, 0, code & 0x7FFFFF, b"", 0)
    elif saved is not None:
        lib.OSSL_ERR_STATE_restore(saved)
