"""Private keys that ask: an OpenSSL provider in this process. Python functions make its signatures, and may wait.

A provider is a table of C functions that OpenSSL calls (provider(7)). This one has the minimum that a private key
needs: a keymgmt(7) for each kind of key, and one signature(7) algorithm, which hands the message to Python and waits
for the signature. OpenSSL holds no lock around that call, so it may take any time, like the bridge's callbacks.

- The provider has its own library context (OSSL_LIB_CTX(3)). A handshake calls a key through the key's own provider, so
  an SSL_CTX can use our keys. But a request to OpenSSL for "an EC key" never finds our provider.
- Each key of ours contains another EVP_PKEY*: the public key, made by OpenSSL's default provider. That object knows the
  key's size, its group and its export, so most of our keymgmt consists of that EVP_PKEY's C functions. There is nothing
  private to export. The function that frees a key is C, too: OpenSSL may free keys when Python can no longer run.
- OpenSSL sometimes makes keys of our provider itself, to compare another provider's public key with one of ours. Such
  keys cannot sign.
- OpenSSL asks for a signature without saying for which SSL*. The function that answers (answer_with()) must know which
  connection is inside OpenSSL.
"""

from __future__ import annotations

import functools
import itertools
import struct
import sys
import weakref
from collections.abc import Callable, Collection, Iterator
from types import TracebackType

from greentls.errors import ConfigurationError
from greentls.openssl import errors, library, symbols
from greentls.openssl.library import Pointer, ffi, lib, need, pointer
from greentls.openssl.lifetimes import owned

__all__ = ["PrivateKey", "answer_with"]

# core_dispatch.h
_QUERY_OPERATION, _OP_KEYMGMT, _OP_SIGNATURE = 1027, 10, 12
_KEY_NEW, _KEY_FREE, _KEY_GET_PARAMS, _KEY_GETTABLE_PARAMS, _KEY_OPERATION_NAME = 1, 10, 11, 12, 20
_KEY_HAS, _KEY_MATCH, _KEY_IMPORT, _KEY_IMPORT_TYPES, _KEY_EXPORT, _KEY_EXPORT_TYPES = 21, 23, 40, 41, 42, 43
_SIGN_NEW, _SIGN_INIT, _SIGN_SIGN, _SIGN_FREE, _SIGN_SET_PARAMS, _SIGN_SETTABLE_PARAMS = 1, 8, 11, 16, 20, 21
_PRIVATE, _PUBLIC = 0x01, 0x86  # EVP_PKEY_fromdata(3); the public key with its parameters
_INTEGER, _UTF8_STRING = 1, 4  # OSSL_PARAM(3)

# OSSL_DISPATCH, OSSL_ALGORITHM and OSSL_PARAM, which cryptography's binding does not declare.
_DISPATCH, _ALGORITHM, _PARAM = struct.Struct("@iP"), struct.Struct("@PPPP"), struct.Struct("@PIPNN")
_NAME = b"greentls"
_SIGNATURE = b"GREENTLS-SIGNATURE"  # no other provider has an algorithm of this name
_KINDS = {
    b"EC": b"EC:id-ecPublicKey:1.2.840.10045.2.1",
    b"RSA": b"RSA:rsaEncryption:1.2.840.113549.1.1.1",
    b"ED25519": b"ED25519:1.3.101.112",
}
_PADDINGS = {1: "", 6: "pss", b"pkcs1": "", b"pss": "pss"}  # RSA_PKCS1_PADDING (the default), RSA_PKCS1_PSS_PADDING
_DIGEST_SIZES = {"SHA256": 32, "SHA384": 48, "SHA512": 64}
_SALT_OF_DIGEST_SIZE = -1  # RSA_PSS_SALTLEN_DIGEST

_FUNCTIONS = (
    "EVP_PKEY_CTX_free",
    "EVP_PKEY_CTX_new_from_name",
    "EVP_PKEY_eq",
    "EVP_PKEY_export",
    "EVP_PKEY_free",
    "EVP_PKEY_fromdata",
    "EVP_PKEY_fromdata_init",
    "EVP_PKEY_get0_type_name",
    "EVP_PKEY_get_size",
    "EVP_PKEY_todata",
    "EVP_PKEY_up_ref",
    "OSSL_LIB_CTX_new",
    "OSSL_PARAM_free",
    "OSSL_PROVIDER_add_builtin",
    "OSSL_PROVIDER_load",
    "d2i_PUBKEY",
)  # fmt: skip


Answer = Callable[..., bytes | None]  # answer_with() says what it is called with
_answer: Answer | None = None
_escaped: Callable[..., object] | None = None


def answer_with(answer: Answer, escaped: Callable[..., object]) -> None:
    """Sets the function that makes the signatures of all keys.

    answer: (a PrivateKey's signer, the message, the digest's name, "pss" or "") -> the signature, or None to refuse. It
    may wait, and must not raise. escaped: called like ffi.callback()'s onerror, with an exception that a callback
    raised outside of answer(), for example one from a signal handler.
    """
    global _answer, _escaped
    _answer, _escaped = answer, escaped


class PrivateKey:
    """A private key for use_certificate(). It can sign as long as this object lives.

    public_key: DER (SubjectPublicKeyInfo). digests: the names of the digests that it can sign with, such as "SHA256";
    "" stands for no digest. signer: the object that is passed to answer_with()'s function. Raises ConfigurationError
    for an unsupported kind of key, and UnsupportedOpenSSL.
    """

    def __init__(self, public_key: bytes, digests: Collection[str], signer: object) -> None:
        self.digests, self.signer = frozenset(digests), signer
        self.pointer = _new_key(public_key)
        _keys_to_find[id(self)] = self
        try:
            # _on_export() gets the EVP_PKEY* of the public key, and registers this object under it.
            lib.EVP_PKEY_export(self.pointer, _PUBLIC, _FIND, ffi.cast("void *", id(self)))
        finally:
            del _keys_to_find[id(self)]

    def another_reference(self) -> Pointer:
        """The EVP_PKEY* with one reference more, which the caller must free."""
        lib.EVP_PKEY_up_ref(self.pointer)
        return self.pointer


_keys: weakref.WeakValueDictionary[int, PrivateKey] = weakref.WeakValueDictionary()  # by the public key's EVP_PKEY*
_keys_to_find: dict[int, PrivateKey] = {}  # by id()


def _new_key(public_key: bytes) -> Pointer:
    """An EVP_PKEY* of this provider, owned."""
    context = _library_context()
    parameters, made = ffi.new("void **"), ffi.new("EVP_PKEY **")
    public = maker = ffi.NULL
    try:
        public = lib.d2i_PUBKEY(ffi.NULL, ffi.new("unsigned char **", ffi.from_buffer(public_key)), len(public_key))
        if public != ffi.NULL and lib.EVP_PKEY_todata(public, _PUBLIC, parameters) == 1:
            maker = lib.EVP_PKEY_CTX_new_from_name(context, lib.EVP_PKEY_get0_type_name(public), ffi.NULL)
            if maker != ffi.NULL and lib.EVP_PKEY_fromdata_init(maker) == 1:
                lib.EVP_PKEY_fromdata(maker, made, _PUBLIC, parameters[0])
        said = errors.take()
        if made[0] == ffi.NULL:
            problem = f"OpenSSL cannot use its public key: {errors.describe(said[-1] if said else 0)[1]}"
            raise ConfigurationError("signing key", problem, "give an EC, RSA or Ed25519 key")
        return owned(made[0], lib.EVP_PKEY_free)
    finally:
        lib.EVP_PKEY_CTX_free(maker)
        lib.OSSL_PARAM_free(parameters[0])
        lib.EVP_PKEY_free(public)


# -- the callbacks -----------------------------------------------------------------------------------------------------


def _second_net(kind: type[BaseException], failure: BaseException, traceback: object) -> None:
    if _escaped is None:
        raise failure  # cffi prints it
    _escaped(kind, failure, traceback)


def _callback(
    fatal: Pointer = None, on_error: Callable[..., object] = _second_net
) -> Callable[[Callable[..., object]], library.Callback]:
    return library.callback(fatal, on_error)


@_callback(0)
def _on_has(key: Pointer, selection: int) -> int:
    return int(not selection & _PRIVATE or pointer(key) in _keys)


@_callback(0)
def _on_match(one: Pointer, other: Pointer, _: int) -> int:
    return int(lib.EVP_PKEY_eq(one, other) == 1)


@_callback(0)
def _on_find(_: object, __: object) -> int:
    """Never called. An export to this function tells _on_export() to register the key."""
    return 0


_FIND = ffi.cast("void *", _on_find)


@_callback(0)
def _on_export(key: Pointer, selection: int, take: Pointer, argument: Pointer) -> int:
    if take == _FIND:
        _keys[pointer(key)] = _keys_to_find[pointer(argument)]
        return 1
    if selection & _PRIVATE:
        return 0
    return int(lib.EVP_PKEY_export(key, selection, take, argument))


def _importer(kind: bytes) -> Pointer:
    def _on_import(key: Pointer, selection: int, parameters: Pointer) -> int:
        maker = lib.EVP_PKEY_CTX_new_from_name(ffi.NULL, kind, ffi.NULL)
        made = ffi.new("EVP_PKEY **", ffi.cast("EVP_PKEY *", key))
        try:
            return int(
                maker != ffi.NULL
                and lib.EVP_PKEY_fromdata_init(maker) == 1
                and lib.EVP_PKEY_fromdata(maker, made, selection, parameters) == 1
            )
        finally:
            lib.EVP_PKEY_CTX_free(maker)

    _on_import.__name__ += f"_{kind.decode().lower()}"
    return _callback(0)(_on_import)


@_callback(ffi.NULL)
def _on_gettable(_: object) -> Pointer:
    return _NO_PARAMETERS


@_callback(ffi.NULL)
def _on_types(_: int) -> Pointer:
    return _NO_PARAMETERS


@_callback(ffi.NULL)
def _on_operation_name(_: int) -> Pointer:
    return _OPERATION_NAME


class _Signature:
    """A signature that OpenSSL is about to ask for, with the settings so far."""

    key: PrivateKey | None = None
    digest = ""
    padding = ""
    size = 0


_signatures: dict[int, _Signature] = {}
_numbers = itertools.count(1)


@_callback(ffi.NULL)
def _on_new(_: object, __: object) -> Pointer:
    number, signature = next(_numbers), _Signature()
    context = ffi.cast("void *", number)
    _signatures[number] = signature  # last: if a signal handler raises before this, OpenSSL will not free it
    return context


def _free_anyway(kind: type[BaseException], failure: BaseException, traceback: TracebackType) -> None:
    """Frees what _on_free() may not have freed, because a signal handler raised in it."""
    _signatures.pop(pointer(traceback.tb_frame.f_locals["context"]), None)
    _second_net(kind, failure, traceback)


@_callback(on_error=_free_anyway)
def _on_free(context: Pointer) -> None:
    _signatures.pop(pointer(context), None)


@_callback(0)
def _on_init(context: Pointer, digest: Pointer, key: Pointer, parameters: Pointer) -> int:
    """Begins a signature. OpenSSL also calls this to find out whether the key can sign with a digest."""
    signature = _signatures[pointer(context)]
    signature.digest = "" if digest == ffi.NULL else ffi.string(digest).decode().replace("SHA2-", "SHA")
    signature.key = found = _keys.get(pointer(key))
    if found is None or signature.digest not in found.digests:
        return 0
    signature.size = lib.EVP_PKEY_get_size(key)
    return int(_set(signature, parameters))


@_callback(0)
def _on_set_params(context: Pointer, parameters: Pointer) -> int:
    return int(_set(_signatures[pointer(context)], parameters))


def _set(signature: _Signature, parameters: Pointer) -> bool:
    for name, value in _read(parameters):
        if name == b"pad-mode":
            if value not in _PADDINGS:
                return False
            signature.padding = _PADDINGS[value]
        elif name == b"saltlen" and value not in (b"digest", _SALT_OF_DIGEST_SIZE, _DIGEST_SIZES.get(signature.digest)):
            return False  # TLS has no other salt lengths (RFC 8446 4.2.3)
    return True  # other parameters do not matter: OpenSSL 4 also passes the TLS version


def _read(parameters: Pointer) -> Iterator[tuple[bytes, bytes | int | None]]:
    """Yields (name, value) of each OSSL_PARAM of an array. The value is None for types that nobody here needs."""
    at = pointer(parameters)
    while at:
        key, kind, data, size, _ = _PARAM.unpack(ffi.buffer(ffi.cast("char *", at), _PARAM.size))
        if not key:
            return
        value: bytes | int | None = None
        if kind == _UTF8_STRING:
            value = ffi.string(ffi.cast("char *", data), size)
        elif kind == _INTEGER:
            value = int.from_bytes(ffi.buffer(ffi.cast("char *", data), size), sys.byteorder, signed=True)
        yield ffi.string(ffi.cast("char *", key)), value
        at += _PARAM.size


@_callback(0)
def _on_sign(context: Pointer, out: Pointer, length: Pointer, room: int, message: Pointer, size: int) -> int:
    signature = _signatures[pointer(context)]
    if out == ffi.NULL:
        length[0] = signature.size
        return 1
    key, answer = signature.key, _answer
    if key is None or answer is None:
        return 0
    octets = answer(key.signer, bytes(ffi.buffer(message, size)), signature.digest, signature.padding)
    if octets is None or len(octets) > room:
        return 0
    ffi.memmove(out, octets, len(octets))
    length[0] = len(octets)
    return 1


@_callback(ffi.NULL)
def _on_settable(_: object, __: object) -> Pointer:
    return _SETTABLE_PARAMETERS


@_callback(ffi.NULL)
def _on_query(_: object, operation: int, no_cache: Pointer) -> Pointer:
    no_cache[0] = 0
    return _provided().get(operation, ffi.NULL)


@_callback(0)
def _on_provider_init(handle: Pointer, _: object, functions: Pointer, context: Pointer) -> int:
    functions[0], context[0] = _PROVIDER, handle
    return 1


# -- the tables, which live as long as the process ---------------------------------------------------------------------


def _table(*rows: bytes) -> Pointer:
    array = ffi.new("char[]", b"".join(rows))
    _kept.append(array)
    return array


def _functions(functions: dict[int, Pointer]) -> Pointer:
    rows = [_DISPATCH.pack(number, pointer(function)) for number, function in functions.items()]
    return _table(*rows, bytes(_DISPATCH.size))


def _algorithms(algorithms: dict[bytes, dict[int, Pointer]]) -> Pointer:
    rows = [
        _ALGORITHM.pack(pointer(_table(names, b"\0")), pointer(_PROPERTIES), pointer(_functions(functions)), 0)
        for names, functions in algorithms.items()
    ]
    return _table(*rows, bytes(_ALGORITHM.size))


_kept: list[Pointer] = []
_PROPERTIES = _table(b"provider=" + _NAME + b"\0")
_OPERATION_NAME = _table(_SIGNATURE + b"\0")
_NO_PARAMETERS = _table(bytes(_PARAM.size))
_SETTABLE_PARAMETERS = _table(
    *(_PARAM.pack(pointer(_table(name + b"\0")), _UTF8_STRING, 0, 0, 0) for name in (b"pad-mode", b"saltlen")),
    bytes(_PARAM.size),
)
_PROVIDER = _functions({_QUERY_OPERATION: _on_query})


@functools.cache
def _provided() -> dict[int, Pointer]:
    """The tables of algorithms, by operation. Raises UnsupportedOpenSSL."""
    keys = {
        _KEY_NEW: symbols.address("EVP_PKEY_new", {*_FUNCTIONS, "EVP_PKEY_get_params"}),
        _KEY_FREE: symbols.address("EVP_PKEY_free"),
        _KEY_GET_PARAMS: symbols.address("EVP_PKEY_get_params"),
        _KEY_GETTABLE_PARAMS: _on_gettable,
        _KEY_OPERATION_NAME: _on_operation_name,
        _KEY_HAS: _on_has,
        _KEY_MATCH: _on_match,
        _KEY_IMPORT_TYPES: _on_types,
        _KEY_EXPORT: _on_export,
        _KEY_EXPORT_TYPES: _on_types,
    }
    signatures = {
        _SIGN_NEW: _on_new,
        _SIGN_INIT: _on_init,
        _SIGN_SIGN: _on_sign,
        _SIGN_FREE: _on_free,
        _SIGN_SET_PARAMS: _on_set_params,
        _SIGN_SETTABLE_PARAMS: _on_settable,
    }
    importers = {kind: _importer(kind) for kind in _KINDS}
    return {
        _OP_KEYMGMT: _algorithms({_KINDS[kind]: {**keys, _KEY_IMPORT: importers[kind]} for kind in _KINDS}),
        _OP_SIGNATURE: _algorithms({_SIGNATURE: signatures}),
    }


@functools.cache
def _library_context() -> Pointer:
    """The provider's library context, made at the first use and never freed. Raises ConfigurationError,
    UnsupportedOpenSSL."""
    _provided()
    need(*_FUNCTIONS)  # all of them, or none
    context = lib.OSSL_LIB_CTX_new()
    if (
        context == ffi.NULL
        or lib.OSSL_PROVIDER_add_builtin(context, _NAME, ffi.cast("void *", _on_provider_init)) != 1
        or lib.OSSL_PROVIDER_load(context, _NAME) == ffi.NULL
    ):
        *_, code = [0, *errors.take()]
        raise ConfigurationError("signing key", f"OpenSSL does not load the provider: {errors.describe(code)[1]}")
    return context
