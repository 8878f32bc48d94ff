"""What frees C's objects: with the last reference to the pointer, and never before a finalizer that may use it."""

from __future__ import annotations

import gc

import pytest

from greentls.openssl import lifetimes
from greentls.openssl.library import ffi


class Thing:
    pass


@pytest.fixture
def freed():
    return []


def pointer(freed):
    memory = ffi.new("char[4]", b"abc")
    keeps = [memory]  # as C would
    return lifetimes.owned(ffi.cast("char *", memory), lambda _: freed.append(ffi.string(keeps[0])))


def test_it_is_freed_once_with_the_last_reference(freed):
    first = pointer(freed)
    second = first
    del first
    assert (freed, ffi.string(second)) == ([], b"abc")
    del second
    assert freed == [b"abc"]


def test_a_finalizer_of_the_same_garbage_finds_it_whole(freed):
    class User(Thing):
        def __del__(self):
            seen.append((list(freed), ffi.string(self.pointer)))

    seen = []
    for first in (True, False):  # the collector's order is that of their making, or the other
        user = User() if first else None
        holder = Thing()
        holder.pointer = pointer(freed)
        user = user or User()
        user.pointer, user.holder, holder.user = holder.pointer, holder, user
        del user, holder
        gc.collect()
        assert seen.pop() == ([], b"abc")
        assert freed.pop() == b"abc"


def test_what_is_kept_lives_as_long_as_the_pointer(freed):
    thing, gone = Thing(), []
    reference = lifetimes.weakref.ref(thing, gone.append)
    first = pointer(freed)
    lifetimes.keep(first, thing)
    lifetimes.keep(first, Thing())
    del thing
    gc.collect()
    assert reference() is not None
    assert freed == []
    del first
    assert gone == [reference]
    assert freed == [b"abc"]


def test_nothing_is_left_in_the_table(freed):
    before = len(lifetimes._held)
    one = pointer(freed)
    lifetimes.keep(one, Thing())
    assert len(lifetimes._held) == before + 1
    del one
    assert len(lifetimes._held) == before
