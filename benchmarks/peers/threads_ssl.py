"""The standard library: a thread for each connection."""

import socket
import ssl
import threading

from common import BACKLOG, announce, arguments, end_with_stdin

given = arguments()
block = bytes(given.block)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(given.certificate, given.key)
threading.stack_size(256 * 1024)


def echo(sock):
    while message := sock.recv(given.block):
        sock.sendall(message)


def upload(sock):
    while sock.recv(given.block):
        pass


def download(sock):
    while True:
        sock.sendall(block)


def run(handle, sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with sock, context.wrap_socket(sock, server_side=True) as wrapped:
            handle(wrapped)
    except OSError:
        pass


def serve(handle, listener):
    while True:
        threading.Thread(target=run, args=(handle, listener.accept()[0]), daemon=True).start()


ports = {}
for handle in (echo, upload, download):
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    ports[handle.__name__] = listener.getsockname()[1]
    threading.Thread(target=serve, args=(handle, listener), daemon=True).start()
announce(ports)
end_with_stdin()
threading.Event().wait()
