"""greentls bench: what greentls costs and gains beside the field. What measures is in benchmarks/, with the sources."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from greentls.cli.serve import _count
from greentls.errors import ConfigurationError

__all__ = ["PEERS", "SUITES", "add_parser"]

ROOT = Path(__file__).parents[2]  # of the sources

SUITES = {
    "handshake": "full and resumed, TLS 1.3 and 1.2; sessions in tickets, in memory, sealed in memcached",
    "lookup": "200 clients whose sessions take 0, 1, 5, 20 ms to be found, by each way to wait",
    "hooks": "three lookups in one handshake: their sum against the longest",
    "bulk": "uploads and downloads, 64 KiB a write",
    "echo": "64 bytes there and back, on connections that stay",
    "idle": "memory of a connection that waits, of 5,000",
    "suspended": "memory and CPU of 1,000 handshakes that wait in a callback at once",
    "rsa": "how long other connections wait while RSA handshakes storm in: coroutine against thread",
    "bridge": "CPU of a callback that waits, on top of one that answers at once",
    "prereading": "CPU of reading the ClientHello before OpenSSL does",
    "parser": "ClientHellos by greentls.wire and four other parsers",
}
PEERS = ("gevent.ssl", "eventlet", "threads", "asyncio", "uvloop", "node", "go", "nginx", "haproxy", "lean", "floor")

DESCRIPTION = """\
Measures greentls beside other TLS servers on this machine: each in turn, round after round, the server on one core and
the load generator on another, and shows medians with the least and the greatest. The figure to trust is the server's
CPU time for each operation; ratios are good within one run only.
"""

EPILOG = """\
suites:
{suites}
  all           every one of them, in 20 minutes or less

examples:
  greentls bench lookup
      what waiting gains, in two minutes
  greentls bench handshake --peers gevent.ssl,nginx --rounds 9
      beside these two, with more rounds
  greentls bench all --docs docs/benchmarks
      and writes the tables and drawings of the documentation; needs pip install 'greentls[bench]'
  greentls bench handshake --rounds 1 --seconds 0.2
      whether it works here

Other programs on the same cores make noise: look at the spread, and at the load average that is printed. Peers whose
runtime is not there are named as absent. A run's JSON is kept in benchmarks/results/.

exit status: 0; 1 if something could not be measured, which is named below the tables; 2 with one line for what cannot
be used; 130 after Ctrl-C, when all that was started is ended.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to argparse's sub-parsers."""
    parser = commands.add_parser(
        "bench",
        help="measure greentls beside other TLS servers",
        description=DESCRIPTION,
        epilog=EPILOG.format(suites="\n".join(f"  {name:<13} {what}" for name, what in SUITES.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("suites", metavar="SUITE", nargs="*", help="what to measure; see below")
    add("--rounds", metavar="N", type=_count, default=5, help="of everything; default %(default)s")
    add("--seconds", metavar="S", type=_positive, help="of each measurement; by default each suite has its own")
    add("--connections", metavar="N", type=_count, help="never more at once than these")
    add("--peers", metavar="NAME,...", type=_peers, help=f"who else: none, or of {', '.join(PEERS)}; all by default")
    add("--json", action="store_true", help="all rounds as JSON, instead of tables and of a kept file")
    add("--docs", metavar="DIR", help="write tables and drawings for the documentation there, too")
    add("--read", metavar="FILE", help="a kept result: show it, measure nothing")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    if arguments.read is None:
        arguments.suites = _suites(arguments.suites)
    elif arguments.suites:
        raise ConfigurationError("--read", "a kept result has its suites", "leave SUITE out")
    if not (ROOT / "benchmarks" / "program.py").exists():
        raise ConfigurationError(
            "benchmarks", "they are not installed with the package", "run greentls bench in a checkout of the sources"
        )
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    program: Any = importlib.import_module("benchmarks.program")
    status: int = program.main(arguments)
    return status


def _suites(named: list[str]) -> list[str]:
    known = f"known are {', '.join(SUITES)}, all"
    if not named:
        raise ConfigurationError("SUITE", "none is named", known)
    for name in named:
        if name not in (*SUITES, "all"):
            raise ConfigurationError(f"SUITE {name}", "there is none of that name", known)
    return list(SUITES) if "all" in named else list(dict.fromkeys(named))


def _peers(text: str) -> frozenset[str]:
    peers = frozenset(text.split(",")) - {"none"}
    if unknown := sorted(peers - frozenset(PEERS)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of none, {', '.join(PEERS)}")
    return peers


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0 and up to 60")
    return seconds
