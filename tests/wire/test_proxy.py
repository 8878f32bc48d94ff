from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentls.errors import WireError
from greentls.wire.proxy import MAX_V1_SIZE, MAX_V2_SIZE, TLV, ProxyHeader, ProxyReader, ProxySSL, TLVType, crc32c
from tests.support.wire_helpers import TRAILING, byte_by_byte, cut, proper_prefixes, sizes, u8, u16, u32, uint16, v16

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")


def v2(*body, version_command=0x21, family=0x11):
    return SIGNATURE + u8(version_command) + u8(family) + v16(*body)


def tlv(kind, value):
    return u8(kind) + v16(value)


def with_checksum(*tlvs_around, family=0x11, addresses=b""):
    """A header whose CRC32C, between the two, is right."""
    before, after = tlvs_around
    empty = v2(addresses, before, tlv(3, bytes(4)), after, family=family)
    return v2(addresses, before, tlv(3, u32(crc32c(empty))), after, family=family)


TCP4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + u16(56324) + u16(443)
TCP6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("2001:db8::2").packed + u16(1) + u16(2)
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")
SSL = u8(5) + u32(0) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client")
ENDS4 = {"transport": "TCP", "source": ("192.0.2.1", 56324), "destination": ("198.51.100.7", 443)}
ENDS6 = {"transport": "TCP", "source": ("2001:db8::1", 1), "destination": ("2001:db8::2", 2)}
LONGEST = "ffff:" * 7 + "ffff"

HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", ProxyHeader(1, **ENDS4)),
    (b"PROXY TCP6 2001:DB8::1 2001:db8:0:0:0:0:0:2 1 2\r\n", ProxyHeader(1, **ENDS6)),
    (
        f"PROXY TCP6 {LONGEST} {LONGEST} 65535 65535\r\n".encode(),
        ProxyHeader(1, False, "TCP", (LONGEST, 65535), (LONGEST, 65535)),
    ),
    (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
    (f"PROXY UNKNOWN {LONGEST} {LONGEST} 65535 65535\r\n".encode(), ProxyHeader(1)),
    (b"PROXY UNKNOWN \xff\xfe what it likes\r\n", ProxyHeader(1)),
    (v2(TCP4), ProxyHeader(2, **ENDS4)),
    (v2(TCP4, family=0x12), ProxyHeader(2, **{**ENDS4, "transport": "UDP"})),
    (v2(TCP6, family=0x21), ProxyHeader(2, **ENDS6)),
    (v2(UNIX, family=0x31), ProxyHeader(2, False, "TCP", b"/run/client", b"/run/server")),
    (v2(version_command=0x20, family=0), ProxyHeader(2, local=True)),
    (v2(TCP4, b"whatever", version_command=0x20), ProxyHeader(2, local=True)),
    (v2(family=0), ProxyHeader(2)),
    (v2(b"whatever", family=0x01), ProxyHeader(2)),
    (v2(b"whatever", family=0x20), ProxyHeader(2)),
    (
        v2(TCP4, tlv(1, b"h2"), tlv(2, b"example.com"), tlv(4, b""), tlv(0x20, SSL), tlv(0xEA, b"own")),
        ProxyHeader(
            2,
            **ENDS4,
            tlvs=(TLV(1, b"h2"), TLV(2, b"example.com"), TLV(4, b""), TLV(0x20, SSL), TLV(0xEA, b"own")),
        ),
    ),
]


@pytest.mark.parametrize(("encoded", "header"), HEADERS)
def test_header(encoded, header):
    reader = ProxyReader()
    assert reader.feed(encoded) == header
    assert reader.rest == b""

    reader = ProxyReader()
    assert reader.feed(encoded + TRAILING) == header
    assert reader.rest == TRAILING
    with pytest.raises(RuntimeError, match="the header is complete"):
        reader.feed(b"more")

    reader = ProxyReader()
    assert [reader.feed(piece) for piece in byte_by_byte(encoded)] == [None] * (len(encoded) - 1) + [header]
    assert reader.rest == b""

    for prefix in proper_prefixes(encoded):
        reader = ProxyReader()
        assert reader.feed(prefix) is None
        assert reader.feed(encoded[len(prefix) :]) == header


@given(st.sampled_from(HEADERS), sizes)
def test_header_cut_anywhere(sample, pieces):
    encoded, header = sample
    reader = ProxyReader()
    found = [reader.feed(piece) for piece in cut(encoded, pieces) if reader._header is None]
    assert found[-1] == header


@pytest.mark.parametrize(
    ("encoded", "sentence"),
    [
        (b"GET / HTTP/1.1\r\n", r"^PROXY header: b'G.*', 'PROXY ' or the signature of version 2 expected$"),
        (b"PROXX", "^PROXY header: b'PROXX', "),
        (b"\x16\3\1", "^PROXY header: "),
        (SIGNATURE[:-1] + b"\r", "^PROXY header: "),
        (b"PROXY " + b"x" * (MAX_V1_SIZE - 6), "^PROXY line: no end, at most 107 bytes expected$"),
        (b"PROXY UNKNOWN" + b" " * 95 + b"\r\n", "^PROXY line: no end"),
        (b"PROXY \r\n", "^PROXY line: 'PROXY ', TCP4 or TCP6, two addresses and two ports expected$"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "^PROXY line: "),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "^PROXY line: "),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "^PROXY line: "),
        (b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", "^PROXY line: "),
        (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", "^PROXY line: '1.2.3.04', an address of TCP4 expected$"),
        (b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n", "^PROXY line: '::1', an address of TCP4 expected$"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "^PROXY line: 'fe80::1%eth0', an address of TCP6 expected$"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "^PROXY line: '01', a port expected$"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "^PROXY line: '\\+1', a port expected$"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "^PROXY line: '65536', a port expected$"),
        (v2(TCP4, version_command=0x31), "^ver_cmd: version 3, command 1, "),
        (v2(TCP4, version_command=0x22), "^ver_cmd: version 2, command 2, "),
        (v2(TCP4, family=0x41), "^fam: family 4, transport 1, "),
        (v2(TCP4, family=0x13), "^fam: family 1, transport 3, "),
        (v2(TCP4[:-1]), "^PROXY header: 1 bytes left, port needs 2$"),
        (v2(TCP4, family=0x21), "^PROXY header: 12 bytes left, src_addr needs 16$"),
        (v2(TCP4, b"\1"), "^PROXY header: 0 bytes left, length of value needs 2$"),
        (v2(TCP4, u8(1) + u16(9) + b"h2"), "^PROXY header: 2 bytes left, value needs 9$"),
        (SIGNATURE + b"\x21\x11" + u16(MAX_V2_SIZE), "^PROXY header: 16400 bytes, at most 16384 expected$"),
    ],
)
def test_violation(encoded, sentence):
    for pieces in ([encoded], byte_by_byte(encoded)):
        reader = ProxyReader()
        with pytest.raises(WireError, match=sentence):
            for piece in pieces:
                reader.feed(piece)
        with pytest.raises(WireError, match=sentence):
            reader.feed(b"")


def test_the_longest_headers_pass():
    line = b"PROXY UNKNOWN".ljust(MAX_V1_SIZE - 2, b"x") + b"\r\n"
    assert ProxyReader().feed(line.replace(b"Nx", b"N ", 1)) == ProxyHeader(1)
    value = bytes(MAX_V2_SIZE - 16 - 12 - 3)
    assert ProxyReader().feed(v2(TCP4, tlv(4, value))).tlv(TLVType.noop) == value


def test_tlvs():
    header = ProxyReader().feed(v2(TCP4, tlv(2, b"one"), tlv(2, b"two"), tlv(0x20, SSL)))
    assert header.tlv(TLVType.authority) == b"one"
    assert header.tlv(TLVType.netns) is None
    assert header.ssl == ProxySSL(5, 0, (TLV(TLVType.ssl_version, b"TLSv1.3"), TLV(TLVType.ssl_cn, b"client")))
    assert ProxyReader().feed(v2(TCP4)).ssl is None
    for wrong in proper_prefixes(SSL):
        header = ProxyReader().feed(v2(TCP4, tlv(0x20, wrong)))
        if len(wrong) in (5, 5 + 3 + 7):
            assert header.ssl.client == 5
        else:
            with pytest.raises(WireError):
                _ = header.ssl


@pytest.mark.parametrize(
    ("data", "checksum"),
    [  # RFC 3720 B.4, and the check value that catalogues of CRCs give
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c(data, checksum):
    assert crc32c(data) == checksum


@pytest.mark.parametrize("before", [b"", tlv(1, b"h2")])
@pytest.mark.parametrize("after", [b"", tlv(0xEA, b"more") + tlv(4, b"")])
def test_checksum(before, after):
    right = with_checksum(before, after, addresses=TCP4)
    assert ProxyReader().feed(right).source == ("192.0.2.1", 56324)
    for at in set(range(16, len(right))) - {16 + len(TCP4) + len(before)}:  # there, it would be no checksum
        wrong = bytearray(right)
        wrong[at] ^= 1
        with pytest.raises(WireError):
            ProxyReader().feed(wrong)


def test_one_checksum_of_four_bytes():
    with pytest.raises(WireError, match=r"^PP2_TYPE_CRC32C: 2 of them, one expected$"):
        ProxyReader().feed(v2(TCP4, tlv(3, bytes(4)), tlv(3, bytes(4))))
    with pytest.raises(WireError, match=r"^PP2_TYPE_CRC32C: 000000, [0-9a-f]{8} expected$"):
        ProxyReader().feed(v2(TCP4, tlv(3, bytes(3))))


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), uint16, uint16)
def test_version_1_round_trips(source, destination, source_port, destination_port):
    line = f"PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n".encode()
    header = ProxyReader().feed(line)
    assert (header.source, header.destination) == ((str(source), source_port), (str(destination), destination_port))


@given(st.ip_addresses(v=6).filter(lambda address: not address.scope_id), st.ip_addresses(v=6), uint16, uint16)
def test_ipv6_round_trips(source, destination, source_port, destination_port):
    line = f"PROXY TCP6 {source} {destination} {source_port} {destination_port}\r\n".encode()
    binary = v2(source.packed, destination.packed, u16(source_port), u16(destination_port), family=0x21)
    one, two = ProxyReader().feed(line), ProxyReader().feed(binary)
    assert (one.source, one.destination) == ((str(source), source_port), (str(destination), destination_port))
    assert (two.source, two.destination) == (one.source, one.destination)


@given(st.lists(st.tuples(st.integers(0xE0, 0xEF), st.binary(max_size=30)), max_size=6))
def test_tlvs_round_trip(tlvs):
    header = ProxyReader().feed(v2(TCP4, *(tlv(*item) for item in tlvs)))
    assert list(header.tlvs) == tlvs


@given(st.binary(max_size=120), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_any_bytes_are_a_header_or_a_wire_error(data, start):
    for encoded in (start + data, start + data + b"\r\n"):
        reader = ProxyReader()
        try:
            header = reader.feed(encoded)
            _ = header and header.ssl
        except WireError:
            pass
