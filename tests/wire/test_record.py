from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentls.errors import WireError
from greentls.wire.handshake import MAX_HANDSHAKE_MESSAGE, MAX_HELLO_BYTES
from greentls.wire.not_tls import NotTLS, recognise
from greentls.wire.record import MAX_HELLO_RECORDS, MAX_PLAINTEXT, RecordReader
from tests.support.wire_helpers import (
    CHANGE_CIPHER_SPEC,
    TRAILING,
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
    u16,
)

HELLO = client_hello(extension(0x1A1A, b"x" * 100), session_id=b"s" * 32)
DONE = message(14)
CERTIFICATE = message(11, b"c" * 300)


def read(*pieces):
    reader = RecordReader()
    return [message for piece in pieces for message in reader.feed(piece)]


STREAMS = [
    (record(HELLO), [HELLO]),
    (records(HELLO, 1), [HELLO]),
    (records(HELLO, 7), [HELLO]),
    (record(HELLO + CERTIFICATE + DONE), [HELLO, CERTIFICATE, DONE]),
    (records(HELLO + CERTIFICATE + DONE, 11), [HELLO, CERTIFICATE, DONE]),
    (record(HELLO) + record(b"\1\0", 21) + record(b"data", 23) + record(DONE), [HELLO, DONE]),
    (record(HELLO) + CHANGE_CIPHER_SPEC + record(b"\x14 encrypted"), [HELLO]),
    (record(HELLO) + CHANGE_CIPHER_SPEC + record(b"\1"), [HELLO]),
    # TLS 1.3 after a HelloRetryRequest, in both directions
    (record(HELLO) + CHANGE_CIPHER_SPEC + record(HELLO), [HELLO, HELLO]),
    (record(server_hello()) + CHANGE_CIPHER_SPEC + record(server_hello()), [server_hello()] * 2),
    (b"", []),
    (record(b"") * 3 + record(HELLO), [HELLO]),
    (record(HELLO) + record(b"", 23) * 3, [HELLO]),
    (record(DONE, version=0x03FF), [DONE]),
]


@pytest.mark.parametrize(("stream", "messages"), STREAMS)
def test_stream(stream, messages):
    assert read(stream) == messages
    assert read(*byte_by_byte(stream)) == messages
    assert read(bytearray(stream), memoryview(b"")) == messages
    for prefix in proper_prefixes(stream):
        assert read(prefix) == messages[: len(read(prefix))]


@pytest.mark.parametrize(("stream", "messages"), STREAMS)
def test_a_fault_comes_after_the_messages_before_it(stream, messages):
    reader = RecordReader()
    found = []
    with pytest.raises(WireError):
        for message_bytes in reader.feed(stream + TRAILING):
            found.append(message_bytes)
    assert found == messages
    for _ in range(2):
        with pytest.raises(WireError):
            next(reader.feed(record(DONE)))


@given(st.sampled_from(STREAMS), sizes)
def test_stream_cut_anywhere(stream, pieces):
    encoded, messages = stream
    assert read(*cut(encoded, pieces)) == messages


def test_what_is_not_iterated_over_comes_with_the_next_call():
    reader = RecordReader()
    reader.feed(record(HELLO))
    assert next(reader.feed(record(DONE))) == HELLO
    assert list(reader.feed(b"")) == [DONE]


@pytest.mark.parametrize(
    ("stream", "sentence", "alert"),
    [
        (record(b"", 21), "fragment: an empty alert record, at least 1 byte expected", 10),
        (
            record(HELLO[:9]) + record(b"data", 23),
            "type: a record of application_data inside a handshake message, handshake expected",
            10,
        ),
        (
            record(HELLO[:3]) + CHANGE_CIPHER_SPEC,
            "type: a record of change_cipher_spec inside a handshake message, handshake expected",
            10,
        ),
        (
            record(HELLO[:9]) + record(b"\1\0", 21),
            "type: a record of alert inside a handshake message, handshake expected",
            10,
        ),
        (record(HELLO) + b"\x19\3\3\0\1", "type: unknown 25, a ContentType expected", 10),
        (record(HELLO) + b"\x16\2\0\0\1", "legacy_record_version: major 2, 3 expected", 70),
        (b"\x16\3\1" + u16(MAX_PLAINTEXT + 1), "length: 16385 bytes, at most 16384 expected", 22),
        (b"\x17\3\1" + u16(MAX_PLAINTEXT + 2049), "length: 18433 bytes, at most 18432 expected", 22),
        (record(b"\1\1\0\1"), "length: 65537 bytes, at most 65536 expected", 47),
        (record(HELLO) + record(b"\x0b\4\0\1"), "length: 262145 bytes, at most 262144 expected", 47),
        (b"GET / HTTP/1.1\r\n", "TLSPlaintext: an HTTP request, a TLS record expected", 10),
        (b"\x80\x2e\1\0\2", "TLSPlaintext: an SSLv2 ClientHello, a TLS record expected", 10),
        (b"\x16\2\0\0\1", "TLSPlaintext: not TLS, and unknown, a TLS record expected", 10),
    ],
)
def test_violation(stream, sentence, alert):
    for pieces in ([stream], byte_by_byte(stream)):
        with pytest.raises(WireError) as caught:
            read(*pieces)
        assert (str(caught.value), caught.value.alert) == (sentence, alert)


def test_the_largest_size_of_a_hello_passes():
    assert read(record(b"\1" + MAX_HELLO_BYTES.to_bytes(3, "big"))) == []


def test_the_longest_record_passes():
    hello = client_hello(extension(21, bytes(MAX_PLAINTEXT - 4 - 2 - 32 - 1 - 6 - 2 - 2 - 4)))
    assert len(hello) == MAX_PLAINTEXT
    assert read(record(hello)) == [hello]


@pytest.mark.parametrize("size", [1700, 17 * 1024, 65000])
def test_large_hellos_pass(size):
    hello = client_hello(extension(21, bytes(size)))
    assert read(records(hello, MAX_PLAINTEXT)) == [hello]
    assert read(records(hello, 100)) == [hello]


def test_large_messages_pass_after_the_hello():
    certificate = message(11, bytes(MAX_HANDSHAKE_MESSAGE))
    assert read(record(HELLO) + records(certificate, MAX_PLAINTEXT)) == [HELLO, certificate]


def test_records_are_counted_until_the_first_message():
    hello = client_hello(extension(21, bytes(MAX_HELLO_RECORDS)))
    with pytest.raises(WireError, match=r"4097 records, the first message in at most 4096 records expected$"):
        read(records(hello, 1))
    assert read(record(HELLO) + records(hello, 1)) == [HELLO, hello]
    with pytest.raises(WireError, match="4097 records"):
        read(record(b"") * 5000)


@pytest.mark.parametrize("content_type", [20, 21, 23, 24])
def test_the_first_record_is_a_handshake_record(content_type):
    """hazard: what else comes is passed over, and its bytes are kept for whoever reads the stream next."""
    header = record(b"x" * 100, content_type)[:5]
    for before in (b"", record(b"")):
        with pytest.raises(WireError, match=r"before the first message, handshake expected$") as caught:
            read(before + header)  # its fragment is not waited for
        assert caught.value.alert == 10


def test_time_is_linear():
    """Byte by byte: what 256 KiB cost, compared with an eighth of them."""
    stream = record(HELLO) + records(message(11, bytes(200_000)) * 2, 1000)

    def cost(size):
        reader = RecordReader()
        start = time.process_time()
        for piece in byte_by_byte(stream[:size]):
            for _ in reader.feed(piece):
                pass
        return time.process_time() - start

    # Quadratic time would be 64 times as much. On a busy machine some of the pairs are measured wrong, but not all.
    assert min(cost(2**18) / cost(2**15) for _ in range(5)) < 8 * 3


def test_memory_is_bounded():
    """A peer sends what is no message, and no end of it: one record at a time is held."""
    stream = record(b"x" * 16000, 23)
    reader = RecordReader()
    assert list(reader.feed(record(HELLO))) == [HELLO]
    tracemalloc.start()
    try:
        for _ in range(500):
            assert not list(reader.feed(stream[:9000]))
            assert not list(reader.feed(stream[9000:]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(stream)


# What is not TLS ----------------------------------------------------------------------------------------------------

OPENINGS = [
    (b"GET ", NotTLS.HTTP_REQUEST),
    (b"OPTIONS ", NotTLS.HTTP_REQUEST),
    (b"PRI ", NotTLS.HTTP_REQUEST),
    (b"SSH-", NotTLS.SSH_BANNER),
    (b"PROXY ", NotTLS.PROXY_V1),
    (b"\r\n\r\n\0\r\nQUIT\n", NotTLS.PROXY_V2),
    (b"\x80\x2e\x01\x00\x02", NotTLS.SSLV2_HELLO),
    (b"\xff\x2e\x01\x03\x01", NotTLS.SSLV2_HELLO),
]


@pytest.mark.parametrize(("opening", "kind"), OPENINGS)
def test_recognise(opening, kind):
    assert recognise(opening) is recognise(bytearray(opening) + TRAILING) is kind
    for prefix in proper_prefixes(opening):
        assert recognise(prefix) is None


@pytest.mark.parametrize("data", [b"\0", b"get ", b"GETX", b"\x80\x2e\x02", b"\x80\x2e\x01\x04", b"\r\n\r\n\1", b"POX"])
def test_unknown(data):
    assert recognise(data) is NotTLS.UNKNOWN


@given(st.binary(max_size=20))
def test_what_is_decided_stays_decided(data):
    kinds = [recognise(prefix) for prefix in [*proper_prefixes(data), data]]
    decided = [kind for kind in kinds if kind is not None]
    assert len(set(decided)) <= 1
    assert kinds[len(kinds) - len(decided) :] == decided


@given(st.binary(max_size=200), sizes)
def test_any_bytes_are_messages_or_a_wire_error(data, pieces):
    for stream in (data, record(data[:100]) + data[100:] if data else data):
        try:
            whole = read(stream)
        except WireError as error:
            with pytest.raises(WireError) as caught:
                read(*cut(stream, pieces))
            assert str(caught.value) == str(error)
        else:
            assert read(*cut(stream, pieces)) == whole
