"""Formats results as tables (Markdown, reStructuredText) and drawings (SVG, PNG).

Results are written by program.py: {"suites": {name: {"measured": {work: {who: [metrics of each round]}}, ...}}, ...}.
A cell is the median of the rounds, with their lowest and highest value.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.suites import SUITES

Results = dict[str, Any]

# Drawn in colour, also with a comma or a colon after the name.
OURS = ("greentls", "greentls.aio", "coroutine", "thread", "prefetch", "key process")
NEARLY_ALL = 0.95  # of a core
QUIET = 1.0  # load average before the run; a higher one means that other programs were busy
NEEDED = "drawings need matplotlib: pip install 'greentls[bench]'"


class Metric(NamedTuple):
    title: str
    digits: int


METRICS = {
    "rate": Metric("per second", 0),
    "cpu_us": Metric("CPU of the server, µs each", 1),
    "cpu_ns": Metric("CPU of the server, ns per byte", 3),
    "MiB_s": Metric("MiB/s", 0),
    "GB_s": Metric("GB/s", 2),
    "p50_ms": Metric("median, ms", 2),
    "p99_ms": Metric("99th percentile, ms", 2),
    "KiB": Metric("KiB each", 1),
    "KiB_parked": Metric("KiB each, while waiting", 1),
    "KiB_established": Metric("KiB each, when established", 1),
    "parked": Metric("waiting at once", 0),
    "python_us": Metric("of it in the interpreter, µs", 1),
    "extensions_us": Metric("of it in extension modules (cffi, greenlet, gevent, ssl, the pump), µs", 1),
    "openssl_us": Metric("of it in OpenSSL, µs", 1),
    "kernel_us": Metric("of it in the kernel, µs", 1),
    "rest_us": Metric("of it in libc and the rest, µs", 1),
    "us": Metric("CPU, µs", 2),
    "on_top_us": Metric("more CPU by waiting, µs", 2),
    "inside_us": Metric("of that, inside OpenSSL, µs", 2),
    "exponent": Metric("exponent", 2),
    "ns_byte": Metric("ns per byte", 0),
}


class Table(NamedTuple):
    title: str
    header: list[str]
    rows: list[list[str]]


class Spread(NamedTuple):
    median: float
    least: float
    greatest: float


def spread(rounds: Sequence[dict[str, Any]], metric: str) -> Spread | None:
    """Returns the spread of a metric, or None if no round has it."""
    values = [each[metric] for each in rounds if each.get(metric) is not None]
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def cell(rounds: Sequence[dict[str, Any]], metric: str) -> str:
    found = spread(rounds, metric)
    if found is None:
        return ""
    middle, least, greatest = (f"{each:,.{METRICS[metric].digits}f}" for each in found)
    return middle if least == greatest else f"{middle} ({least} to {greatest})"


def names(measured: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the contestants of all works, in order of first appearance."""
    return list(dict.fromkeys(who for by_name in measured.values() for who in by_name))


def tables(suite: str, result: Results) -> Iterator[Table]:
    """Yields one table with a column for each metric; for several works, one per metric with a column per work."""
    measured = result["measured"]
    for works in _alike(measured):
        part = {work: measured[work] for work in works}
        rounds = [each for by_name in part.values() for each in by_name.values()]
        known = [name for name in SUITES[suite].metrics if any(cell(each, name) for each in rounds)]
        if len(works) == 1:
            (work,) = works
            header = [work, *(METRICS[name].title for name in known)]
            yield Table(
                work, header, [[who, *(cell(each, name) for name in known)] for who, each in part[work].items()]
            )
            continue
        for name in known:
            having = [work for work in works if any(cell(each, name) for each in part[work].values())]
            rows = [[who, *(cell(part[work].get(who, []), name) for work in having)] for who in names(part)]
            title = METRICS[name].title
            yield Table(title, [title, *having], [row for row in rows if any(row[1:])])


def _alike(measured: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Groups the works that have a contestant in common."""
    groups: list[list[str]] = []
    for work, by_name in measured.items():
        for group in groups:
            if set(names({each: measured[each] for each in group})) & set(by_name):
                group.append(work)
                break
        else:
            groups.append([work])
    return groups


def notes(result: Results) -> list[str]:
    """Returns a sentence for each absent contestant, each failure and each suspicious result."""
    said = [f"{who}: absent, {why}" for who, why in result["absent"].items()]
    failed = Counter((each["who"], each["work"]) for each in result["failed"])
    for (who, work), count in failed.items():
        why = next(each["why"] for each in result["failed"] if (each["who"], each["work"]) == (who, work))
        said.append(f"{who}, {work}: failed in {count} of {result['rounds']} rounds, {why.splitlines()[0]}")
    for work, by_name in result["measured"].items():
        for who, rounds in by_name.items():
            resumed, client = spread(rounds, "resumed"), spread(rounds, "client")
            if resumed and "resumed" in work and resumed.median < 0.99:
                said.append(f"{who}, {work}: only {resumed.median:.0%} resumed")
            if client and client.median > NEARLY_ALL:
                said.append(f"{who}, {work}: the load generator used {client.median:.0%} of its core and was a limit")
    return said


def conditions(results: Results) -> list[str]:
    """Returns the machine and the versions, one per line."""
    before, after = results["load average"]
    lines = [f"{name}: {value}" for name, value in {**results["machine"], **results["versions"]}.items()]
    lines += [f"load average before and after: {before:.2f}, {after:.2f}", f"taken: {results['when']}"]
    if before > QUIET:
        lines.append("other programs used the cores meanwhile, so measure again: these figures are noise")
    return lines


# -- text --------------------------------------------------------------------------------------------------------------


def markdown(results: Results) -> str:
    parts = []
    for suite, result in results["suites"].items():
        took = f", {result['took']:.0f} s" if "took" in result else ""
        parts.append(f"## {suite}: {result['rounds']} rounds{took}")
        for table in tables(suite, result):
            parts.append("\n".join(markdown_rows(table)))
        parts += ["\n".join(f"- {note}" for note in notes(result))] if notes(result) else []
    parts.append("\n".join(f"- {line}" for line in conditions(results)))
    return "\n\n".join(parts) + "\n"


def markdown_rows(table: Table) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [f"{each:<{width}}" for each, width in zip(cells, widths, strict=True)]
        return f"| {' | '.join(padded)} |"

    yield line(table.header)
    yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    yield from map(line, table.rows)


def restructured(suite: str, result: Results) -> str:
    """Returns the drawing and the tables of a suite, for a page to include."""
    parts = [written_by(suite), _figure(suite)]
    parts += [restructured_table(table) for table in tables(suite, result)]
    parts += [f"- {note}" for note in notes(result)]
    return "\n\n".join(parts) + "\n"


def written_by(suite: str) -> str:
    return f".. This file is written by python -m benchmarks {suite} --docs."


def restructured_table(table: Table) -> str:
    rows = "\n".join("   " + ",".join(f'"{each}"' for each in row) for row in [table.header, *table.rows])
    return f".. csv-table::\n   :header-rows: 1\n   :widths: auto\n\n{rows}"


def _figure(suite: str) -> str:
    return f".. image:: benchmarks/{suite}.svg\n   :alt: a drawing of the first table below\n   :width: 100%"


def write_docs(results: Results, directory: Path, say: Callable[[str], None]) -> None:
    """Writes SUITE.inc, SUITE.svg and SUITE.png of each suite, and conditions.inc."""
    directory.mkdir(exist_ok=True)
    for suite, result in results["suites"].items():
        (directory / f"{suite}.inc").write_text(restructured(suite, result), encoding="utf-8")
    lines = "\n".join(f"- {line}" for line in conditions(results))
    (directory / "conditions.inc").write_text(f"{lines}\n", encoding="utf-8")
    try:
        import matplotlib
    except ImportError:
        say(NEEDED)
        return
    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": "greentls", "svg.fonttype": "none", "font.size": 9})
    for suite, result in results["suites"].items():
        draw(suite, result, directory)


# -- drawings ----------------------------------------------------------------------------------------------------------


def draw(suite: str, result: Results, directory: Path) -> None:
    """Writes SUITE.svg and SUITE.png: bars of the suite's first metric, one panel for each work."""
    from matplotlib import pyplot

    metric = SUITES[suite].metrics[0]
    panels = {}
    for work, by_name in result["measured"].items():
        spreads = {who: spread(rounds, metric) for who, rounds in by_name.items()}
        if found := {who: each for who, each in spreads.items() if each}:
            panels[work] = found
    if not panels:
        return
    columns = min(2, len(panels))
    heights = [max(map(len, list(panels.values())[at : at + columns])) for at in range(0, len(panels), columns)]
    figure, axes = pyplot.subplots(
        len(heights),
        columns,
        figsize=(5.2 * columns, sum(0.22 * height + 0.8 for height in heights)),
        height_ratios=[height + 3 for height in heights],
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (work, found) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, work, found, METRICS[metric])
    for ending, settings in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 110})):
        figure.savefig(directory / f"{suite}.{ending}", **settings)
    pyplot.close(figure)


def _panel(axis: Any, work: str, found: dict[str, Spread], metric: Metric) -> None:
    who = list(found)[::-1]
    middles = [found[each].median for each in who]
    below = [found[each].median - found[each].least for each in who]
    above = [found[each].greatest - found[each].median for each in who]
    colours = ["#2a7d4f" if re.split("[,:]", each)[0] in OURS else "#b9bec4" for each in who]
    axis.barh(who, middles, xerr=(below, above), color=colours, ecolor="#555555", capsize=2, error_kw={"lw": 0.8})
    if min(middles) > 0 and max(middles) / min(middles) > 30:
        axis.set_xscale("log")
    axis.set_title(f"{work}: {metric.title}", fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
