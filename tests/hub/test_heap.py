"""What a storm of handshakes leaves in the heap goes back to the system."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from greentls.hub import heap
from tests.support.helpers import PATIENCE, ROOT

# As connections do: each takes a large piece and a small one; then all give back the large ones.
PROGRAM = """
import ctypes, re
from greentls.hub import heap

PIECES, LARGE = 2000, 20_000
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def resident():
    return int(re.search(r"Rss: *(\\d+)", open("/proc/self/smaps_rollup").read())[1]) * 1024

pieces = []
for _ in range(PIECES):
    for size in (LARGE, 200):
        pieces.append(malloc(size))
        ctypes.memset(pieces[-1], 1, size)
for large in pieces[::2]:
    free(large)
full = resident()
heap._start = lambda function, arguments: function(*arguments)  # and is finished when it returns
for _ in range(heap.EACH - 1):
    heap.connection_rests()
before = resident()
heap.connection_rests()
print(PIECES * LARGE, full - before, full - resident())
"""


def test_it_is_given_back():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    freed, too_early, given_back = map(int, done.stdout.split())
    if heap._trim is None:
        return  # another malloc, which does it by itself
    assert too_early < freed / 10
    assert given_back > freed / 2


@pytest.fixture
def trimmed(monkeypatch):
    """Counts the calls of malloc_trim(); by the fixture's end none is under way."""
    calls, done = [], threading.Semaphore(0)

    def trim(padding):
        calls.append((padding, threading.get_ident()))
        done.release()

    monkeypatch.setattr(heap, "_trim", trim)
    return calls, done


def test_once_for_so_many_connections_and_in_another_thread(trimmed):
    calls, done = trimmed
    for _ in range(3 * heap.EACH):
        heap.connection_rests()
    for _ in range(3):
        assert done.acquire(timeout=PATIENCE)
    assert len(calls) == 3
    assert {padding for padding, _ in calls} == {0}
    assert threading.get_ident() not in {thread for _, thread in calls}


def test_no_thread_can_be_had(trimmed, monkeypatch):
    def none(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(heap, "_start", none)
    for _ in range(heap.EACH):
        heap.connection_rests()
    assert trimmed[0] == []
