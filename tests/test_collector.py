"""The collector: whatever finalizers do, nothing that was freed is entered; and no failure leaves work for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_finalizer_may_use_whatever_is_garbage_with_it():
    """In a process of its own: what is tested here ends a process by SIGSEGV when it is not there."""
    paths = [str(Path(__file__).parent), str(Path(__file__).with_name("ssl")), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "MALLOC_PERTURB_": "165", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "error", "-X", "faulthandler", str(Path(__file__).with_name("collected.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    last = done.stdout.splitlines()[-1:]
    assert (done.returncode, done.stderr, last) == (0, "", ["96 cases"]), done.stdout
