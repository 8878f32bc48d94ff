"""What a test does to C itself, beyond what greentls declares; and functions taken away."""

import types

import pytest

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl import foundation, library, symbols

SYSTEM = foundation.current().name == foundation.SYSTEM
# What cryptography's binding has besides, and a test uses.
MORE = {
    "OpenSSL_version_num": "unsigned long(*)(void)",
    "SSL_get_server_random": "size_t(*)(const SSL *, unsigned char *, size_t)",
    "SSL_set_alpn_protos": "int(*)(SSL *, const unsigned char *, unsigned int)",
}


def everything(one):
    """All that a foundation exports, with MORE."""
    more = {name: one.ffi.cast(kind, symbols.address(name)) for name, kind in MORE.items() if SYSTEM}
    return types.SimpleNamespace(**{name: getattr(one.lib, name) for name in dir(one.lib)}, **more)


lib = everything(foundation.current())


def take_from_binding(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if the foundation did not export them."""
    for name in names:
        monkeypatch.setattr(library.lib, name, library.choose(name, None))


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if OpenSSL did not have them, nor the foundation."""

    def address(name, together=(), address=symbols.address):
        if name in names:
            raise UnsupportedOpenSSL(name, "not there", "this one", "get another")
        return address(name, together)

    monkeypatch.setattr(symbols, "address", address)
    take_from_binding(monkeypatch, *names)


def late(alert: str) -> str:
    """What a peer hears of a refusal for which OpenSSL has no question any more: the alert, if OpenSSL does not hide
    the function that sends it. A regular expression."""
    return alert if library.have("ossl_statem_send_fatal") else "bad record mac|unexpected message"
