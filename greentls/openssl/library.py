"""The one way to OpenSSL's functions: ``lib``, which has the functions that ``declarations`` names, and ``ffi``.

cryptography's binding exports the functions that its authors know to be used, and fewer with each release. So ``lib``
has three sources. A function that the foundation exports is taken from there. A macro of OpenSSL's headers, which no
library exports, is built from other functions (``MACROS``). ``symbols`` finds any other function when it is first
called. If it cannot, the call raises UnsupportedOpenSSL, which names the function and says what to do. A function that
was found takes its place in ``lib``, so nothing is looked up twice.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import NewType, Protocol, TypeVar

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl import foundation, symbols
from greentls.openssl.declarations import CALLBACK_TYPES, NUMBERS, SIGNATURES

T = TypeVar("T")

# Opaque pointers to C's objects. Only the functions of this floor look into them.
SSL = NewType("SSL", object)
SSL_CTX = NewType("SSL_CTX", object)
SSL_SESSION = NewType("SSL_SESSION", object)
SSL_CIPHER = NewType("SSL_CIPHER", object)
BIO = NewType("BIO", object)
X509 = NewType("X509", object)
X509_STORE_CTX = NewType("X509_STORE_CTX", object)
Stack = NewType("Stack", object)  # STACK_OF(X509), STACK_OF(SSL_CIPHER)
Callback = NewType("Callback", object)  # a pointer to a function

# A pointer into C's memory, which the code that has it reads or writes.
Pointer = foundation.Untyped
Function = Callable[..., Pointer]  # each function has its own signature


class Memory(Protocol):
    """Bytes in C's memory, or a pointer to Python's bytes. A with block releases Python's bytes at its end."""

    def __len__(self) -> int: ...
    def __enter__(self) -> Memory: ...
    def __exit__(self, *_: object) -> None: ...


_foundation = foundation.current()
ffi: foundation.Untyped = _foundation.ffi
lib = types.ModuleType("lib")  # a module, because CPython finds the attributes of modules fastest
NULL: Pointer = ffi.NULL  # fits every pointer type

# cmd of SSL_CTX_ctrl(3), SSL_ctrl(3), BIO_ctrl(3), from ssl.h, tls1.h and bio.h.
MACROS: dict[str, Function] = {
    "BIO_get_mem_data": lambda bio, start: lib.BIO_ctrl(bio, 3, 0, start),
    "ERR_put_error": lambda of, _, reason, *place: (lib.ERR_new(), lib.ERR_set_error(of, reason, NULL)),
    "OPENSSL_free": lambda memory: lib.CRYPTO_free(memory, NULL, 0),
    "OPENSSL_malloc": lambda size: lib.CRYPTO_malloc(size, NULL, 0),
    "SSL_CTX_add_extra_chain_cert": lambda context, certificate: lib.SSL_CTX_ctrl(context, 14, 0, certificate),
    "SSL_CTX_set1_curves_list": lambda context, names: lib.SSL_CTX_ctrl(context, 92, 0, names),
    "SSL_CTX_set_max_proto_version": lambda context, version: lib.SSL_CTX_ctrl(context, 124, version, NULL),
    "SSL_CTX_set_min_proto_version": lambda context, version: lib.SSL_CTX_ctrl(context, 123, version, NULL),
    "SSL_CTX_set_mode": lambda context, mode: lib.SSL_CTX_ctrl(context, 33, mode, NULL),
    "SSL_CTX_set_session_cache_mode": lambda context, mode: lib.SSL_CTX_ctrl(context, 44, mode, NULL),
    "SSL_CTX_set_tlsext_servername_callback": lambda context, callback: _callback_ctrl(context, 53, callback),
    "SSL_CTX_set_tlsext_status_cb": lambda context, callback: _callback_ctrl(context, 63, callback),
    "SSL_CTX_set_tmp_dh": lambda context, parameters: lib.SSL_CTX_ctrl(context, 3, 0, parameters),
    "SSL_clear_mode": lambda ssl, mode: lib.SSL_ctrl(ssl, 78, mode, NULL),
    "SSL_get_peer_certificate": lambda ssl: lib.SSL_get1_peer_certificate(ssl),
    "SSL_get_tlsext_status_ocsp_resp": lambda ssl, start: lib.SSL_ctrl(ssl, 70, 0, start),
    "SSL_set_tlsext_host_name": lambda ssl, name: lib.SSL_ctrl(ssl, 55, 0, name),
    "SSL_set_tlsext_status_ocsp_resp": lambda ssl, response, size: lib.SSL_ctrl(ssl, 71, size, response),
    "SSL_set_tlsext_status_type": lambda ssl, kind: lib.SSL_ctrl(ssl, 65, kind, NULL),
    "sk_X509_free": lambda stack: lib.OPENSSL_sk_free(stack),
    "sk_X509_num": lambda stack: lib.OPENSSL_sk_num(stack),
    "sk_X509_value": lambda stack, index: ffi.cast("X509 *", lib.OPENSSL_sk_value(stack, index)),
}


def _callback_ctrl(context: SSL_CTX, command: int, callback: Callback) -> None:
    lib.SSL_CTX_callback_ctrl(context, command, ffi.cast("void *", callback))


class _Elsewhere:
    """A function that the foundation does not export. It is looked up when it is first called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: object) -> Pointer:
        return self.find()(*arguments)

    def find(self) -> Function:
        """Finds the function and puts it into lib in place of this object. Raises UnsupportedOpenSSL."""
        function: Function = ffi.cast(SIGNATURES[self.name], symbols.address(self.name, hidden))
        setattr(lib, self.name, function)
        return function


def choose(name: str, exported: object) -> Function:
    """Returns a function from one of the three sources."""
    return getattr(exported, name, None) or MACROS.get(name) or _Elsewhere(name)


lib.__dict__.update(NUMBERS, **{name: choose(name, _foundation.lib) for name in SIGNATURES.keys() | MACROS.keys()})
if _foundation.name == foundation.SYSTEM:
    symbols.prove_alone(SIGNATURES)
hidden = frozenset(name for name in SIGNATURES if isinstance(getattr(lib, name), _Elsewhere))


def need(*names: str) -> None:
    """Raises UnsupportedOpenSSL for the first function that is not available."""
    for name in names:
        function = getattr(lib, name)
        if isinstance(function, _Elsewhere):
            function.find()


def have(*names: str) -> bool:
    """Whether all of these functions are available."""
    try:
        need(*names)
    except UnsupportedOpenSSL:
        return False
    return True


def pointer(thing: object) -> int:
    """The address that a C pointer holds, to be used as a key."""
    return int(ffi.cast("uintptr_t", thing))


def address(name: str) -> int:
    """A function's address, for C to call. Raises UnsupportedOpenSSL."""
    return symbols.exported(name) if hasattr(_foundation.lib, name) else symbols.address(name, hidden)


Wrapper = Callable[[Callable[..., object]], Callable[..., object]]


def as_is(function: Callable[..., object]) -> Callable[..., object]:
    """The Wrapper that changes nothing."""
    return function


def callback(
    fatal: object, on_error: Callable[..., object], wrap: Wrapper = as_is
) -> Callable[[Callable[..., object]], Callback]:
    """Decorator that makes a C function pointer of a function. The pointer is never freed.

    The function's name must be among declarations' callbacks. fatal: returned to C if the arguments or the result
    cannot be converted, after a call of on_error(type, value, traceback). wrap: wraps the function.
    """
    options: dict[str, object] = {"onerror": on_error} | ({} if fatal is None else {"error": fatal})

    def pointer_to(function: Callable[..., object]) -> Callback:
        name, function = function.__name__.lstrip("_"), wrap(function)
        if _foundation.name == foundation.SYSTEM:
            ffi.def_extern(name, **options)(function)
            made: Callback = getattr(_foundation.whole, name)
        else:
            made = ffi.callback(CALLBACK_TYPES[name], function, **options)
            _callbacks.append(made)
        return made

    return pointer_to


_callbacks: list[Callback] = []  # cffi frees a callback together with its Python object, which C may still call


def text(string: object) -> str:
    """A C string's text; empty for NULL."""
    return "" if string == NULL else ffi.string(string).decode()
