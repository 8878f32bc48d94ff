"""Splits a server's CPU time into the parts of its program, by perf(1): what greentls could save and what not.

perf takes a sample every millisecond of CPU time, and notes in which file the processor was. Its own work slows the
server by a few per cent.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks import machine
from benchmarks.running import PATIENCE, BenchmarkError

# Metrics, by the files whose code they count.
PARTS = {
    "kernel_us": r"\[kernel|\[guest|\[k\]",
    "openssl_us": r"libssl|libcrypto|_rust\.|_native\.",
    "python_us": r"libpython|python[\d.]*$",
    "extensions_us": r".*\.(cpython-|abi3\.).*so$",
    "rest_us": r"",  # libc and its kin, and programs in C
}
RECORD = ("perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-o")


def absent() -> str:
    """The reason why there can be no profile, or ""."""
    if not shutil.which("perf"):
        return "there is no perf: apt-get install linux-perf"
    tried = subprocess.run([*RECORD, "/dev/null", "true"], capture_output=True, check=False)
    return "perf may not look: sysctl kernel.perf_event_paranoid=2" if tried.returncode else ""


@contextlib.contextmanager
def samples(pid: int, core: set[int], directory: str) -> Iterator[Path]:
    """Takes samples of a process during a with block. Yields the file that has them afterwards."""
    path = Path(directory, f"{pid}.perf")
    orders, give = os.pipe()
    hear, answers = os.pipe()
    command = [*RECORD, str(path), "-p", str(pid), "-D", "-1", f"--control=fd:{orders},{answers}"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=machine.on(core), pass_fds=(orders, answers)
    )
    try:
        os.close(answers)
        os.close(orders)
        os.write(give, b"enable\n")
        os.read(hear, 16)  # it has begun, or ended
        yield path
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
        os.close(give)
        os.close(hear)
    if not path.exists():
        raise BenchmarkError(f"{' '.join(command)}\n{said}")


def shares(path: Path) -> dict[str, float]:
    """Each part's share of the samples."""
    command = ["perf", "report", "--stdio", "-i", str(path), "--no-children", "-g", "none", "--sort", "dso", "-t", ";"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = dict.fromkeys(PARTS, 0.0)
    for percent, name in re.findall(r"^ *([\d.]+)% *;(\S+)", said.stdout, re.MULTILINE):
        found[part_of(name)] += float(percent) / 100
    if not any(found.values()):
        raise BenchmarkError(f"{' '.join(command)}: no samples\n{said.stderr}")
    return found


def part_of(name: str) -> str:
    return next(part for part, pattern in PARTS.items() if re.match(pattern, name))
