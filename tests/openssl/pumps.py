"""Both pumps, and what a test of either needs: contexts without the bridge, sockets, one that is a fake."""

from __future__ import annotations

import _socket
import contextlib
import errno
import functools
import socket
import weakref

from greenlet import getcurrent
from OpenSSL import SSL

from greentls.errors import ConcurrentUseError, ConnectionDead, TLSError
from greentls.openssl import bios, connections, contexts, errors, pump
from greentls.openssl.library import ffi, lib

try:
    from greentls.openssl import _pump as compiled
except ImportError:  # there was no compiler
    compiled = None
else:
    pump.bind(compiled)

PUMPS = {"plain": pump.PlainPump} | ({} if compiled is None else {"compiled": compiled.Pump})
WAITS = (pump.WANT_READ, pump.WANT_WRITE, pump.EMPTIED, pump.SPENT)


@functools.cache
def subject(base):
    """A pump with a simple bridge: whoever comes may enter, if nobody is inside; what fails is a TLSError."""

    class Subject(base):
        left = 0

        def __init__(self, context, server_side):
            super().__init__(*connections.new(context, server_side), server_side)

        def admit(self, name):
            if self.busy:
                raise ConcurrentUseError(f"{name}: somebody is inside {self.name}")
            if self.dead:
                raise ConnectionDead(name, reason=self.dead)
            return weakref.ref(getcurrent())

        def failed(self, name, failed):
            codes = errors.take()
            failure, self.failure = self.failure, None
            self.dead = "it failed"
            reason = errors.describe(codes[-1])[1] if codes else ""
            return failure or TLSError(name, reason=reason)

        def too_early(self, name):
            raise TLSError(name, reason="too early")

        def tell_those_who_wait(self):
            self.left += 1

    return Subject


@functools.cache
def server_context(files, version):
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(files[0])
    context.use_privatekey_file(files[1])
    return tuned(context, version)


@functools.cache
def client_context(version):
    return tuned(SSL.Context(SSL.TLS_CLIENT_METHOD), version)


def tuned(context, version):
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    contexts.tune_context(context)
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


class FakeSocket:
    """What a test lets a pump receive and send: recv_into() and send() are the test's, as a socket's methods.

    The compiled pump calls C for a descriptor; while fakes() is in force, those calls come here.
    """

    made = 0

    def __init__(self, recv_into=None, send=None):
        FakeSocket.made += 1
        self._number = 1_000_000 + FakeSocket.made
        if recv_into is not None:
            self.recv_into = recv_into
        if send is not None:
            self.send = send

    def fileno(self):
        return self._number

    def recv_into(self, buffer, size=0):
        raise BlockingIOError

    def send(self, data):
        return len(data)


@contextlib.contextmanager
def fakes():
    """(sock) -> the same; its recv_into() and send() are called by whatever pump it is attached to, and be it a real
    one's subclass."""
    known = {}

    def known_too(sock):
        known[sock.fileno()] = sock
        return sock

    def call(function, *arguments):
        try:
            return function(*arguments)
        except OSError as error:
            ffi.errno = error.errno or errno.EAGAIN
            return -1

    @ffi.callback("ptrdiff_t(int, void *, size_t, int)")
    def receive(descriptor, start, size, flags):
        return call(known[descriptor].recv_into, memoryview(ffi.buffer(start, size)), size)

    @ffi.callback("ptrdiff_t(int, void *, size_t, int)")
    def send(descriptor, start, size, flags):
        return call(known[descriptor].send, memoryview(ffi.buffer(start, size)))

    if compiled is not None:
        pump.bind(compiled, *(int(ffi.cast("uintptr_t", each)) for each in (receive, send)))
    try:
        yield known_too
    finally:
        if compiled is not None:
            pump.bind(compiled)


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
            if not one.open:
                one.open = one.handshake() == pump.DONE
            if data := bytes(bios.take(one.outgoing)):
                other.feed(data)
    assert client.open
    assert server.open
    assert client.read(1) == pump.WANT_READ
    return client, server


def established(base, files, version, **options):
    ends = client, server = pair(base, files, version, **options)
    done = set()
    for _ in range(20):
        for end in ends:
            if end not in done:
                step = end.handshake()
                assert step in (*WAITS, pump.DONE)
                if step == pump.DONE:
                    end.open = True
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
    """A look more, where the pump has not looked."""
    answer = end.read(size)
    return end.read(size) if answer == pump.EMPTIED else answer


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

    lib.SSL_CTX_set_cert_cb(contexts.raw(context), certificate, ffi.NULL)
    try:
        yield
    finally:
        lib.SSL_CTX_set_cert_cb(contexts.raw(context), ffi.NULL, ffi.NULL)
