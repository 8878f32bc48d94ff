"""Which OpenSSL greentls calls: its foundation, one for the whole process.

**cryptography**, the default: the OpenSSL that cryptography carries or is linked with, through its own cffi binding.

**system**: the shared libssl of the system, through `_native`, a cffi module with the functions that ``declarations``
names and nothing else. It is there if greentls was built with GREENTLS_OPENSSL=system in the environment. Nothing is
hidden in a shared library, so no symbol table is read; and it gets the distribution's security updates.

Where the second one is used, the process has two OpenSSLs, since certificates are parsed by cryptography in any case.
A pointer of one means nothing to the other. So keys and certificates cross as DER, and each has a cffi instance of its
own, whose types are strange to the other: cffi refuses the other one's SSL_CTX* with a TypeError.
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


Untyped = Any  # cffi's things have no types


class Foundation(NamedTuple):
    """An OpenSSL: its name here, and the extension module whose functions call it."""

    name: str
    ffi: Untyped
    lib: Untyped  # the functions that it exports
    whole: Untyped  # cffi's library; those of the binding that this OpenSSL does not have are there, as NULL
    path: str  # the module's file
    entry: str  # the function by which Python enters it


_current: Foundation | None = None


def use(name: str) -> None:
    """Chooses the OpenSSL of this process, "cryptography" or "system", whatever the environment says.

    Call it before greentls.ssl or any other module that needs OpenSSL is imported. Raises ConfigurationError later, if
    another one is in use, and where the one of the system cannot be used.
    """
    global _current
    if _current is None:
        _current = load(name)
    elif _current.name != name:
        remedy = f"call it before greentls.ssl is imported, or set {VARIABLE}={name}"
        raise ConfigurationError(f"use({name!r})", f"the OpenSSL of {_current.name!r} is in use already", remedy)


def current() -> Foundation:
    """The one in use: what use() has chosen, else what the environment says. Raises ConfigurationError."""
    if _current is None:
        use(os.environ.get(VARIABLE) or CRYPTOGRAPHY)
    assert _current is not None
    return _current


def load(name: str) -> Foundation:
    """The one of this name, in use or not. Raises ConfigurationError."""
    if name == CRYPTOGRAPHY:
        binding = import_module("cryptography.hazmat.bindings.openssl.binding").Binding()  # which initialises OpenSSL
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
