"""greentls serve: an HTTPS server in workers, which shows its handshakes' results or runs a WSGI application."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import shutil
import socket
import ssl as _stdlib_ssl
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from greentls.cli import keys
from greentls.cli.application import load
from greentls.cli.options import Commands, count, listen, seconds, written
from greentls.cli.prefork import Parent, Supervisor
from greentls.errors import ConfigurationError
from greentls.secret_file import read_passphrase, read_secret_file

if TYPE_CHECKING:
    from greentls.ssl import SSLContext

__all__ = ["add_parser"]

SPARE_SECONDS = 5.0  # more than a worker needs to drain; then it hangs and is killed

VERSIONS = {"1.2": _stdlib_ssl.TLSVersion.TLSv1_2, "1.3": _stdlib_ssl.TLSVersion.TLSv1_3}

_EVERY_ADDRESS = ("0.0.0.0", "::")
_REQUEST = r"printf 'GET / HTTP/1.0\r\n\r\n'"

DESCRIPTION = """\
Runs an HTTPS server over gevent. Without --app it answers / with the result of the handshake: protocol, cipher, whether
a session was resumed, and its source. The answer is HTML, or JSON for "Accept: application/json".
"""

EPILOG = """\
examples:
  greentls serve
      serves the built-in page on https://localhost:8443/, with a CA and a certificate made in ./demo-ca
  greentls serve --workers 4 --sessions 'memcached://127.0.0.1:11211?secret_file=/etc/greentls/secret'
      runs four processes. A session that one made resumes in the others, and on every server with the same memcached,
      secret (umask 077; head -c 32 /dev/urandom > /etc/greentls/secret) and certificate names
  greentls serve --bind '[::]:443' --cert fullchain.pem --key privkey.pem --app shop.wsgi:application
      runs a WSGI application; environ["greentls.socket"] is its connection

SIGTERM and Ctrl-C drain the server: it accepts no new connections and finishes running requests. The exit status is
then 0, or 130 after Ctrl-C. A second Ctrl-C ends it at once. An unusable setting: one line, exit status 2.
"""


def add_parser(commands: Commands) -> None:
    """Adds the command to argparse's sub-parsers."""
    help = "run an HTTPS server whose sessions resume in other processes"
    parser = commands.add_parser("serve", help=help, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("--bind", metavar="HOST:PORT", default="localhost:8443", help="default %(default)s; [::1]:8443; port 0: any")
    add("--cert", metavar="FILE", help="certificate chain in PEM, the server's first; default: one is made")
    add("--key", metavar="FILE", help="private key in PEM; default: in the --cert file")
    add("--passphrase", metavar="FILE", help="file with the passphrase of an encrypted key")
    add("--key-process", action="store_true", help="let a separate process hold the key and sign for the workers")
    add("--ca-dir", metavar="DIR", default="demo-ca", help="directory of made certificates; default %(default)s")
    add("--sessions", metavar="URL", default="memory://", help="session store; default %(default)s")
    add("--workers", metavar="N", type=count, default=1, help="number of workers; default %(default)s")
    add("--app", metavar="MODULE:NAME", help="a WSGI application; gevent.monkey.patch_all() runs before its import")
    add("--min-version", choices=VERSIONS, default="1.2", help="lowest TLS version; default %(default)s")
    add("--max-version", choices=VERSIONS, default="1.3", help="highest TLS version; default %(default)s")
    add("--drain-seconds", metavar="S", type=seconds, default=10.0, help="for running requests; default %(default)g")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. A worker process also returns from here, with its exit status."""
    logging.basicConfig(format="greentls serve [%(process)d]: %(message)s")
    if arguments.key is not None and arguments.cert is None:
        raise ConfigurationError(f"--key {arguments.key}", "there is no --cert", "give the pair")
    if arguments.key_process and arguments.key is None:
        raise ConfigurationError("--key-process", "workers must not read the key with --cert", "give it as --key FILE")
    if arguments.min_version > arguments.max_version:
        raise ConfigurationError(f"--min-version {arguments.min_version}", "above --max-version", "leave one out")
    host, listener = listen(arguments.bind)
    parent, directory = os.getpid(), tempfile.mkdtemp() if arguments.key_process else None
    arguments.key_socket = directory and f"{directory}/keys.sock"
    try:
        with listener:
            return Supervisor(
                listener,
                arguments.workers,
                work=partial(_work, arguments, host, listener),
                started=partial(_greet, arguments, host, listener.getsockname()[1]),
                patience=arguments.drain_seconds + SPARE_SECONDS,
                keys=partial(_hold_key, arguments) if directory else None,
            ).run()
    finally:
        if directory and os.getpid() == parent:  # a worker also returns from here
            shutil.rmtree(directory)


# -- in the parent -----------------------------------------------------------------------------------------------------


def _greet(arguments: argparse.Namespace, host: str, port: int) -> None:
    """Prints the address, and commands that show a resumption."""
    shown = "localhost" if host in _EVERY_ADDRESS else host
    place = written(shown, port)
    from greentls.cli import pki

    url = shlex.quote(f"https://{place}/")
    home = Path(arguments.ca_dir if arguments.cert is None else ".")
    trust = shlex.quote(str(home / pki.CA_FILE) if arguments.cert is None else arguments.cert)
    session = shlex.quote(str(home / "session.pem"))
    store = arguments.sessions.partition(":")[0]  # the rest may contain a password
    if arguments.workers > 1 and store == "memory":
        logging.warning("with --sessions memory:// workers do not share sessions; use memcached://")
    client = f"{_REQUEST} | openssl s_client -connect {shlex.quote(place)} -CAfile {trust} -ign_eof"
    facts = f"pid {os.getpid()}, workers: {arguments.workers}, sessions: {store}"
    lines = [f"greentls serve: listening on https://{place}/ ({facts})"]
    if arguments.app is None:
        lines += [
            "To see a resumption on the server (curl keeps the session for its second request):",
            f"  curl --cacert {trust} -H 'Accept: application/json' {url} {url}",
        ]
    lines += [
        "To see a resumption on the client (New, then Reused):",
        f"  {client} -sess_out {session} 2>&1 | grep -E '^(New|Reused),'",
        f"  {client} -sess_in {session} 2>&1 | grep -E '^(New|Reused),'",
    ]
    print("\n".join(lines) + "\n", end="", flush=True)  # one write: a reader may close the pipe after the first line


# -- in the key process ------------------------------------------------------------------------------------------------


def _hold_key(arguments: argparse.Namespace, parent: Parent) -> int:
    owner = os.getuid()
    with keys.listen(arguments.key_socket, owner) as listener:
        options = {"passphrase": arguments.passphrase, "parent_gone": parent.gone}
        return keys.hold(listener, [arguments.key], owner, **options, started=parent.ready)


# -- in a worker -------------------------------------------------------------------------------------------------------


def _work(arguments: argparse.Namespace, host: str, listener: socket.socket, parent: Parent) -> int:
    # Load it first: it patches the standard library before the other imports.
    application = None if arguments.app is None else load(arguments.app)

    from greentls.cli import worker
    from greentls.cli.page import page

    return worker.run(
        listener,
        page if application is None else application,
        _context(arguments, host),
        parent,
        drain_seconds=arguments.drain_seconds,
        alone=arguments.workers == 1,
    )


def _context(arguments: argparse.Namespace, host: str) -> SSLContext:
    """Returns the worker's SSLContext. Raises ConfigurationError, OSError, UnsupportedOpenSSL."""
    from greentls.certificates import CertificateChain
    from greentls.cli import pki
    from greentls.keys import Agent
    from greentls.ssl import SSLContext
    from greentls.stores import open_store

    context = SSLContext(_stdlib_ssl.PROTOCOL_TLS_SERVER)
    context.session_store = open_store(arguments.sessions)
    if arguments.key_socket:
        chain = CertificateChain.load(arguments.cert, Agent(arguments.key_socket))
    else:
        certificate = pki.certificate(arguments.ca_dir, _names(host)) if arguments.cert is None else arguments.cert
        key = certificate if arguments.key is None else arguments.key
        chain = CertificateChain.load(certificate, key, password=partial(_passphrase, arguments.passphrase, key))
        read_secret_file(key, f"key file {key}")  # afterwards: a file without a key is not secret
    context.load_cert_chain([chain.certificate, *chain.intermediates], chain.key)
    context.minimum_version = VERSIONS[arguments.min_version]
    context.maximum_version = VERSIONS[arguments.max_version]
    context.set_alpn_protocols(["http/1.1"])
    context.compile(server_side=True)  # raises errors here instead of in the first handshake
    return context


def _names(host: str) -> list[str]:
    here = ["localhost", "127.0.0.1", "::1"]
    if host in _EVERY_ADDRESS:
        return [*here, socket.gethostname()]
    return here if host in here else [host, *here]


def _passphrase(path: str | None, key: str) -> bytes:
    if path is None:
        raise ConfigurationError(f"key file {key}", "the key is encrypted", "give --passphrase FILE")
    return read_passphrase(path, f"passphrase file {path}")
