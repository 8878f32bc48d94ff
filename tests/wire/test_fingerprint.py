"""The expected values are what the definitions print; tshark's are in test_wire_real_hellos.py."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentls.errors import WireError
from greentls.wire.fingerprint import ja3, ja3_string, ja4, ja4_r
from greentls.wire.hello import ClientHello
from tests.support.wire_helpers import client_hello, extension, tuples, u8, u16, uint16, v8, v16

GREASE = 0x5A5A


def hex_list(text):
    return [int(number, 16) for number in text.split(",")]


# JA4's technical description, "Details": the hello of Chrome that it takes apart.
CIPHERS = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
EXTENSIONS = "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
ALGORITHMS = "0403,0804,0401,0503,0805,0501,0806,0601"
BODIES = {
    0x00: v16(u8(0), v16(b"example.com")),
    0x10: v16(v8(b"h2"), v8(b"http/1.1")),
    0x0D: v16(*map(u16, [GREASE, *hex_list(ALGORITHMS)])),
    0x2B: v8(u16(GREASE), u16(0x0304), u16(0x0303)),
    0x0A: v16(u16(GREASE), u16(29), u16(23)),
    0x0B: v8(u8(0)),
}


def hello(extensions=None, suites=(), version=0x0303):
    extensions = {} if extensions is None else extensions
    return ClientHello.parse(
        client_hello(*(extension(*item) for item in extensions.items()), suites=suites, version=version)
    )


CHROME = hello(
    {GREASE: b"", **{number: BODIES.get(number, b"") for number in hex_list(EXTENSIONS)}, 0x6A6A: b"\0"},
    [GREASE, *hex_list(CIPHERS)],
)


def test_ja4_of_its_description():
    assert ja4(CHROME) == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert ja4_r(CHROME) == (
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_"
        "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_" + ALGORITHMS
    )


def test_ja4_without_signature_algorithms_is_the_description_s():
    """Its example has the same list of extensions, 000d included."""
    numbers = hex_list(EXTENSIONS)
    without = hello({number: BODIES.get(number, b"") if number != 0x0D else v16() for number in numbers})
    assert ja4(without).split("_")[2] == "6d807ffa2a79"


@pytest.mark.parametrize("transport", ["t", "q", "d"])
def test_transport(transport):
    assert ja4(CHROME, transport)[0] == ja4_r(CHROME, transport)[0] == transport


def test_an_unknown_transport():
    with pytest.raises(ValueError, match="'t', 'q' or 'd' expected"):
        ja4(CHROME, "u")


@pytest.mark.parametrize(
    ("legacy", "offered", "text"),
    [
        (0x0303, None, "12"),
        (0x0302, None, "11"),
        (0x0301, None, "10"),
        (0x0300, None, "s3"),
        (0x0002, None, "s2"),
        (0xFEFF, None, "d1"),
        (0xFEFD, None, "d2"),
        (0xFEFC, None, "d3"),
        (0x0399, None, "00"),
        (0x0303, [0x0303, 0x0304], "13"),
        (0x0303, [0xFAFA, 0x0301], "10"),
        (0x0303, [0xFAFA], "00"),
        (0x0303, [0x7F1C], "00"),
    ],
)
def test_ja4_version(legacy, offered, text):
    extensions = {} if offered is None else {0x2B: v8(*map(u16, offered))}
    assert ja4(hello(extensions, version=legacy))[1:3] == text


@pytest.mark.parametrize(
    ("protocols", "text"),
    [
        ([], "00"),
        ([b""], "00"),
        ([b"h2"], "h2"),
        ([b"http/1.1", b"h2"], "h1"),
        ([b"x"], "xx"),
        ([b"\xab"], "ab"),
        ([b"\xab\xcd"], "ad"),
        ([b"\x30\xab"], "3b"),
        ([b"\x30\x31\xab\xcd"], "3d"),
        ([b"\x30\xab\xcd\x31"], "01"),
        ([b"-"], "2d"),
    ],
)
def test_ja4_alpn(protocols, text):
    assert ja4(hello({0x10: v16(*map(v8, protocols))})).split("_")[0][-2:] == text


def test_ja4_of_a_hello_with_nothing():
    assert ja4(hello()) == "t12i000000_000000000000_000000000000"
    assert ja4_r(hello()) == "t12i000000__"
    assert ja4(hello({0: v16(), 0x10: v16()})) == "t12d000200_000000000000_000000000000"


def test_ja4_counts_no_further_than_99():
    assert ja4(hello({1000 + at: b"" for at in range(120)}, range(100, 350)))[:10] == "t12i999900"


def test_ja3():
    assert ja3_string(CHROME) == (
        "771,4865-4866-4867-49195-49199-49196-49200-52393-52392-49171-49172-156-157-47-53,"
        "27-0-51-16-17513-23-45-13-5-35-18-43-65281-11-10-21,29-23,0"
    )
    assert ja3(CHROME) == hashlib.md5(ja3_string(CHROME).encode(), usedforsecurity=False).hexdigest()


def test_ja3_of_its_readme():
    """Salesforce's README prints these strings with their hashes."""
    full = client_hello(
        *(extension(number, BODIES.get(number, b"")) for number in (0,)),
        extension(10, v16(u16(23), u16(24), u16(25))),
        extension(11, v8(u8(0))),
        version=0x0301,
        suites=(47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4),
    )
    parsed = ClientHello.parse(full)
    assert ja3_string(parsed) == "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0"
    assert ja3(parsed) == "ada70206e40642a3e4461f35503241d5"
    bare = ClientHello.parse(client_hello(version=0x0301, suites=(4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99), block=b""))
    assert ja3_string(bare) == "769,4-5-10-9-100-98-3-6-19-18-99,,,"
    assert ja3(bare) == "de350869b8c85de67a350c8d186f11e6"


def test_a_malformed_extension():
    for fingerprint in (ja3, ja4):
        with pytest.raises(WireError):
            fingerprint(hello({10: b"\0", 13: b"\0"}))


@given(st.permutations(hex_list(EXTENSIONS)), st.permutations(hex_list(CIPHERS)))
def test_ja4_does_not_depend_on_the_order(extensions, ciphers):
    shuffled = hello({number: BODIES.get(number, b"") for number in extensions}, ciphers)
    assert ja4(shuffled) == ja4(CHROME)


@given(tuples(uint16), st.dictionaries(st.integers(100, 65000), st.binary(max_size=3)), uint16)
def test_any_hello_has_fingerprints(suites, extensions, version):
    parsed = hello(extensions, suites, version)
    assert len(ja3(parsed)) == 32
    assert len(ja4(parsed)) == 36
    assert ja4_r(parsed)[:10] == ja4(parsed)[:10]
