"""Parses options: HOST:PORT, numbers and seconds. Errors say what to write instead."""

from __future__ import annotations

import argparse
import errno
import socket
from typing import NoReturn, TypeAlias

from greentls.errors import ConfigurationError

__all__ = ["INTERRUPTED", "USAGE_ERROR", "Commands", "Parser", "count", "listen", "seconds", "written"]

USAGE_ERROR = 2  # argparse's too
INTERRUPTED = 130  # 128 + SIGINT, as in shells

BACKLOG = 1024  # connections that wait for accept(); Linux caps it at net.core.somaxconn

_REMEDIES: dict[int | None, str] = {
    errno.EADDRINUSE: "choose another port, or stop what listens there",
    errno.EACCES: "choose a port above 1023, or start as root",
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports an error in one line, takes no abbreviations, and keeps the lines of its texts."""

    def __init__(self, prog: str | None = None, description: str | None = None, epilog: str | None = None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=form, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # where each command adds its parser


def listen(bind: str) -> tuple[str, socket.socket]:
    """Opens a non-blocking listener at HOST:PORT.

    Returns the host as it was written, without brackets, and the listener. Raises ConfigurationError.
    """
    host, _, port = bind.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"--bind {bind}", "not HOST:PORT", "write localhost:8443 or [::1]:8443")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        found.sort(key=lambda each: each[0] != socket.AF_INET)  # localhost is 127.0.0.1 to most people and programs
        for family, kind, protocol, _, address in found:  # the first one that this machine has
            listener = socket.socket(family, kind, protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                listener.listen(BACKLOG)
                listener.setblocking(False)  # a worker that is too late for a connection must not wait for the next one
                return host, listener
            except OSError as error:
                listener.close()
                # A machine without IPv6 may still have an IPv6 localhost in /etc/hosts.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or address == found[-1][4]:
                    raise
    except (OSError, UnicodeError) as error:  # UnicodeError: this cannot be a host name
        problem = getattr(error, "strerror", None) or "not a host name"
        remedy = _REMEDIES.get(getattr(error, "errno", None), "give a name or an address of this machine")
        raise ConfigurationError(f"--bind {bind}", problem, remedy) from None
    raise AssertionError("getaddrinfo() answers or raises")


def count(text: str) -> int:
    """Parses a whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def seconds(text: str) -> float:
    """Parses a number of seconds, 0 included."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def written(host: str, port: int, *_: object) -> str:
    """Returns a socket's address as HOST:PORT."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
