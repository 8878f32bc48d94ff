"""OpenSSL's error queue, one per thread (ERR_get_error(3), OSSL_ERR_STATE_save(3))."""

from __future__ import annotations

from typing import Any

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl.library import ffi, hidden, lib, text


def take() -> list[int]:
    """Empties this thread's error queue; oldest first, as OpenSSL packs them."""
    codes = []
    while code := lib.ERR_get_error():
        codes.append(code)
    return codes


def describe(code: int) -> tuple[str, str]:
    """(library, reason) of a packed error: ("SSL routines", "no shared cipher")."""
    library, reason = lib.ERR_lib_error_string(code), lib.ERR_reason_error_string(code)
    return text(library), text(reason)


def save() -> Any:
    """Takes this thread's error queue away. Give the result to restore(); None if the queue was empty."""
    if not lib.ERR_peek_error():
        return None
    try:
        new = hidden("OSSL_ERR_STATE_new", "void *(*)(void)")
        save = hidden("OSSL_ERR_STATE_save", "void (*)(void *)")
        free = hidden("OSSL_ERR_STATE_free", "void (*)(void *)")
    except UnsupportedOpenSSL:
        return take()  # OpenSSL 3.0 and 3.1 have no such state: file and line are lost, the errors are not
    state = ffi.gc(new(), free)
    save(state)
    return state


def restore(saved: Any) -> None:
    """Makes this thread's error queue what save() took away."""
    lib.ERR_clear_error()
    if saved is None:
        return
    if isinstance(saved, list):
        for code in saved:
            lib.ERR_put_error(code >> 23 & 0xFF, 0, code & 0x7FFFFF, b"", 0)
    else:
        hidden("OSSL_ERR_STATE_restore", "void (*)(const void *)")(saved)
