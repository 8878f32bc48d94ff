"""Both pumps, and what a test of either needs: contexts without the bridge, and sockets."""

from __future__ import annotations

import _socket
import contextlib
import functools
import socket

import pytest

from greentls.certificates import CertificateChain
from greentls.errors import ConcurrentUseError, ConnectionDead, TLSError, WrongThreadError
from greentls.openssl import bios, contexts, errors, pump
from greentls.openssl.library import ffi, lib, pointer
from tests.support.fake_sockets import compiled

PUMPS = {"plain": pump.PlainPump} | ({} if compiled is None else {"compiled": compiled.Pump})
WAITS = (pump.WANT_READ, pump.WANT_WRITE, pump.SPENT)


@functools.cache
def subject(base):
    """A pump with a simple bridge: whoever comes may enter, if nobody is inside; what fails is a TLSError."""

    class Subject(base):
        left = nexts = 0

        def __init__(self, context, server_side):
            super().__init__(pointer(context), server_side)

        def refusal(self, name):
            if self.busy:
                return ConcurrentUseError(f"{name}: somebody is inside {self.name}")
            if self.dead:
                return ConnectionDead(name, reason=self.dead)
            return WrongThreadError(name)

        def failed(self, name, failed):
            codes = errors.take()
            failure, self.failure = self.failure, None
            self.dead = "it failed"
            reason = errors.describe(codes[-1])[1] if codes else ""
            return failure or TLSError(name, reason=reason)

        def not_now(self, name):
            raise TLSError(name, reason="too early")

        def tell_those_who_wait(self):
            self.left += 1

        def tell_the_next(self):
            self.nexts += 1

    return Subject


@functools.cache
def server_context(files, version):
    context = contexts.new()
    chain = CertificateChain.load(*files)
    contexts.use_certificate(context, chain.der, chain.private_key)
    contexts.set_versions(context, version, version)
    return context


@functools.cache
def client_context(version):
    context = contexts.new()
    contexts.set_versions(context, version, version)
    return context


opened = []  # sockets, for a fixture to close


def sockets(*, tcp=False):
    """Two that are connected, non-blocking."""
    if tcp:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            pair = [socket.create_connection(listener.getsockname()), listener.accept()[0]]
    else:
        pair = socket.socketpair()
    made = [_socket.socket(each.family, each.type, each.proto, fileno=each.detach()) for each in pair]
    for each in made:
        each.setblocking(False)
    opened.extend(made)
    return made


def pair(base, files, version, socks=None):
    """(client, server) over a pair of sockets; both before their handshake."""
    kind = subject(base)
    ends = kind(client_context(version), False), kind(server_context(files, version), True)
    for end, sock in zip(ends, socks or sockets(), strict=True):
        end.attach(sock)
    return ends


def in_memory(base, files, version):
    """The same without sockets, after their handshake."""
    kind = subject(base)
    client, server = kind(client_context(version), False), kind(server_context(files, version), True)
    for _ in range(5):
        for one, other in ((client, server), (server, client)):
            if not one.established:
                one.established = one.writable = one.continue_handshake() == pump.DONE
            if data := bytes(bios.take(one.outgoing)):
                other.feed(data)
    assert client.established
    assert server.established
    assert client.step_read(1) == pump.WANT_READ
    return client, server


def established(base, files, version, **options):
    ends = client, server = pair(base, files, version, **options)
    done = set()
    for _ in range(20):
        for end in ends:
            if end not in done:
                step = end.continue_handshake()
                assert step in (*WAITS, pump.DONE)
                if step == pump.DONE:
                    end.established = end.writable = True
                    done.add(end)
            end.send()
        if len(done) == 2:
            break
    assert len(done) == 2, "no handshake in 20 rounds"
    assert read(client) in WAITS  # TLS 1.3 tickets
    for end in ends:
        end.budget = pump.TURN
    return client, server


def read(end, size=65536):
    """A look more, where the pump may not have looked."""
    answer = end.step_read(size)
    return end.step_read(size) if answer == pump.WANT_READ else answer


def read_all(end, size):
    """So many bytes, which are there."""
    data = b""
    while len(data) < size:
        got = read(end)
        end.budget = pump.TURN
        assert isinstance(got, bytes), (got, len(data))
        data += got
    return data


@contextlib.contextmanager
def waiting_callback(context, body):
    """OpenSSL calls body() once in a handshake, at a server, where the client asks for a name or not."""

    @ffi.callback("int(SSL *, void *)")
    def certificate(ssl, _):
        return body(ssl)

    lib.SSL_CTX_set_cert_cb(context, certificate, ffi.NULL)
    try:
        yield
    finally:
        lib.SSL_CTX_set_cert_cb(context, ffi.NULL, ffi.NULL)


# -- what both files of tests share -----------------------------------------------------------------------------------

TLS12, TLS13 = 0x0303, 0x0304
each_version = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


def data_verbs(end):
    return [(lambda: end.step_read(1), "read"), (lambda: end.step_write(b"secret"), "write")]


def tls_verbs(end):
    return [(end.continue_handshake, "do_handshake"), (end.step_shutdown, "shutdown"), *data_verbs(end)]


def every_verb(end):
    return [*tls_verbs(end), (lambda: end.run("other", lambda: 1, ()), "other"), (lambda: end.admit("other"), "other")]
