"""The lower bound for a TLS server in Python under gevent: it only moves bytes between sockets and memory BIOs.

It is for measurements only. OpenSSL, StreamServer and the handlers are greentls'. There are no guards, hooks or
deadlines, no API of the ssl module, and no errors, because clients are trusted. All connections share their buffers.

--store: sessions are in memory, as bytes; without it they are in tickets.
"""

from __future__ import annotations

import functools
import socket as plain_socket
from typing import Any

import gevent
from common import BACKLOG, announce, arguments, end_with_stdin
from gevent.server import StreamServer
from gevent_handlers import handlers
from greenlet import getcurrent

from greentls.certificates import CertificateChain
from greentls.openssl import contexts
from greentls.openssl import sessions as ssl_sessions
from greentls.openssl.library import ffi, lib

given = arguments(("--store", {"action": "store_true"}))
hub = gevent.get_hub()
MEMORY = lib.BIO_s_mem()
context = contexts.new()
sessions: dict[bytes, bytes] = {}
received, sealed = bytearray(65536), memoryview(bytearray(65536 + given.block))
received_in_c, sealed_in_c, plain = ffi.from_buffer(received), ffi.from_buffer(sealed), ffi.new("char[]", 16384)


class Pump:
    """The socket for the handlers."""

    def __init__(self, sock: Any) -> None:
        self.sock, self.readable, self.writable = sock._sock, sock._read_event, sock._write_event
        self.emptied = False  # the last recv_into() got less than it asked for, so the next one would wait
        self.incoming, self.outgoing = lib.BIO_new(MEMORY), lib.BIO_new(MEMORY)
        self.ssl = lib.SSL_new(context)
        lib.SSL_set_bio(self.ssl, self.incoming, self.outgoing)
        lib.SSL_set_accept_state(self.ssl)

    def wait(self, watcher: Any) -> None:
        watcher.start(getcurrent().switch)
        hub.switch()
        watcher.stop()

    def send(self) -> None:
        data: Any = sealed[: max(0, lib.BIO_read(self.outgoing, sealed_in_c, len(sealed)))]
        while data:
            try:
                data = bytes(data[self.sock.send(data) :])
            except BlockingIOError:
                data = bytes(data)  # all connections share the buffer
                self.wait(self.writable)

    def receive(self) -> None:
        """Raises EOFError."""
        length = -1
        while length < 0:
            if self.emptied:
                self.wait(self.readable)
            try:
                length = self.sock.recv_into(received)
            except BlockingIOError:
                self.emptied = True
        if not length:
            raise EOFError
        self.emptied = length < len(received)
        lib.BIO_write(self.incoming, received_in_c, length)

    def do_handshake(self) -> None:
        while lib.SSL_do_handshake(self.ssl) != 1:
            self.send()
            self.receive()
        self.send()

    def recv(self, size: int) -> bytes:
        while (length := lib.SSL_read(self.ssl, plain, len(plain))) <= 0:
            if lib.SSL_get_shutdown(self.ssl):
                return b""
            self.receive()
        data: bytes = ffi.unpack(plain, length)
        return data

    def sendall(self, data: bytes) -> None:
        lib.SSL_write(self.ssl, data, len(data))
        self.send()


@ffi.callback("int(SSL *, SSL_SESSION *)")
def on_new_session(ssl: Any, session: Any) -> int:
    sessions[ssl_sessions.session_id(session)] = ssl_sessions.to_bytes(session)
    return 0


@ffi.callback("SSL_SESSION *(SSL *, const unsigned char *, int, int *)")
def on_get_session(ssl: Any, start: Any, length: int, copy: Any) -> Any:
    copy[0] = 0
    blob = sessions.get(ffi.buffer(start, length)[:], b"")
    return lib.d2i_SSL_SESSION(ffi.NULL, ffi.new("const unsigned char **", ffi.from_buffer(blob)), len(blob))


def serve(handle: Any, sock: Any, address: Any) -> None:
    sock._sock.setsockopt(plain_socket.IPPROTO_TCP, plain_socket.TCP_NODELAY, 1)
    pump = Pump(sock)
    try:
        pump.do_handshake()
        handle(pump, address)
    except (OSError, EOFError):
        pass
    lib.SSL_free(pump.ssl)


def listen(handle: Any) -> int:
    """Starts a server and returns its port."""
    server = StreamServer(("127.0.0.1", 0), functools.partial(serve, handle), backlog=BACKLOG)
    server.start()
    return server.server_port


chain = CertificateChain.load(given.certificate, given.key)
contexts.use_certificate(context, chain.der, chain.private_key)
if given.store:
    contexts.set_session_id_context(context, b"lean")
    contexts.set_options(context, contexts.OP_NO_TICKET)
    contexts.keep_sessions_outside(context, server_side=True)
    contexts.set_session_callbacks(context, on_get_session, on_new_session, ffi.NULL)
announce({name: listen(handle) for name, handle in handlers(given.block).items()})
end_with_stdin()
gevent.wait()
