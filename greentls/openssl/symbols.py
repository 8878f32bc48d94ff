"""Finds the addresses of OpenSSL's functions, also of those that the foundation does not export.

greentls must call the same OpenSSL that made its SSL_CTX* and SSL*: the one that cryptography's extension module calls,
or that ``_native`` calls. There are two ways to find its functions. Neither is used before the first call of address(),
and neither is trusted without proof.

**Linked** (distributions, ``_native``): the extension needs a shared libssl, so dlsym() on the extension's own handle
finds every function. But the loader binds the extension's calls in global scope first, where a preloaded or embedding
program may have another OpenSSL. So OpenSSL_version(), TLS_method(), BIO_s_mem() and similar functions, which return
pointers to static data, are called both ways, through dlsym() and through the binding. If the pointers are equal, it is
the same library. Functions that are looked up later must be in one of the libraries that contain these. (All calls of
``_native`` are bound by the loader, so prove_alone() checks each function.)

**Built in** (the wheels on PyPI): OpenSSL is linked into the extension and hidden from the dynamic linker, but the
file's ELF ``.symtab`` still names its functions. A function is at base + st_value. Four checks prove that the file and
the base are right:

1. The base is the loader's (dladdr of the module's PyInit_*), and base + st_value of PyInit_* is its address again.
2. The ELF header and the program headers in memory are the file's, byte for byte. A file that pip has replaced under a
   running process has other offsets. After this check, each address within a segment is known to be mapped.
3. ``ffi.addressof(lib, "SSL_new")`` is not SSL_new but the trampoline that cffi compiled for it, the static function
   ``_cffi_d_SSL_new``. At least five trampolines must be where ``.symtab`` says.
4. Each function begins in memory with the same bytes of code as in the file. OpenSSL lies behind the trampolines, so a
   wheel that was rebuilt with nothing but a newer OpenSSL could pass the other checks.

The file is read and not mapped, so that a file that shrinks meanwhile causes an error and no SIGBUS. Every offset in it
is checked against its size, and each length against what it must hold. Every fault becomes an UnsupportedOpenSSL.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import struct
from collections.abc import Callable, Collection, Mapping
from typing import BinaryIO, NamedTuple

import cryptography

from greentls.errors import ConfigurationError, UnsupportedOpenSSL
from greentls.openssl import foundation

__all__ = ["address", "exported", "origin"]

# Functions that every version of the binding exports. At least five must be found, and all that are found must agree.
EXPORTED = ("SSL_new", "SSL_free", "SSL_read", "SSL_write", "SSL_shutdown", "SSL_do_handshake", "SSL_CTX_new")
AGREEING = 5
TRAMPOLINE = "_cffi_d_"
_COMMON = "SSL_"
# Functions that take nothing or one small number, and return a pointer to static data. The first two must exist.
STATIC = ("OpenSSL_version", "TLS_method", "TLS_client_method", "TLS_server_method", "BIO_s_mem")

CODE = 64  # bytes of a function that are compared; the shortest ones are shorter
MAX_TABLE = 64 << 20  # bytes of a symbol or string table: the wheels have 2 MiB; a forged size must not use up memory
PAGE = 4096  # the smallest page of any ELF platform: bases are multiples of it

REMEDY = (
    "install cryptography's manylinux or musllinux wheel from PyPI, unstripped, on a 64-bit little-endian system "
    "(pip install --force-reinstall --only-binary :all: cryptography), or a distribution's, linked against libssl"
)
NEWER = f"a newer OpenSSL may have it, as cryptography's wheel: unset {foundation.VARIABLE}"

# System V ABI, chapters 4 and 5, 64-bit little-endian.
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_SYM_NAME = struct.Struct("<I20x")
_PT_LOAD, _PF_X, _SHT_SYMTAB, _SHT_STRTAB, _STT_FUNC = 1, 1, 2, 3, 2


class Unusable(Exception):
    """A file or library cannot be used. Its text says why."""


class Symbol(NamedTuple):
    value: int  # st_value: its address less the base
    code: bytes  # its first bytes


class Image(NamedTuple):
    headers: bytes  # the ELF header and the program headers, which the loader maps at the base
    symbols: dict[str, Symbol]  # the wanted functions that occur exactly once in .symtab


def _take(file: BinaryIO, size: int, offset: int, length: int, what: str) -> bytes:
    if offset + length > size:
        raise Unusable(f"{what} reach beyond the end of the file")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise Unusable(f"the file shrank while its {what} were read")
    return data


def read_image(file: BinaryIO, wanted: Collection[str]) -> Image:
    """Reads an ELF shared object's headers and, in one pass over its .symtab, the wanted functions. Raises Unusable."""
    size = file.seek(0, os.SEEK_END)
    start = _take(file, size, 0, min(_EHDR.size, size), "headers")
    if start[:4] != b"\x7fELF":
        raise Unusable("it is not an ELF file")
    if start[4:6] != b"\x02\x01":
        raise Unusable("it is not a 64-bit little-endian ELF file")
    if len(start) != _EHDR.size:
        raise Unusable("the ELF header is cut short")
    _, _, _, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = _EHDR.unpack(start)
    if phentsize != _PHDR.size or shentsize != _SHDR.size:
        raise Unusable("its headers are of an unknown size")

    table = _take(file, size, phoff, phnum * _PHDR.size, "program headers")
    loads = [segment for segment in _PHDR.iter_unpack(table) if segment[0] == _PT_LOAD]
    end = phoff + len(table)
    if not loads or loads[0][2:4] != (0, 0) or not _EHDR.size <= end <= min(PAGE, loads[0][5]):
        raise Unusable("its headers are not on the page at its base")  # the one page that verify() may look at
    headers = _take(file, size, 0, end, "headers")

    sections = list(_SHDR.iter_unpack(_take(file, size, shoff, shnum * _SHDR.size, "section headers")))
    symtab = next((s for s in sections if s[1] == _SHT_SYMTAB), None)
    if symtab is None:
        raise Unusable("it has no symbol table (.symtab): it was stripped")
    offset, length, link, entsize = symtab[4], symtab[5], symtab[6], symtab[9]
    if entsize != _SYM.size or length % _SYM.size or link >= len(sections) or sections[link][1] != _SHT_STRTAB:
        raise Unusable("its symbol table is malformed")
    if max(length, sections[link][5]) > MAX_TABLE:
        raise Unusable("its symbol table is too large")
    entries = _take(file, size, offset, length, "symbols")
    strings = _take(file, size, sections[link][4], sections[link][5], "symbols' names")
    if strings[-1:] != b"\0":
        raise Unusable("its symbols' names do not end")
    names = _name_offsets(strings, wanted)

    places: dict[str, set[tuple[int, int]]] = {}
    for index, (name,) in enumerate(_SYM_NAME.iter_unpack(entries)):
        if name not in names:
            continue
        _, info, _, shndx, value, length = _SYM.unpack_from(entries, index * _SYM.size)
        if info & 15 == _STT_FUNC and shndx:
            places.setdefault(names[name], set()).add((value, length))
    symbols = {}
    for function, [(value, length), *others] in places.items():
        if others:
            continue  # static functions may share a name, so it is unknown which one is meant
        for _, flags, offset, vaddr, _, filesz, _, _ in loads:
            if flags & _PF_X and vaddr <= value and 0 < length <= vaddr + filesz - value:
                code = _take(file, size, offset + value - vaddr, min(length, CODE), "functions")
                symbols[function] = Symbol(value, code)
    return Image(headers, symbols)


def _name_offsets(strings: bytes, wanted: Collection[str]) -> dict[int, str]:
    """Returns the offsets in a string table at which the wanted names begin. A name may be the end of another one: GNU
    ld stores "SSL_new" only as the end of "_cffi_d_SSL_new"."""
    # Each search through 2 MiB takes 0.5 ms, so all names that contain "SSL_" share one.
    searches: dict[bytes, dict[bytes, list[str]]] = {}  # by the bytes that are searched for: {a name's end: names}
    for name in filter(None, wanted):
        end = name[name.find(_COMMON) :].encode() if _COMMON in name else name.encode()
        searches.setdefault(_COMMON.encode() if _COMMON in name else end, {}).setdefault(end, []).append(name)
    offsets = {}
    for start, ends in searches.items():
        at = strings.find(start)
        while at >= 0:
            for name in ends.get(strings[at : strings.find(b"\0", at)], ()):
                begin = at - name.find(start.decode())
                if begin >= 0 and strings.startswith(name.encode(), begin):
                    offsets[begin] = name
            at = strings.find(start, at + 1)
    return offsets


def verify(
    image: Image, base: int, entry: tuple[str, int], exported: Mapping[str, int], peek: Callable[[int, int], bytes]
) -> dict[str, int]:
    """Proves that the image is the one loaded at base. Returns the addresses of its functions. Raises Unusable.

    base: the loader's. entry: a dynamic symbol of the image, and its address. exported: functions of the binding, and
    their addresses by cffi. peek: reads memory (ctypes.string_at).
    """
    if base % PAGE or entry[0] not in image.symbols or base + image.symbols[entry[0]].value != entry[1]:
        raise Unusable(f"the loaded module's base does not fit the file: {entry[0]} is elsewhere")
    if peek(base, len(image.headers)) != image.headers:
        raise Unusable("the loaded module is not the file: was it replaced while in use?")
    trampolines = {name: image.symbols.get(TRAMPOLINE + name) for name in exported}
    placed = {name: base + symbol.value for name, symbol in trampolines.items() if symbol}
    if wrong := sorted(name for name in placed if placed[name] != exported[name]):
        raise Unusable(f"the symbol table puts {wrong[0]} elsewhere than the binding does")
    if len(placed) < AGREEING:
        raise Unusable(f"the symbol table names {len(placed)} of the binding's functions; {AGREEING} must agree")
    return {
        name: base + symbol.value
        for name, symbol in image.symbols.items()
        if peek(base + symbol.value, len(symbol.code)) == symbol.code
    }


# -- this process ------------------------------------------------------------------------------------------------------


class _DlInfo(ctypes.Structure):
    _fields_ = [
        ("fname", ctypes.c_char_p),
        ("fbase", ctypes.c_void_p),
        ("sname", ctypes.c_char_p),
        ("saddr", ctypes.c_void_p),
    ]


def _base_of(where: int) -> int:
    """Returns the base of the loaded object that contains an address. Raises Unusable."""
    info = _DlInfo()
    try:
        dladdr = ctypes.CDLL(None).dladdr
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no CDLL(None)
        raise Unusable("the system has no dladdr()") from None
    dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(_DlInfo)]
    if not dladdr(where, ctypes.byref(info)) or not info.fbase:
        raise Unusable("the loader does not know where the module is")
    return int(info.fbase)


def _dlsym(handle: ctypes.CDLL, name: str) -> int | None:
    try:
        return ctypes.cast(handle[name], ctypes.c_void_p).value
    except (AttributeError, ValueError):  # ValueError: a NUL in the name
        return None


class _Extension:
    """A foundation's extension module in this process: its file, its handle, and its cffi library."""

    def __init__(self, of: foundation.Foundation) -> None:
        self.name, self.ffi, _, self.lib, self.path, self.entry = of
        self.version: str = self.ffi.string(self.lib.OpenSSL_version(0)).decode("ascii", "replace")

    @functools.cached_property
    def handle(self) -> ctypes.CDLL:
        """The module's own handle. RTLD_NOLOAD refuses a replaced file instead of loading it as a second module."""
        try:
            return ctypes.CDLL(self.path, mode=getattr(os, "RTLD_NOLOAD", 0) | getattr(os, "RTLD_LAZY", 0))
        except OSError as error:
            raise Unusable(f"the loader does not have it: {error}") from None

    @functools.cached_property
    def libraries(self) -> frozenset[int]:
        """The bases of the shared libraries that contain OpenSSL; empty if it is built in. Raises Unusable."""
        if not (_dlsym(self.handle, STATIC[0]) and _dlsym(self.handle, STATIC[1])):
            return frozenset()
        bases = set()
        for name in STATIC:
            where, ours = _dlsym(self.handle, name), getattr(self.lib, name, None)
            if not where or ours is None:
                continue
            arguments = (0,) if name == "OpenSSL_version" else ()
            theirs = ctypes.CFUNCTYPE(ctypes.c_void_p, *[ctypes.c_int for _ in arguments])(where)(*arguments)
            if theirs != int(self.ffi.cast("uintptr_t", ours(*arguments))):
                raise Unusable(f"{name} of the libssl it is linked with is not the one that it calls")
            bases.add(_base_of(where))
        return frozenset(bases)

    def find(self, wanted: Collection[str]) -> dict[str, int]:
        """Returns the addresses of the wanted functions that exist. Raises Unusable, OSError."""
        if not self.version.startswith("OpenSSL ") or "compatible" in self.version:  # AWS-LC and BoringSSL say so
            raise Unusable("its library is not OpenSSL")
        if self.libraries:
            places = {name: _dlsym(self.handle, name) for name in wanted}
            return {name: at for name, at in places.items() if at and _base_of(at) in self.libraries}
        with open(self.path, "rb") as file:
            image = read_image(file, {*wanted, self.entry, *(TRAMPOLINE + name for name in EXPORTED)})
        entry = _dlsym(self.handle, self.entry)
        if not entry:
            raise Unusable(f"the loader does not know its {self.entry}")
        ours = {name: exported(name) for name in EXPORTED if hasattr(self.lib, name)}
        return verify(image, _base_of(entry), (self.entry, entry), ours, ctypes.string_at)


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@functools.cache
def _extension() -> _Extension:
    return _Extension(foundation.current())


def exported(name: str) -> int:
    """Returns the address of a function that the binding exports. It is cffi's trampoline; C can call it like the
    function."""
    extension = _extension()
    return int(extension.ffi.cast("uintptr_t", extension.ffi.addressof(extension.lib, name)))


def origin() -> str:
    """Describes the OpenSSL in use: its version, and how it is loaded."""
    extension = _extension()
    if extension.name == foundation.SYSTEM:
        return f"{extension.version}, the system's"
    try:
        how = "linked with a shared libssl" if extension.libraries else "built into cryptography's wheel"
    except Unusable as error:
        how = str(error)
    return f"{extension.version}, {how}"


def prove_alone(names: Collection[str]) -> None:
    """Raises ConfigurationError if the loader finds another function of one of these names first, in a program that has
    its own OpenSSL or in a preloaded one. Otherwise some calls would go there, and others to the system's libssl."""
    extension, everybody = _extension(), ctypes.CDLL(None)
    for name in names:
        first = _dlsym(everybody, name)
        if first is not None and first != _dlsym(extension.handle, name):
            problem = f"another OpenSSL in this process has {name}, too, and the loader finds that one first"
            raise ConfigurationError("OpenSSL of 'system'", problem, f"unset {foundation.VARIABLE}")


_known: dict[str, int | None] = {}  # None: it does not exist


def address(name: str, together: Collection[str] = ()) -> int:
    """Returns the address of a function of the OpenSSL in use. Raises UnsupportedOpenSSL.

    together: functions that will be needed later, and are looked up in the same pass. A pass over 36 000 symbols takes
    15 ms, for one name or for thirty.
    """
    at = _known.get(name)
    if at is not None:
        return at
    extension = _extension()
    problem = "it is not there, or several functions have that name"
    if name not in _known and _NAME.fullmatch(name):  # a NUL would end the name for C, and not for Python
        wanted = {name} | (set(together) - _known.keys())
        try:
            found = extension.find(wanted)
        except (Unusable, OSError) as error:
            problem = f"{extension.name}'s {os.path.basename(extension.path)} does not tell where it is: {error}"
        else:
            _known.update((each, found.get(each)) for each in wanted)
            if name in found:
                return found[name]
    if extension.name == foundation.SYSTEM:
        raise UnsupportedOpenSSL(name, problem, origin(), NEWER)
    raise UnsupportedOpenSSL(name, problem, f"cryptography {cryptography.__version__}, {extension.version}", REMEDY)
