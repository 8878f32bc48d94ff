"""The compiled pump under AddressSanitizer and UndefinedBehaviorSanitizer: `make sanitize`.

    python -m tests.openssl.sanitize [--seconds 60] [TESTS...]

Builds it with both, and runs the tests that are named, and the fuzzer, with it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "greentls" / "openssl" / "_pump.c"
NAME = "greentls.openssl._pump"
TESTS = [
    *(f"tests/openssl/test_{each}.py" for each in ("pump", "pump_inside", "pump_pauses", "facts")),
    "tests/core/test_bindings.py",
    "tests/test_stream.py",
]
FLAGS = [
    *("-O1", "-g", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    # Greenlets move slices of the stack away and back, and not what the sanitizer notes about them.
    *("--param", "asan-stack=0"),
]


def build(directory: str) -> str:
    target = str(Path(directory, "_pump.abi3.so"))
    include = sysconfig.get_path("include")
    subprocess.run(["cc", *FLAGS, f"-I{include}", "-o", target, str(SOURCE)], check=True)
    return target


def inside(target: str) -> None:
    """This process has that pump and no other."""
    spec = importlib.util.spec_from_file_location(NAME, target)
    sys.modules[NAME] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from greentls.openssl import pump

    assert pump.COMPILED
    assert pump.twin.__file__ == target


def library(name):
    said = subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return said.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of fuzzing")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("tests", nargs="*", default=TESTS)
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments.inside)
        import pytest

        from tests.openssl import fuzz_pump

        sys.argv[1:] = ["--seconds", str(arguments.seconds)]
        return pytest.main(["-q", "-p", "no:cacheprovider", *arguments.tests]) or fuzz_pump.main()
    options = {
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so.6')}",  # greenlet throws C++'s exceptions
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",  # Python keeps much to its end
        "PYTHONMALLOC": "malloc",  # or it would hide its objects in arenas
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tests.openssl.sanitize", "--inside", build(directory)]
        command += ["--seconds", str(arguments.seconds), *arguments.tests]
        return subprocess.run(command, env={**os.environ, **options}, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
