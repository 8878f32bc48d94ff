"""greentls doctor: shows which parts of an installation work, and what to do about the others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial

from greentls.cli.options import Commands

__all__ = ["add_parser"]

DESCRIPTION = """\
Checks an installation and prints one line for each thing: "ok", or "problem" with what to do about it. It compares
versions with the promised bounds, looks for the functions of OpenSSL that greentls needs, and does handshakes in
memory under TLS 1.2 and 1.3, in which a callback waits.
"""

EPILOG = """\
examples:
  greentls doctor
      checks everything that needs no setting
  greentls doctor --store 'memcached://127.0.0.1:11211?secret_file=/etc/greentls/secret'
      also resumes sessions through this store. Run it on every server of the fleet within an hour, and it reports a
      server that has another secret
  greentls doctor --certificate fullchain.pem
      also asks the certificate's OCSP responder; the file has the certificate and then its issuer's
  greentls doctor --json
      prints the same for a bug report. It contains the given names and paths, and no content of a secret file
  greentls doctor --wheel cryptography-*.whl
      checks only the wheels, which may be for other platforms: whether their OpenSSL has the needed functions

The exit status is 0 if all is ok, 1 if there is a problem, 2 for a wrong option.
"""


def add_parser(commands: Commands) -> None:
    """Adds the command to argparse's sub-parsers."""
    help = "check what is installed and whether it works"
    parser = commands.add_parser("doctor", help=help, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("--store", metavar="URL", action="append", default=[], help="session store to resume through; may be repeated")
    add("--certificate", metavar="FILE", action="append", default=[], help="chain in PEM whose OCSP responder to ask")
    add("--wheel", metavar="FILE", nargs="+", help="wheels of the installed version of cryptography; nothing else")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from greentls.cli import checks

    named: list[tuple[str, Callable[[], str]]]
    if arguments.wheel:
        named = [(file, partial(checks.wheel, file)) for file in arguments.wheel]
    else:
        named = [
            *checks.GENERAL,
            *((checks.shown(url), partial(checks.store, url)) for url in arguments.store),
            *((file, partial(checks.ocsp, file)) for file in arguments.certificate),
        ]
    findings = []
    first: dict[tuple[str, str], str] = {}  # a problem and its remedy: the name of the check that found them first
    for name, check in named:
        finding = checks.examine(name, check)
        if not finding.ok and (same := first.setdefault((finding.found, finding.remedy), name)) != name:
            finding = finding._replace(found=f"the same problem as {same}", remedy="")
        findings.append(finding)
        if not arguments.json:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            print(f"{'ok' if finding.ok else 'problem':8} {finding.name}: {finding.found}{remedy}", flush=True)
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    return 0 if all(finding.ok for finding in findings) else 1
