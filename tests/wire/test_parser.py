from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentls.errors import WireError
from greentls.wire.handshake import MAX_HANDSHAKE_MESSAGE, MAX_HELLO_BYTES
from greentls.wire.hello import ClientHello, ServerHello
from greentls.wire.messages import Alert, Certificate
from greentls.wire.not_tls import NotTLS
from greentls.wire.parser import _EVENTS, Parser
from tests.support.wire_helpers import (
    CHANGE_CIPHER_SPEC,
    byte_by_byte,
    client_hello,
    cut,
    extension,
    message,
    proper_prefixes,
    record,
    records,
    server_hello,
    sizes,
    u24,
)
from tests.wire.samples import SAMPLES

CLIENT = client_hello(extension(0x1A1A, b"x" * 100), session_id=b"s" * 32)
SERVER = server_hello(session_id=b"s" * 32)
CERTIFICATE = message(11, u24(7), u24(4), b"leaf")
DONE = message(14)
FINISHED = bytes(8) + b"encrypted Finished"
RANDOM_DATA = bytes(range(256)) * 4

PIECES = {"on_handshake_body", "on_encrypted", "on_application_data"}  # may come in several


class Recorder:
    """A Parser's events, as a list; what comes in pieces is joined."""

    def __init__(self, *events):
        self.events = []
        self.parser = Parser(**{event: self._handler(event) for event in events or _EVENTS})

    def _handler(self, event):
        def handler(*args):
            last = self.events[-1] if self.events else ("",)
            if event in PIECES and last[:-1] == (event, *args[:-1]):
                self.events[-1] = (*last[:-1], last[-1] + args[-1])
            else:
                self.events.append((event, *args))

        return handler


def run(*pieces, events=()):
    recorder = Recorder(*events)
    for piece in pieces:
        assert recorder.parser.feed(piece) == len(piece)
    return recorder.events


def whole(encoded, parsed_event=None, parsed=None):
    """The events of one message."""
    body = [("on_handshake_body", encoded[4:])] if encoded[4:] else []
    own = [(parsed_event, parsed)] if parsed_event else []
    return [("on_handshake_begin", encoded[0], len(encoded) - 4), *body, *own, ("on_handshake_end", encoded[0])]


HELLO_EVENTS = whole(CLIENT, "on_client_hello", ClientHello.parse(CLIENT))
SERVER_EVENTS = whole(SERVER, "on_server_hello", ServerHello.parse(SERVER))
CCS_EVENTS = [("on_change_cipher_spec",), ("on_record", 20, 0x0301, b"\1")]

STREAMS = {
    "hello": (record(CLIENT), [*HELLO_EVENTS, ("on_record", 22, 0x0301, CLIENT)]),
    "a server's flight in one record": (
        record(SERVER + CERTIFICATE + DONE, version=0x0303),
        [
            *SERVER_EVENTS,
            *whole(CERTIFICATE, "on_certificate", Certificate((b"leaf",))),
            *whole(DONE),
            ("on_record", 22, 0x0303, SERVER + CERTIFICATE + DONE),
        ],
    ),
    "alerts and data": (
        record(CLIENT) + record(b"\1\0", 21) + record(b"data", 23) + record(b"", 23) + record(b"beat", 24),
        [
            *HELLO_EVENTS,
            ("on_record", 22, 0x0301, CLIENT),
            ("on_alert", Alert(1, 0)),
            ("on_record", 21, 0x0301, b"\1\0"),
            ("on_application_data", b"data"),
            ("on_record", 23, 0x0301, b"data"),
            ("on_record", 23, 0x0301, b""),
            ("on_record", 24, 0x0301, b"beat"),
        ],
    ),
    "a session resumed with TLS 1.2": (
        record(CLIENT) + CHANGE_CIPHER_SPEC + record(FINISHED) + record(RANDOM_DATA, 23) + record(b"sealed alert", 21),
        [
            *HELLO_EVENTS,
            ("on_record", 22, 0x0301, CLIENT),
            *CCS_EVENTS,
            ("on_encrypted", 22, FINISHED),
            ("on_record", 22, 0x0301, FINISHED),
            ("on_application_data", RANDOM_DATA),
            ("on_record", 23, 0x0301, RANDOM_DATA),
            ("on_encrypted", 21, b"sealed alert"),
            ("on_record", 21, 0x0301, b"sealed alert"),
        ],
    ),
    "a short ciphertext": (
        record(CLIENT) + CHANGE_CIPHER_SPEC + record(b"\1\0"),
        [
            *HELLO_EVENTS,
            ("on_record", 22, 0x0301, CLIENT),
            *CCS_EVENTS,
            ("on_encrypted", 22, b"\1\0"),
            ("on_record", 22, 0x0301, b"\1\0"),
        ],
    ),
    "TLS 1.3 after a HelloRetryRequest": (
        record(SERVER) + CHANGE_CIPHER_SPEC + record(SERVER) + record(RANDOM_DATA, 23) + record(b"\2\x32", 21),
        [
            *SERVER_EVENTS,
            ("on_record", 22, 0x0301, SERVER),
            *CCS_EVENTS,
            *SERVER_EVENTS,
            ("on_record", 22, 0x0301, SERVER),
            ("on_application_data", RANDOM_DATA),
            ("on_record", 23, 0x0301, RANDOM_DATA),
            ("on_alert", Alert(2, 50)),
            ("on_record", 21, 0x0301, b"\2\x32"),
        ],
    ),
}


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_stream(stream, events):
    assert run(stream) == events
    assert run(*byte_by_byte(stream)) == events
    assert run(bytearray(stream)) == run(memoryview(stream)) == events


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_trailing_bytes(stream, events):
    recorder = Recorder()
    with pytest.raises(WireError, match=r"^type: unknown 0,") as caught:
        recorder.parser.feed(stream + bytes(5))
    assert recorder.events == events
    for again in (lambda: recorder.parser.feed(b"\x16"), recorder.parser.eof):
        with pytest.raises(WireError) as second:
            again()
        assert second.value is caught.value


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_every_proper_prefix(stream, events):
    """Gives the first of the events, perhaps with a piece of the next; and eof() knows whether it is the end."""
    ends = {0}
    at = 0
    while at < len(stream):
        at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        ends.add(at)
    for prefix in proper_prefixes(stream):
        recorder = Recorder()
        assert recorder.parser.feed(prefix) == len(prefix)
        found = recorder.events
        if found and found[-1][0] in PIECES:
            *found, piece = found
            assert events[len(found)][:-1] == piece[:-1]
            assert events[len(found)][-1].startswith(piece[-1])
        assert found == events[: len(found)]
        if len(prefix) in ends:
            recorder.parser.eof()
        else:
            with pytest.raises(WireError, match=r"^TLSPlaintext: the stream ends inside it,"):
                recorder.parser.eof()


@given(st.sampled_from(sorted(STREAMS)), sizes)
def test_stream_cut_anywhere(which, pieces):
    stream, events = STREAMS[which]
    assert run(*cut(stream, pieces)) == events


@given(st.integers(1, 200))
def test_messages_split_over_records(size):
    stream = records(SERVER + CERTIFICATE + DONE, size)
    expected = STREAMS["a server's flight in one record"][1][:-1]
    assert run(stream, events=_EVENTS - {"on_record"}) == expected


@pytest.mark.parametrize(("encoded", "parsed"), SAMPLES)
def test_each_message_has_an_event(encoded, parsed):
    event = "on_" + "".join("_" * c.isupper() + c.lower() for c in type(parsed).__name__).lstrip("_")
    assert run(record(encoded), events=[event]) == [(event, parsed)]


def test_eof_inside_of_a_message():
    parser = Parser()
    parser.feed(record(CLIENT[:20]))
    with pytest.raises(WireError, match=r"^Handshake: the stream ends inside it, the rest of it expected$"):
        parser.eof()


# Handlers -----------------------------------------------------------------------------------------------------------


def test_handlers_are_methods_or_arguments():
    class Names(Parser):
        def __init__(self):
            super().__init__(on_alert=lambda alert: self.seen.append(alert))
            self.seen = []

        def on_client_hello(self, hello):
            self.seen.append(hello.legacy_session_id)

    parser = Names()
    parser.feed(record(CLIENT) + record(b"\1\0", 21))
    assert parser.seen == [b"s" * 32, Alert(1, 0)]


def test_an_unknown_event_is_refused():
    with pytest.raises(TypeError, match=r"^Parser has no event 'on_hello'$"):
        Parser(on_hello=print)


def test_without_handlers_nothing_is_said():
    for stream, _ in STREAMS.values():
        assert Parser().feed(stream) == len(stream)


def test_what_a_handler_raises_leaves_feed_as_itself():
    def refuse(hello):
        raise KeyboardInterrupt("not today")

    parser = Parser(on_client_hello=refuse)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match="not today"):
            parser.feed(record(CLIENT))


def test_a_message_is_kept_only_if_somebody_wants_it_whole():
    certificate = message(11, bytes(8_000_000))
    stream = records(certificate, 16384)
    seen = []
    tracemalloc.start()
    try:
        parser = Parser(on_handshake_body=lambda piece: seen.append(len(piece)), on_client_hello=print)
        for at in range(0, len(stream), 4096):
            parser.feed(stream[at : at + 4096])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(seen) == 8_000_000
    assert peak < 500_000


@pytest.mark.parametrize(
    ("stream", "event", "limit"),
    [
        (record(b"\1" + u24(MAX_HELLO_BYTES + 1)), "on_client_hello", MAX_HELLO_BYTES),
        (record(b"\x0b" + u24(MAX_HELLO_BYTES + 1)), "on_certificate", MAX_HELLO_BYTES),
        (record(SERVER + b"\x0b" + u24(MAX_HANDSHAKE_MESSAGE + 1)), "on_certificate", MAX_HANDSHAKE_MESSAGE),
    ],
)
def test_a_message_that_is_kept_has_a_limit(stream, event, limit):
    Parser().feed(stream)
    with pytest.raises(WireError, match=rf"^length: {limit + 1} bytes, at most {limit} expected$"):
        Parser(**{event: print}).feed(stream)


# Pauses -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_a_pause_in_every_event(stream, events):
    """All events come, each once, in order, and every byte is consumed once."""
    recorder = Recorder()
    parser = recorder.parser
    for event in _EVENTS:
        handler = getattr(parser, event)
        setattr(parser, event, lambda *args, handler=handler: (handler(*args), parser.pause()))
    consumed = stops = 0
    while consumed < len(stream):
        step = parser.feed(stream[consumed:])
        assert step > 0
        consumed += step
        stops += 1
        assert parser.feed(stream[consumed:]) == 0
        parser.resume()
    assert consumed == len(stream)
    assert recorder.events == events
    assert stops > 1


def test_a_pause_stops_behind_the_message():
    parser = Parser(on_server_hello=lambda hello: parser.pause())
    stream = record(SERVER + CERTIFICATE)
    assert parser.feed(stream) == 5 + len(SERVER)
    assert parser.feed(stream[5 + len(SERVER) :]) == 0
    parser.resume()
    assert parser.feed(stream[5 + len(SERVER) :]) == len(CERTIFICATE)
    parser.eof()


def test_a_pause_before_the_first_byte():
    parser = Parser()
    parser.pause()
    assert parser.feed(record(CLIENT)) == 0


# Violations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "sentence", "alert"),
    [
        (record(b"", 21), "fragment: an empty alert record, at least 1 byte expected", 10),
        (
            record(CLIENT[:9]) + record(b"data", 23),
            "type: a record of application_data inside a handshake message, handshake expected",
            10,
        ),
        (
            record(CLIENT[:2]) + record(b"\1\0", 21),
            "type: a record of alert inside a handshake message, handshake expected",
            10,
        ),
        (
            record(CLIENT[:-1]) + CHANGE_CIPHER_SPEC,
            "type: a record of change_cipher_spec inside a handshake message, handshake expected",
            10,
        ),
        (record(CLIENT) + record(b"\2", 20), "change_cipher_spec: 02, 01 expected", 10),
        (record(CLIENT) + record(b"\1\1", 20), "change_cipher_spec: 0101, 01 expected", 10),
        (record(CLIENT) + record(b"", 20), "change_cipher_spec: nothing, 01 expected", 10),
        (record(CLIENT) + record(b"\2", 21), "Alert: 1 bytes, 2 expected", 50),
        (record(CLIENT) + record(b"\2\x32" * 2, 21), "Alert: 4 bytes, 2 expected", 50),
        (b"\x16\3\1\x40\1", "length: 16385 bytes, at most 16384 expected", 22),
        (record(CLIENT) + CHANGE_CIPHER_SPEC + b"\x16\3\3\x48\1", "length: 18433 bytes, at most 18432 expected", 22),
        (record(message(1, b"\3")), "ClientHello: 1 bytes left, legacy_version needs 2", 50),
    ],
)
def test_violation(stream, sentence, alert):
    for pieces in ([stream], byte_by_byte(stream)):
        with pytest.raises(WireError) as caught:
            run(*pieces)
        assert (str(caught.value), caught.value.alert) == (sentence, alert)


def test_a_long_ciphertext_passes():
    parser = Parser()
    parser.feed(record(CLIENT) + CHANGE_CIPHER_SPEC + record(b"\x99" * 18432) + record(b"\x99" * 18432, 23))
    parser.eof()


# Not TLS ------------------------------------------------------------------------------------------------------------

OTHERS = [
    (b"GET / HTTP/1.1\r\n\r\n", NotTLS.HTTP_REQUEST),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotTLS.HTTP_REQUEST),
    (b"OPTIONS * HTTP/1.1\r\n", NotTLS.HTTP_REQUEST),
    (b"SSH-2.0-OpenSSH_9.2\r\n", NotTLS.SSH_BANNER),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", NotTLS.PROXY_V1),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", NotTLS.PROXY_V2),
    (b"\x80\x2e\1\0\2\0\x15\0\0\0\x10", NotTLS.SSLV2_HELLO),
    (b"\x16\x16\3\1\0", NotTLS.UNKNOWN),
    (b"EHLO there\r\n", NotTLS.UNKNOWN),
]


@pytest.mark.parametrize(("stream", "kind"), OTHERS)
def test_not_tls(stream, kind):
    for pieces in ([stream], byte_by_byte(stream)):
        recorder = Recorder()
        consumed = sum(map(recorder.parser.feed, pieces))
        assert recorder.events == [("on_not_tls", kind)]
        assert 5 <= consumed < len(stream) or stream == OTHERS[-2][0]
        assert recorder.parser.feed(record(CLIENT)) == 0
        recorder.parser.eof()
    with pytest.raises(WireError, match=rf"^TLSPlaintext: {kind.value}, a record expected$") as caught:
        Parser().feed(stream)
    assert caught.value.alert == 10


def test_only_the_opening_may_be_something_else():
    with pytest.raises(WireError, match="a ContentType expected"):
        run(record(CLIENT) + b"GET / HTTP/1.1\r\n\r\n")


# Cost ---------------------------------------------------------------------------------------------------------------


def test_time_is_linear():
    stream = record(SERVER) + records(message(11, u24(200_000), u24(199_997), bytes(199_997)) * 6, 1000)

    def cost(size):
        parser = Recorder("on_certificate", "on_record", "on_application_data").parser
        start = time.process_time()
        for piece in byte_by_byte(stream[:size]):
            parser.feed(piece)
        return time.process_time() - start

    # Quadratic time would be 64 times as much. On a busy machine some of the pairs are measured wrong, but not all.
    assert min(cost(2**18) / cost(2**15) for _ in range(5)) < 8 * 3


@given(st.binary(max_size=300), sizes)
def test_any_bytes_are_events_or_a_wire_error(data, pieces):
    for stream in (data, record(data[:200]) + data[200:] if data else data):
        one, other = Recorder(), Recorder()
        try:
            one.parser.feed(stream)
        except WireError as error:
            with pytest.raises(WireError) as caught:
                for piece in cut(stream, pieces):
                    other.parser.feed(piece)
            assert str(caught.value) == str(error)
        else:
            for piece in cut(stream, pieces):
                other.parser.feed(piece)
        assert one.events == other.events
