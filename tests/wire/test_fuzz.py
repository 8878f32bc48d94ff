from __future__ import annotations

import subprocess
import sys

from tests.support.helpers import ROOT
from tests.wire import fuzz_parser

SECONDS = 5  # make fuzz takes longer; .ci/run has it do so


def test_the_fuzzer_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "tests.wire.fuzz_parser", f"-max_total_time={SECONDS}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS + 120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Done " in done.stdout


def test_the_fuzzer_without_atheris_finds_nothing():
    """Where there is no wheel of atheris this is what the script does."""
    assert fuzz_parser.at_random(fuzz_parser.seeds([fuzz_parser.SEEDS]), 1) > 10
