"""An echo server whose sessions live in memcached, so that other servers can resume them.

(umask 077; head -c 32 /dev/urandom > fleet.key)
python examples/echo_server.py cert.pem key.pem 'memcached://localhost:11211?secret_file=fleet.key'
"""

import ssl
import sys

from gevent.server import StreamServer

import greentls


def echo(sock, address):
    lookup = sock.session_lookup
    how = f"resumed from {lookup.store} in {lookup.seconds * 1000:.1f} ms" if sock.session_reused else "full handshake"
    print(f"{address[0]}: {sock.version()}, {how}", flush=True)
    while data := sock.recv(65536):
        sock.sendall(data)


def main(certificate, key, store="memory://", bind="127.0.0.1:4433"):
    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.session_store = greentls.open_store(store)
    server = StreamServer(bind, echo, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        context.drain_sessions(timeout=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
