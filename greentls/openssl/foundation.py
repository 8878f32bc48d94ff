"""The foundation: the OpenSSL that greentls calls. A process has one.

**cryptography** is the default: the OpenSSL that cryptography contains or is linked with, called through cryptography's
own cffi binding.

**system** is the system's shared libssl, called through ``_native``, a cffi module with exactly the functions that
``declarations`` names. It exists if greentls was built with GREENTLS_OPENSSL=system in the environment. A shared
library hides no function, so no symbol table is read; and it gets the distribution's security updates.

With the second one the process has two OpenSSLs, because cryptography parses certificates in any case. A pointer of one
means nothing to the other. So keys and certificates are passed between them as DER. Each has its own cffi instance with
its own types, so that cffi refuses the other one's SSL_CTX* with a TypeError.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, NamedTuple

from greentls.errors import ConfigurationError
from greentls.openssl.declarations import NUMBER

__all__ = ["Foundation", "current", "use"]

CRYPTOGRAPHY, SYSTEM = "cryptography", "system"
VARIABLE = "GREENTLS_OPENSSL"
REBUILD = f"install OpenSSL's headers (libssl-dev), and build it again with {VARIABLE}=system in the environment"


Untyped = Any  # cffi has no types


class Foundation(NamedTuple):
    """An OpenSSL: our name for it, and the extension module through which Python calls it."""

    name: str
    ffi: Untyped
    lib: Untyped  # the functions that it exports
    whole: Untyped  # cffi's library; it also has, as NULL, the functions that this OpenSSL lacks
    path: str  # the module's file
    entry: str  # the C function that Python calls to initialise the module


_current: Foundation | None = None


def use(name: str) -> None:
    """Chooses the OpenSSL of this process, "cryptography" or "system". It overrides the environment variable.

    Call it before you import greentls.ssl or any other module that needs OpenSSL. Raises ConfigurationError if another
    OpenSSL is in use already, or if the system's cannot be used.
    """
    global _current
    if _current is None:
        _current = load(name)
    elif _current.name != name:
        remedy = f"call it before greentls.ssl is imported, or set {VARIABLE}={name}"
        raise ConfigurationError(f"use({name!r})", f"the OpenSSL of {_current.name!r} is in use already", remedy)


def current() -> Foundation:
    """The foundation in use: the one that use() has chosen, or else the environment variable. Raises
    ConfigurationError."""
    if _current is None:
        use(os.environ.get(VARIABLE) or CRYPTOGRAPHY)
    assert _current is not None
    return _current


def load(name: str) -> Foundation:
    """Returns the foundation of this name, whether or not it is in use. Raises ConfigurationError."""
    if name == CRYPTOGRAPHY:
        binding = import_module("cryptography.hazmat.bindings.openssl.binding").Binding()  # this initialises OpenSSL
        try:  # before cryptography 40 it was a module of its own
            module = whole = import_module("cryptography.hazmat.bindings._openssl")
        except ImportError:
            module = import_module("cryptography.hazmat.bindings._rust")
            whole = module._openssl
        entry = "PyInit_" + module.__name__.rpartition(".")[2]
        return Foundation(name, whole.ffi, binding.lib, whole.lib, module.__file__ or "", entry)
    subject = f"OpenSSL of {name!r}"
    if name != SYSTEM:
        raise ConfigurationError(subject, "there is none", f"choose {CRYPTOGRAPHY!r} or {SYSTEM!r}")
    try:
        native = import_module("greentls.openssl._native")
    except ImportError as error:
        raise ConfigurationError(subject, f"greentls was built without it: {error}", REBUILD) from None
    if native.lib.GREENTLS_DECLARATIONS != NUMBER:
        raise ConfigurationError(subject, "it was built for another version of greentls", REBUILD)
    return Foundation(name, native.ffi, native.lib, native.lib, native.__file__ or "", "PyInit__native")
