"""Two ways to wait that greentls does not use, in few lines, to measure them beside its own.

--way suspend: those of OpenSSL's callbacks that can say "later" do. SSL_do_handshake() returns, the answer is fetched,
and SSL_do_handshake() is called again. A session is looked up in the ClientHello callback
(SSL_CTX_set_client_hello_cb(3)), because the session callback cannot say "later"; a certificate in
SSL_CTX_set_cert_cb(3).

--way replay: the callback notes the question and stops SSL_do_handshake() by the same "later". The SSL is freed, the
answer is fetched, and a new SSL gets the same bytes.

The ports are those of ways.py: "session N", "certificate N", "park". There are no guards, deadlines or checks, so this
is for the loopback only.
"""

from __future__ import annotations

import functools
import socket as plain_socket
from typing import Any

import gevent
from common import BACKLOG, announce, arguments, end_with_stdin
from gevent.event import Event
from gevent.server import StreamServer

from greentls.certificates import CertificateChain
from greentls.openssl import bios, client_hello, connections, contexts
from greentls.openssl import sessions as ssl_sessions
from greentls.openssl.library import ffi, lib, pointer

given = arguments(("--way", {"choices": ("suspend", "replay"), "required": True}), ("--milliseconds", {"default": "0"}))
WANT_READ = 2  # SSL_get_error(3)
LATER = -1  # SSL_CTX_set_cert_cb(3), and SSL_CLIENT_HELLO_RETRY
GO_ON = 1
PRE_SHARED_KEY = 41
released = Event()
waiting = {"now": 0, "most": 0}
handshakes: dict[Any, Handshake] = {}  # by SSL*


def look_up(seconds: float | None) -> None:
    """Waits; None means until standard input says so."""
    if seconds == 0:
        return
    waiting["now"] += 1
    waiting["most"] = max(waiting.values())
    released.wait() if seconds is None else gevent.sleep(seconds)
    waiting["now"] -= 1


class Service:
    """A service on one port. Its SSL_CTX asks for a session or for a certificate."""

    def __init__(self, what: str, seconds: float | None) -> None:
        self.what, self.seconds = what, seconds
        self.sessions: dict[bytes, bytes] = {}
        self.context = context = contexts.new()
        chain = CertificateChain.load(given.certificate, given.key)
        contexts.use_certificate(context, chain.der, chain.private_key)
        contexts.set_session_id_context(context, b"raw")
        if what == "session":
            contexts.set_options(context, contexts.OP_NO_TICKET)
            contexts.keep_sessions_outside(context, server_side=True)
            contexts.set_num_tickets(context, 1)
            contexts.set_session_callbacks(context, on_get_session, on_new_session, ffi.NULL)
            if given.way == "suspend":
                client_hello.set_callback(context, on_client_hello)
                return
        lib.SSL_CTX_set_cert_cb(context, on_certificate, ffi.NULL)


class Handshake:
    """A handshake. wanted: the question that a callback could not answer. answers: by session id; True: certificate."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.wanted: Any = None
        self.answers: dict[Any, bytes | None] = {}
        self.fresh()

    def fresh(self) -> None:
        self.ssl, self.incoming, self.outgoing = connections.new(pointer(self.service.context), True)

    def answer(self) -> None:
        look_up(self.service.seconds)
        self.answers[self.wanted] = self.service.sessions.get(self.wanted)
        self.wanted = None

    def run(self, sock: Any) -> None:
        """Raises OSError."""
        received = b""
        while True:
            lib.ERR_clear_error()
            handshakes[self.ssl] = self
            result = lib.SSL_do_handshake(self.ssl)
            del handshakes[self.ssl]
            error = lib.SSL_get_error(self.ssl, result)
            if self.wanted is not None:
                self.answer()
                if given.way == "replay":
                    self.fresh()
                    bios.append(self.incoming, received)
                continue
            self.flush(sock)
            if result == 1:
                return
            if error != WANT_READ:
                raise OSError(f"SSL_get_error() is {error}")
            data = sock.recv(65536)
            if not data:
                raise OSError("the client is gone")
            received += data
            bios.append(self.incoming, data)

    def flush(self, sock: Any) -> None:
        if data := bios.take(self.outgoing):
            sock.sendall(data)

    def echo(self, sock: Any) -> None:
        scratch = ffi.new("char[]", 16384)
        while True:
            length = lib.SSL_read(self.ssl, scratch, 16384)
            if length > 0:
                lib.SSL_write(self.ssl, scratch, length)
                self.flush(sock)
            elif lib.SSL_get_error(self.ssl, length) == WANT_READ and (data := sock.recv(65536)):
                bios.append(self.incoming, data)
            else:
                return


@ffi.callback("SSL_SESSION *(SSL *, const unsigned char *, int, int *)")
def on_get_session(ssl: Any, start: Any, length: int, copy: Any) -> Any:
    mine = handshakes[ssl]
    session_id = bytes(ffi.buffer(start, length))
    if session_id not in mine.answers:
        mine.wanted = session_id  # the certificate callback stops it; suspend has looked it up before
        return ffi.NULL
    blob = mine.answers[session_id]
    if blob is None:
        return ffi.NULL
    copy[0] = 0
    return lib.d2i_SSL_SESSION(ffi.NULL, ffi.new("const unsigned char **", ffi.from_buffer(blob)), len(blob))


@ffi.callback("int(SSL *, SSL_SESSION *)")
def on_new_session(ssl: Any, session: Any) -> int:
    handshakes[ssl].service.sessions[ssl_sessions.session_id(session)] = ssl_sessions.to_bytes(session)
    return 0


@ffi.callback("int(SSL *, int *, void *)")
def on_client_hello(ssl: Any, alert: Any, _: Any) -> int:
    mine = handshakes[ssl]
    session_id = offered_session(ssl)
    if not session_id or session_id in mine.answers:
        return GO_ON
    mine.wanted = session_id
    return LATER


def offered_session(ssl: Any) -> bytes:
    """Returns the first PSK identity, which for a stateful ticket is the session's id, or TLS 1.2's session id."""
    start, length = ffi.new("const unsigned char **"), ffi.new("size_t *")
    if lib.SSL_client_hello_get0_ext(ssl, PRE_SHARED_KEY, start, length):
        identities = bytes(ffi.buffer(start[0], length[0]))
        return identities[4 : 4 + int.from_bytes(identities[2:4], "big")]
    size = lib.SSL_client_hello_get0_session_id(ssl, start)
    return bytes(ffi.buffer(start[0], size)) if size else b""


@ffi.callback("int(SSL *, void *)")
def on_certificate(ssl: Any, _: Any) -> int:
    mine = handshakes[ssl]
    if mine.service.what == "certificate" and True not in mine.answers:
        mine.wanted = True
    return LATER if mine.wanted is not None else GO_ON


def serve(service: Service, sock: Any, address: Any) -> None:
    sock.setsockopt(plain_socket.IPPROTO_TCP, plain_socket.TCP_NODELAY, 1)
    mine = Handshake(service)
    try:
        mine.run(sock)
        mine.echo(sock)
    except OSError:
        pass
    finally:
        lib.SSL_set_shutdown(mine.ssl, 3)


def listen(service: Service) -> int:
    server = StreamServer(("127.0.0.1", 0), functools.partial(serve, service), backlog=BACKLOG)
    server.start()
    return server.server_port


ports = {}
for number in given.milliseconds.split(","):
    for what in ("session", "certificate"):
        ports[f"{what} {number}"] = listen(Service(what, float(number) / 1e3))
ports["park"] = listen(Service("certificate", None))
loop = gevent.get_hub().loop


def release() -> bool:
    """Runs in a thread."""
    loop.run_callback_threadsafe(released.set)
    return True


announce(ports)
end_with_stdin({"report": lambda: waiting, "release": release})
gevent.wait()
