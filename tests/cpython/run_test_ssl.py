"""Runs CPython's own test.test_ssl, as it is, over an implementation of ssl, each test in turn.

    python -m tests.cpython.run_test_ssl greentls [TEST ...]

IMPLEMENTATION is greentls or gevent, both over gevent.monkey.patch_all(); stdlib, over nothing; or aio, which runs
asyncio's tests of TLS over greentls.aio (over_aio.py). Prints one JSON object: for each test "ok", "skipped: ...",
"failed: ..." or "hung". A test that does not end takes its process with it; the next one goes on in another.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 120  # seconds for one test, of which the longest takes three
GEVENTS_LIMIT = 10  # one test never ends over gevent.ssl


def flat(suite):
    for each in suite:
        yield from flat(each) if isinstance(each, unittest.TestSuite) else [each]


def child(implementation):
    """Takes tests' names from standard input, tells on a pipe what became of each."""
    if implementation in ("greentls", "gevent"):
        import gevent.monkey

        gevent.monkey.patch_all()
    if implementation == "greentls":
        from greentls.monkey import patch

        patch()
    import faulthandler

    from test import support

    support.verbose = 0
    if implementation == "aio":
        from tests.cpython import over_aio

        tests = over_aio.tests()
    else:
        from test import test_ssl

        tests = flat(unittest.defaultTestLoader.loadTestsFromModule(test_ssl))
    report = os.fdopen(int(os.environ["REPORT"]), "w", buffering=1)

    class Result(unittest.TestResult):
        def startTest(self, test):
            super().startTest(test)
            self.said = "ok"
            print(json.dumps(["started", name(test)]), file=report)
            faulthandler.dump_traceback_later(GEVENTS_LIMIT if implementation == "gevent" else LIMIT, exit=True)

        def stopTest(self, test):
            super().stopTest(test)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps([self.said, name(test)]), file=report)

        def addSkip(self, test, reason):
            self.said = f"skipped: {reason}"

        def _problem(self, test, error):
            lines = self._exc_info_to_string(error, test).strip().splitlines()
            self.said = f"failed: {lines[-1]}"
            print(*lines, "", sep="\n", file=sys.stderr)

        addError = addFailure = _problem

        def addSubTest(self, test, subtest, error):
            if error:
                self._problem(test, error)

    def name(test):
        return re.sub(r"^test\.(test_ssl\.|test_asyncio\.)", "", test.id())

    wanted = sys.stdin.read().split()
    if not wanted:
        for test in tests:
            print(json.dumps(["known", name(test)]), file=report)
        return
    suite = unittest.TestSuite(test for test in tests if name(test) in wanted)
    suite.run(Result())


def some(implementation, names):
    """What a child says of these tests: [what, name] each; of all, that they are known, if there are none."""
    reading, writing = os.pipe()
    environment = {**os.environ, "REPORT": str(writing)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cpython.run_test_ssl", implementation, "--child"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        text=True,
        pass_fds=[writing],
        env=environment,
    )
    os.close(writing)
    with process, os.fdopen(reading) as report:
        process.stdin.write(" ".join(names))
        process.stdin.close()
        yield from map(json.loads, report)


def run(implementation, names=(), say=lambda line: None):
    """What became of each test: {name: "ok", "skipped: ...", "failed: ..." or "hung"}.

    Some of these tests hang on timing: what has failed has a second chance, as CPython's own runner gives it.
    """
    left = [name for _, name in some(implementation, [])]
    if names:
        left = [name for name in left if any(each in name for each in names)]
    results = _run(implementation, left, say)
    again = [name for name in left if results[name].startswith("failed")]
    return results | _run(implementation, again, say)


def _run(implementation, left, say):
    results = {}
    while left:
        current = None
        for what, name in some(implementation, left):
            if what == "started":
                current = name
            else:
                results[name], current = what, None
                say(f"{name}: {what}")
        if current is not None:
            results[current] = "hung"
            say(f"{current}: hung")
        elif not any(name in results for name in left):
            raise SystemExit(f"{implementation}: no test ran")
        left = [name for name in left if name not in results]
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("implementation", choices=("greentls", "gevent", "stdlib", "aio"))
    parser.add_argument("tests", nargs="*", metavar="TEST", help="part of a name; default: all tests")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.implementation)
    else:
        print(
            json.dumps(run(options.implementation, options.tests, lambda line: print(line, file=sys.stderr)), indent=2)
        )


if __name__ == "__main__":
    main()
