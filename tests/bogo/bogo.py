#!/usr/bin/env python3
"""Runs BoringSSL's test runner, which is not ours and not here, against the shim; says the figure and what has failed.

python -m tests.bogo.bogo RUNNER [--source DIRECTORY] [--tests PATTERN] [--workers N]

RUNNER: what `go test -c` makes of ssl/test/runner of BoringSSL or of AWS-LC, which has the same with fewer
dependencies. --source: that directory, where the runner looks for its keys; by default where RUNNER is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.helpers import ROOT, tethered

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "config.json"

# AWS-LC's runner at 3bda7bae9f04 (August 2026), Python 3.11, OpenSSL 4.0.3. SKIP: a feature that is not there. Another
# runner has other tests: what counts is that none fails, and that not fewer pass.
EXPECTED = {"PASS": 1435, "FAIL": 0, "SKIP": 1446}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runner", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--tests", help="names, with *, separated by ;")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, shims(Path(directory)) as environment:
        shim, results = Path(directory, "shim"), Path(directory, "results.json")
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I {HERE / "shim.py"} "$@"\n')
        shim.chmod(0o755)
        command = [options.runner.resolve(), "-shim-path", shim, "-shim-config", CONFIG, "-json-output", results]
        command += ["-allow-unimplemented", "-loose-errors", "-num-workers", str(options.workers)]
        command += ["-test", options.tests] if options.tests else []
        subprocess.run(command, cwd=options.source or options.runner.parent, env=environment, check=False)
        tests = json.loads(results.read_text())["tests"]
    found = Counter(test["actual"] for test in tests.values())
    print(f"\n{dict(found)}; expected: {EXPECTED}")
    complete = options.tests or found["PASS"] >= EXPECTED["PASS"]
    return 0 if complete and not found["FAIL"] else 1


class shims:
    """A shim that forks: the environment that leads to it."""

    def __init__(self, directory):
        self.path = str(directory / "server")

    def __enter__(self):
        command = tethered(sys.executable, "-m", "tests.bogo.shim", "serve", self.path)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.process.stdout.readline()  # it listens
        return {**os.environ, "GREENTLS_BOGO_SERVER": self.path}

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


if __name__ == "__main__":
    sys.exit(main())
