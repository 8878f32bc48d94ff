"""Routes TLS by server_name without terminating it: reads the ClientHello, then passes every byte through.

python examples/sni_router.py 127.0.0.1:8443 shop.example=127.0.0.1:9001 blog.example=127.0.0.1:9002
"""

import contextlib
import socket
import ssl
import sys

import gevent
from gevent.server import StreamServer
from gevent.socket import create_connection

import greentls


def carry(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def main(bind, *routes):
    table = dict(route.split("=") for route in routes)

    def look(sock, hello):
        if hello.server_name in table:
            return sock.pass_through()
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    def route(sock, address):
        host, port = table[sock.client_hello.server_name].rsplit(":", 1)
        with create_connection((host, int(port))) as backend:
            gevent.joinall([gevent.spawn(carry, sock, backend), gevent.spawn(carry, backend, sock)])

    context = greentls.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.client_hello_callback = look
    server = StreamServer(bind, route, ssl_context=context)
    server.start()
    print("listening on {}:{}".format(*server.address), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
