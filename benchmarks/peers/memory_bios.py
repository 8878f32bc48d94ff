"""OpenSSL over memory BIOs and nothing else, as benchmarks/floor.c, but with greentls' OpenSSL. For idle memory only.

A connection is five references in a list; all the rest is OpenSSL's. It has no guards, and errors end it.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from common import BACKLOG, announce, arguments, end_with_stdin

from greentls.certificates import CertificateChain
from greentls.openssl import contexts
from greentls.openssl.library import ffi, lib

given = arguments()
context = contexts.new()
chain = CertificateChain.load(given.certificate, given.key)
contexts.use_certificate(context, chain.der, chain.private_key)
MEMORY, RECORD, FLIGHT = lib.BIO_s_mem(), 16384, 65536
plain, sealed = ffi.new("char[]", RECORD), ffi.new("char[]", FLIGHT)
poller = select.epoll()
connections: dict[int, list] = {}  # by descriptor: socket, SSL, incoming, outgoing, whether it is established


def admit(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ssl, incoming, outgoing = lib.SSL_new(context), lib.BIO_new(MEMORY), lib.BIO_new(MEMORY)
    lib.SSL_set_bio(ssl, incoming, outgoing)
    lib.SSL_set_accept_state(ssl)
    connections[sock.fileno()] = [sock, ssl, incoming, outgoing, False]
    poller.register(sock, select.EPOLLIN)


def serve(descriptor: int) -> None:
    each = connections[descriptor]
    sock, ssl, incoming, outgoing, _ = each
    data = b""
    with suppress(OSError):
        data = sock.recv(FLIGHT)
    if not data:
        del connections[descriptor]
        lib.SSL_free(ssl)
        sock.close()
        return
    lib.BIO_write(incoming, data, len(data))
    each[-1] = each[-1] or lib.SSL_do_handshake(ssl) == 1
    while each[-1] and (length := lib.SSL_read(ssl, plain, RECORD)) > 0:
        lib.SSL_write(ssl, plain, length)
    lib.ERR_clear_error()
    with suppress(OSError):
        while (length := lib.BIO_read(outgoing, sealed, FLIGHT)) > 0:
            sock.sendall(ffi.buffer(sealed, length))


listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
poller.register(listener, select.EPOLLIN)
announce({"echo": listener.getsockname()[1]})
end_with_stdin()
while True:
    for descriptor, _ in poller.poll():
        if descriptor == listener.fileno():
            admit(listener.accept()[0])
        else:
            serve(descriptor)
