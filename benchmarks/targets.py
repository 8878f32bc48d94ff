"""The ratios that greentls should reach, and a run's results for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.report import Table, spread
from benchmarks.suites import VERSIONS_AND_MODES


class Target(NamedTuple):
    """The ratio ours / theirs of a metric's medians, and its limit."""

    suite: str
    work: str
    metric: str
    ours: str
    theirs: str
    limit: float
    at_least: bool = False


NODELAY, NODE = "gevent.ssl, TCP_NODELAY", "Node, memcached"
TICKETS, MEMORY, STORED = "greentls, tickets", "greentls, memory", "greentls, memcached"
SLOW = "session, 20 ms, TLS 1.2"
# The lower bounds, in Python and in C, are shown beside each target.
LEAN, LEAN_STORED, FLOOR = "lean pump", "lean pump, memory", "C"
UNDER_ASYNCIO = {"asyncio": 1.0, "uvloop": 1.15}
DATA_UNDER_ASYNCIO = {"asyncio": 0.9, "uvloop": 1.15}
NONE = "—"


def _cpu(
    suite: str, work: str, ours: str, limit: float, *, lean: float | None = None, pure: float | None = None
) -> Iterator[Target]:
    """The server's CPU time against gevent.ssl's; lean: against the lean pump's. pure: without the compiled pump."""
    metric = "cpu_ns" if suite == "bulk" else "cpu_us"
    yield Target(suite, work, metric, ours, NODELAY, limit)
    if lean is not None:
        yield Target(suite, work, metric, ours, LEAN_STORED if ours == MEMORY else LEAN, lean)
    if pure is not None:
        yield Target(suite, work, metric, f"{ours}, pure", NODELAY, pure)


TARGETS = [
    *_cpu("handshake", "full, TLS 1.3", TICKETS, 0.90, lean=1.10, pure=1.00),
    *_cpu("handshake", "resumed, TLS 1.3", MEMORY, 0.85, lean=1.15, pure=1.00),
    *_cpu("handshake", "resumed, TLS 1.3", STORED, 1.00, pure=1.25),
    Target("handshake", "resumed, TLS 1.3", "cpu_us", STORED, NODE, 0.80),
    *_cpu("handshake", "full, TLS 1.2", TICKETS, 0.90, lean=1.10, pure=1.00),
    *_cpu("handshake", "resumed, TLS 1.2", MEMORY, 0.85, lean=1.20, pure=1.05),
    *_cpu("echo", "64 bytes", "greentls", 0.60, lean=1.05, pure=0.72),
    *_cpu("records", "64 bytes", "greentls", 1.00, pure=1.00),
    *_cpu("bulk", "download", "greentls", 0.60, lean=1.10, pure=0.62),
    *_cpu("bulk", "upload", "greentls", 0.80, lean=1.10, pure=0.85),
    *(
        Target("idle", "idle", "KiB", who, theirs, limit)
        for who in ("greentls", "greentls, pure")
        for theirs, limit in (("memory BIOs", 0.85), (NODELAY, 1.15))
    ),
    Target("idle", "idle", "KiB", "greentls, system", NODELAY, 0.75),
    Target("lookup", SLOW, "rate", "coroutine", "blocking", 45, True),
    Target("lookup", SLOW, "rate", "coroutine", "Node, resumeSession", 1.3, True),
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
        Target("asyncio", f"session, 20 ms, TLS {version}", "rate", f"coroutine, {loop}", "blocking", 40, True)
        for version in ("1.3", "1.2")
        for loop in ("asyncio", "uvloop")
    ),
]


def table(results: dict[str, Any]) -> Table | None:
    """Returns the targets whose suites have run, or None."""
    rows = list(_rows(results))
    return Table("targets", ["target", "limit", "measured", "", LEAN, FLOOR], rows) if rows else None


def _rows(results: dict[str, Any]) -> Iterator[list[str]]:
    for target in TARGETS:
        measured = results["suites"].get(target.suite, {}).get("measured", {})
        lean = LEAN_STORED if target.ours.startswith((MEMORY, STORED)) else LEAN
        ours, theirs, *floors = (
            spread(measured.get(target.work, {}).get(who, []), target.metric)
            for who in (target.ours, target.theirs, lean, FLOOR)
        )
        if ours is None or theirs is None or theirs.median <= 0:  # few connections may take no memory that one sees
            continue
        value = ours.median / theirs.median
        good = value >= target.limit if target.at_least else value <= target.limit
        what = f"{target.suite}, {target.work}: {target.ours} / {target.theirs}"
        limit = f"at {'least' if target.at_least else 'most'} {target.limit:g}"
        least = [f"{floor.median / theirs.median:.3g}" if floor else NONE for floor in floors]
        yield [what, limit, f"{value:.3g}", "yes" if good else "no", *least]
