"""The pump: two streams over a socketpair, in greenlets."""

from __future__ import annotations

import _socket
import random
import socket

import gevent
import pytest
from gevent.event import Event
from gevent.exceptions import InvalidSwitchError
from greenlet import GreenletExit

from greentls import stream as stream_module
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import ConcurrentUseError, ConnectionDead, TLSError, UnexpectedEOF, WouldBlock, WrongThreadError
from greentls.hub import PerHub
from greentls.hub.rounds import Rounds
from greentls.openssl import bios as ssl_bios
from greentls.openssl.pump import BULKY, RECEIVE_SIZE
from greentls.stream import TLSStream
from greentls.wire.registry import ContentType
from tests.support.fake_sockets import fakes
from tests.support.helpers import PATIENCE, allocated
from tests.support.hubs import wait_for
from tests.support.pairs import (
    VERSIONS,
    Sessions,
    attempt,
    both_versions,
    client,
    client_context,
    raw_pair,
    server_context,
)
from tests.support.sealer import hostile, key_update_message


@pytest.fixture
def streams(pki):
    """streams(version, hooks...) makes a client's and a server's stream, connected, without a handshake."""
    made = []

    def make(version=0, hooks=None, timeout=PATIENCE, session=None, **settings):
        here, there = raw_pair()
        connections = (
            client(client_context(pki, version), session),
            Connection(server_context(pki, version, hooks=hooks or Hooks(), **settings)),
        )
        pair = [TLSStream(sock, each, timeout) for sock, each in zip((here, there), connections, strict=True)]
        made.extend(pair)
        return pair

    yield make
    for stream in made:
        stream.close()


def both(*functions):
    """Runs each in a greenlet; gives what they return, raises what one of them raises."""
    jobs = [gevent.spawn(function) for function in functions]
    gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
    assert all(job.ready() for job in jobs), "a greenlet hangs"
    return [job.value for job in jobs]


def connect(pair):
    both(*(stream.do_handshake for stream in pair))
    return pair


def outcome(function, *arguments):
    """What it raises, or what it returns."""
    try:
        return function(*arguments)
    except BaseException as error:
        return error


def read_exactly(stream, length):
    data = bytearray()
    while len(data) < length:
        chunk = stream.read(length - len(data))
        assert chunk, f"the end after {len(data)} of {length} bytes"
        data += chunk
    return bytes(data)


@both_versions
class TestReadingAndWriting:
    @pytest.mark.parametrize("size", [1, 16384, 16385, 1_000_000])
    def test_what_is_written_is_read(self, streams, version, size):
        here, there = connect(streams(version))
        data = random.Random(size).randbytes(size)
        assert both(lambda: here.write(data), lambda: read_exactly(there, size))[1] == data
        assert both(lambda: there.write(memoryview(data)), lambda: read_exactly(here, size))[1] == data
        assert both(lambda: here.write(bytearray(data)), lambda: read_exactly(there, size))[1] == data

    def test_a_read_into_a_buffer(self, streams, version):
        here, there = connect(streams(version))
        here.write(b"some words")
        buffer = bytearray(100)
        assert there.read_into(memoryview(buffer)[10:14]) == 4
        assert there.read_into(buffer) == 6
        assert buffer[:14] == b" words\0\0\0\0some"

    def test_what_has_come_is_read_without_waiting_after_a_read_that_waited(self, streams, version):
        """A pool of connections looks so for those that the peer has closed."""
        here, there = connect(streams(version, timeout=None))
        here.write(b"one")
        assert there.read(10) == b"one"
        here.write(b"two")
        there.timeout = 0.0
        assert there.read(10) == b"two"
        there.timeout = None
        here.write(b"three")
        assert there.read(10) == b"three"
        here.close()
        there.timeout = 0.0
        assert there.read(10) == b""

    def test_writing_nothing_sends_nothing(self, streams, version):
        here, there = connect(streams(version))
        here.write(b"")
        here.write(b"x")
        assert there.read(10) == b"x"

    def test_full_duplex_with_one_reader_and_one_writer_on_each_side(self, streams, version):
        """hazard: a writer that is blocked keeps its own side from reading: both ends wait for ever."""
        here, there = connect(streams(version))
        size = 8_000_000  # far beyond what the sockets hold
        data = [random.Random(side).randbytes(size) for side in range(2)]
        answers = both(
            lambda: here.write(data[0]),
            lambda: there.write(data[1]),
            lambda: read_exactly(there, size),
            lambda: read_exactly(here, size),
        )
        assert answers[2:] == data

    def test_records_of_several_writers_are_whole(self, streams, version):
        here, there = connect(streams(version))
        lines = [bytes([65 + number]) * 9_999 + b"\n" for number in range(20)]
        *_, got = both(*(lambda line=line: here.write(line) for line in lines), lambda: read_exactly(there, 200_000))
        assert sorted(got.splitlines(True)) == lines

    def test_several_readers_share_what_comes(self, streams, version):
        here, there = connect(streams(version))
        jobs = [gevent.spawn(there.read, 1) for _ in range(5)]
        gevent.sleep(0)
        here.write(b"abcde")
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
        assert sorted(job.value for job in jobs) == [b"a", b"b", b"c", b"d", b"e"]


@both_versions
class TestTheEnd:
    def test_a_client_that_leaves_before_its_ticket_comes_is_heard(self, streams, version):
        """OpenSSL, over a socket of its own, takes EPIPE for a ticket as if it had been sent."""
        here, there = streams(version)

        def say_and_leave():
            here.do_handshake()
            here.write(b"no answer needed")
            here.close()

        def listen():
            there.do_handshake()
            return read_exactly(there, 16)

        assert both(say_and_leave, listen)[1] == b"no answer needed"

    def test_close_notify_is_the_end(self, streams, version):
        here, there = connect(streams(version))
        here.write(b"last words")
        here.close()
        assert there.read(100) == b"last words"
        assert there.read(100) == b""
        assert there.read(100) == b""

    def test_an_end_without_it_is_an_error(self, streams, version):
        here, there = connect(streams(version))
        here._socket.close()
        with pytest.raises((UnexpectedEOF, ConnectionError)):
            there.read(100)

    def test_during_the_handshake_too(self, streams, version):
        here, there = streams(version)
        here._socket.close()
        with pytest.raises((UnexpectedEOF, ConnectionError)):
            there.do_handshake()

    def test_half_close(self, streams, version):
        here, there = connect(streams(version))
        here.close_notify()
        assert there.read(100) == b""
        there.write(b"the answer comes after the question's end")
        assert here.read(100) == b"the answer comes after the question's end"

    def test_shutdown_both_ways(self, streams, version):
        here, there = connect(streams(version))
        both(here.shutdown, there.shutdown)
        assert here.connection.closed_by_peer
        assert there.connection.closed_by_peer

    def test_shutdown_does_not_pass_over_data(self, streams, version):
        here, there = connect(streams(version))
        here.write(b"not read by anybody")
        with pytest.raises(TLSError, match="application data after close notify"):
            there.shutdown()

    def test_shutdown_does_not_take_a_missing_close_notify_for_one(self, streams, version):
        here, there = connect(streams(version))
        here._socket.shutdown(socket.SHUT_WR)
        with pytest.raises(UnexpectedEOF):
            there.shutdown()

    def test_closing_wakes_who_waits(self, streams, version):
        """hazard: libev polls a descriptor that is closed, and then somebody else's."""
        here, _ = connect(streams(version))
        job = gevent.spawn(outcome, here.read, 10)
        gevent.sleep(0)
        here.close()
        job.join(PATIENCE)
        assert isinstance(job.value, OSError)
        assert isinstance(outcome(here.read, 10), OSError)
        here.close()

    def test_detach_gives_the_descriptor_away(self, streams, version):
        here, there = connect(streams(version))
        both(here.shutdown, there.shutdown)
        with socket.socket(fileno=here.detach()) as mine, socket.socket(fileno=there.detach()) as yours:
            mine.sendall(b"in clear")
            assert yours.recv(100) == b"in clear"
        assert here.detach() == -1


@both_versions
class TestBeingIdle:
    def test_who_waits_to_read_holds_no_buffer(self, streams, version):
        """hazard: each of ten thousand connections that were busy once holds 16 KiB while it is not."""
        pairs = [connect(streams(version)) for _ in range(20)]
        before = allocated()
        jobs = [gevent.spawn(there.read, 65536) for _, there in pairs]
        gevent.sleep(0)
        assert (allocated() - before) / len(pairs) < 8192  # a greenlet and its stack
        for number, (here, _) in enumerate(pairs):
            here.write(b"%d" % number)
        assert [job.get(timeout=PATIENCE) for job in jobs] == [b"%d" % number for number in range(len(pairs))]

    def test_who_is_woken_by_mistake_waits_on(self, streams, version):
        """hazard: a switch by somebody else, with any value, is taken for the socket's."""
        here, there = connect(streams(version, timeout=None))
        job = gevent.spawn(there.read, 100)
        gevent.sleep(0)
        for value in (None, b"not from the socket", 7):
            gevent.get_hub().loop.run_callback(job.switch, value)
            gevent.sleep(0)
        assert not job.ready()
        here.write(b"from the socket")
        assert job.get(timeout=PATIENCE) == b"from the socket"

    @pytest.mark.parametrize("many", [1, 5000], ids=["few", "many"])
    def test_who_waits_to_read_has_given_its_bios_back(self, streams, version, many, monkeypatch):
        """hazard: a BIO keeps the size of the most that it ever held: a flight of certificates, a record of data."""
        given_back = []
        shrink = ssl_bios.shrink
        monkeypatch.setattr(stream_module, "_resting", resting(0.001))
        monkeypatch.setattr(ssl_bios, "shrink", lambda *bios: given_back.append(bios) or shrink(*bios))
        here, there = connect(streams(version))
        bios = there.connection.incoming, there.connection.outgoing
        for times in (1, 2):
            job = gevent.spawn(read_exactly, there, many)
            wanted = times if many > BULKY else 1
            wait_for(lambda wanted=wanted: given_back.count(bios) >= wanted, "the BIOs to shrink")
            here.write(bytes(many))
            assert job.get(timeout=PATIENCE) == bytes(many)

    def test_who_waits_for_a_moment_keeps_its_bios(self, streams, version, monkeypatch):
        given_back = []
        monkeypatch.setattr(stream_module, "_resting", resting(PATIENCE))
        here, there = connect(streams(version))  # where the plain pump gives back what the flights took
        monkeypatch.setattr(ssl_bios, "shrink", lambda *bios: given_back.append(bios))
        for _ in range(3):
            job = gevent.spawn(read_exactly, there, 5000)
            gevent.idle()
            here.write(bytes(5000))
            assert job.get(timeout=PATIENCE) == bytes(5000)
        assert not given_back


def resting(seconds):
    return PerHub(lambda: Rounds(TLSStream.gives_back, seconds))


def test_tickets_go_before_a_server_waits_for_data(streams):
    """hazard: a client that wants its ticket before it says anything."""
    here, there = connect(streams(VERSIONS["1.3"]))
    reader = gevent.spawn(there.read, 1)
    asking = gevent.spawn(here.read, 1)
    wait_for(lambda: here.connection.session.resumable, "the tickets")
    there.write(b"x")
    here.write(b"y")
    assert (asking.get(timeout=PATIENCE), reader.get(timeout=PATIENCE)) == (b"x", b"y")


def test_a_server_that_does_not_wait_sends_its_tickets_at_once(streams):
    """Its caller waits elsewhere, and may wait for the client to say something first."""
    here, there = streams(VERSIONS["1.3"])
    there.timeout = 0.0
    client = gevent.spawn(here.do_handshake)
    while True:
        try:
            there.do_handshake()
            break
        except WouldBlock:
            gevent.sleep(0)
    client.get(timeout=PATIENCE)
    assert not there.connection.unsent


@both_versions
class TestTimeoutsAndKills:
    def test_a_read_that_times_out_can_be_repeated(self, streams, version):
        here, there = connect(streams(version))
        there.timeout = 0.01
        with pytest.raises(TimeoutError, match="The read operation timed out"):
            there.read(10)
        here.write(b"late")
        assert there.read(10) == b"late"

    def test_a_handshake_that_times_out_can_go_on(self, streams, version):
        here, there = streams(version)
        there.timeout = 0.01
        with pytest.raises(TimeoutError):
            there.do_handshake()
        there.timeout = PATIENCE
        connect([here, there])

    def test_a_write_that_times_out_tears_no_record(self, streams, version):
        """hazard: half a record is on the wire, and the next write begins a new one."""
        here, there = connect(streams(version))
        here.timeout = 0.01
        with pytest.raises(TimeoutError, match="The write operation timed out"):
            here.write(bytes(5_000_000))
        here.timeout = PATIENCE

        def drain():
            data = b""
            while not data.endswith(b"end"):
                data = there.read(16384)
            return data

        assert both(lambda: here.write(b"end"), drain)[1].endswith(b"end")

    def test_a_writer_that_is_killed_tears_no_record(self, streams, version):
        here, there = connect(streams(version))
        writer = gevent.spawn(here.write, bytes(5_000_000))
        gevent.sleep(0.01)
        writer.kill(timeout=PATIENCE)

        def drain():
            data = b""
            while not data.endswith(b"end"):
                data = there.read(16384)
            return data

        assert both(lambda: here.write(b"end"), drain)[1].endswith(b"end")

    def test_a_reader_that_is_killed_leaves_the_next_one_its_turn(self, streams, version):
        here, there = connect(streams(version))
        readers = [gevent.spawn(there.read, 10) for _ in range(2)]
        gevent.sleep(0)
        readers[0].kill(timeout=PATIENCE)
        here.write(b"for the other")
        readers[1].join(PATIENCE)
        assert readers[1].value == b"for the ot"

    def test_a_greenlet_killed_anywhere_in_a_handshake_ends_it(self, streams, version):
        for turns in range(6):
            here, there = streams(version)
            jobs = [gevent.spawn(outcome, stream.do_handshake) for stream in (here, there)]
            for _ in range(turns):
                gevent.sleep(0)
            jobs[1].kill(timeout=PATIENCE)
            there.close()
            gevent.joinall(jobs, timeout=PATIENCE)
            assert jobs[0].ready()
            assert jobs[0].value is None or isinstance(jobs[0].value, TLSError | OSError)


@both_versions
class TestHooks:
    @pytest.mark.parametrize("kind", [KeyError, InvalidSwitchError, ConcurrentUseError, WouldBlock, GreenletExit])
    def test_what_a_hook_raises_comes_out_and_the_peer_gets_an_alert(self, streams, version, kind):
        """Also what the stream itself takes for a reason to look once more, when it is not a hook's."""
        failure = kind("no such name")

        def fail(connection, name):
            raise failure

        here, there = streams(version, Hooks(servername=fail))
        answers = both(lambda: outcome(here.do_handshake), lambda: outcome(there.do_handshake))
        assert answers[1] is failure
        assert isinstance(answers[0], TLSError)
        assert "alert" in str(answers[0])
        assert isinstance(outcome(there.do_handshake), ConnectionDead)

    def test_the_ticket_is_on_the_wire_while_the_new_session_hook_waits(self, streams, version):
        """hazard: the store delays the peer. Held by the stream for a hook that waits, too."""
        stored = Event()
        sessions = Sessions()
        entered = Event()

        def wait(connection, session):
            entered.set()
            stored.wait()
            sessions.new(connection, session)

        here, there = streams(version, sessions.hooks(new_session=wait))
        server = gevent.spawn(there.do_handshake)
        job = gevent.spawn(here.do_handshake)
        if version == VERSIONS["1.2"]:  # its callback comes before the last flight is built: SessionCache only queues
            assert entered.wait(PATIENCE)
        else:
            job.join(PATIENCE)
            assert job.successful(), "the client's handshake waits for the server's store"
        stored.set()
        gevent.joinall([server, job], timeout=PATIENCE, raise_error=True)

    def test_another_greenlet_waits_while_a_hook_waits(self, streams, version):
        """fact 3.2: a second entry into an SSL* suspended in a callback is plaintext on the wire, or a crash."""
        asked, answer = Event(), Event()

        def wait(connection, name):
            asked.set()
            answer.wait()

        here, there = streams(version, Hooks(servername=wait))
        jobs = [gevent.spawn(stream.do_handshake) for stream in (here, there)]
        assert asked.wait(PATIENCE)
        second = gevent.spawn(outcome, there.do_handshake)
        gevent.sleep(0.01)
        assert not second.ready()
        answer.set()
        gevent.joinall([*jobs, second], timeout=PATIENCE, raise_error=True)
        assert second.successful() and second.value is None

    def test_it_gives_up_after_its_timeout(self, streams, version):
        asked, answer = Event(), Event()

        def wait(connection, name):
            asked.set()
            answer.wait()

        here, there = streams(version, Hooks(servername=wait))
        jobs = [gevent.spawn(stream.do_handshake) for stream in (here, there)]
        assert asked.wait(PATIENCE)
        there.timeout = 0.01
        assert isinstance(outcome(there.read, 1), TimeoutError)
        there.timeout = PATIENCE
        answer.set()
        gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)

    def test_closing_while_a_hook_waits(self, streams, version):
        asked = Event()
        here, there = streams(version, Hooks(servername=lambda *_: asked.set() or gevent.sleep(PATIENCE)))
        jobs = [gevent.spawn(outcome, stream.do_handshake) for stream in (here, there)]
        assert asked.wait(PATIENCE)
        there.close()
        jobs[1].kill(timeout=PATIENCE)
        jobs[0].join(PATIENCE)
        assert isinstance(jobs[0].value, TLSError | OSError)


def test_a_write_waits_for_the_rest_of_a_message_that_a_read_has_met(pki):
    """hazard: SSL_write() wants to read then, which was taken for a failure."""
    victim, peer, sealer = hostile(pki, VERSIONS["1.3"], server_side=True)
    raw, there = raw_pair()
    stream = TLSStream(raw, victim, PATIENCE)
    message = key_update_message()
    there.send(sealer.record(ContentType.handshake, message[:4]))
    reader = gevent.spawn(stream.read, 100)
    gevent.sleep(0)
    assert not victim.unread
    writer = gevent.spawn(stream.write, b"some data")
    gevent.sleep(0)
    assert not writer.ready()
    there.send(sealer.record(ContentType.handshake, message[4:]))
    writer.get(timeout=PATIENCE)
    there.setblocking(True)
    while not (data := attempt(peer.read)):
        peer.receive_data(there.recv(65536))
    assert data == b"some data"
    reader.kill()
    there.close()
    stream.close()


def test_the_hub_must_not_wait(streams):
    """fact 6.7: a switch in the hub is an endless loop or a crash."""
    here, _ = streams()
    said = []
    gevent.get_hub().loop.run_callback(lambda: said.append(outcome(here.do_handshake)))
    gevent.sleep(0.01)
    assert isinstance(said[0], WrongThreadError)
    assert "hub" in str(said[0])


def test_one_flight_is_one_send(streams, monkeypatch):
    """A TLS 1.3 server's whole first flight is one piece, and so are its tickets with its first data."""
    here, there = streams(VERSIONS["1.3"])
    sends = []

    class Counting(_socket.socket):
        def send(self, data, flags=0):
            sends.append(len(data))
            return super().send(data)

    sock = there._socket
    there._socket = Counting(sock.family, sock.type, sock.proto, fileno=sock.detach())
    there._socket.setblocking(False)
    with fakes() as known:
        there.connection.attach(known(there._socket))
        connect([here, there])
        assert len(sends) == 1, "ServerHello .. Finished"
        there.write(b"x")
        assert here.read(10) == b"x"
        assert here.connection.session.resumable
    assert len(sends) == 2
    assert RECEIVE_SIZE >= 4 * 16384
