"""The contract of a pump, held by both: the plain one and the compiled one."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from greentls.errors import TLSError
from greentls.openssl import bios, pump
from greentls.openssl.library import ffi, pointer
from greentls.openssl.pump import (
    BOTH,
    BULKY,
    CLOSED,
    DONE,
    ENDED,
    MAX_UNSENT,
    RECORD_SIZE,
    SPENT,
    TURN,
    UNSENT,
    WANT_READ,
    WANT_WRITE,
)  # fmt: skip
from tests.openssl.fuzz_pump import compare
from tests.openssl.pumps import (
    PUMPS,
    TLS13,
    data_verbs,
    each_version,
    established,
    every_verb,
    in_memory,
    pair,
    read,
    read_all,
    sockets,
    subject,
)  # fmt: skip
from tests.support.fake_sockets import FakeSocket, fakes

# -- data --------------------------------------------------------------------------------------------------------------


@each_version
@pytest.mark.parametrize("size", [1, 100, RECORD_SIZE, RECORD_SIZE + 1, 100_000])
def test_data_comes_as_it_went(base, files, version, size):
    client, server = established(base, files, version)
    data = os.urandom(size)
    assert client.step_write(data) == DONE
    assert read_all(server, size) == data
    assert read(server) == WANT_READ
    held = ffi.from_buffer(data)
    assert server.step_write_from(pointer(held), size) == DONE
    room = bytearray(RECORD_SIZE)
    got = bytearray()
    while len(got) < size:
        with ffi.from_buffer(room) as there:
            length = client.step_read_into(pointer(there), 1000)
        client.budget = TURN
        assert 0 < length <= 1000
        got += room[:length]
    assert got == data


def test_a_read_gives_no_more_than_was_asked_for(ends):
    client, server = ends
    client.step_write(b"0123456789")
    assert [read(server, 4) for _ in range(3)] == [b"0123", b"4567", b"89"]
    with pytest.raises(ValueError, match="0 bytes"):
        server.step_read(0)
    with pytest.raises(ValueError, match="-1 bytes"):
        server.step_read_into(1, -1)


def test_nothing_is_written_of_nothing(ends):
    client, _ = ends
    assert client.step_write(b"") == DONE
    assert client.unsent == 0


@pytest.mark.parametrize("data", [bytearray(b"x"), memoryview(b"x"), "x"], ids=["bytearray", "memoryview", "str"])
def test_only_bytes_are_written_as_they_are(ends, data):
    with pytest.raises(TypeError):
        ends[0].step_write(data)
    assert not ends[0].busy


@each_version
def test_without_a_socket_ciphertext_is_fed_and_taken(base, files, version):
    client, server = in_memory(base, files, version)
    assert server.step_read(10) == WANT_READ
    assert client.step_write(b"in memory") == DONE
    assert client.unsent > 9
    server.feed(bytes(bios.take(client.outgoing)))
    assert server.step_read(100) == b"in memory"
    assert server.step_read(100) == WANT_READ
    server.feed(b"")
    assert server.eof
    assert server.step_read(100) == ENDED


def test_before_the_handshake_nothing_is_read_or_written(base, files):
    """hazard: SSL_write() would do the handshake itself."""
    client, _ = pair(base, files, TLS13)
    for verb in (lambda: client.step_read(1), lambda: client.step_write(b"x"), client.step_shutdown):
        with pytest.raises(TLSError, match="too early"):
            verb()
    assert client.unsent == 0


def test_openssl_is_not_asked_again_before_something_has_come(ends):
    client, server = ends
    assert read(server) == WANT_READ
    before = server.received, server.drained_at
    assert before[0] == before[1]
    client.step_write(b"x")
    assert server.step_read(10) == b"x"
    assert server.received == server.drained_at == before[0] + 1, "a receive that was used up"
    client.step_write(bytes(20))
    assert read(server, 10) == bytes(10)
    assert server.received != server.drained_at, "there is more in OpenSSL"


# -- sending -----------------------------------------------------------------------------------------------------------


def fill(end):
    """Writes until the peer's side takes no more; what was taken."""
    taken = 0
    while True:
        end.budget = TURN
        step = end.step_write(bytes(100_000))
        taken += 100_000 if step in (DONE, UNSENT) else 0
        if step != DONE:
            return taken, step


def test_what_the_socket_does_not_take_goes_first_next_time(ends):
    client, server = ends
    taken, step = fill(client)
    assert step == UNSENT
    assert client.unsent > 0
    assert client.send() == WANT_WRITE
    before = client.unsent
    assert client.step_write(b"later") == WANT_WRITE
    assert client.unsent == before, "it was not taken"
    got = 0
    while client.unsent:
        client.send()
        got += len(read_all(server, 1))
    assert client.step_write(b"later") == DONE
    rest = read_all(server, taken - got + 5)
    assert rest == bytes(taken - got) + b"later"


def test_a_record_is_not_torn_wherever_the_socket_stops(base, files):
    sent = bytearray()

    def send(data):
        some = data[: 1 + len(sent) % 7]
        if flaky[0]:
            flaky[0] = False
            raise BlockingIOError(errno.EAGAIN, "")
        flaky[0] = len(sent) % 5 == 0
        sent.extend(some)
        return len(some)

    flaky = [False]
    client, server = in_memory(base, files, TLS13)
    with fakes() as known:
        client.attach(known(FakeSocket(send=send)))
        data = os.urandom(3000)
        assert client.step_write(data) == UNSENT
        while client.send() == WANT_WRITE:
            pass
        client.budget = TURN
        assert client.unsent == 0
    server.feed(bytes(sent))
    assert read_all(server, 3000) == data


def test_what_is_for_the_peer_goes_with_data(base, files):
    """One segment, where two would be sent; but not behind what the socket has not taken."""
    client, _server = in_memory(base, files, TLS13)
    sent, takes = [], [True]

    def send(data):
        if not takes[0]:
            raise BlockingIOError(errno.EAGAIN, "")
        sent.append(bytes(data))
        return len(data)

    with fakes() as known:
        client.attach(known(FakeSocket(send=send)))
        bios.append(client.outgoing, b"for the peer")
        assert client.step_write(b"x") == DONE
        assert [data.startswith(b"for the peer") for data in sent] == [True]
        takes[0] = False
        assert client.step_write(b"x") == UNSENT
        before = client.unsent
        assert client.step_write(b"x") == WANT_WRITE
        assert client.unsent == before


def test_what_is_for_the_peer_goes_before_a_receive(base, files):
    """hazard: both peers wait for each other."""
    client, _server = pair(base, files, TLS13)
    calls = []
    with fakes() as known:
        client.attach(
            known(FakeSocket(lambda *_: calls.append("receive") or 0, lambda data: calls.append("send") or len(data)))
        )
        assert client.continue_handshake() == ENDED
    assert calls == ["send", "receive"]


def test_a_reader_does_not_wait_for_a_writer_but_for_too_many_answers(ends):
    """attended: a writer waits for the socket. Its reader goes on receiving, until its own answers have piled up."""
    client, server = ends
    fill(server)
    assert server.step_read(1) == WANT_WRITE
    server.attend(True)
    assert read(server) == WANT_READ
    assert client.step_write(b"in spite of it") == DONE
    assert server.step_read(100) == b"in spite of it"
    bios.append(server.outgoing, bytes(MAX_UNSENT))
    assert read(server) == WANT_READ
    bios.append(server.outgoing, b"and one more")
    assert read(server) == WANT_WRITE


def test_a_server_whose_peer_has_gone_reads_what_it_said(base, files):
    client, server = established(base, files, TLS13, socks=(socks := sockets()))
    client.step_write(b"the last words")
    lib_key_update(server)
    socks[0].close()
    assert server.unsent > 0
    assert read(server) == b"the last words"
    assert server.unsent == 0
    assert read(server) == ENDED


def lib_key_update(end):
    """Something of OpenSSL's for the peer, which no data is."""
    bios.append(end.outgoing, b"\x17\x03\x03\x00\x01x")


def test_a_client_is_told_that_its_peer_has_gone(base, files):
    client, _server = established(base, files, TLS13, socks=(socks := sockets()))
    lib_key_update(client)
    socks[1].close()
    with pytest.raises(BrokenPipeError):
        client.send_or_forget()
    with pytest.raises(BrokenPipeError):
        read(client)


def test_a_reset_connection_is_an_error(base, files):
    socks = sockets(tcp=True)
    _client, server = established(base, files, TLS13, socks=socks)
    socks[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socks[0].close()
    with pytest.raises(ConnectionResetError):
        read(server)
    assert not server.busy


@pytest.mark.parametrize("what", ["recv_into", "send"])
def test_a_signal_between_is_no_error(compiled_ones, files, what):
    """EINTR. Python's own sockets hide it."""
    for base in compiled_ones:
        is_not_interrupted(base, files, what)


def is_not_interrupted(base, files, what):
    _client, server = in_memory(base, files, TLS13)
    times = [3]

    def interrupted(*arguments):
        if times[0]:
            times[0] -= 1
            raise InterruptedError(errno.EINTR, "")
        if what == "send":
            return len(arguments[0])
        raise BlockingIOError(errno.EAGAIN, "")

    with fakes() as known:
        server.attach(known(FakeSocket(**{what: interrupted})))
        assert server.step_write(b"x") == DONE
        assert server.step_read(1) == WANT_READ
    assert times == [0]


def test_of_a_socket_that_lies_nothing_is_believed(compiled_ones, files):
    """More sent than there was, more received than there is room for: C would read and write where it must not."""
    for base in compiled_ones:
        is_not_believed(base, files)


def is_not_believed(base, files):
    _client, server = in_memory(base, files, TLS13)
    with fakes() as known:
        server.attach(known(FakeSocket(lambda *_: 1 << 20, lambda data: len(data) + 1)))
        with pytest.raises(SystemError):
            server.step_write(b"x")
        with pytest.raises(SystemError):
            server.receive()


# -- the ends ----------------------------------------------------------------------------------------------------------


@each_version
def test_close_notify_both_ways(base, files, version):
    client, server = established(base, files, version)
    assert client.step_shutdown() == DONE
    assert client.send() == DONE
    assert read(server) == CLOSED
    assert server.step_shutdown() == BOTH
    assert server.send() == DONE
    assert client.refill() == DONE
    assert client.step_shutdown() in (BOTH, CLOSED)
    assert read(client) == CLOSED


def test_an_end_without_close_notify_is_none(base, files):
    client, server = established(base, files, TLS13, socks=(socks := sockets()))
    client.step_write(b"x")
    client.detach()
    socks[0].close()
    assert read(server) == b"x"
    assert read(server) == ENDED


def test_the_end_in_the_handshake(base, files):
    _client, server = pair(base, files, TLS13, socks := sockets())
    socks[0].close()
    assert server.continue_handshake() == ENDED


def test_a_detached_socket_is_as_a_closed_one(ends):
    """hazard: the descriptor's number belongs to another connection by now."""
    client, server = ends
    server.detach()
    reading, writing = (verb for verb, _ in data_verbs(server))
    for verb in (reading, server.refill, server.receive, writing, server.send):
        with pytest.raises(OSError) as raised:
            verb()
        assert raised.value.errno == errno.EBADF
    assert read(client) == WANT_READ, "nothing has come through"


def test_a_fatal_alert_kills(ends):
    client, server = ends
    bios.append(client.outgoing, b"\x17\x03\x03\x00\x20" + bytes(32))
    client.send()
    with pytest.raises(TLSError, match=r"record layer failure|bad record mac"):
        read(server)
    assert server.dead
    with pytest.raises(TLSError, match="it failed"):
        server.step_read(1)
    assert server.unsent > 0, "the alert"
    server.send()
    with pytest.raises(TLSError, match="alert"):
        read(client)


# -- bounds ------------------------------------------------------------------------------------------------------------


@each_version
@pytest.mark.parametrize("size", [1, RECORD_SIZE])
def test_reads_are_bounded(base, files, version, size):
    """hazard: as long as a peer is faster, nobody else of the hub's has a turn."""
    client, server = in_memory(base, files, version)
    said = bytearray()
    for _ in range(200):
        client.step_write(bytes(size))
    said += bios.take(client.outgoing)

    def recv_into(buffer, size=0):
        size = size or len(buffer)
        data = said[:size]
        del said[:size]
        buffer[: len(data)] = data
        return len(data)

    with fakes() as known:
        server.attach(known(FakeSocket(recv_into)))
        reads, turns = 0, []
        while reads < 200:
            got = server.step_read(RECORD_SIZE)
            if got in (SPENT, WANT_READ):
                turns.append(reads)
                server.budget = TURN
            else:
                assert len(got) == size
                reads += 1
    assert turns
    assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) <= TURN


def test_receives_that_lead_to_nothing_are_bounded(base, files):
    """hazard: a record that never ends, byte by byte."""
    client, server = in_memory(base, files, TLS13)
    client.step_write(bytes(RECORD_SIZE))
    record = bytes(bios.take(client.outgoing))
    calls = []

    def recv_into(buffer, size=0):
        buffer[:1] = record[len(calls) : len(calls) + 1]
        calls.append(1)
        return 1

    with fakes() as known:
        server.attach(known(FakeSocket(recv_into)))
        server.look(True)
        assert server.step_read(1) == WANT_READ
        assert 1 < len(calls) <= TURN


def test_writes_are_bounded(base, files):
    client, _ = in_memory(base, files, TLS13)
    with fakes() as known:
        client.attach(known(FakeSocket()))
        steps = [client.step_write(bytes(131072)) for _ in range(TURN)]
    assert steps.count(DONE) <= TURN // 8
    assert steps[-1] == SPENT


def test_who_has_no_socket_has_no_bounds(base, files):
    client, server = in_memory(base, files, TLS13)
    for _ in range(2 * TURN):
        client.step_write(b"x")
        server.feed(bytes(bios.take(client.outgoing)))
        assert server.step_read(10) == b"x"


def test_a_receive_that_got_less_is_not_followed_by_another(ends):
    """To look at a socket that was emptied costs more than a wait that ends at once."""
    client, server = ends
    client.step_write(b"x")
    assert read(server) == b"x"
    client.step_write(b"y")
    assert server.step_read(1) == WANT_READ, "it has not looked"
    assert server.step_read(1) == b"y"
    server.look(True)
    client.step_write(b"z")
    assert server.step_read(1) == b"z"
    assert server.step_read(1) == WANT_READ


@each_version
def test_whole_records_leave_the_next_one_in_the_kernel(base, files, version):
    """What stands behind a close_notify is no ciphertext."""
    client, server = established(base, files, version, socks=(socks := sockets()))
    server.attach(socks[1], True)
    for data in (b"one", bytes(RECORD_SIZE), b"three"):
        client.step_write(data)
    client.step_shutdown()
    client.send()
    socks[0].send(b"in clear")
    assert read_all(server, 3 + RECORD_SIZE + 5) == b"one" + bytes(RECORD_SIZE) + b"three"
    assert read(server) == CLOSED
    assert socks[1].recv(100) == b"in clear"


def test_whole_records_know_what_was_fed(base, files):
    client, server = established(base, files, TLS13, socks=(socks := sockets()))
    server.attach(socks[1], True)
    client.step_write(b"one")
    client.step_write(b"two")
    records = socks[1].recv(1000)
    server.feed(records[:7])
    socks[0].send(records[7:] + b"in clear")
    assert read_all(server, 6) == b"onetwo"
    assert socks[1].recv(100) == b"in clear"


def test_what_has_grown_is_told(ends):
    client, server = ends
    assert not (client.bulky and server.bulky)
    client.bulky = server.bulky = False
    client.step_write(b"x")
    read(server)
    assert not (client.bulky or server.bulky)
    client.step_write(bytes(2 * BULKY))
    read(server)
    assert client.bulky
    assert server.bulky


# -- the compiled one alone --------------------------------------------------------------------------------------------


def test_one_that_was_never_made_does_nothing(base):
    """hazard: C follows pointers that nobody has set."""
    kind = subject(base)
    raw = kind.__new__(kind)
    raw.established = raw.writable = True
    verbs = [raw.send, raw.refill, raw.receive, lambda: raw.feed(b"x")]
    for verb in verbs + [verb for verb, _ in every_verb(raw)]:
        try:
            assert verb() == WANT_READ
        except (RuntimeError, AttributeError):
            pass


def test_both_have_the_same_names():
    """A verb of one that the other has not is a difference that nobody sees before it matters."""
    plain = {each for each in vars(pump.PlainPump) if not each.startswith("_")}
    for base in PUMPS.values():
        there = {each for each in vars(base) if not each.startswith("_")}
        asked = {"refusal", "failed", "not_now", "tell_those_who_wait", "tell_the_next"}
        assert (there | asked) - plain <= {"ssl", "incoming", "outgoing", "server_side", "drained_at", "entrant"}
        assert plain - there <= asked


def test_the_numbers_are_the_same():
    """Of _pump.c, which no header of Python's can give them to."""
    source = (pump.__file__).replace("pump.py", "_pump.c")
    with open(source) as file:
        text = file.read()
    for name in ("DONE", "WANT_READ", "CLOSED", "WANT_WRITE", "ENDED", "SPENT", "UNSENT", "RECORD_SIZE"):
        assert f" {name} = {getattr(pump, name)}" in text
    assert f"MAX_UNSENT = {MAX_UNSENT}," in text
    assert f"TURN = {TURN}," in text
    assert f"#define CONTRACT {pump.CONTRACT} " in text
    order = [text.index(f"(*{name})(") for name in pump.FUNCTIONS]
    assert order == sorted(order)


def test_both_come_to_the_same_whatever_happens(files):
    """Games with a wire that does as it likes: see fuzz_pump."""
    for seed in range(200):
        compare(files, seed)
