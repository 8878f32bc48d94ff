"""A server that looks up a name's certificate in a database, in the middle of the handshake.

While the callback waits, OpenSSL's handshake waits with it, and every other connection continues.

    python examples/waiting_sni.py names.sqlite
"""

import functools
import sqlite3
import ssl
import sys

import gevent
from gevent.server import StreamServer

import greentls


class Names:
    """A table of name, certificate file, key file. sqlite3 blocks, so it runs in gevent's native threads."""

    def __init__(self, path):
        self._path = path

    @functools.lru_cache(maxsize=1000)  # noqa: B019  one context per name, made once; there is one Names
    def context(self, name):
        row = gevent.get_hub().threadpool.apply(self._ask, (name,))
        if row is None:
            return None
        context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*row)
        return context

    def _ask(self, name):
        with sqlite3.connect(self._path) as database:
            return database.execute("select certificate, key from names where name = ?", (name,)).fetchone()


def greet(sock, address):
    sock.sendall(b"hello from " + sock.server_name.encode() + b"\n")


def main(database, bind="127.0.0.1:4433"):
    names = Names(database)

    def choose(sock, name, context):
        if chosen := names.context(name):
            sock.context = chosen
        return None if chosen else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = choose
    server = StreamServer(bind, greet, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
