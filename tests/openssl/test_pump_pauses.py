"""A pump that has been told how to wait until its socket can be read: both pumps, as in test_pump."""

from __future__ import annotations

import gc
import socket
import weakref

import pytest
from greenlet import getcurrent, greenlet

from greentls.errors import TLSError
from greentls.openssl import bios
from greentls.openssl.library import ffi, pointer
from greentls.openssl.pump import CLOSED, DONE, ENDED, TURN, WANT_READ, WANT_WRITE
from tests.openssl.pumps import TLS13, each_version, established, pair, read, sockets
from tests.support.helpers import allocated


def read_into(end, size):
    room = bytearray(size)
    with ffi.from_buffer(room) as there:
        got = end.step_read_into(pointer(there), size)
    return bytes(room[:got]) if got > 0 else got


READS = [lambda end, size: end.step_read(size), read_into]
each_read = pytest.mark.parametrize("reads", READS, ids=["read", "read_into"])


@each_version
def test_a_handshake_waits_as_often_as_it_must(base, files, version):
    client, server = pair(base, files, version)
    steps, pauses = [], []

    def the_client_goes_on():
        pauses.append(1)
        steps.append(client.continue_handshake())
        client.send()

    server.pause_by(the_client_goes_on)
    assert server.continue_handshake() == DONE
    assert pauses
    assert set(steps) <= {WANT_READ, DONE}
    assert not server.waiting


def test_a_handshake_that_waits_keeps_no_memory_of_its_flights(base, files):
    """hazard: it is freed when the connection is idle, and leaves a hole of 1 KiB between what stays."""
    kept = []
    for _ in range(40):
        client, server = pair(base, files, TLS13)
        assert client.continue_handshake() == WANT_READ
        assert server.continue_handshake() == WANT_READ
        assert client.continue_handshake() == DONE
        kept.append((client, server))
    before = allocated()
    for _, server in kept:
        bios.shrink(server.incoming, server.outgoing)
    assert before - allocated() < 40 * 100


@each_read
def test_a_read_waits_for_data(ends, reads):
    client, server = ends
    pauses = []

    def pause():
        pauses.append(server.waiting)
        if len(pauses) == 3:  # the two before it were for nothing
            client.step_write(b"at last")

    server.pause_by(pause)
    assert reads(server, 100) == b"at last"
    assert pauses == [True] * 3
    assert not server.waiting


@each_read
def test_what_a_pause_raises_comes_out_and_the_connection_goes_on(ends, reads):
    client, server = ends
    late = TimeoutError("late")

    def pause():
        raise late

    server.pause_by(pause)
    with pytest.raises(TimeoutError) as raised:
        reads(server, 100)
    assert raised.value is late
    assert not server.waiting
    assert not server.dead
    client.step_write(b"x")
    assert reads(server, 100) == b"x"


def test_others_have_had_their_turn_in_a_pause(ends):
    client, server = ends
    server.budget = 1
    server.pause_by(lambda: client.step_write(b"x"))
    assert server.step_read(1) == b"x"
    assert server.budget > TURN // 2


def test_the_end_that_comes_in_a_pause(base, files):
    _client, server = established(base, files, TLS13, socks=(socks := sockets()))
    server.pause_by(socks[0].close)
    assert server.step_read(1) == ENDED


def test_close_notify_that_comes_in_a_pause(ends):
    client, server = ends

    def pause():
        client.step_shutdown()
        client.send()

    server.pause_by(pause)
    assert server.step_read(1) == CLOSED


@each_read
def test_one_that_closes_in_a_pause(ends, reads):
    """hazard: the descriptor's number belongs to another connection by then."""
    _client, server = ends
    server.pause_by(server.detach)
    with pytest.raises(OSError, match="Bad file descriptor"):
        reads(server, 1)
    assert server.pause is None


@each_read
def test_one_that_fails_in_a_pause(ends, reads):
    client, server = ends

    def pause():
        bios.append(client.outgoing, b"\x17\x03\x03\x00\x20" + bytes(32))
        client.send()
        with pytest.raises(TLSError):
            read(server)

    server.pause_by(pause)
    with pytest.raises(TLSError, match="it failed"):
        reads(server, 1)


@each_read
def test_one_at_a_time_waits(ends, reads):
    """The others are told that somebody does, and when it has left."""
    client, server = ends
    server.pause_by(getcurrent().switch)
    first = greenlet(lambda: reads(server, 100))
    assert first.switch() == (), "it waits"
    assert server.waiting
    assert read(server) == WANT_READ
    assert not server.wait(pytest.fail)
    server.crowded = True
    client.step_write(b"to whoever reads")
    assert first.switch() == b"to whoever reads"
    assert (server.nexts, server.crowded, server.waiting) == (1, False, False)
    called = []
    assert server.wait(lambda: called.append(server.waiting))
    assert called == [True]
    assert server.nexts == 1, "nobody else wanted to"


def test_who_waits_does_not_keep_others_from_writing(ends):
    client, server = ends
    server.pause_by(getcurrent().switch)
    first = greenlet(lambda: server.step_read(100))
    first.switch()
    assert server.step_write(b"meanwhile") == DONE
    assert read(client) == b"meanwhile"
    client.step_write(b"and back")
    assert first.switch() == b"and back"


def test_readers_that_wait_own_no_buffer(base, files):
    """hazard: what one reads goes where another one's plaintext will be."""
    ends = [established(base, files, TLS13) for _ in range(3)]
    readers = []
    for number, (_, server) in enumerate(ends):
        server.pause_by(getcurrent().switch)
        readers.append(greenlet(lambda server=server, size=10 ** (number + 1): server.step_read(size)))
        readers[-1].switch()
    for number, (client, _) in enumerate(ends):
        client.step_write(b"%d" % number * 10 ** (number + 1))
    got = [reader.switch() for reader in reversed(readers)][::-1]
    assert got == [b"%d" % number * 10 ** (number + 1) for number in range(3)]


def test_no_pause_before_somebody_watches_what_has_grown(ends):
    client, server = ends
    server.pause_by(lambda: client.step_write(b"x"))
    server.bulky = True
    assert read(server) == WANT_READ
    server.watch()
    assert read(server) == b"x"


def test_no_pause_where_another_thread_is_inside(ends):
    """hazard: a loop's function waits in a thread that is not the loop's."""
    _client, server = ends
    server.pause_by(pytest.fail)
    server.ask = print
    assert read(server) == WANT_READ


def test_no_pause_where_the_socket_takes_no_more(base, files):
    _client, server = established(base, files, TLS13, socks=(socks := sockets()))
    server.pause_by(pytest.fail)
    socks[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    bios.append(server.outgoing, bytes(1 << 20))
    assert read(server) == WANT_WRITE


def test_a_greenlet_that_is_collected_in_a_pause_gives_back_its_turn(ends):
    _client, server = ends
    server.pause_by(getcurrent().switch)
    reader = greenlet(lambda: server.step_read(1))
    reader.switch()
    assert server.waiting
    del reader
    gc.collect()
    assert not server.waiting


def test_a_pump_does_not_outlive_its_pause(base, files):
    """The pause of a connection that nobody uses any more refers to it, as a stream's does through its watcher."""
    _client, server = established(base, files, TLS13)
    server.pause_by([server].append)
    gone = weakref.ref(server)
    del server
    gc.collect()
    assert gone() is None
