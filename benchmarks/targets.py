"""The ratios that greentls should reach, and a run's results for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.report import METRICS, Table, spread
from benchmarks.suites import VERSIONS_AND_MODES


class Target(NamedTuple):
    """The ratio ours / theirs of a metric's medians, or ours alone if theirs is None, and its limit."""

    suite: str
    work: str
    metric: str
    ours: str
    theirs: str | None
    limit: float
    at_least: bool = False


NODELAY, NODE = "gevent.ssl, TCP_NODELAY", "Node, memcached"
TICKETS, MEMORY, STORED = "greentls, tickets", "greentls, memory", "greentls, memcached"
SLOW = "session, 20 ms"
# The lower bounds, in Python and in C, are shown beside each target.
LEAN, LEAN_STORED, FLOOR = "lean pump", "lean pump, memory", "C"
UNDER_ASYNCIO = {"asyncio": 1.0, "uvloop": 1.15}
DATA_UNDER_ASYNCIO = {"asyncio": 0.9, "uvloop": 1.15}
NONE = "—"

TARGETS = [
    Target("handshake", "full, TLS 1.3", "cpu_us", TICKETS, NODELAY, 0.80),
    Target("handshake", "full, TLS 1.3", "cpu_us", TICKETS, "nginx", 1.20),
    Target("handshake", "resumed, TLS 1.3", "cpu_us", MEMORY, NODELAY, 0.65),
    Target("handshake", "resumed, TLS 1.3", "cpu_us", MEMORY, "nginx", 1.20),
    Target("handshake", "resumed, TLS 1.3", "cpu_us", STORED, NODELAY, 0.95),
    Target("handshake", "resumed, TLS 1.3", "cpu_us", STORED, NODE, 0.80),
    Target("handshake", "full, TLS 1.2", "cpu_us", TICKETS, NODELAY, 0.85),
    Target("handshake", "resumed, TLS 1.2", "cpu_us", MEMORY, NODELAY, 0.70),
    Target("echo", "64 bytes", "cpu_us", "greentls", NODELAY, 0.75),
    Target("echo", "64 bytes", "cpu_us", "greentls", "Node", 1.05),
    Target("bulk", "download", "cpu_ns", "greentls", NODELAY, 0.85),
    Target("bulk", "upload", "cpu_ns", "greentls", NODELAY, 0.85),
    Target("idle", "idle", "KiB", "greentls", NODELAY, 1.00),
    Target("lookup", SLOW, "rate", "coroutine", "blocking", 100, True),
    Target("lookup", f"{SLOW}, TLS 1.2", "rate", "coroutine", "blocking", 100, True),
    Target("lookup", f"{SLOW}, TLS 1.2", "rate", "coroutine", "Node, resumeSession", 1.3, True),
    *(
        Target("asyncio", work, metric, f"greentls.aio, {loop}", loop, limits[loop])
        for work, metric, limits in (
            *((f"{mode}, TLS {version}", "cpu_us", UNDER_ASYNCIO) for version, mode in VERSIONS_AND_MODES),
            ("echo", "cpu_us", DATA_UNDER_ASYNCIO),
            ("upload", "cpu_ns", DATA_UNDER_ASYNCIO),
            ("download", "cpu_ns", DATA_UNDER_ASYNCIO),
        )
        for loop in ("asyncio", "uvloop")
    ),
    *(
        Target("asyncio", f"{SLOW}, TLS {version}", "rate", f"coroutine, {loop}", "blocking", 40, True)
        for version in ("1.3", "1.2")
        for loop in ("asyncio", "uvloop")
    ),
    Target("bridge", "in memory", "on_top_us", "waits", None, 5.0),
    Target("bridge", "in memory", "inside_us", "waits", None, 5.0),
]


def table(results: dict[str, Any]) -> Table | None:
    """Returns the targets whose suites have run, or None."""
    rows = list(_rows(results))
    return Table("targets", ["target", "limit", "measured", "", LEAN, FLOOR], rows) if rows else None


def _rows(results: dict[str, Any]) -> Iterator[list[str]]:
    for target in TARGETS:
        measured = results["suites"].get(target.suite, {}).get("measured", {})
        lean = LEAN_STORED if target.ours in (MEMORY, STORED) else LEAN
        ours, theirs, *floors = (
            spread(measured.get(target.work, {}).get(who, []), target.metric)
            for who in (target.ours, target.theirs, lean, FLOOR)
        )
        if ours is None or (target.theirs and theirs is None):
            continue
        value = ours.median / theirs.median if theirs else ours.median
        good = value >= target.limit if target.at_least else value <= target.limit
        what = f"{target.suite}, {target.work}: {target.ours}"
        what += f" / {target.theirs}" if target.theirs else f", {METRICS[target.metric].title}"
        limit = f"at {'least' if target.at_least else 'most'} {target.limit:g}"
        least = [f"{floor.median / theirs.median:.3g}" if floor and theirs else NONE for floor in floors]
        yield [what, limit, f"{value:.3g}", "yes" if good else "no", *least]
