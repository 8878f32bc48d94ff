"""Memory BIOs, and the buffers between them, sockets and Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl.library import BIO, ffi, hidden, lib

_CTRL_SET_BUF_MEM, _BIO_CLOSE = 114, 1  # bio.h


_MEMORY = lib.BIO_s_mem()


def new() -> BIO:
    """A memory BIO. Raises MemoryError."""
    bio: BIO = lib.BIO_new(_MEMORY)
    if bio == ffi.NULL:
        raise MemoryError("BIO_new")
    return bio


def shrink(*bios: BIO) -> None:
    """Lets empty memory BIOs begin anew: one keeps the size of the most that it ever held.

    The BIOs stay what they are, as somebody may have their addresses at hand (BIO_set_mem_buf(3)).
    """
    try:
        control = hidden("BIO_ctrl", "long (*)(BIO *, int, long, void *)")
        new = hidden("BUF_MEM_new", "void *(*)(void)")
    except UnsupportedOpenSSL:
        return  # they stay as they are: nothing but memory is lost
    for bio in bios:
        control(bio, _CTRL_SET_BUF_MEM, _BIO_CLOSE, new())


def append(bio: BIO, data: bytes | bytearray | memoryview) -> None:
    """Appends to a memory BIO; it takes everything or there is no memory."""
    if data and lib.BIO_write(bio, ffi.from_buffer(data), len(data)) != len(data):
        raise MemoryError("BIO_write")


def take(bio: BIO) -> bytearray:
    """Everything in a memory BIO; it is empty afterwards."""
    length = lib.BIO_get_mem_data(bio, start)
    data = bytearray(length)
    if length:
        del data[max(lib.BIO_read(bio, ffi.from_buffer(data), length), 0) :]  # somebody else may have read some of it
    return data


# BIO_write(3) and BIO_read(3) from and to a Buffer's pointer: (bio, pointer, size). As they are: without functions
# around them, and what those looked up again, an echo takes 6 % fewer instructions in Python.
write: Any = lib.BIO_write
read: Any = lib.BIO_read
mem_data: Any = lib.BIO_get_mem_data  # (bio, start): how many bytes there are


def pending(bio: BIO) -> int:
    """Bytes in a memory BIO."""
    return int(lib.BIO_get_mem_data(bio, start))


start = ffi.new("char **")  # BIO_get_mem_data() also tells where they are, which nobody asks


def readable(data: bytes | bytearray | memoryview) -> Any:
    """Bytes as C sees them. Raises BufferError or TypeError if they are none, or not contiguous."""
    return ffi.from_buffer(data)


def writable(buffer: bytearray | memoryview) -> Any:
    """Memory that C may write to. Raises BufferError or TypeError."""
    return ffi.from_buffer(buffer, require_writable=True)


class Buffer:
    """What a socket receives into and a BIO is fed from, or the other way: without a copy between."""

    __slots__ = ("memory", "pointer")

    def __init__(self, size: int) -> None:
        self.memory = memoryview(bytearray(size))
        self.pointer = ffi.from_buffer(self.memory)


_allocate = ffi.new_allocator(should_clear_after_alloc=False)  # what SSL_read() fills need not be zero before


RECORD_SIZE = 16384  # plaintext bytes in a record at most (RFC 8446 5.1): SSL_read() never gives more


def read_buffer(size: int) -> Any:
    """A char[] for read_bytes()."""
    return _allocate("char[]", size)


def fill(buffer: Any, data: bytes) -> int:
    """Copies data into a buffer that has room for them; returns how many bytes they are."""
    ffi.memmove(buffer, data, len(data))
    return len(data)


read_bytes: Callable[[Any, int], bytes] = ffi.unpack  # the first bytes of a char[]
