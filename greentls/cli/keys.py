"""greentls keys serve: a key process. It holds private keys, and signs for those that may ask."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterable

from greentls.cli import hardening
from greentls.cli.options import Commands
from greentls.errors import ConfigurationError

__all__ = ["add_parser", "hold", "listen"]

log = logging.getLogger("greentls.keys")

DESCRIPTION = """\
Holds private keys and signs with them, over a Unix socket, for greentls.keys.Agent(PATH). No request gives a key away.
"""

EPILOG = """\
example:
  greentls keys serve --socket /run/keys.sock --key privkey.pem --user keys --allow www-data
      started by root: reads the key, which only root can read, and goes on as the user keys; www-data may connect

Whoever may connect may have anything signed, for as long as this runs. SIGTERM and Ctrl-C end it.
"""


def add_parser(commands: Commands) -> None:
    """Adds the command to argparse's sub-parsers."""
    parser = commands.add_parser("keys", help="a process that holds private keys", allow_abbrev=False)
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", dest="action", required=True)
    parser = actions.add_parser(
        "serve",
        help="hold keys and sign",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--socket", metavar="PATH", required=True, help="where to listen; the file is for the allowed user only")
    add("--key", metavar="FILE", required=True, nargs="+", help="private keys in PEM, not encrypted")
    add("--user", metavar="USER", help="whom to go on as, when the keys are read; needs root")
    add("--allow", metavar="USER", help="who may connect; default: who has started this")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    logging.basicConfig(format="greentls keys [%(process)d]: %(message)s")
    allowed = os.getuid() if arguments.allow is None else hardening.user_id(arguments.allow)
    with listen(arguments.socket, allowed) as listener:
        try:
            return hold(listener, arguments.key, allowed, user=arguments.user, started=lambda: _greet(arguments))
        finally:
            _remove(arguments.socket)


def _greet(arguments: argparse.Namespace) -> None:
    print(f"greentls keys: listening on {arguments.socket} (pid {os.getpid()}, keys: {len(arguments.key)})", flush=True)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:  # of a directory that is not the new user's
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
            raise


def listen(path: str, owner: int) -> socket.socket:
    """A listener in a file that only the owner can connect to. A file that nobody listens at is replaced. Raises
    ConfigurationError."""
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        _remove_if_dead(path)
        listener.bind(path)
        if owner != os.getuid():
            os.chown(path, owner, -1)
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
            os.unlink(path)  # of a process that was killed
        except BlockingIOError:
            pass  # somebody listens, and has much to do; bind() says so


def hold(
    listener: socket.socket,
    files: Iterable[str],
    allowed: int,
    *,
    user: str | None = None,
    started: Callable[[], None],
    parent_gone: int | None = None,
) -> int:
    """Reads keys, gives up what is not needed for them, and signs until SIGTERM. Returns the exit status.

    started: called when it listens. parent_gone: a descriptor that becomes readable when this has to end. Raises
    ConfigurationError, OSError.
    """
    import gevent
    from gevent.event import Event
    from gevent.socket import socket as HubSocket

    from greentls.keys.process import KeyProcess, read_key

    process = KeyProcess([read_key(file) for file in files], {allowed, os.getuid()})
    # All that is imported has been imported from here on: another user may not be able to read the files.
    stop = Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    if parent_gone is not None:
        orphaned = gevent.get_hub().loop.io(parent_gone, 1)
        orphaned.start(stop.set)
    serving = gevent.spawn(process.serve, HubSocket(fileno=listener.detach()))
    gevent.sleep(0)
    try:
        hardening.lock_memory()
    except OSError as error:
        log.warning("keys may come to swap space: %s; allow it (ulimit -l unlimited, LimitMEMLOCK=infinity)", error)
    if user is not None:
        hardening.become(user)
    hardening.forbid_looking_in()
    started()
    stop.wait()
    serving.kill()
    return 0
