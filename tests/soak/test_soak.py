"""Runs soak.py for 20 seconds in a process of its own: a crash in OpenSSL is a failed test, not a lost run."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.helpers import ROOT


def test_three_hundred_greenlets_with_kills_and_timeouts_in_every_hook():
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-m", "tests.soak.soak"]
    done = subprocess.run([*command, "--seconds", "20"], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    report = json.loads(done.stdout)
    assert report["most hooks waiting at once"] > 100
    for kind in (
        "clean",
        "resumed",
        "early data",
        "context switched",
        *(f"carried out: {each}" for each in ("Trouble", "LateTrouble", "GreenletExit")),
    ):
        assert report[kind] > 20, f"too few to mean something: {kind}"
