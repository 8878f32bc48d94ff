#!/usr/bin/env python3
"""A shim for BoringSSL's test runner (ssl/test/PORTING.md there): one TLS connection after another, over Connection.

    shim.py -port N -shim-id N [-server] [flags]    what the runner calls
    shim.py serve SOCKET                            a process that forks shims: see main()

It connects to the runner and does what the flags say. Exit codes: 0; 1, with a reason on standard error; 89 for a flag
that is not in the tables below, which the runner takes for a feature that is not there.
"""

from __future__ import annotations

import os
import socket
import sys

UNIMPLEMENTED = 89
SERVER = "GREENTLS_BOGO_SERVER"  # environment: where shim.py serve listens


def delegate(path, arguments):
    """Has the server fork a shim that has our standard streams; returns its exit code."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        socket.send_fds(sock, ["\0".join(arguments).encode()], [0, 1, 2])
        sock.shutdown(socket.SHUT_WR)
        return int(sock.recv(16))


def serve(path):
    """Until its standard input ends."""
    import select

    from tests.bogo.exchange import run

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([listener, 0], [], [])
        if 0 in readable:
            return
        sock, _ = listener.accept()
        if os.fork() == 0:
            if os.fork() == 0:  # a grandchild, so that nobody has to wait for it here
                os._exit(serve_one(sock, run))
            os._exit(0)
        sock.close()
        os.wait()


def serve_one(sock, run):
    request, descriptors, _, _ = socket.recv_fds(sock, 1 << 16, 3)
    while piece := sock.recv(1 << 16):
        request += piece
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    code = run(request.decode().split("\0"))
    sys.stderr.flush()
    sys.stdout.flush()
    sock.sendall(str(code).encode())
    return code


def main(arguments):
    """Eight thousand tests are as many starts of Python: with a server, only of one that imports next to nothing."""
    if arguments[:1] == ["serve"]:
        return serve(arguments[1])
    if path := os.environ.get(SERVER):
        return delegate(path, arguments)
    from tests.bogo.exchange import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
