from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentls.errors import WireError
from greentls.wire.reader import Reader
from tests.support.wire_helpers import opaque, proper_prefixes, tuples, u16, uint16, v8, v16, v24

# reads what encoded holds, all of it
READS = [
    (b"\x12", lambda r: r.u8("n"), 0x12),
    (b"\x12\x34", lambda r: r.u16("n"), 0x1234),
    (b"\x12\x34\x56\x78", lambda r: r.u32("n"), 0x12345678),
    (b"abc", lambda r: r.take(3, "x"), b"abc"),
    (b"", lambda r: r.take(0, "x"), b""),
    (v8(b"abc"), lambda r: r.opaque(1, "x"), b"abc"),
    (v16(b"abc"), lambda r: r.opaque(2, "x"), b"abc"),
    (v24(b"abc"), lambda r: r.opaque(3, "x"), b"abc"),
    (v16(), lambda r: r.opaque(2, "x"), b""),
    (v8(u16(1), u16(0x1234)), lambda r: r.u16s(1, "x"), (1, 0x1234)),
    (v16(), lambda r: r.u16s(2, "x"), ()),
    (v16(v8(b"h2"), v8()), lambda r: r.opaques(2, "x", 1, "y"), (b"h2", b"")),
    (v24(v24(b"h2")), lambda r: r.opaques(3, "x", 3, "y"), (b"h2",)),
]


@pytest.mark.parametrize(("encoded", "read", "value"), READS)
def test_reads_whole_with_trailing_bytes_and_no_prefix(encoded, read, value):
    reader = Reader(encoded, "field")
    assert read(reader) == value
    reader.finish()

    reader = Reader(b"before" + encoded + b"after", "field", 6)
    assert read(reader) == value
    assert len(reader) == 5
    with pytest.raises(WireError, match=r"^field: 5 bytes left over, none expected$"):
        reader.finish()
    assert reader.rest() == b"after"
    reader.finish()

    for prefix in proper_prefixes(encoded):
        with pytest.raises(WireError) as caught:
            read(Reader(prefix + encoded[len(prefix) :], "field", 0, len(prefix)))
        assert caught.value.alert == 50


def test_a_sub_reader_cannot_see_past_its_field():
    outer = Reader(v16(b"ab") + b"cd", "outer")
    inner = outer.narrow(2, "inner")
    assert inner.u8("a") == ord("a")
    with pytest.raises(WireError, match=r"^inner: 1 bytes left, host_name needs 2$"):
        inner.u16("host_name")
    with pytest.raises(WireError, match=r"^inner: 1 bytes left over, none expected$"):
        inner.finish()
    assert outer.rest() == b"cd"


@pytest.mark.parametrize(
    ("encoded", "sentence"),
    [
        (b"", "server_name: 0 bytes left, length of host_name needs 2"),
        (b"\0", "server_name: 1 bytes left, length of host_name needs 2"),
        (b"\0\x0babc", "server_name: 3 bytes left, host_name needs 11"),
    ],
)
def test_the_sentence_names_the_field_and_what_it_lacks(encoded, sentence):
    with pytest.raises(WireError) as caught:
        Reader(encoded, "server_name").opaque(2, "host_name")
    assert str(caught.value) == sentence
    assert caught.value.field == "server_name"


def test_numbers_of_two_bytes_come_in_pairs():
    with pytest.raises(WireError, match=r"^cipher_suites: 3 bytes, an even number expected$"):
        Reader(v16(b"abc"), "ClientHello").u16s(2, "cipher_suites")


@given(st.sampled_from([(1, v8), (2, v16), (3, v24)]), tuples(opaque, 4), tuples(uint16))
def test_vectors_round_trip(length, elements, numbers):
    size, vector = length
    encoded = b"".join(map(vector, elements)) + vector(*map(u16, numbers))
    reader = Reader(encoded, "field")
    assert tuple(reader.opaque(size, "element") for _ in elements) == elements
    assert reader.u16s(size, "numbers") == numbers
    reader.finish()
