"""The command line: python -m benchmarks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import program
from benchmarks.peers import CHOICES
from benchmarks.suites import SUITES
from greentls.cli import Parser, status_of
from greentls.cli.options import count
from greentls.errors import ConfigurationError

DESCRIPTION = """\
Measures greentls and other TLS servers on this machine. The servers are measured in turn, round after round, with the
server on one core and the load generator on another. The tables show medians with the lowest and the highest value.
Trust the server's CPU time for each operation. Ratios are valid only within one run.
"""

EPILOG = """\
suites:
{suites}
  all           all of these, in at most 20 minutes

examples:
  python -m benchmarks lookup
      shows in two minutes what waiting gains
  python -m benchmarks handshake --peers gevent.ssl,nginx --rounds 9
      compares with these two servers, in more rounds
  python -m benchmarks all --docs docs/benchmarks
      also writes the tables and drawings of the documentation; needs pip install 'greentls[bench]'
  python -m benchmarks handshake --rounds 1 --seconds 0.2
      shows whether it works here

Other programs on the same cores cause noise: check the spread, and the load average that is printed. Peers whose
runtime is not installed are named as absent. The JSON of each run is kept in benchmarks/results/.

exit status: 0; 1 if something could not be measured, which is named below the tables; 2 with one line for an unusable
setting; 130 after Ctrl-C, when all started programs have ended.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmarks that argv names and returns the exit status."""
    parser = command_line()
    arguments = parser.parse_args(argv)
    return status_of(parser.prog, lambda: _run(arguments))


def command_line() -> Parser:
    """The parser of the arguments."""
    parser = Parser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=EPILOG.format(suites="\n".join(f"  {name:<13} {suite.what}" for name, suite in SUITES.items())),
    )
    add = parser.add_argument
    add("suites", metavar="SUITE", nargs="*", help="what to measure; see below")
    add("--rounds", metavar="N", type=count, default=5, help="rounds of each suite; default %(default)s")
    add("--seconds", metavar="S", type=_positive, help="length of each measurement; each suite has its own default")
    add("--connections", metavar="N", type=count, help="limit of concurrent connections")
    add("--peers", metavar="NAME,...", type=_peers, help=f"none, or some of {', '.join(CHOICES)}; all by default")
    add("--pure", action="store_true", help="measure greentls without its compiled pump as well")
    add("--system", action="store_true", help="measure greentls over the system's OpenSSL as well")
    add("--json", action="store_true", help="print all rounds as JSON, instead of tables, and keep no file")
    add("--docs", metavar="DIR", help="also write tables and drawings for the documentation there")
    add("--read", metavar="FILE", help="show a kept result and measure nothing")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.read is None:
        arguments.suites = _suites(arguments.suites)
    elif arguments.suites:
        raise ConfigurationError("--read", "a kept result has its own suites", "leave SUITE out")
    return program.main(arguments)


def _suites(named: list[str]) -> list[str]:
    known = f"known are {', '.join(SUITES)}, all"
    if not named:
        raise ConfigurationError("SUITE", "none is named", known)
    for name in named:
        if name not in (*SUITES, "all"):
            raise ConfigurationError(f"SUITE {name}", "unknown", known)
    return list(SUITES) if "all" in named else list(dict.fromkeys(named))


def _peers(text: str) -> frozenset[str]:
    peers = frozenset(text.split(",")) - {"none"}
    if unknown := sorted(peers - frozenset(CHOICES)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown; known are none, {', '.join(CHOICES)}")
    return peers


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to 60")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
