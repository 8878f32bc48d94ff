"""One worker of a fleet that takes early data. Says what it sees, a line for each thing.

python early_data_worker.py CERTIFICATE KEY STORE SECONDS

SECONDS: for the store and the guard to answer.
"""

from __future__ import annotations

import ssl
import sys

from gevent.server import StreamServer

import greentls


class Guard:
    """The store, and what it answers when it is asked for a replay."""

    shared = True

    def __init__(self, store):
        self.store = store

    def add(self, name, value, lifetime):
        try:
            answer = self.store.add(name, value, lifetime)
        except Exception as error:
            say("guard", type(error).__name__)
            raise
        say("guard", answer)
        return answer


class Server(StreamServer):
    def wrap_socket_and_handle(self, sock, address):
        try:
            super().wrap_socket_and_handle(sock, address)
        except (ssl.SSLError, OSError) as error:
            say("failed", type(error).__name__)


def say(*words):
    print(*words, flush=True)


def handle(sock, address):
    say("connection", sock.version(), sock.early_data_accepted, "finished", sock.handshake_finished)
    with sock.makefile("rb") as file:
        line = file.readline()
        say("read", line.decode().strip(), "finished", sock.handshake_finished)
        sock.context.drain_sessions()
        sock.sendall(b"answer to " + line)
        sock.do_handshake()
        say("finished", sock.handshake_finished)
        while file.readline():
            pass


def main(certificate, key, store, seconds):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.callback_timeout = float(seconds)
    context.session_store = greentls.open_store(store)
    context.max_early_data = 4096
    context.replay_guard = Guard(context.session_store)
    server = Server(("127.0.0.1", 0), handle, ssl_context=context)
    server.start()
    say("listening on", server.address[1])
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
