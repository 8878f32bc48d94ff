"""Runs soak.py for 10 seconds in a process of its own: a crash in OpenSSL is a failed test, not a lost run."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.helpers import ROOT


def test_three_hundred_greenlets_with_kills_and_timeouts_in_every_hook():
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-m", "tests.soak.soak"]
    done = subprocess.run([*command, "--seconds", "10"], capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert json.loads(done.stdout)["clean"]
