"""One end of ours, in a greenlet of its own, by each way of using it; and the wire that a Peer reaches it by.

A target does its handshake, and then what its habit is: it reads until the end and says close_notify; it "answers",
which is to write, too; or it "leaves" at once. What has become of it stays on it: got (the plaintext), early (how much
of that came before the handshake was finished), error, clean (the peer has said close_notify), done.

turn() lets it run until it waits for more, and returns what it has said. Nobody sleeps for that: a target that waits is
one with nothing left in its queue, which the kernel tells for a socket.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import struct
import termios
import time

import gevent.socket

from greentls import aio
from greentls.aio import connecting
from greentls.errors import WantRead
from greentls.hub import Deadline, here
from tests.support.hubs import wait_for

MAX_TURNS = 20_000  # of the hub in one turn(): a limit for broken code

# Between two turns of the hub: ciphertext bytes that may be taken, and reads that may return. Both are a small multiple
# of what greentls.stream does in a row.
MAX_GAP = 256 * 1024
MAX_READS = 256

# Bytes that may lie at a connection: what one receive has brought, and answers that are not sent, among them those to a
# whole receive. One that writes has a flight besides.
MAX_UNREAD = 128 * 1024
MAX_UNSENT = 64 * 1024
MAX_FLIGHT = 192 * 1024

ANSWER = bytes(600_000)  # more than a socket takes at once


class Target:
    ragged = False  # an end without close_notify counts as an end

    def __init__(self, server_side):
        self.server_side = server_side
        self.got, self.early = bytearray(), 0
        self.error = None
        self.done = self.clean = False
        self.habit = "reads"
        self.writer = None
        self.gap = self.unread = self.unsent = 0  # the most that there was
        self.reads = self.reads_in_a_turn = 0

    def start(self):
        self.greenlet = here().spawn(self._run)

    def _run(self):
        try:
            self.handshake()
            if self.habit == "answers":
                self.answer()
            while self.habit != "leaves" and (data := self.read()):
                self.reads += 1
                if self.connection.unfinished:
                    self.early += len(data)
                self.got += data
            self.shutdown()
            self.clean = True
        except BaseException as error:
            self.error = error
        finally:
            if self.writer is not None:
                self.writer.kill(block=True)
            self.done = True
            self.close()

    def look(self):
        """At what the connection holds."""
        self.reads_in_a_turn, self.reads = max(self.reads_in_a_turn, self.reads), 0
        connection = self.connection
        if not self.done:
            self.unread = max(self.unread, connection.unread)
            self.unsent = max(self.unsent, connection.unsent)

    def too_much(self):
        """What went beyond its bound, or None."""
        limit = MAX_FLIGHT if self.habit == "answers" else MAX_UNSENT
        if self.unread > MAX_UNREAD or self.unsent > limit:
            return f"the connection held {self.unread} bytes unread, {self.unsent} unsent"
        return None

    def end(self, seconds):
        """The peer is gone: lets the target come to its end, for so long."""
        self.eof()
        self.turn()
        with Deadline(seconds, "the target does not end"):
            self.greenlet.join()


class MemoryTarget(Target):
    """Without a socket. more: the news for a greenlet that waits for ciphertext."""

    def __init__(self, server_side):
        super().__init__(server_side)
        self.pieces = []
        self.news = here().event()
        self.waiting = False
        self.out = bytearray()

    def send(self, data, pieces=1):
        size = max(-(-len(data) // pieces), 1)
        self.pieces += [data[at : at + size] for at in range(0, len(data), size)]

    def eof(self):
        self.pieces.append(b"")

    def turn(self):
        for _ in range(MAX_TURNS):
            if self.done or (self.waiting and not self.pieces):
                break
            self.news.set()
            here().sleep(0)
            self.look()
        out, self.out = bytes(self.out), bytearray()
        return out

    def more(self):
        while not self.pieces:
            self.waiting = True
            self.news = here().event()
            self.news.wait()
        self.waiting = False
        return self.pieces.pop(0)

    def run(self, operation, *arguments):
        while True:
            try:
                return operation(*arguments)
            except (WantRead, ssl.SSLWantReadError):
                self.flush()
                self.feed(self.more())
            finally:
                self.flush()

    def handshake(self):
        self.run(self.tls.do_handshake)

    def read(self):
        return self.run(self.tls.read, 16384)

    def answer(self):
        self.run(self.tls.write, ANSWER)

    def close(self):
        pass


class ConnectionTarget(MemoryTarget):
    """A bare Connection."""

    errors = ()

    def __init__(self, connection):
        super().__init__(connection.server_side)
        self.tls = self.connection = connection

    def feed(self, piece):
        self.tls.receive_data(piece)

    def flush(self):
        self.out += self.tls.data_to_send()

    def shutdown(self):
        while not self.run(self.tls.shutdown):
            self.flush()
            self.run(self.tls.shutdown) or self.feed(self.more())


class BIOTarget(MemoryTarget):
    """wrap_bio(), as asyncio uses it."""

    errors = (ssl.SSLError,)

    def __init__(self, context, server_side, **options):
        super().__init__(server_side)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side, **options)

    @property
    def connection(self):
        return self.tls._sslobj._connection

    def feed(self, piece):
        if piece:
            self.incoming.write(piece)
        else:
            self.incoming.write_eof()

    def flush(self):
        self.out += self.outgoing.read()

    def shutdown(self):
        self.run(self.tls.unwrap)


class KernelTarget(Target):
    """Over a pair of sockets: here is the peer's. asking: whether a hook is at work."""

    errors = (ssl.SSLError, OSError)

    def __init__(self, server_side, here, there, asking):
        super().__init__(server_side)
        self.asking, self.here = asking, here
        self.here.setblocking(False)
        self.descriptor = there.fileno()
        self.expected = 0  # bytes that lay in the queue at the last look, or were sent since
        self.deaf = False
        self.out = bytearray()

    def find(self):
        """The connection as it is now: a hook may have put another one in its place."""

    def too_much(self):
        if self.gap > MAX_GAP or self.reads_in_a_turn > MAX_READS:
            return f"{self.gap} bytes, or {self.reads_in_a_turn} reads, without a turn for the hub"
        return super().too_much()

    def send(self, data, pieces=1):
        size = max(-(-len(data) // pieces), 1)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            for _ in range(MAX_TURNS):
                try:
                    sent = self.here.send(piece)
                except BlockingIOError:
                    sent = 0
                except OSError:  # it has hung up
                    return
                self.expected += sent
                piece = piece[sent:]
                if not piece or self.done:
                    break
                self.pause()
            if pieces > 1:
                self.pause()
                self.pause()

    def eof(self):
        try:
            self.here.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def queued(self):
        try:
            return 0 if self.done else struct.unpack("i", fcntl.ioctl(self.descriptor, termios.FIONREAD, b"    "))[0]
        except OSError:  # it was closed, which is told later
            return 0

    def pause(self):
        """One turn of the hub."""
        self.find()
        waits = self.connection.taken or self.asking()
        here().sleep(0.0005 if waits else 0)
        queued = self.queued()
        if not self.done:
            self.gap = max(self.gap, self.expected - queued)
        self.expected = queued
        self.look()
        if not self.deaf:
            try:
                while data := self.here.recv(1 << 20):
                    self.out += data
            except OSError:
                pass
        return queued or waits

    def turn(self):
        calm, last = 0, None
        for _ in range(MAX_TURNS):
            if self.done or calm == 6:
                break
            busy = self.pause()
            calm = calm + 1 if not busy or (self.deaf and busy == last) else 0
            last = busy
        if self.done:
            self.pause()
        out, self.out = bytes(self.out), bytearray()
        return out

    def end(self, seconds):
        """And reads what it still has to say."""
        self.eof()
        end = time.monotonic() + seconds
        while not self.done and time.monotonic() < end:
            self.pause()
        super().end(seconds)
        self.here.close()


class SocketTarget(KernelTarget):
    """wrap_socket()."""

    def __init__(self, context, server_side, timeout, asking, **options):
        ours, theirs = gevent.socket.socketpair()
        super().__init__(server_side, ours, theirs, asking)
        theirs.settimeout(timeout)
        self.sock = context.wrap_socket(theirs, server_side=server_side, do_handshake_on_connect=False, **options)
        self.find()

    def find(self):
        self.connection = self.sock._connection

    def handshake(self):
        self.sock.do_handshake()

    def read(self):
        return self.sock.recv(16384)

    def answer(self):
        """In a greenlet of its own, as one that is blocked does not read."""
        self.writer = here().spawn(self._answer)

    def _answer(self):
        try:
            self.sock.sendall(ANSWER)
        except self.errors as error:
            self.writer_error = error

    def shutdown(self):
        if self.writer is not None:
            self.writer.join()
        self.sock.unwrap().close()

    def close(self):
        self.sock.close()


class Found(aio.TLSTransport):
    """The one that was made last can be found, before it is given to whoever waits for its handshake."""

    last = None

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        Found.last = self


class TransportTarget(KernelTarget, asyncio.Protocol):
    """greentls.aio, in an event loop. To asyncio's protocols an end of TCP is an end of TLS."""

    ragged = True

    def __init__(self, context, server_side, asking, **options):
        ours, theirs = socket.socketpair()
        super().__init__(server_side, ours, theirs, asking)
        self.lost = here().event()
        connect = aio.connect_accepted_socket if server_side else aio.create_connection
        theirs.setblocking(False)
        self.connecting = connect(lambda: self, sock=theirs, ssl=context, **options)
        self.transport = self.connection = None

    def start(self):
        super().start()
        wait_for(self.find, "the transport")

    def find(self):
        if self.transport is None:
            self.transport, Found.last = Found.last, None
        if self.transport is not None:
            self.connection = self.transport.get_extra_info("ssl_object")._connection
        return self.connection

    def handshake(self):
        connecting.TLSTransport = Found
        try:
            here().result(self.connecting)
        finally:
            connecting.TLSTransport = aio.TLSTransport

    def connection_made(self, _):
        self.transport.pause_reading()
        self.arrived, self.ended, self.failure = bytearray(), False, None
        self.news = here().event()

    def data_received(self, data):
        self.arrived += data
        self.news.set()

    def eof_received(self):
        self.ended = True
        self.news.set()
        return True

    def connection_lost(self, error):
        self.failure, self.ended = error, True
        self.news.set()
        self.lost.set()

    def read(self):
        self.transport.resume_reading()
        while not (self.arrived or self.ended):
            self.news.wait()
            self.news = here().event()
        if not self.arrived and self.failure is not None:
            raise self.failure
        data, self.arrived = bytes(self.arrived), bytearray()
        return data

    def answer(self):
        self.transport.write(ANSWER)

    def shutdown(self):
        self.transport.close()
        self.lost.wait()
        if self.failure is not None:
            raise self.failure
        if self.habit == "leaves":
            raise ConnectionAbortedError("what the peer has said meanwhile was dropped")

    def close(self):
        if self.transport is not None:
            self.transport.abort()
