"""Handshakes by native threads in a parent, in its child, and in the parent again. Each says so."""

import os
import sys
import tempfile
from pathlib import Path

import gevent.os

from tests.support.helpers import Pki
from tests.support.ssl_pairs import connected, contexts


def shake(who, pki):
    client, server = contexts(pki)
    server.strategy = "thread"
    with connected(client, server):
        os.write(1, f"{who}\n".encode())


def main(directory):
    pki = Pki(Path(directory))
    shake("parent", pki)
    child = gevent.os.fork()
    if not child:
        shake("child", pki)
        os._exit(0)
    _, status = gevent.os.waitpid(child, 0)
    shake("parent", pki)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        sys.exit(main(directory))
