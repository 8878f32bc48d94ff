"""What options mean: HOST:PORT, numbers and seconds. Errors say what to write instead."""

from __future__ import annotations

import argparse
import errno
import socket
from typing import Any

from greentls.errors import ConfigurationError

__all__ = ["count", "listen", "seconds", "written"]

BACKLOG = 1024  # connections that wait for accept(); Linux caps it at net.core.somaxconn

_REMEDIES: dict[int | None, str] = {
    errno.EADDRINUSE: "choose another port, or stop what listens there",
    errno.EACCES: "choose a port above 1023, or start as root",
}


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
        return host, _first(found)
    except (OSError, UnicodeError) as error:  # UnicodeError: this cannot be a host name
        problem = getattr(error, "strerror", None) or "not a host name"
        remedy = _REMEDIES.get(getattr(error, "errno", None), "give a name or an address of this machine")
        raise ConfigurationError(f"--bind {bind}", problem, remedy) from None


def _first(found: list[Any]) -> socket.socket:
    """A listener on the first address that this machine has."""
    for family, kind, protocol, _, address in found:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)  # a worker that is too late for a connection must not wait for the next one
            return listener
        except OSError as error:
            listener.close()
            # A machine without IPv6 may still have an IPv6 localhost in /etc/hosts.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or address == found[-1][4]:
                raise
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


def written(address: tuple[Any, ...]) -> str:
    """Returns a socket's address as HOST:PORT."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
