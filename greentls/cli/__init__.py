"""The command line: greentls COMMAND, or python -m greentls COMMAND. Each command has a file of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import greentls.cli.bench as bench
import greentls.cli.hello as hello
import greentls.cli.serve as serve
from greentls._version import __version__
from greentls.errors import GreenTLSError

__all__ = ["main"]

USAGE_ERROR = 2  # what argparse exits with, too
INTERRUPTED = 130  # 128 + SIGINT, as the shells have it


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse would print the whole usage before it."""
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 2 with one line on stderr for a setting that cannot be used."""
    parser = _Parser(prog="greentls", description="TLS for gevent whose callbacks may wait.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"greentls {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    serve.add_parser(commands)
    hello.add_parser(commands)
    bench.add_parser(commands)
    arguments, unknown = parser.parse_known_args(argv)
    command: argparse.ArgumentParser = arguments.parser
    if unknown:
        command.error(f"unknown option: {' '.join(unknown)}")
    try:
        status: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (GreenTLSError, OSError) as error:
        print(f"{command.prog}: {_sentence(error)}", file=sys.stderr)
        return USAGE_ERROR
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename or repr(error.filename)}: {error.strerror}; check the path and who may use it"
    return " ".join(str(error).split())
