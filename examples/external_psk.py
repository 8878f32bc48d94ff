"""A server for clients with a pre-shared key instead of certificates, such as small devices. A database has the keys.

python examples/external_psk.py keys.sqlite
openssl s_client -connect 127.0.0.1:4433 -psk_identity sensor-17 -psk 6b6579206f662073656e736f72203137
"""

import sqlite3
import ssl
import sys

import gevent
from gevent.server import StreamServer

import greentls


class Keys:
    """A table of identities and keys. sqlite3 blocks, so it runs in gevent's native threads."""

    def __init__(self, path):
        self._path = path

    def find(self, identity):
        row = gevent.get_hub().threadpool.apply(self._ask, (identity,))
        return row[0] if row else b""

    def _ask(self, identity):
        with sqlite3.connect(self._path) as database:
            return database.execute("select key from keys where identity = ?", (identity,)).fetchone()


def greet(sock, address):
    sock.sendall(f"hello over {sock.version()}\n".encode())


def main(database, bind="127.0.0.1:4433"):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("kECDHEPSK")  # for TLS 1.2: with forward secrecy, which TLS 1.3 always has
    context.set_psk_server_callback(Keys(database).find)
    server = StreamServer(bind, greet, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
