"""Runs malice.py, a scheduler that is malicious, in processes of their own: what it looks for can crash one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.helpers import ROOT


@pytest.mark.parametrize(
    ("kind", "step", "least"),
    [
        ("switch", 1, 50_000),  # bytecodes
        ("collect", 7, 50_000),
        ("kill", 1, 500),  # places
    ],
)
def test_whoever_comes_between_two_bytecodes_finds_nothing_half_done(kind, step, least):
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.core.malice", kind]
    done = subprocess.run([*command, "--step", str(step)], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    said, count = done.stdout.split()
    assert said == kind
    assert int(count) >= least, "too few to mean something"
