"""The machine: its cores, the memory and CPU time of processes, and versions."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import resource
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)


def cores() -> tuple[set[int], set[int], set[int]]:
    """Returns the server's core, the load generator's, and all usable ones. With one core they are the same."""
    usable = os.sched_getaffinity(0)
    return {min(usable)}, {max(usable)}, usable


def on(core: set[int]) -> Callable[[], None]:
    """Returns a preexec_fn for subprocess: it pins the child to a core and ends it when this process ends."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        os.sched_setaffinity(0, core)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return prepare


def allow_many_files() -> int:
    """Raises the limit of descriptors as far as the system allows, for this process and its children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def family(pid: int) -> list[int]:
    """Returns the process and its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def resident(pid: int) -> float:
    """Returns the resident KiB of a process and its descendants, counted page by page: /proc/PID/statm may lag."""
    total = 0
    for each in family(pid):
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
    return total


def settle(pid: int) -> None:
    """Waits until the process is idle, at most ten seconds, so that earlier work does not count."""
    clock = ~pid << 3 | 2  # its CPU time: clock_getcpuclockid(3) in figures
    end, before = time.monotonic() + 10, -1.0
    while (now := time.clock_gettime(clock)) - before > 0.001 and time.monotonic() < end:
        before = now
        time.sleep(0.1)


def facts() -> dict[str, str]:
    """Returns the facts that are printed with every result."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    from greentls.openssl import symbols

    known = {
        "Python": platform.python_version(),
        "greentls' OpenSSL": symbols.origin(),
        "Python's OpenSSL": ssl.OPENSSL_VERSION,
    }
    for package in ("greentls", "gevent", "greenlet", "cryptography", "pyopenssl", "eventlet", "uvloop"):
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    for name, command in {
        "the system's OpenSSL": ["openssl", "version"],
        "Node": ["node", "-p", "process.version + ' (OpenSSL ' + process.versions.openssl + ')'"],
        "Go": ["go", "version"],
        "nginx": ["nginx", "-v"],
        "HAProxy": ["haproxy", "-v"],
        "memcached": ["memcached", "-V"],
    }.items():
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            known[name] = (said.stdout or said.stderr).strip().splitlines()[0]
    return known


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
