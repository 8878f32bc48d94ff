"""Helps classes of ours to replace classes of the standard library's.

- Replacement: programs keep sockets and contexts that they made before monkey.patch(), and call isinstance() later.
- hide_unknown(): the base class of SSLContext is the standard library's, and a newer Python gives it setters that
  nothing here reads. If they were inherited, a setting could be made and silently not be obeyed.
- through_c(): the setters of that base class recurse endlessly once ssl.SSLContext is another class.
"""

from __future__ import annotations

import ssl as _stdlib_ssl
import types
from collections.abc import Callable, Collection
from typing import Any, NoReturn, TypeVar

from greentls.hub import unpatched

__all__ = ["STDLIB_CONTEXT", "STDLIB_SOCKET", "Replacement", "hide_unknown", "through_c", "with_globals"]

Value = TypeVar("Value")

# gevent replaces ssl.SSLContext when it patches, and so does monkey.patch(). These are the standard library's own.
# mypy cannot use a class that is found at run time as a base class.
STDLIB_CONTEXT: Any = next(each for each in _stdlib_ssl.SSLContext.__mro__ if each.__module__ == "ssl")
STDLIB_SOCKET: Any = unpatched("ssl", "SSLSocket")  # Any: as above


class Replacement(type):
    """The metaclass of a class that monkey.patch() puts into ssl under its own name.

    While it is there, isinstance() also holds for instances of the classes that it replaces (_replaces). issubclass()
    holds for its own subclasses only, so it tells which objects have our methods.
    """

    _replaces: tuple[type, ...] = ()

    def __instancecheck__(cls, instance: object) -> bool:
        if super().__instancecheck__(instance):
            return True
        return vars(_stdlib_ssl).get(cls.__name__) is cls and isinstance(instance, cls._replaces)


class Absent:
    """An attribute of the base class that the class does not have. It can be neither read nor set."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.message = f"{owner.__name__} has no {name}: it is of a newer ssl than greentls knows"

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(self.message)

    def __set__(self, instance: object, value: object) -> NoReturn:
        raise AttributeError(self.message)


def hide_unknown(cls: type, base: type, inherited: Collection[str]) -> None:
    """Makes each public attribute of base Absent in cls, unless cls defines it or inherited lists it."""
    own = {name for each in cls.__mro__ if not issubclass(base, each) for name in vars(each)}
    for name in dir(base):
        if not name.startswith("_") and name not in own and name not in inherited:
            absent = Absent()
            setattr(cls, name, absent)
            absent.__set_name__(cls, name)


def with_globals(function: types.FunctionType, names: dict[str, object]) -> types.FunctionType:
    """Returns a copy of the function that reads its global names from here."""
    made = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__, made.__doc__, made.__qualname__ = (
        function.__kwdefaults__,
        function.__doc__,
        function.__qualname__,
    )
    return made


def through_c(name: str, kind: Callable[[int], Value]) -> property:
    """STDLIB_CONTEXT's property of this name, read and set in its base class, which is written in C.

    kind: the enum of its values.
    """
    attribute = getattr(STDLIB_CONTEXT.__mro__[1], name)

    def get(self: object) -> Value:
        return kind(attribute.__get__(self))

    def set(self: object, value: int) -> None:
        attribute.__set__(self, value)

    return property(get, set, doc=attribute.__doc__)
