"""The command line: greentls COMMAND, or python -m greentls COMMAND. Each command has its own file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from greentls._version import __version__
from greentls.cli import doctor, hello, keys, serve
from greentls.cli.options import INTERRUPTED, USAGE_ERROR, Parser
from greentls.errors import GreenTLSError

__all__ = ["Parser", "main", "status_of"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    parser = Parser(prog="greentls", description="TLS for gevent whose callbacks may wait.")
    parser.add_argument("--version", action="version", version=f"greentls {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for each in (serve, keys, hello, doctor):
        each.add_parser(commands)
    arguments, unknown = parser.parse_known_args(argv)
    command: argparse.ArgumentParser = arguments.parser
    if unknown:
        command.error(f"unknown option: {' '.join(unknown)}")
    return status_of(command.prog, lambda: arguments.run(arguments))


def status_of(prog: str, run: Callable[[], int]) -> int:
    """Runs a program and returns its exit status.

    The status is 130 after Ctrl-C, and 2 with one line on standard error if run() raises GreenTLSError or OSError.
    """
    try:
        return run()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (GreenTLSError, OSError) as error:
        sentence = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename is not None:
            sentence = f"{error.filename or repr(error.filename)}: {error.strerror}; check the path and its permissions"
        print(f"{prog}: {sentence}", file=sys.stderr)
        return USAGE_ERROR
