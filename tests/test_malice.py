"""Runs tests/malice.py, a scheduler that is malicious, in processes of their own: what it looks for can crash one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("kind", "step", "least"),
    [
        ("switch", 1, 50_000),  # bytecodes
        ("collect", 7, 50_000),
        ("kill", 1, 500),  # places
    ],
)
def test_whoever_comes_between_two_bytecodes_finds_nothing_half_done(kind, step, least):
    command = [sys.executable, "-X", "faulthandler", str(Path(__file__).with_name("malice.py")), kind]
    done = subprocess.run([*command, "--step", str(step)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    said, count = done.stdout.split()
    assert said == kind
    assert int(count) >= least, "too few to mean something"
