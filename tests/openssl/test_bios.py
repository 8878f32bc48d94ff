"""Memory BIOs and the buffers between them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from greentls.openssl import bios
from greentls.openssl.library import lib
from tests.support.helpers import PATIENCE, ROOT


@pytest.fixture
def bio():
    made = bios.new()
    yield made
    lib.BIO_free(made)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_goes_in_comes_out_once(bio, kind):
    for piece in (b"", b"one", b"", b"\0two" * 10_000):
        bios.append(bio, kind(piece))
    assert bios.pending(bio) == bios.mem_data(bio, bios.start) == 40_003
    assert bios.take(bio) == b"one" + b"\0two" * 10_000
    assert (bios.take(bio), bios.pending(bio)) == (b"", 0)


def test_one_whose_memory_was_given_back_is_used_on(bio):
    bios.append(bio, bytes(1 << 20))
    bios.take(bio)
    bios.shrink(bio)
    bios.append(bio, b"again")
    assert bios.take(bio) == b"again"


def test_a_buffer_is_the_same_memory_for_both(bio):
    buffer = bios.Buffer(100)
    buffer.memory[:5] = b"hello"
    assert bios.write(bio, buffer.pointer, 5) == 5
    buffer.memory[:5] = bytes(5)
    assert bios.read(bio, buffer.pointer, 100) == 5
    assert buffer.memory[:6] == b"hello\0"


def test_a_read_buffer_is_filled_and_read():
    buffer = bios.read_buffer(10)
    assert len(buffer) == 10
    assert bios.fill(buffer, b"a\0c") == 3
    assert bios.read_bytes(buffer, 3) == b"a\0c"


def test_memory_is_taken_only_as_it_is():
    assert bios.read_bytes(bios.readable(memoryview(b"abc")), 3) == b"abc"
    room = bytearray(3)
    bios.fill(bios.writable(room), b"xyz")
    assert room == b"xyz"
    for view, data in ((bios.readable, memoryview(b"abcd")[::2]), (bios.readable, "abc"), (bios.writable, b"abc")):
        with pytest.raises((BufferError, ValueError, TypeError)):
            view(data)


def test_a_buffer_that_is_garbage_in_a_cycle_is_collected():
    """hazard: the collector clears the memoryview first, and what releases C's pointer to it crashes the process."""
    program = """
import gc, weakref
from greentls.openssl import bios

class Cycle:
    pass

def leave(*parts):
    cycle = Cycle()
    cycle.itself, cycle.parts = cycle, parts
    return weakref.ref(cycle)

gc.disable()
buffers = [bios.Buffer(100) for _ in range(3)]
left = [leave(buffers[0]), leave(buffers[1].memory, buffers[1].pointer), leave(buffers[2].pointer, buffers[2].memory)]
del buffers
gc.collect()
print([cycle() for cycle in left])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[None, None, None]\n", "")
