"""What frees C objects, and when.

The destructor of ffi.gc() is a finalizer to the cycle collector, which may call it before the finalizer of another
object in the same cycle; that one would then use freed memory. A plain pointer is invisible to the collector, and is
destroyed only when all finalizers of a cycle have run. So Python's objects hold a plain pointer. What frees is held
from here, out of the collector's reach, until nobody refers to the plain pointer any more.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

from greentls.openssl.library import ffi

_held: dict[int, tuple[Any, Any]] = {}  # by id() of a plain pointer: a weak reference to it, and what it holds


def hold(thing: Any) -> Any:
    """What keeps a thing out of the collector's reach, and its finalizer from being called, while it is kept itself."""
    pointer = ffi.cast("void *", 0)
    key = id(pointer)
    # A call of C's, in which no signal handler can raise. Its second argument, a default, will be the weak reference.
    _held[key] = weakref.ref(pointer, functools.partial(_held.pop, key)), thing
    return pointer


def owned(pointer: Any, free: Any) -> Any:
    """A copy of a pointer. What it points to is freed with the last reference to this copy."""
    copy = ffi.cast(ffi.typeof(pointer), pointer)
    key = id(copy)
    _held[key] = weakref.ref(copy, functools.partial(_held.pop, key)), ffi.gc(pointer, free)  # as in hold()
    return copy
