"""Reader: reads the presentation language of RFC 8446 section 3 from bytes.

Narrow, then read: for a vector of structures, narrow() makes a sub-reader that cannot read past its own field. Parse
with it, then call its finish(), which reports trailing bytes. Nothing is copied until a value is taken.

A violation is a WireError with the alert decode_error, which RFC 8446 section 6.2 prescribes for a wrong length.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import unpack

from greentls.errors import WireError
from greentls.wire.registry import AlertDescription

__all__ = ["MAX_ELEMENTS", "Reader"]

# Elements of a vector of structures or vectors. IANA has fewer than 100 of anything that a hello lists (groups,
# protocol names), and GREASE adds 16. A client offers one or two tickets, and OpenSSL takes one server name. 64 KiB
# could hold 30 thousand elements, each of which costs microseconds here. Plain numbers (u16s) cost almost nothing and
# have no limit.
MAX_ELEMENTS = 256


class Reader:
    """Reads big-endian values from data[start:end]. name: the field that these bytes are, for error messages.

    Each method consumes and returns one item, whose name it takes for errors. It raises WireError if bytes are missing.
    length_size: the number of bytes of a vector's length.
    """

    __slots__ = ("_data", "_end", "_position", "name")

    def __init__(self, data: bytes, name: str, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._position = start
        self._end = len(data) if end is None else end
        self.name = name

    def __len__(self) -> int:
        """The number of bytes that are left."""
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
        """Consumes all remaining bytes."""
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

    def u32(self, item: str) -> int:
        """uint32 item."""
        return int.from_bytes(self.take(4, item), "big")

    def opaque(self, length_size: int, item: str) -> bytes:
        """opaque item<0..2^(8*length_size)-1>."""
        start = self._skip_vector(length_size, item)
        return self._data[start : self._position]

    def narrow(self, length_size: int, item: str) -> Reader:
        """Consumes the vector item and returns a sub-reader for it."""
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
        """Yields this Reader once for each remaining element. The loop body reads one element each time.

        Raises WireError for more than MAX_ELEMENTS.
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
        """Consumes a vector and returns the start of its content."""
        position = self._position
        start = position + length_size
        if start > self._end:
            raise self._short(length_size, f"length of {item}")
        data = self._data
        if length_size == 1:
            size = data[position]
        elif length_size == 2:  # nearly all have one of these two sizes, and int.from_bytes() takes three times as long
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
