"""A server that looks up each client's certificate in a database, in full handshakes and on resumptions.

    python examples/verify_peer.py cert.pem key.pem ca.pem clients.sqlite

A client that is removed from the table is refused at once, whatever session or ticket it holds.
"""

import sqlite3
import ssl
import sys

import gevent
from cryptography.hazmat.primitives.hashes import SHA256
from gevent.server import StreamServer

import greentls


class Clients:
    """A table of certificates' fingerprints. sqlite3 blocks, so it runs in gevent's native threads."""

    def __init__(self, path):
        self._path = path

    def verify(self, sock, chain, *, resumed):
        fingerprint = chain[0].fingerprint(SHA256()).hex()
        if not gevent.get_hub().threadpool.apply(self._ask, (fingerprint,)):
            raise PermissionError(f"{chain[0].subject.rfc4514_string()} is not enrolled")

    def _ask(self, fingerprint):
        with sqlite3.connect(self._path) as database:
            return database.execute("select 1 from clients where fingerprint = ?", (fingerprint,)).fetchone()


def greet(sock, address):
    name = sock.getpeercert()["subject"][0][0][1]
    sock.sendall(f"hello {name}, {'resumed' if sock.session_reused else 'full handshake'}\n".encode())


def main(certificate, key, ca_file, database, bind="127.0.0.1:4433"):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_callback = Clients(database).verify
    server = StreamServer(bind, greet, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
