"""Reader: the presentation language of RFC 8446 section 3, read from bytes.

Narrow, then read: for a vector that holds structures, narrow() makes a sub-reader which cannot see past its own field;
parse inside it, then finish() it, so that trailing bytes are named. Nothing is copied until a value is taken.

A violation is a WireError with the alert decode_error, as RFC 8446 section 6.2 asks of a length that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import unpack

from greentls.errors import WireError
from greentls.wire.registry import AlertDescription

__all__ = ["MAX_ELEMENTS", "Reader"]

# Of a vector of structures or vectors. IANA has fewer than 100 groups, protocol names or others that a hello lists, and
# GREASE adds 16; a client offers one or two tickets, and OpenSSL takes one server name. 64 KiB could have 30 thousand
# elements, each of which costs microseconds here. Numbers alone (u16s) cost next to nothing and have no limit.
MAX_ELEMENTS = 256


class Reader:
    """Reads big-endian values from data[start:end]. name: the field that these bytes are, for the errors.

    Each method takes the name of what it reads, consumes it and returns it; WireError if there is not enough of it.
    length_size: how many bytes a vector's length takes.
    """

    __slots__ = ("_data", "_end", "_position", "name")

    def __init__(self, data: bytes, name: str, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._position = start
        self._end = len(data) if end is None else end
        self.name = name

    def __len__(self) -> int:
        """How many bytes are left."""
        return self._end - self._position

    def take(self, size: int, item: str) -> bytes:
        """opaque item[size]."""
        start = self._position
        end = start + size
        if end > self._end:
            raise self._short(size, item)
        self._position = end
        return self._data[start:end]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self), self.name)

    def u8(self, item: str) -> int:
        """uint8 item."""
        position = self._position
        if position >= self._end:
            raise self._short(1, item)
        self._position = position + 1
        return self._data[position]

    def u16(self, item: str) -> int:
        """uint16 item."""
        position = self._position
        if position + 2 > self._end:
            raise self._short(2, item)
        self._position = position + 2
        return self._data[position] << 8 | self._data[position + 1]

    def u24(self, item: str) -> int:
        """uint24 item."""
        return int.from_bytes(self.take(3, item), "big")

    def u32(self, item: str) -> int:
        """uint32 item."""
        return int.from_bytes(self.take(4, item), "big")

    def opaque(self, length_size: int, item: str) -> bytes:
        """opaque item<0..2^(8*length_size)-1>."""
        start = self._skip_vector(length_size, item)
        return self._data[start : self._position]

    def narrow(self, length_size: int, item: str) -> Reader:
        """A sub-reader for the vector item, which is consumed here whatever becomes of the sub-reader."""
        start = self._skip_vector(length_size, item)
        return Reader(self._data, item, start, self._position)

    def u16s(self, length_size: int, item: str) -> tuple[int, ...]:
        """uint16 item<0..2^(8*length_size)-1>."""
        vector = self.opaque(length_size, item)
        if len(vector) % 2:
            raise WireError(item, f"{len(vector)} bytes", "an even number expected", AlertDescription.decode_error)
        return unpack(f">{len(vector) // 2}H", vector)

    def opaques(self, length_size: int, item: str, element_length_size: int, element: str) -> tuple[bytes, ...]:
        """A vector item of vectors of bytes, each named element."""
        vector = self.narrow(length_size, item)
        return tuple([each.opaque(element_length_size, element) for each in vector.elements()])

    def elements(self) -> Iterator[Reader]:
        """This Reader, once for each element that is left: whoever iterates reads one each time.

        WireError for more than MAX_ELEMENTS.
        """
        for _ in range(MAX_ELEMENTS):
            if self._position >= self._end:
                return
            yield self
        if self._position < self._end:
            expected = f"at most {MAX_ELEMENTS} elements expected"
            raise WireError(self.name, f"{len(self)} bytes more", expected, AlertDescription.decode_error)

    def finish(self) -> None:
        """Raises WireError if anything is left."""
        if self._position != self._end:
            raise WireError(self.name, f"{len(self)} bytes left over", "none expected", AlertDescription.decode_error)

    def _skip_vector(self, length_size: int, item: str) -> int:
        """Consumes a vector; returns where its content starts."""
        position = self._position
        start = position + length_size
        if start > self._end:
            raise self._short(length_size, f"length of {item}")
        data = self._data
        if length_size == 1:
            size = data[position]
        elif length_size == 2:  # these two are all but a few, and int.from_bytes() takes thrice as long
            size = data[position] << 8 | data[position + 1]
        else:
            size = int.from_bytes(data[position:start], "big")
        end = start + size
        if end > self._end:
            self._position = start
            raise self._short(size, item)
        self._position = end
        return start

    def _short(self, size: int, item: str) -> WireError:
        return WireError(self.name, f"{len(self)} bytes left", f"{item} needs {size}", AlertDescription.decode_error)
