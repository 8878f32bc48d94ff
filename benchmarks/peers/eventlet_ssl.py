"""eventlet: wrap_ssl() and a green thread for each connection."""

import socket
import ssl

import eventlet
import eventlet.green.ssl
from common import BACKLOG, announce, arguments, end_with_stdin

given = arguments()
block = bytes(given.block)


def echo(sock):
    while message := sock.recv(given.block):
        sock.sendall(message)


def upload(sock):
    while sock.recv(given.block):
        pass


def download(sock):
    while True:
        sock.sendall(block)


def serve(handle, listener):
    def run(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            wrapped = eventlet.green.ssl.GreenSSLSocket(sock, server_side=True, _context=context)
            try:
                handle(wrapped)
            finally:
                wrapped.close()
        except OSError:
            pass
        finally:
            sock.close()

    while True:
        eventlet.spawn_n(run, listener.accept()[0])


context = eventlet.green.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(given.certificate, given.key)
ports = {}
for handle in (echo, upload, download):
    listener = eventlet.listen(("127.0.0.1", 0), backlog=BACKLOG)
    ports[handle.__name__] = listener.getsockname()[1]
    eventlet.spawn_n(serve, handle, listener)
announce(ports)
end_with_stdin()
while True:
    eventlet.sleep(3600)
