"""greentls keys serve: a key process, which holds private keys and signs for allowed users."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from greentls.cli import hardening
from greentls.cli.options import Commands
from greentls.errors import ConfigurationError

__all__ = ["add_parser", "hold", "listen"]

log = logging.getLogger("greentls.keys")

DESCRIPTION = """\
Holds private keys and signs with them, over a Unix socket, for greentls.keys.Agent(PATH). No request returns a key.
"""

EPILOG = """\
example:
  greentls keys serve --socket /run/keys.sock --key privkey.pem --user keys --allow www-data
      started by root, it reads a key that only root can read and continues as the user keys; www-data may connect

A user that may connect can have anything signed while this runs. SIGHUP reads the files again, as --user. If one cannot
be used, nothing changes. The previous keys are kept until the files change again. SIGTERM and Ctrl-C end it.
"""


def add_parser(commands: Commands) -> None:
    """Adds the command to argparse's sub-parsers."""
    parser = commands.add_parser("keys", help="run a process that holds private keys")
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", dest="action", required=True)
    parser = actions.add_parser("serve", help="hold keys and sign", description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("--socket", metavar="PATH", required=True, help="where to listen; only the allowed user can use the file")
    add("--key", metavar="FILE", required=True, nargs="+", help="private keys in PEM")
    add("--passphrase", metavar="FILE", help="file with the passphrase of encrypted keys; only the user can read it")
    add("--user", metavar="USER", help="user to continue as after reading the keys; needs root")
    add("--allow", metavar="USER", help="user that may connect; default: the user that starts this")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    logging.basicConfig(format="greentls keys [%(process)d]: %(message)s")
    allowed = os.getuid() if arguments.allow is None else hardening.user_id(arguments.allow)
    with listen(arguments.socket, allowed) as listener:
        try:
            greeting = f"listening on {arguments.socket} (pid {os.getpid()}, keys: {len(arguments.key)})"
            started = partial(print, f"greentls keys: {greeting}", flush=True)
            options = {"passphrase": arguments.passphrase, "user": arguments.user}
            return hold(listener, arguments.key, allowed, **options, started=started)
        finally:
            with suppress(FileNotFoundError, PermissionError):  # the directory may not be the new user's
                os.unlink(arguments.socket)


def listen(path: str, owner: int) -> socket.socket:
    """Returns a listener at a file that only the owner can connect to. Replaces the file of a dead process.

    Raises ConfigurationError.
    """
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        _remove_if_dead(path)
        listener.bind(path)
        if owner != os.getuid():
            os.chown(path, owner, -1, follow_symlinks=False)  # somebody may have put a link there meanwhile
        listener.listen(128)
    except OSError as error:
        listener.close()
        problem = error.strerror or str(error)
        raise ConfigurationError(f"--socket {path}", problem, "give a path that can be made") from None
    finally:
        os.umask(mask)
    return listener


def _remove_if_dead(path: str) -> None:
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # a killed process has left it
        except BlockingIOError:
            pass  # a busy process listens there, and bind() fails


def hold(
    listener: socket.socket,
    files: Iterable[str],
    allowed: int,
    *,
    passphrase: str | None = None,
    user: str | None = None,
    started: Callable[[], None],
    parent_gone: int | None = None,
) -> int:
    """Reads keys, gives up rights, and signs until SIGTERM. At SIGHUP it reads the keys again. Returns the exit status.

    passphrase: a file with the passphrase of encrypted keys. started: called when it listens. parent_gone: a descriptor
    that becomes readable when this must end. Raises ConfigurationError, OSError.
    """
    import gevent
    from gevent.event import Event
    from gevent.socket import socket as HubSocket

    from greentls.keys.process import KeyProcess, PrivateKey, read_key
    from greentls.secret_file import read_passphrase

    def read() -> list[PrivateKey]:
        secret = None if passphrase is None else read_passphrase(passphrase, f"passphrase file {passphrase}")
        return [read_key(file, secret) for file in files]

    def read_again() -> None:
        try:
            process.hold(read())
        except (ConfigurationError, OSError) as error:
            log.warning("the keys stay as they are: %s", error)
        else:
            log.warning("the keys were read again")
            _lock_memory()

    process = KeyProcess(read(), {allowed, os.getuid()})
    # Nothing is imported after this: another user may not be able to read the files.
    stop = Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    gevent.signal_handler(signal.SIGHUP, read_again)
    if parent_gone is not None:
        orphaned = gevent.get_hub().loop.io(parent_gone, 1)
        orphaned.start(stop.set)
    hardening.allow_many_files()
    serving = gevent.spawn(process.serve, HubSocket(fileno=listener.detach()))
    gevent.sleep(0)
    _lock_memory()
    if user is not None:
        hardening.become(user)
    hardening.forbid_looking_in()
    started()
    stop.wait()
    serving.kill()
    return 0


def _lock_memory() -> None:
    try:
        hardening.lock_memory()
    except OSError as error:
        log.warning("keys may be swapped: %s; raise the limit (ulimit -l unlimited, LimitMEMLOCK=infinity)", error)
