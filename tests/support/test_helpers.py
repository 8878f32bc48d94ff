"""Nothing that a test starts outlives the tests, even if they are killed."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from tests.support.helpers import PATIENCE, ROOT, tethered

pytestmark = pytest.mark.programs

# Each of these has the pipe's writing end open: the test reads the end of it once all of them have ended.
STARTS = {
    "memcached": "Memcached()",
    "key process": "KeyProcess(f'{directory}/s', Pki(Path(directory)).key_file)",
    "program": "Program('sleep', '1000')",
}

PROGRAM = """
import os, sys, subprocess
from pathlib import Path
from functools import partial
from tests.interop.foreign_programs import Program
from tests.keys.processes import KeyProcess
from tests.support.helpers import Memcached, Pki

subprocess.Popen = partial(subprocess.Popen, pass_fds=[int(sys.argv[1])])
directory = sys.argv[2]
started = eval(sys.argv[3])
print(started.process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("start", STARTS)
def test_what_it_has_started_ends_with_a_process_that_is_killed(start, tmp_path):
    reading, writing = os.pipe()
    command = tethered(sys.executable, "-c", PROGRAM, writing, tmp_path, STARTS[start])
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[writing]
    ) as process:
        os.close(writing)
        pid = int(process.stdout.readline())
        os.kill(pid, 0)  # it runs
        process.kill()
    with open(reading, "rb") as ends:
        assert select.select([ends], [], [], PATIENCE)[0], "it is still there"
        assert ends.read() == b""
