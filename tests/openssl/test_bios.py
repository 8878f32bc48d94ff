"""Buffers between sockets and memory BIOs."""

from __future__ import annotations

import subprocess
import sys

from tests.support.helpers import PATIENCE, ROOT


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
