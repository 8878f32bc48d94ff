"""Runs the suites in rounds, shows a progress bar, keeps results as JSON, and writes tables and drawings."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from benchmarks import machine, report, running, suites, targets
from benchmarks.suites import SUITES, Bench, Contestant
from greentls.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BUILT = ("benchmarks/load", "benchmarks/floor")
FAILED = 1  # exit status: something could not be measured


class Options(Protocol):
    """The parsed command line."""

    suites: Sequence[str]
    rounds: int
    seconds: float | None
    connections: int | None
    peers: frozenset[str] | None
    pure: bool
    system: bool
    json: bool
    docs: str | None
    read: str | None


def main(options: Options) -> int:
    """Returns the exit status. Raises OSError, KeyboardInterrupt, ConfigurationError."""
    if options.read is not None:
        results = read(Path(options.read))
    else:
        if not build():
            return FAILED
        results = measure(options)
        if not options.json:
            keep(results)
    reached = targets.table(results)
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        print(report.markdown(results), end="")
        if reached:
            print("\n" + "\n".join(report.markdown_rows(reached)))
    if options.docs is not None:
        directory = Path(options.docs)
        report.write_docs(results, directory, lambda line: print(line, file=sys.stderr))
        if reached:
            text = f"{report.written_by('all')}\n\n{report.restructured_table(reached)}\n"
            (directory / "targets.inc").write_text(text, encoding="utf-8")
    return FAILED if any(result["failed"] for result in results["suites"].values()) else 0


def build() -> bool:
    """Builds the programs in C if they are missing or older than their sources. Returns whether that succeeded."""
    made = subprocess.run(["make", "--silent", "-C", str(ROOT), *BUILT], stdout=sys.stderr, check=False)
    return made.returncode == 0


def read(path: Path) -> dict[str, Any]:
    """Reads a kept result. Raises OSError, ConfigurationError."""
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        report.markdown(results)  # raises if something is missing
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"not a kept result: {type(error).__name__}: {error}"
        raise ConfigurationError(
            str(path), problem, "name a file of benchmarks/results/, or one that --json printed"
        ) from None
    return results


def keep(results: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{results['when'].replace(':', '')}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"kept as {path.relative_to(ROOT)}", file=sys.stderr)


def measure(options: Options) -> dict[str, Any]:
    machine.allow_many_files()
    results: dict[str, Any] = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "machine": machine.facts(),
        "versions": machine.versions(),
        "suites": {},
    }
    busy = [os.getloadavg()[0]]
    progress = Progress(len(options.suites) * options.rounds)
    _, client_core, _ = machine.cores()
    with (
        progress,
        tempfile.TemporaryDirectory(prefix="greentls-bench-") as directory,
        suites.memcached(client_core, directory) as memcached,
    ):
        most = options.connections or 10**9
        bench = Bench(directory, 0.0, most, options.peers, memcached, options.pure, options.system)
        for name in options.suites:
            bench.seconds = SUITES[name].seconds if options.seconds is None else options.seconds
            began = time.monotonic()
            results["suites"][name] = run(name, bench, options.rounds, progress)
            results["suites"][name]["took"] = time.monotonic() - began
    results["load average"] = [*busy, os.getloadavg()[0]]
    return results


def run(name: str, bench: Bench, rounds: int, progress: Progress) -> dict[str, Any]:
    """Runs all rounds of a suite."""
    everybody = SUITES[name].contestants(bench)
    contestants = [each for each in everybody if not each.absent]
    result: dict[str, Any] = {
        "rounds": rounds,
        "seconds": bench.seconds,
        "absent": {each.name: each.absent for each in everybody if each.absent},
        "failed": [],
        "measured": {},
    }
    for number in range(rounds):
        with servers(contestants, bench) as started:
            turns = list(in_turns(contestants, backwards=number % 2 == 1))
            for done, (work, each) in enumerate(turns):
                progress.show(f"{name} {number + 1}/{rounds}: {work}: {each.name}", done / len(turns))
                try:
                    server = started.get((each.words, each.everywhere))
                    if isinstance(server, running.BenchmarkError):
                        raise server
                    measured = each.measures[work](bench, server)
                except running.BenchmarkError as error:
                    result["failed"].append({"who": each.name, "work": work, "why": str(error)})
                    continue
                several = all(isinstance(value, dict) for value in measured.values())
                for who, metrics in measured.items() if several else [(each.name, measured)]:
                    result["measured"].setdefault(work, {}).setdefault(who, []).append(metrics)
        progress.step()
    return result


def in_turns(contestants: Sequence[Contestant], backwards: bool) -> Iterator[tuple[str, Contestant]]:
    """Yields each work with each of its contestants. backwards: the last contestant comes first."""
    works = dict.fromkeys(work for each in contestants for work in each.measures)
    for work in works:
        yield from ((work, each) for each in contestants[:: -1 if backwards else 1] if work in each.measures)


@contextlib.contextmanager
def servers(contestants: Sequence[Contestant], bench: Bench) -> Iterator[dict[Any, Any]]:
    """Starts the contestants' servers. Yields them by their command; a BenchmarkError stands for one that failed."""
    with contextlib.ExitStack() as stack:
        started: dict[Any, Any] = {}
        for each in contestants:
            if not each.words or (each.words, each.everywhere) in started:
                continue
            core = bench.cores if each.everywhere else bench.server_core
            try:
                server = stack.enter_context(running.server(each.words, core, bench.directory))
            except running.BenchmarkError as error:
                server = error
            started[each.words, each.everywhere] = server
        yield started


class Progress:
    """A progress bar on standard error if that is a terminal, otherwise a line for each round."""

    WIDTH = 30

    def __init__(self, steps: int) -> None:
        self._steps, self._done, self._began = steps, 0, time.monotonic()
        self._moving = sys.stderr.isatty()
        self._said = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._moving:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def show(self, what: str, share: float = 0.0) -> None:
        """share: the part of the round that is done, 0 to 1."""
        done = (self._done + share) / self._steps
        self._said = what
        if self._moving:
            filled = round(done * self.WIDTH)
            bar = "#" * filled + "." * (self.WIDTH - filled)
            print(f"\r\033[K[{bar}] {done:4.0%} {self._left(done)} {what}"[:150], end="", file=sys.stderr, flush=True)

    def step(self) -> None:
        self._done += 1
        if not self._moving:
            done = self._done / self._steps
            print(f"{done:4.0%} {self._left(done)} {self._said.split(':')[0]}", file=sys.stderr, flush=True)

    def _left(self, done: float) -> str:
        """The estimated time left."""
        if not done:
            return ""
        seconds = round((time.monotonic() - self._began) * (1 - done) / done)
        return f"({seconds // 60}:{seconds % 60:02} left)"
