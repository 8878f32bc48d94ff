"""The extensions of a hello: their table, and Body, a descriptor that parses an extension when it is first read.

Building the table reads only types and lengths. A body is parsed once, when its attribute is first read. Only that read
raises WireError if the body is malformed, or if the extension is repeated (RFC 8446 4.2 forbids it, but OpenSSL refuses
it only for the extensions that it knows).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from struct import error as struct_error
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload

from greentls.errors import WireError
from greentls.wire.handshake import opaque
from greentls.wire.reader import Reader
from greentls.wire.registry import AlertDescription, ExtensionType, name

__all__ = ["MAX_EXTENSIONS", "Body", "Extension", "Extensions"]

# IANA has fewer than 70 extensions and GREASE adds 16; no client sends half of them. Without this limit a hello of
# MAX_HELLO_BYTES could have 16 thousand, and its table would cost milliseconds.
MAX_EXTENSIONS = 1024

T = TypeVar("T")
Absent = TypeVar("Absent")


class Extension(NamedTuple):
    """An extension (RFC 8446 4.2). extension_type: an ExtensionType, or an unnamed int."""

    extension_type: int
    extension_data: bytes


@dataclass(frozen=True, slots=True)
class Extensions:
    """The extensions of a hello. Iteration yields each Extension in order; extensions[type] is the bytes of one.

    block: the bytes of all extensions, without the length in front. None means that the hello ends before the length,
    as it may before TLS 1.3; an empty block has a length of 0. Raises WireError if the block is not a sequence of
    extensions.
    """

    block: bytes | None
    # type: the start of its extension_data in block, or _REPEATED
    _starts: dict[int, int] = field(init=False, repr=False, compare=False, default_factory=dict)
    # type: its parsed body, of whose type each Body knows
    _bodies: dict[int, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    @classmethod
    def of(cls, *extensions: tuple[int, bytes]) -> Extensions:
        """Builds the extensions from types and bytes."""
        return cls(b"".join(number.to_bytes(2, "big") + opaque(2, data) for number, data in extensions))

    def __post_init__(self) -> None:
        # No Reader here: this loop is half of the cost of parsing a hello.
        block, starts, header = self.block or b"", self._starts, _header
        position, end, count = 0, len(block), 0
        try:
            while position < end:
                extension_type, size = header(block, position)
                starts[extension_type] = position = position + 4
                position += size
                count += 1
        except struct_error:
            raise _short(end - position, "extension header", 4) from None
        if position > end:
            raise _short(end - position + size, name(ExtensionType, extension_type), size)
        if count > MAX_EXTENSIONS:
            expected = f"at most {MAX_EXTENSIONS} expected"
            raise WireError("extensions", f"{count} of them", expected, AlertDescription.decode_error)
        if count != len(starts):
            counts = Counter(extension.extension_type for extension in self)
            starts.update((repeated, _REPEATED) for repeated, occurs in counts.items() if occurs > 1)

    @property
    def types(self) -> tuple[int, ...]:
        """The extension_type of each extension, in order."""
        if _REPEATED in self._starts.values():
            return tuple(extension.extension_type for extension in self)
        return tuple(self._starts)

    def __iter__(self) -> Iterator[Extension]:
        position, block = 0, self.block or b""
        while position < len(block):
            extension_type, size = _header(block, position)
            position += 4 + size
            yield Extension(extension_type, block[position - size : position])

    def __len__(self) -> int:
        return len(self.types)

    def __contains__(self, extension_type: int) -> bool:
        return extension_type in self._starts

    def get(self, extension_type: int) -> bytes | None:
        """Like [], but returns None if there is no such extension."""
        try:
            return self[extension_type]
        except KeyError:
            return None

    def __getitem__(self, extension_type: int) -> bytes:
        """The extension_data. Raises KeyError if there is no such extension, WireError if it is repeated."""
        return self.reader(extension_type, "extensions").rest()

    def reader(self, extension_type: int, field_name: str) -> Reader:
        """Like [], but returns a Reader of the extension_data."""
        start = self._starts[extension_type]
        if start == _REPEATED:
            expected = f"{name(ExtensionType, extension_type)} at most once expected"
            raise WireError("extensions", "repeated", expected, AlertDescription.illegal_parameter)
        block = self.block or b""
        return Reader(block, field_name, start, start + (block[start - 2] << 8 | block[start - 1]))

    def to_bytes(self) -> bytes:
        """The last field of a hello, with its length."""
        return b"" if self.block is None else opaque(2, self.block)


_header = Struct(">HH").unpack_from

_REPEATED = -1  # takes the place of a start: either of the two could be meant


def _short(left: int, item: str, size: int) -> WireError:
    return WireError("extensions", f"{left} bytes left", f"{item} needs {size}", AlertDescription.decode_error)


class Body(Generic[T, Absent]):
    """A descriptor: the body of an extension, parsed when first read; absent if the hello lacks the extension."""

    __slots__ = ("_absent", "_name", "_parse", "_type")

    def __init__(self, extension_type: ExtensionType, parse: Callable[[Reader], T], absent: Absent) -> None:
        self._type = int(extension_type)
        self._name = extension_type.name
        self._parse = parse
        self._absent = absent

    @overload
    def __get__(self, hello: None, owner: type[_Hello]) -> Body[T, Absent]: ...

    @overload
    def __get__(self, hello: _Hello, owner: type[_Hello]) -> T | Absent: ...

    def __get__(self, hello: _Hello | None, owner: type[_Hello]) -> Body[T, Absent] | T | Absent:
        if hello is None:
            return self
        extensions = hello.extensions
        value: T | None = extensions._bodies.get(self._type)
        if value is None and self._type in extensions._starts:
            reader = extensions.reader(self._type, self._name)
            value = self._parse(reader)
            reader.finish()
            extensions._bodies[self._type] = value
            return value
        return self._absent if value is None else value


class _Hello(Protocol):
    @property
    def extensions(self) -> Extensions: ...
