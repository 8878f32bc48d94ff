"""Sockets whose recv_into() and send() are a test's, for either pump."""

from __future__ import annotations

import contextlib
import errno
import os

from greentls.errors import UnsupportedOpenSSL
from greentls.openssl import facts, pump
from greentls.openssl.library import address, ffi

try:
    from greentls.openssl import _pump as compiled
except ImportError:  # there was no compiler
    compiled = None
else:
    pump.bind(compiled)
    with contextlib.suppress(UnsupportedOpenSSL):  # one is hidden: the pump does without
        compiled.bind_facts(tuple(map(address, facts.FUNCTIONS)))


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
            self.send = lambda data, flags=0: send(data)

    def fileno(self):
        return self._number

    def recv_into(self, buffer, size=0):
        raise BlockingIOError

    def recv(self, size):
        room = bytearray(size)
        length = self.recv_into(memoryview(room), size)
        return bytes(room[:length])

    def send(self, data, flags=0):
        return len(data)


@contextlib.contextmanager
def fakes():
    """A function(sock) that returns it: its recv_into() and send() are called by whatever pump it is attached to."""
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
        memory = memoryview(ffi.buffer(start, size))
        if descriptor in known:
            return call(known[descriptor].recv_into, memory, size)
        return call(os.readv, descriptor, [memory])

    @ffi.callback("ptrdiff_t(int, void *, size_t, int)")
    def send(descriptor, start, size, flags):
        memory = memoryview(ffi.buffer(start, size))
        if descriptor in known:
            return call(known[descriptor].send, memory)
        return call(os.write, descriptor, memory)

    if compiled is not None:
        pump.bind(compiled, *(int(ffi.cast("uintptr_t", each)) for each in (receive, send)))
    try:
        yield known_too
    finally:
        if compiled is not None:
            pump.bind(compiled)
