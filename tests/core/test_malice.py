"""Runs malice.py, a scheduler that is malicious, in processes of their own: what it looks for can crash one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.helpers import ROOT


@pytest.mark.parametrize("keys", [[], ["--signers"]], ids=["keys", "keys that wait"])
@pytest.mark.parametrize("pure", ["", "1"], ids=["whatever pump there is", "the plain pump"])
@pytest.mark.parametrize(
    ("kind", "step", "least"),
    [
        # How many there are depends on Python and the pump: 10,000 and more, and 400 and more.
        ("switch", 1, 2_000),  # bytecodes
        ("collect", 7, 2_000),
        ("kill", 1, 100),  # places
    ],
)
def test_whoever_comes_between_two_bytecodes_finds_nothing_half_done(kind, step, least, pure, keys):
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.core.malice", kind, "--step", str(step), *keys]
    environment = {**os.environ, "GREENTLS_PURE": pure}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    said, count = done.stdout.split()
    assert said == kind
    assert int(count) >= least, "too few to mean something"
