"""`greentls hello` of captures: pcap and pcapng, whatever order their packets are in."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import tracemalloc

import dpkt
import pytest

from greentls.cli.capture import MAX_AHEAD, MAX_OPEN, Capture, Stream
from tests.cli.hellos import BAD_NAME, EXPECTED, NAME_FAULT, PLAIN, RETRY, STREAMS, record
from tests.cli.packets import ADDRESSES, LINKS, START, TIME, connection, packet, pcap, pcapng, segments, syn
from tests.support.helpers import PATIENCE


@pytest.mark.parametrize("write", [pcap, pcapng])
@pytest.mark.parametrize("version", ADDRESSES)
@pytest.mark.parametrize("link", LINKS)
def test_links_and_addresses(placed, write, version, link):
    _, _, source, destination = ADDRESSES[version]
    capture = write(connection(PLAIN, version=version), link)
    assert placed(capture, PLAIN) == [(source.format(40000), destination, "2023-11-14T22:13:23.250000+00:00")]


@pytest.mark.parametrize("write", [pcap, pcapng])
def test_all_hellos_of_a_capture_with_their_addresses(placed, write):
    packets = [
        packet for port, stream in enumerate(STREAMS.values(), 40000) for packet in connection(stream, port=port)
    ]
    places = placed(write(packets), *STREAMS.values())
    sources = [
        f"192.0.2.1:{port}"
        for port, name in enumerate(STREAMS, 40000)
        for _ in range(EXPECTED[name]["told"].get("hellos", 1))
    ]
    assert [source for source, _, _ in places] == sources


def shuffled(packets):
    packets = list(packets)
    random.Random(7).shuffle(packets)
    return packets


DISORDERS = {
    "in one-byte segments": lambda stream: segments(stream, 1),
    "backwards": lambda stream: segments(stream, 100)[::-1],
    "in one-byte segments, backwards": lambda stream: segments(stream[:600], 1)[::-1] + segments(stream, 1400),
    "shuffled": lambda stream: shuffled(segments(stream, 40)),
    "twice": lambda stream: [each for each in segments(stream, 100) for _ in range(2)],
    "twice, shuffled": lambda stream: shuffled(segments(stream, 40) * 2),
    "overlapping": lambda stream: [packet(stream[at : at + 300], at) for at in range(0, len(stream), 100)],
    "overlapping, backwards": lambda stream: [packet(stream[at : at + 300], at) for at in range(0, len(stream), 100)][
        ::-1
    ],
    "sent again in larger segments": lambda stream: segments(stream[:100], 10) + segments(stream, 500),
    "with keep-alives": lambda stream: [
        each for at in range(0, len(stream), 100) for each in (packet(b"\0", at - 1), packet(stream[at : at + 100], at))
    ],
}


@pytest.mark.parametrize("name", ["chromium-psk", "openssl-3.0-retry", "openssl-3.0-small-records"])
@pytest.mark.parametrize("disorder", DISORDERS)
def test_segments_in_any_order(placed, disorder, name):
    stream = STREAMS[name]
    placed(pcap([syn(), *DISORDERS[disorder](stream)]), stream)


def test_interleaved_connections(placed):
    first, second = segments(PLAIN, 10, port=1), segments(STREAMS["curl"], 10, port=2)
    packets = [syn(port=1), syn(port=2)] + [each for pair in zip(first, second) for each in pair] + second[len(first) :]  # noqa: B905
    assert [source for source, _, _ in placed(pcap(packets), PLAIN, STREAMS["curl"])] == ["192.0.2.1:1", "192.0.2.1:2"]


def test_data_in_the_syn(placed):
    placed(pcap([packet(PLAIN, -1, flags=dpkt.tcp.TH_SYN)]), PLAIN)


def test_a_port_that_is_used_again(placed):
    other = STREAMS["curl"]
    packets = [
        *connection(PLAIN),
        syn(start=5),
        *segments(other, 100, start=5),
        syn(start=9),
        *segments(PLAIN, 9, start=9),
    ]
    placed(pcap(packets), PLAIN, other, PLAIN)


def test_a_connection_older_than_the_capture(placed):
    placed(pcap([packet(b"the end of something"), *segments(PLAIN, 100, port=5), *segments(PLAIN, 100, port=5)]), PLAIN)


@pytest.mark.parametrize("opening", [b"EHLO a.example\r\nSTARTTLS\r\n", b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"])
def test_tls_that_begins_later(placed, opening):
    packets = [syn(), packet(opening), *segments(opening + PLAIN, 100), packet(PLAIN, len(opening))]
    placed(pcap(packets), PLAIN)


def test_a_second_hello_after_early_data(placed):
    first, second = RETRY[: 5 + 4 + 296], RETRY[5 + 4 + 296 :]
    early = record(bytes(1000), 23)
    again = record(b"\1", 20).replace(b"\3\1", b"\3\3") + second.removeprefix(b"\x14\3\3\0\1\1")
    packets = [syn(), packet(first), packet(early, len(first)), packet(again, len(first + early))]
    placed(pcap(packets), RETRY)


def test_times_of_other_units(documents):
    [document] = documents(pcap([packet(PLAIN)], nano=True))
    assert document["time"] == "2023-11-14T22:13:20.250000+00:00"


def test_interfaces_of_several_links_and_units(documents):
    """As mergecap makes them, in two sections of different byte orders."""
    file = io.BytesIO()
    for order, module in (("<", "LE"), (">", "")):
        section = getattr(dpkt.pcapng, f"SectionHeaderBlock{module}")
        interface = getattr(dpkt.pcapng, f"InterfaceDescriptionBlock{module}")
        enhanced = getattr(dpkt.pcapng, f"EnhancedPacketBlock{module}")
        option = getattr(dpkt.pcapng, f"PcapngOption{module}")
        file.write(bytes(section()))
        file.write(bytes(interface(linktype=113)))
        nano = [option(code=9, data=b"\x09"), option(code=14, data=struct.pack(f"{order}q", -3600)), option()]
        file.write(bytes(interface(linktype=101, opts=nano)))
        file.write(bytes(interface(linktype=127, opts=[option(code=9, data=b"\x8a"), option()])))
        ticks = int(TIME * 10**6)
        for number, (link, ticks) in enumerate([("cooked", TIME * 10**6), ("raw", (TIME + 3600) * 10**9), ("raw", 9)]):
            ticks, data = int(ticks), LINKS[link][1](packet(PLAIN, port=number, version=6 if module else 4))
            block = enhanced(iface_id=number, ts_high=ticks >> 32, ts_low=ticks & 0xFFFFFFFF, pkt_data=data)
            file.write(bytes(block))
        file.write(struct.pack(f"{order}III", 5, 12, 12))  # statistics, or whatever else there may be
    found = documents(file.getvalue())
    assert [each["source"] for each in found] == [
        "[2001:db8::1]:0",
        "[2001:db8::1]:1",
        "192.0.2.1:0",
        "192.0.2.1:1",
    ]
    assert {each["time"] for each in found} == {"2023-11-14T22:13:20.250000+00:00"}


def test_a_time_that_is_none(documents):
    file = io.BytesIO()
    option = dpkt.pcapng.PcapngOptionLE
    interface = dpkt.pcapng.InterfaceDescriptionBlockLE(linktype=101, opts=[option(code=9, data=b"\0"), option()])
    writer = dpkt.pcapng.Writer(file, idb=interface)
    writer.writepkt(dpkt.pcapng.EnhancedPacketBlockLE(ts_high=2**31, pkt_data=packet(PLAIN)))
    [document] = documents(file.getvalue())
    assert document["time"] == str(2**63)


def test_a_capture_from_standard_input_as_it_comes(tmp_path):
    """A hello is shown when its packet is there, not when the capture ends."""
    command = [sys.executable, "-m", "greentls", "hello", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        capture = pcap([packet(PLAIN)])
        for piece in (capture[:1], capture[1:]):
            process.stdin.write(piece)
            process.stdin.flush()
        assert json.loads(process.stdout.readline())["source"] == "192.0.2.1:40000"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_table_of_a_capture(hello):
    status, out, err = hello(pcap(connection(PLAIN, version=6)))
    assert (status, err) == (0, "")
    assert out.startswith("[2001:db8::1]:40000 -> [2001:db8::2]:443  2023-11-14T22:13:23.250000+00:00\nsize      ")


def test_malformed_hellos_of_a_capture_and_the_rest_goes_on(hello):
    bad_outline = record(b"\1\0\0\2\3\3")
    packets = [
        *connection(bad_outline, port=1),
        *connection(BAD_NAME, port=2),
        *connection(PLAIN[:100], port=3),
        *connection(b"GET / HTTP/1.1\r\n\r\n", port=4),
        *connection(PLAIN, port=5),
    ]
    status, out, err = hello("--json", pcap(packets))
    assert status == 1
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["source"] for each in found] == ["192.0.2.1:2", "192.0.2.1:5"]
    assert err.splitlines() == [
        "greentls hello: FILE: 192.0.2.1:1 -> 198.51.100.2:443: ClientHello: 0 bytes left, random needs 32",
        f"greentls hello: FILE: 192.0.2.1:2 -> 198.51.100.2:443: {NAME_FAULT}",
        "greentls hello: FILE: 192.0.2.1:3 -> 198.51.100.2:443: "
        "TLSPlaintext: the stream ends inside it, the rest of it expected",
    ]


def test_verbose_names_what_is_not_tls(hello):
    packets = [
        *connection(b"GET / HTTP/1.1\r\n\r\n"),
        *connection(b"SSH-2.0-x\r\n", port=2),
        *connection(PLAIN, port=3),
    ]
    quiet, verbose = hello(pcap(packets)), hello("--verbose", pcap(packets))
    assert quiet[2] == ""
    assert quiet[:2] == verbose[:2]
    assert verbose[2].splitlines() == [
        "greentls hello: FILE: 192.0.2.1:40000 -> 198.51.100.2:443: not TLS: an HTTP request",
        "greentls hello: FILE: 192.0.2.1:2 -> 198.51.100.2:443: not TLS: an SSH banner",
    ]


def test_packets_that_dpkt_cannot_read_are_passed_over(placed):
    whole = LINKS["Ethernet"][1](packet(PLAIN))
    chance = random.Random(3)
    packets = [bytes(12) + b"\x88\x47" + bytes(4), bytes(12) + b"\x81\x00", b"", bytes(60)]
    packets += [whole[: chance.randrange(34)] + chance.randbytes(chance.randrange(60)) for _ in range(2000)]
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file)
    for each in [*packets, whole]:
        writer.writepkt(each, TIME)
    placed(file.getvalue(), PLAIN)


def streams_of(packets):
    file = io.BytesIO(pcap(packets, "raw"))
    return [(stream.source[1], data) for stream, _, data in Capture(file).streams()]


def test_a_stream_whose_beginning_does_not_come_is_given_up():
    size = 10_000
    packets = [syn(), *(packet(bytes(size), at) for at in range(1, 2 * MAX_AHEAD, size)), packet(b"first")]
    assert streams_of(packets) == [(40000, b"")]


def test_so_are_the_oldest_of_too_many():
    ports = range(1, MAX_OPEN + 3)
    packets = [syn(port=port) for port in ports] + [packet(b"first", port=port) for port in (1, 2, 3)]
    pieces = streams_of(packets)
    assert pieces[:3] == [(1, b""), (2, b""), (3, b"first")]
    assert len(pieces) == 3 + MAX_OPEN


@pytest.mark.parametrize("order", ["rising", "falling", "same"])
def test_what_came_too_early_is_not_sorted_anew_for_each_packet(order):
    """hazard: 2,000 segments behind a gap are sorted for each of the packets before it: 16 minutes for 100 MB."""
    count = 1000
    places = {"rising": range(count), "falling": range(count)[::-1], "same": [0] * count}[order]
    stream = Stream((bytes(4), 1, bytes(4), 2), START)
    for place in places:
        assert stream.take(START + 2 * count + place, b"x") == b""
    steps = []
    sys.setprofile(lambda frame, event, argument: steps.append(event))
    try:
        for place in range(count):
            assert stream.take(START + place, b"y") == b"y"
    finally:
        sys.setprofile(None)
    assert len(steps) < 50 * count
    assert stream.take(START + count, b"z" * count) == b"z" * count + (b"x" if order == "same" else b"x" * count)
    assert stream.held == 0


class Endless(io.RawIOBase):
    """A capture that is made while it is read: packets() and the header before them."""

    def __init__(self, packets):
        self._pieces = iter(packets)
        self._rest = pcap([], "raw")

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self._rest:
            ip = next(self._pieces, None)
            if ip is None:
                return 0
            self._rest = struct.pack("=IIII", 1, 0, len(ip), len(ip)) + ip
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def test_a_large_capture_is_not_kept():
    """64 MiB: after its hello a connection's data, and 10 thousand streams of which nothing comes."""
    bulk = packet(bytes(32 * 1024), 5000)

    def packets():
        yield from connection(PLAIN)
        for _ in range(2048):
            yield bulk
        for number in range(10_000):
            yield packet(b"", -1, flags=dpkt.tcp.TH_SYN, port=number)

    tracemalloc.start()
    try:
        pieces = 0
        for stream, _, data in Capture(io.BufferedReader(Endless(packets()))).streams():
            stream.done, pieces = True, pieces + bool(data)
        assert pieces == 1
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
