"""What frees C's objects, and when.

The cycle collector takes the destructor of ffi.gc() for a finalizer, and may call it before the finalizer of another
object in the same cycle; that finalizer would then use freed memory. The collector does not see plain pointers, and
destroys them only when all finalizers of a cycle have run. So Python's objects hold plain pointers. The destructors are
held from this module, where the collector does not reach them, until nobody refers to the plain pointer any more.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

from greentls.openssl.library import T, ffi

# By id() of a plain pointer: a weak reference to it, and what is held as long as the pointer lives.
_held: dict[int, tuple[object, ...]] = {}


def owned(pointer: T, free: Callable[[T], object]) -> T:
    """A copy of a pointer; what it points to is freed with the last reference to the copy."""
    copy: T = ffi.cast(ffi.typeof(pointer), pointer)
    key = id(copy)
    # A call into C, in which no signal handler can raise. The weak reference will be its second argument, the default.
    _held[key] = weakref.ref(copy, functools.partial(_held.pop, key)), ffi.gc(pointer, free)
    return copy


def keep(pointer: object, thing: object) -> None:
    """Keeps a thing alive, out of the collector's reach, as long as an owned pointer."""
    _held[id(pointer)] += (thing,)
