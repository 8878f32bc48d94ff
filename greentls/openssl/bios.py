"""Memory BIOs, and the buffers between them, sockets and Python."""

from __future__ import annotations

import functools
from collections.abc import Callable

from greentls.openssl.library import BIO, Memory, ffi, have, lib

RECORD_SIZE = 16384  # plaintext bytes in a record at most (RFC 8446 5.1): SSL_read() never gives more
_CTRL_SET_BUF_MEM, _BIO_CLOSE = 114, 1  # bio.h
_MEMORY = lib.BIO_s_mem()

start = ffi.new("char **")  # BIO_get_mem_data() also tells where the bytes are; nobody here asks


def new() -> BIO:
    """A memory BIO. Raises MemoryError."""
    bio: BIO = lib.BIO_new(_MEMORY)
    if not bio:
        raise MemoryError("BIO_new")
    return bio


def append(bio: BIO, data: bytes | bytearray | memoryview) -> None:
    """Appends to a memory BIO, which takes everything. Raises MemoryError."""
    if data and lib.BIO_write(bio, ffi.from_buffer(data), len(data)) != len(data):
        raise MemoryError("BIO_write")


def take(bio: BIO) -> bytearray:
    """Everything in a memory BIO; it is empty afterwards."""
    length = lib.BIO_get_mem_data(bio, start)
    data = bytearray(length)
    if length:
        del data[max(lib.BIO_read(bio, ffi.from_buffer(data), length), 0) :]  # somebody else may have read some of it
    return data


def pending(bio: BIO) -> int:
    """Bytes in a memory BIO."""
    return int(lib.BIO_get_mem_data(bio, start))


# BIO_write(3) and BIO_read(3) of bytes or a Buffer's pointer, with (bio, pointer, size). A function round each would
# cost an echo 6 % more instructions in Python.
write: Callable[[BIO, Memory | bytes, int], int] = lib.BIO_write
read: Callable[[BIO, Memory, int], int] = lib.BIO_read
mem_data: Callable[[BIO, object], int] = lib.BIO_get_mem_data  # (bio, start): how many bytes there are


def shrink(*bios: BIO) -> None:
    """Gives the memory of those that are empty back: each keeps the size of the most that it ever held.

    The BIOs themselves stay: others may hold their addresses (BIO_set_mem_buf(3)).
    """
    if _can_shrink():  # if not, only memory is lost
        for bio in bios:
            if not lib.BIO_get_mem_data(bio, start) and (fresh := lib.BUF_MEM_new()):
                lib.BIO_ctrl(bio, _CTRL_SET_BUF_MEM, _BIO_CLOSE, fresh)


@functools.cache
def _can_shrink() -> bool:
    return have("BIO_ctrl", "BUF_MEM_new")


class Buffer:
    """Memory that a socket receives into and a BIO is fed from, or the other way, without a copy between."""

    __slots__ = ("memory", "pointer")

    def __init__(self, size: int) -> None:
        octets = bytearray(size)
        # Both of the bytearray: the collector clears a memoryview that C has a pointer to, and the release of that
        # pointer then crashes. An exception's traceback may hold a Buffer, and be garbage in a cycle.
        self.memory = memoryview(octets)
        self.pointer: Memory = ffi.from_buffer(octets)


def readable(data: bytes | bytearray | memoryview) -> Memory:
    """Bytes as C sees them. Raises BufferError or TypeError if they are none, or not contiguous."""
    memory: Memory = ffi.from_buffer(data)
    return memory


def writable(buffer: bytearray | memoryview) -> Memory:
    """Memory that C may write to. Raises BufferError or TypeError."""
    memory: Memory = ffi.from_buffer(buffer, require_writable=True)
    return memory


# What SSL_read() fills need not be zero before.
_allocate: Callable[[str, int], Memory] = ffi.new_allocator(should_clear_after_alloc=False)


def read_buffer(size: int) -> Memory:
    """Memory for read_bytes()."""
    return _allocate("char[]", size)


def at(address: int) -> Memory:
    """What is there; of unknown length."""
    memory: Memory = ffi.cast("char *", address)
    return memory


def span(address: int, length: int) -> Memory:
    """So many bytes there."""
    memory: Memory = ffi.from_buffer(ffi.buffer(at(address), length))
    return memory


def fill(address: int, data: bytes) -> int:
    """Copies data to where there is room for them; returns how many bytes they are."""
    ffi.memmove(at(address), data, len(data))
    return len(data)


read_bytes: Callable[[Memory, int], bytes] = ffi.unpack  # the first bytes of a read_buffer()
