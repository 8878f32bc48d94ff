"""StandIn: a class in the standard library's place, for programs that hold older ones."""

from __future__ import annotations

import ssl as _stdlib_ssl

__all__ = ["StandIn"]


class StandIn(type):
    """Of a class that monkey.patch() puts into ssl under its own name.

    As long as it is there, isinstance() holds for what was made before, of the classes that it stands in for: programs
    keep a socket or a context, and ask later. issubclass() tells what has our methods.
    """

    _stands_in_for: tuple[type, ...] = ()

    def __instancecheck__(cls, instance: object) -> bool:
        if super().__instancecheck__(instance):
            return True
        return vars(_stdlib_ssl).get(cls.__name__) is cls and isinstance(instance, cls._stands_in_for)
