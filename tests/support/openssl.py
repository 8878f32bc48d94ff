"""All that cryptography's binding has, for what a test does to C itself; and functions taken away."""

import pytest
from cryptography.hazmat.bindings.openssl.binding import Binding

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl import library, symbols

lib = Binding.lib


def take_from_binding(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if cryptography's binding did not export them."""
    for name in names:
        monkeypatch.setattr(library.lib, name, library.choose(name, None))


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if OpenSSL did not have them, nor the binding."""

    def address(name, together=(), address=symbols.address):
        if name in names:
            raise UnsupportedOpenSSL(name, "not there", "this one", "get another")
        return address(name, together)

    monkeypatch.setattr(symbols, "address", address)
    take_from_binding(monkeypatch, *names)
