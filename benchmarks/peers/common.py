"""The common parts of the servers in Python: arguments, the line with the ports, and the end.

Each takes the files of a certificate and its key and the size of a write. It prints one line of JSON with the port of
each service (echo; upload, which reads and discards; download, which writes), and serves until standard input ends.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
from collections.abc import Callable

BACKLOG = 4096


def arguments(*more: tuple[str, dict]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("certificate")
    parser.add_argument("key")
    parser.add_argument("block", type=int)
    for name, settings in more:
        parser.add_argument(name, **settings)
    return parser.parse_args()


def free_port() -> int:
    """Returns a free port, for a program that needs to be told one."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def announce(ports: dict[str, int]) -> None:
    print(json.dumps(ports), flush=True)


def end_with_stdin(answers: dict[str, Callable[[], object]] | None = None) -> None:
    """Ends the process when standard input ends, even if a handler never lets the loop run.

    answers: to a line of standard input, what to call; what it returns is printed as JSON. It is called in a thread.
    """

    def wait() -> None:
        try:
            for line in sys.stdin:
                print(json.dumps((answers or {})[line.strip()]()), flush=True)
        finally:
            os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
