"""greentls hello: what it reads, what it prints of it, and what it says where it cannot."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tracemalloc
from datetime import datetime, timezone

import dpkt
import pytest

from greentls.cli import main
from greentls.cli.capture import MAX_AHEAD, MAX_OPEN, Capture, Stream
from greentls.wire.fingerprint import ja3, ja3_string, ja4, ja4_r
from greentls.wire.hello import ClientHello
from tests.support.helpers import DATA, PATIENCE, wait_until

HELLOS = DATA / "hellos"
STREAMS = {path.stem: path.read_bytes() for path in sorted(HELLOS.glob("*.bin"))}
EXPECTED = {name: json.loads((HELLOS / f"{name}.json").read_text()) for name in STREAMS}
PLAIN, RETRY = STREAMS["openssl-3.0"], STREAMS["openssl-3.0-retry"]

every_hello = pytest.mark.parametrize("name", STREAMS)


def bare(stream):
    """The first hello of a stream, without its records."""
    message = b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        size = int.from_bytes(stream[3:5], "big")
        message += stream[5 : 5 + size]
        stream = stream[5 + size :]
    return message


def record(fragment, content_type=22):
    return bytes([content_type, 3, 1]) + len(fragment).to_bytes(2, "big") + fragment


def hello_with(*extensions):
    """A hello's record, with extensions as (type, bytes)."""
    block = b"".join(number.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body for number, body in extensions)
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + len(block).to_bytes(2, "big") + block
    return record(b"\1" + len(body).to_bytes(3, "big") + body)


def server_name(host):
    entry = b"\0" + len(host).to_bytes(2, "big") + host
    return 0, len(entry).to_bytes(2, "big") + entry


BAD_NAME = hello_with((0, b"\0\4\0\0\x09a"), (10, b"\0\2\0\x1d"))
NAME_FAULT = "server_name: 1 bytes left, host_name needs 9"


@pytest.fixture
def hello(tmp_path, capfd):
    """hello(*arguments) runs the command in here, and gives (status, standard output, standard error). Bytes among the
    arguments become a file, which standard error calls FILE."""

    def hello(*arguments):
        path = tmp_path / "input"
        for argument in arguments:
            if isinstance(argument, bytes):
                path.write_bytes(argument)
        status = main(["hello", *(str(path) if isinstance(each, bytes) else str(each) for each in arguments)])
        out, err = capfd.readouterr()
        return status, out, err.replace(str(path), "FILE")

    return hello


@pytest.fixture
def documents(hello):
    """The JSON documents of what is all well."""

    def documents(*arguments):
        status, out, err = hello("--json", *arguments)
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    return documents


def run(*arguments, input=b"", **keywords):
    """The command as a process: (status, standard output, standard error)."""
    command = [sys.executable, "-W", "default", "-m", "greentls", "hello", *map(str, arguments)]
    done = subprocess.run(command, input=input, capture_output=True, timeout=PATIENCE, **keywords)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# -- every captured hello ----------------------------------------------------------------------------------------------


def values(numbers):
    return [each["value"] for each in numbers]


def numbers(texts):
    return [int(text, 0) for text in texts]


@every_hello
def test_json_as_tshark_sees_it(documents, name):
    found = documents(STREAMS[name])
    seen, told = EXPECTED[name]["tshark"], EXPECTED[name]["told"]
    assert len(found) == told.get("hellos", 1)

    def of_all(field):
        return [value for document in found for value in document.get(field, ())]

    assert [each["random"] for each in found] == seen.get("random", [])
    assert [each["legacy_session_id"] for each in found if each["legacy_session_id"]] == seen.get(
        "legacy_session_id", []
    )
    assert [each["legacy_version"]["value"] for each in found] == numbers(seen.get("legacy_version", []))
    assert values(of_all("cipher_suites")) == numbers(seen.get("cipher_suites", []))
    assert values(of_all("legacy_compression_methods")) == numbers(seen.get("compression_methods", []))
    assert values(each["extension_type"] for each in of_all("extensions")) == numbers(seen.get("extensions", []))
    lengths = [len(each["extension_data"]) // 2 for each in of_all("extensions")]
    assert lengths == numbers(seen.get("extension_lengths", []))
    assert [each["server_name"] for each in found if "server_name" in each] == seen.get("server_name", [])
    assert of_all("application_layer_protocol_negotiation") == seen.get("alpn_protocols", [])
    assert values(of_all("supported_groups")) == numbers(seen.get("supported_groups", []))
    assert values(of_all("supported_versions")) == numbers(seen.get("supported_versions", []))
    assert values(share["group"] for share in of_all("key_share")) == numbers(seen.get("key_share_groups", []))
    assert [share["key_exchange"] for share in of_all("key_share")] == seen.get("key_exchanges", [])
    assert len(found[0].get("pre_shared_key", {}).get("identities", ())) == told.get("psk_identities", 0)


@every_hello
def test_json_sizes_and_fingerprints(documents, name):
    document = documents(STREAMS[name])[0]
    message = bare(STREAMS[name])
    parsed = ClientHello.parse(message)
    assert document["size"] == len(message)
    assert document["records"] == {"openssl-3.0-17k": 2, "openssl-3.0-small-records": 5}.get(name, 1)
    for function in ja3, ja3_string, ja4, ja4_r:
        assert document[function.__name__] == function(parsed)
    names = {each["extension_type"]["name"] for each in document["extensions"]}
    parsed_ones = {each for each in names if each in document}
    assert {each for each in names - parsed_ones if not each.startswith("GREASE")} <= {"trust_anchors"}


@every_hello
def test_the_same_from_anything(documents, name):
    """A file, its hello alone, and hex of either."""
    stream = STREAMS[name]
    expected = documents(stream)
    without_records = [{**expected[0], "records": 0}]
    assert documents(bare(stream)) == without_records
    colons = ":".join(f"{byte:02X}" for byte in stream)
    array = ",\n".join(f"0x{byte:02x}" for byte in bare(stream))
    lines = re.sub("(.{60})", r"\1\n", stream.hex())
    assert documents(colons.encode()) == documents(lines.encode()) == expected
    assert documents(array.encode()) == without_records


@every_hello
def test_standard_input(documents, name):
    expected = documents(STREAMS[name])
    for arguments, data in ((["-"], STREAMS[name]), ([], bare(STREAMS[name]).hex().encode())):
        status, out, err = run("--json", *arguments, input=data)
        assert (status, err) == (0, "")
        found = [json.loads(line) for line in out.splitlines()]
        assert found == (expected if arguments else [{**expected[0], "records": 0}])


@every_hello
def test_table(hello, name):
    status, out, err = hello(STREAMS[name])
    assert (status, err) == (0, "")
    parsed = ClientHello.parse(bare(STREAMS[name]))
    table = out.split("\n\n")[0]
    rows = dict(re.findall(r"^([a-zA-Z]\w+)(?:  +|: )(.*(?:\n {22}.*)*)", table, re.MULTILINE))
    assert rows["size"].startswith(f"{len(bare(STREAMS[name]))} bytes in ")
    assert rows["server_name"] == (parsed.server_name or "-")
    assert re.split(r",\s+", rows["ALPN"]) == (list(parsed.alpn_protocols) or ["-"])
    assert rows["legacy_session_id"] == f"{len(parsed.legacy_session_id)} bytes"
    assert rows["ja3"] == ja3(parsed)
    assert rows["ja3_string"] == ja3_string(parsed)
    assert rows["ja4"] == ja4(parsed)
    assert rows["ja4_r"] == ja4_r(parsed)
    assert numbers(re.findall(r"^  (0x[0-9A-F]{4})  ", table, re.MULTILINE)) == list(parsed.cipher_suites)
    lengths = [(each.extension_type, len(each.extension_data)) for each in parsed.extensions]
    found = re.findall(r"^ +(\d+) +(\d+) bytes?  \w", table, re.MULTILINE)
    assert [(int(number), int(size)) for number, size in found] == lengths
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


def test_table_in_full(hello):
    """As a whole, once, so that whoever changes it sees it."""
    name = b"a.example"
    stream = hello_with(
        server_name(name),
        (43, b"\4\x1a\x1a\3\4"),
        (10, b"\0\4\x11\xec\0\x1d"),
        (51, b"\0\7\0\x1d\0\3abc"),
        (16, b"\0\3\2h2"),
        (41, b"\0\x0b\0\5ident\0\0\0\7\0\5\4bind"),
        (0x3A3A, b"\1"),
        (0x1234, b"?"),
        (23, b""),
    )
    assert hello(stream)[1] == (
        """\
size                  144 bytes in 1 record
legacy_version        TLSv1_2
supported_versions    GREASE 0x1A1A, TLSv1_3
server_name           a.example
ALPN                  h2
legacy_session_id     0 bytes
psk_identities        1: 5 bytes
supported_groups      X25519MLKEM768, x25519
key_share             x25519 3 bytes
signature_algorithms  -
ja3                   JA3
ja3_string            771,4865,0-43-10-51-16-41-4660-23,4588-29,
ja4                   JA4
ja4_r                 t13d0108h2_1301_000a,0017,0029,002b,0033,1234
cipher_suites: 1
  0x1301  TLS_AES_128_GCM_SHA256
extensions: 9
      0     14 bytes  server_name: a.example
     43      5 bytes  supported_versions: GREASE 0x1A1A, TLSv1_3
     10      6 bytes  supported_groups: X25519MLKEM768, x25519
     51      9 bytes  key_share: group x25519, key_exchange 3 bytes
     16      5 bytes  application_layer_protocol_negotiation: h2
     41     20 bytes  pre_shared_key: identities (identity 5 bytes, obfuscated_ticket_age 7), bin...
  14906       1 byte  GREASE 0x3A3A: 01
   4660       1 byte  unknown 0x1234: 3f
     23      0 bytes  extended_master_secret

""".replace("JA3", ja3(ClientHello.parse(bare(stream)))).replace("JA4", ja4(ClientHello.parse(bare(stream))))
    )


def test_what_a_client_says_does_nothing_to_the_terminal(hello):
    stream = hello_with(server_name(b"\x1b[2J\x9b\\a\r\n\x7f"), (16, b"\0\5\4\x1b]0;"))
    shown = r"\x1b[2j\x9b\x5ca\x0d\x0a\x7f"  # a name, in lower case
    _, out, _ = hello(stream)
    assert f"server_name           {shown}\n" in out
    assert r"ALPN                  \x1b]0;" in out
    _, line, _ = hello("--json", stream)
    assert json.loads(line)["server_name"] == shown
    for each in out, line:
        assert each.isascii()
        assert each.replace("\n", "").isprintable()


def test_whatever_comes_is_printable_or_one_line(hello):
    """Bytes changed at random: never a traceback, never a control character."""
    chance = random.Random(20)
    statuses = set()
    for turn in range(300):
        stream = bytearray(STREAMS[chance.choice(list(STREAMS))][:2500])
        for _ in range(chance.randrange(1, 5)):
            stream[chance.randrange(len(stream))] = chance.randrange(256)
        status, out, err = hello(*(["--json"] if turn % 2 else []), bytes(stream))
        statuses.add(status)
        assert err.count("\n") == (status == 2)
        for each in out, err:
            assert each.isascii()
            assert each.replace("\n", "").isprintable()
    assert statuses == {0, 2}


def test_both_hellos_of_a_retry(documents):
    first, second = documents(RETRY)
    assert [each["name"] for each in values_of(first)] == ["x25519"]
    assert [each["name"] for each in values_of(second)] == ["secp384r1"]
    assert first["random"] == second["random"]


def values_of(document):
    return [share["group"] for share in document["key_share"]]


@pytest.mark.parametrize(
    "rest",
    [record(b"\0" * 70, 23) + b"garbage", record(b"\x10\0\0\1a"), record(b"\1", 20) + record(b"\xff" * 40) + b"x" * 9],
    ids=["application data", "client_key_exchange", "encrypted handshake"],
)
def test_what_a_client_goes_on_with_is_passed_over(documents, rest):
    assert documents(PLAIN + rest) == documents(PLAIN)


# -- captures ----------------------------------------------------------------------------------------------------------

CLIENT4, SERVER4 = socket.inet_aton("192.0.2.1"), socket.inet_aton("198.51.100.2")
CLIENT6, SERVER6 = (socket.inet_pton(socket.AF_INET6, address) for address in ("2001:db8::1", "2001:db8::2"))
ADDRESSES = {
    4: (CLIENT4, SERVER4, "192.0.2.1:{}", "198.51.100.2:443"),
    6: (CLIENT6, SERVER6, "[2001:db8::1]:{}", "[2001:db8::2]:443"),
}

ACK, PUSH = dpkt.tcp.TH_ACK, dpkt.tcp.TH_ACK | dpkt.tcp.TH_PUSH
START = 4_294_967_290  # the first byte's sequence number: those after it begin again at 0


def packet(data, at=0, *, port=40000, version=4, flags=PUSH, start=START, reverse=False):
    """An IP packet with a segment of a client, whose data begin at that place of its stream."""
    client, server, _, _ = ADDRESSES[version]
    ports = (443, port) if reverse else (port, 443)
    segment = dpkt.tcp.TCP(
        sport=ports[0], dport=ports[1], seq=(start + at) % 2**32, flags=flags, data=data, opts=b"\1\1\1\1"
    )
    segment.off += 1
    source, destination = (server, client) if reverse else (client, server)
    if version == 4:
        return bytes(dpkt.ip.IP(src=source, dst=destination, p=6, data=segment))
    ip = dpkt.ip6.IP6(src=source, dst=destination, nxt=6, hlim=64, plen=len(segment), data=segment)
    ip.extension_hdrs = {}
    return bytes(ip)


def syn(**keywords):
    return packet(b"", -1, flags=dpkt.tcp.TH_SYN, **keywords)


def segments(stream, size, **keywords):
    return [packet(stream[at : at + size], at, **keywords) for at in range(0, len(stream), size)]


def connection(stream, size=1400, **keywords):
    """All packets that its client sends first, and some of its server's."""
    return [
        syn(**keywords),
        packet(b"", -1, flags=dpkt.tcp.TH_SYN | ACK, reverse=True, start=77, **keywords),
        packet(b"", flags=ACK, **keywords),
        *segments(stream, size, **keywords),
        packet(record(b"\2\0\0\1a"), reverse=True, start=77, **keywords),
    ]


def ethertype(packet):
    return b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"


LINKS = {
    "Ethernet": (1, lambda ip: bytes(12) + ethertype(ip) + ip + b"\0\0trailer"),
    "VLAN": (1, lambda ip: bytes(12) + b"\x81\x00\x00\x07" + ethertype(ip) + ip),
    "QinQ": (1, lambda ip: bytes(12) + b"\x88\xa8\x00\x07\x81\x00\x00\x08" + ethertype(ip) + ip),
    "raw": (101, lambda ip: ip),
    "cooked": (113, lambda ip: b"\0\0\0\1\0\6" + bytes(8) + ethertype(ip) + ip),
    "cooked 2": (276, lambda ip: ethertype(ip) + bytes(2) + b"\0\0\0\1\0\1\0\6" + bytes(8) + ip),
    "loopback": (0, lambda ip: struct.pack("=I", 24 if ip[0] >> 4 == 6 else 2) + ip),
}

TIME = 1_700_000_000.25  # 2023-11-14T22:13:20.250000+00:00, and a second more for each packet


def pcap(packets, link="Ethernet", nano=False):
    link_type, frame = LINKS[link]
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, linktype=link_type, nano=nano)
    for number, ip in enumerate(packets):
        writer.writepkt(frame(ip), TIME + number)
    return file.getvalue()


def pcapng(packets, link="Ethernet"):
    link_type, frame = LINKS[link]
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file, linktype=link_type)
    for number, ip in enumerate(packets):
        writer.writepkt(frame(ip), TIME + number)
    return file.getvalue()


@pytest.fixture
def placed(documents):
    """The documents of a capture, which have to be those of a stream, and their sources, destinations and times."""

    def placed(capture, *streams):
        found, expected = documents(capture), [each for stream in streams for each in documents(stream)]
        places = [(each.pop("source"), each.pop("destination"), each.pop("time")) for each in found]
        assert found == expected
        return places

    return placed


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
        "TLSPlaintext: the stream ends inside of it, the rest of it expected",
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


# -- bad input ---------------------------------------------------------------------------------------------------------

PCAP, PCAPNG = pcap([packet(PLAIN)]), pcapng([packet(PLAIN)])
HINT = "give a capture, a client's bytes, or hex as xxd -p prints it"

BAD_INPUT = {
    "nothing": (b"", "empty"),
    "white space": (b" \n", "empty"),
    "text": (b"hello, world\n", f"neither a capture nor TLS nor hex; {HINT}"),
    "half a byte": (b"160", f"neither a capture nor TLS nor hex; {HINT}"),
    "binary": (b"\x7fELF\x02\x01", f"neither a capture nor TLS nor hex; {HINT}"),
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", f"an HTTP request; {HINT}"),
    "a PROXY header": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", f"a PROXY header, version 1; {HINT}"),
    "hex of an HTTP request": (
        b"GET / HTTP/1.1\r\n".hex().encode(),
        "TLSPlaintext: an HTTP request, TLS records or a ClientHello expected",
    ),
    "hex of a pcap": (
        PCAP.hex().encode(),
        "TLSPlaintext: neither TLS nor known, TLS records or a ClientHello expected",
    ),
    "half a header": (b"\x16\3\1", "TLSPlaintext: the stream ends inside of it, the rest of it expected"),
    "half a record": (PLAIN[:100], "TLSPlaintext: the stream ends inside of it, the rest of it expected"),
    "half a hello": (record(bare(PLAIN)[:100]), "Handshake: the stream ends inside of it, the rest of it expected"),
    "half a bare hello": (bare(PLAIN)[:100], "ClientHello: 100 bytes, 343 expected"),
    "one byte": (b"\1", "ClientHello: 1 bytes, 4 expected"),
    "more after a bare hello": (bare(PLAIN) + b"x", f"ClientHello: {len(bare(PLAIN)) + 1} bytes, 343 expected"),
    "a large hello": (record(b"\1\xff\xff\xff"), "length: 16777215 bytes, at most 65536 expected"),
    "a large record": (b"\x16\3\1\xff\xff", "length: 65535 bytes, at most 16384 expected"),
    "no hello": (record(b"\2\0\0\0"), "no ClientHello in it"),
    "an alert": (record(b"\2\x28", 21), "no ClientHello in it"),
    "application data": (record(b"data", 23), "no ClientHello in it"),
    "a malformed name": (BAD_NAME, NAME_FAULT),
    "an extension twice": (
        hello_with((23, b""), (23, b"")),
        "extensions: repeated, extended_master_secret but once expected",
    ),
    "a pcap's magic": (PCAP[:4], "broken after packet 0: got 4, 24 needed at least"),
    "half a pcap's packet header": (PCAP[:30], "broken after packet 0: got 6, 16 needed at least"),
    "half a pcap's packet": (PCAP[:-300], "FILE: 192.0.2.1:40000 -> 198.51.100.2:443: TLSPlaintext: the stream ends"),
    "an empty pcap": (PCAP[:24], "no ClientHello in it; packets: 0"),
    "a long packet": (PCAP[:24] + b"\xff" * 16, "broken after packet 0: a length of 4294967295 bytes"),
    "an unknown link": (
        PCAP[:20] + b"\x7f\0\0\0" + PCAP[24:],
        "no ClientHello in it; packets: 1, link types that are not understood: 127",
    ),
    "a pcapng's magic": (PCAPNG[:4], "broken after packet 0: cut short"),
    "half a pcapng's block": (PCAPNG[:-300], "broken after packet 0: cut short"),
    "a long block": (
        PCAPNG[:28] + b"\1\0\0\0\xff\xff\xff\xff\0\0\0\0",
        "broken after packet 0: a length of 4294967283 b",
    ),
    "a short block": (PCAPNG[:28] + b"\1\0\0\0\7\0\0\0\0\0\0\0", "broken after packet 0: a length of -5 bytes"),
    "no interface": (
        PCAPNG[:28] + PCAPNG[48:],
        "broken after packet 0: a packet of interface 0, which is not described",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_one_line_that_names_it(hello, case):
    data, told = BAD_INPUT[case]
    status, out, err = hello(data)
    assert err.count("\n") == 1
    assert err.startswith("greentls hello: FILE: ")
    assert told in err
    assert status == (1 if "->" in told else 2)
    assert bool(out) == (case in ("a malformed name", "an extension twice"))


def test_a_malformed_extension_is_marked_in_its_place(hello):
    _, out, _ = hello(BAD_NAME)
    assert f"      0      6 bytes  server_name: malformed: {NAME_FAULT}\n" in out
    assert "supported_groups      x25519\n" in out
    assert "ja3                   8" not in out
    _, line, _ = hello("--json", BAD_NAME)
    document = json.loads(line)
    assert document["malformed"] == [NAME_FAULT]
    assert "server_name" not in document
    assert document["supported_groups"] == [{"value": 29, "name": "x25519"}]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch"], "nosuch: No such file or directory; check the path and its permissions"),
        (["/"], "/: Is a directory; check the path and its permissions"),
        (["--listen", "localhost"], "--listen localhost: not HOST:PORT; write localhost:8443 or [::1]:8443"),
        (
            ["--listen", "192.0.2.1:0"],
            "--listen 192.0.2.1:0: Cannot assign requested address; give a name or an address",
        ),
    ],
)
def test_what_cannot_be_read(hello, arguments, told):
    status, out, err = hello(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"greentls hello: {told}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "localhost:0", "file"], "argument FILE: not allowed with argument --listen"),
        (["file", "--listen", "localhost:0"], "argument --listen: not allowed with argument FILE"),
        (["--count", "0"], "argument --count: '0' is not a number above 0"),
        (["--timeout", "soon"], "argument --timeout: 'soon' is not a number of seconds"),
        (["one", "two"], "unknown option: two"),
    ],
)
def test_usage(capfd, arguments, told):
    with pytest.raises(SystemExit) as caught:
        main(["hello", *arguments])
    assert caught.value.code == 2
    assert capfd.readouterr() == ("", f"greentls hello: {told}; see greentls hello --help\n")


def test_captures_need_dpkt(hello, monkeypatch):
    monkeypatch.setitem(sys.modules, "dpkt", None)
    monkeypatch.delitem(sys.modules, "greentls.cli.capture")
    for capture in PCAP, PCAPNG:
        told = "greentls hello: FILE: reading captures needs dpkt; pip install 'greentls[capture]'\n"
        assert hello(capture) == (2, "", told)
    assert hello(PLAIN)[0] == 0


def test_closed_standard_input():
    status, out, err = run(preexec_fn=lambda: os.close(0))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_standard_output_that_nobody_reads(tmp_path):
    (tmp_path / "capture").write_bytes(pcap([each for port in range(1, 200) for each in connection(PLAIN, port=port)]))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "greentls", "hello", str(tmp_path / "capture")]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=PATIENCE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help(capfd):
    with pytest.raises(SystemExit):
        main(["hello", "--help"])
    text, _ = capfd.readouterr()
    assert set(re.findall(r"^  --([a-z-]+)", text, re.MULTILINE)) == {"listen", "count", "timeout", "json", "verbose"}
    for told in ("examples:", "greentls[capture]", "tcpdump", "jq", "xxd -p", "curl", "exit status", "130"):
        assert told in text
    assert max(map(len, text.splitlines())) <= 120


# -- the network -------------------------------------------------------------------------------------------------------


class Listening:
    """A running `greentls hello --listen`."""

    def __init__(self, directory, *arguments, host="localhost"):
        self._out, self._err = directory / "out", directory / "err"
        command = [sys.executable, "-W", "default", "-m", "greentls", "hello", "--listen", f"{host}:0", *arguments]
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        wait_until(lambda: self._lines() or self.process.poll() is not None, "the first line")
        self.port = int(re.fullmatch(r"greentls hello: listening on (?:127.0.0.1|\[::1\]):(\d+)", self._lines()[0])[1])

    def _lines(self):
        return self._err.read_text().splitlines()

    @property
    def errors(self):
        """The lines after the one that it listens, without the client's port."""
        return [re.sub(r":\d+ -> ", ":CLIENT -> ", line) for line in self._lines()[1:]]

    @property
    def out(self):
        return self._out.read_text()

    @property
    def documents(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def connect(self):
        return socket.create_connection(("localhost", self.port), PATIENCE)

    def wait(self):
        return self.process.wait(PATIENCE)


@pytest.fixture
def listening(tmp_path):
    started = []

    def start(*arguments, **keywords):
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Listening(directory, *map(str, arguments), **keywords))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()


def ended(*command, **keywords):
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, **keywords)
    return done.returncode, done.stdout + done.stderr


def test_python(listening):
    server = listening("--json")
    before = datetime.now(timezone.utc)
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "spdy"])
    with server.connect() as sock:
        here = sock.getsockname()
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            context.wrap_socket(sock, server_hostname="python.example")
    assert server.wait() == 0
    [document] = server.documents
    assert document["source"] == f"127.0.0.1:{here[1]}"
    assert document["destination"] == f"127.0.0.1:{server.port}"
    assert before <= datetime.fromisoformat(document["time"]) <= datetime.now(timezone.utc)
    assert document["server_name"] == "python.example"
    assert document["application_layer_protocol_negotiation"] == ["h2", "spdy"]
    assert server.errors == []


@pytest.mark.programs
@pytest.mark.parametrize("version", ["-tls1", "-tls1_2", "-tls1_3"])
def test_s_client(listening, version):
    server = listening("--json")
    status, said = ended(
        *("openssl", "s_client", "-connect", f"localhost:{server.port}", "-servername", "openssl.example"),
        *(version, "-cipher", "DEFAULT:@SECLEVEL=0"),
        stdin=subprocess.DEVNULL,
    )
    assert status == 1
    assert "alert handshake failure" in said
    assert server.wait() == 0
    [document] = server.documents
    assert document["server_name"] == "openssl.example"
    assert document["legacy_version"]["name"] == {"-tls1": "TLSv1_0"}.get(version, "TLSv1_2")


@pytest.mark.programs
def test_curl(listening):
    server = listening()
    status, said = ended("curl", "--silent", "--show-error", f"https://localhost:{server.port}/")
    assert status == 35
    assert "alert handshake failure" in said
    assert server.wait() == 0
    assert re.match(r"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+  20\d\d-", server.out)
    assert re.search(r"^server_name +localhost$", server.out, re.MULTILINE)
    assert re.search(r"^ALPN +h2, http/1.1$", server.out, re.MULTILINE)


def test_ipv6(listening):
    server = listening("--json", host="[::1]")
    with socket.create_connection(("::1", server.port), PATIENCE) as sock:
        sock.sendall(PLAIN)
        assert sock.recv(100) == b"\x15\3\3\0\2\2\x28"
    assert server.wait() == 0
    assert server.documents[0]["source"].startswith("[::1]:")


def test_byte_by_byte_and_the_rest_of_what_the_client_sends(listening):
    """The alert is there although more came than was read: a reset would have destroyed it."""
    server = listening("--json")
    with server.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(PLAIN)):
            sock.sendall(PLAIN[at : at + 1])
        sock.sendall(record(bytes(10000), 23) * 10)
        assert sock.recv(100) == b"\x15\3\3\0\2\2\x28"
        assert sock.recv(100) == b""
    assert server.wait() == 0
    assert len(server.documents) == 1


def test_count(listening):
    server = listening("--json", "--count", 3)
    for name in ("curl", "node", "gnutls"):
        with server.connect() as sock:
            sock.sendall(STREAMS[name])
            assert sock.recv(100) == b"\x15\3\3\0\2\2\x28"
    assert server.wait() == 0
    assert [each["random"] for each in server.documents] == [
        EXPECTED[name]["tshark"]["random"][0] for name in ("curl", "node", "gnutls")
    ]


CLIENT = "greentls hello: 127.0.0.1:CLIENT -> 127.0.0.1:PORT: "

BAD_CLIENTS = {
    "leaves": (b"", True, b"", "no ClientHello: closed by the client"),
    "leaves in the middle": (
        PLAIN[:50],
        True,
        b"\x15\3\3\0\2\2\x32",
        "TLSPlaintext: the stream ends inside of it, the",
    ),
    "says nothing": (b"", False, b"", "no ClientHello: timed out"),
    "stops in the middle": (PLAIN[:50], False, b"", "no ClientHello: timed out"),
    "speaks HTTP": (b"GET / HTTP/1.1\r\n\r\n", False, b"", "no ClientHello: not TLS: an HTTP request"),
    "malformed": (record(b"\1\0\0\2\3\3"), False, b"\x15\3\3\0\2\2\x32", "ClientHello: 0 bytes left, random needs 32"),
    "too long": (record(b"\1\xff\xff\xff"), False, b"\x15\3\3\0\2\2\x2f", "length: 16777215 bytes, at most 65536"),
    "is a server": (record(b"\2\0\0\0"), False, b"", "no ClientHello: not a client"),
}


@pytest.mark.parametrize("case", BAD_CLIENTS)
def test_bad_clients_are_reported_and_the_next_one_is_read(listening, case):
    sent, leaves, alert, told = BAD_CLIENTS[case]
    server = listening("--json", "--count", 2, "--timeout", 0.2 if "timed out" in told else PATIENCE)
    with server.connect() as bad, server.connect() as good:
        good.sendall(PLAIN)
        bad.sendall(sent)
        if leaves:
            bad.shutdown(socket.SHUT_WR)
        assert bad.recv(100) == alert
        bad.close()
        assert good.recv(100) == b"\x15\3\3\0\2\2\x28"
    assert server.wait() == 1
    [line] = server.errors
    assert line.startswith(CLIENT.replace("PORT", str(server.port)) + told)
    assert len(server.documents) == 1


def test_a_client_that_resets_its_connection(listening):
    server = listening()
    with server.connect() as sock:
        sock.sendall(PLAIN[:50])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.wait() == 1
    [line] = server.errors
    assert line.endswith(": no ClientHello: Connection reset by peer")


def test_a_malformed_extension_of_a_client(listening):
    server = listening("--json")
    with server.connect() as sock:
        sock.sendall(BAD_NAME)
        assert sock.recv(100) == b"\x15\3\3\0\2\2\x28"
    assert server.wait() == 1
    assert server.documents[0]["malformed"] == [NAME_FAULT]
    assert server.errors == [CLIENT.replace("PORT", str(server.port)) + NAME_FAULT]


def test_an_address_in_use(hello):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        told = f"--listen {place}: Address already in use; choose another port, or stop what listens there"
        assert hello("--listen", place) == (2, "", f"greentls hello: {told}\n")


def test_ctrl_c(listening):
    server = listening("--count", 2)
    with server.connect() as sock:
        sock.sendall(PLAIN)
        assert sock.recv(100)
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 130
    assert server.errors == []


def test_ctrl_c_while_a_client_is_silent(listening):
    server = listening("--timeout", 3600)
    with server.connect():
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 130
    # Between accept() and with, nobody closes the socket: Python warns of it.
    assert [line for line in server.errors if "Traceback" in line] == []


def test_ctrl_c_while_standard_input_is_awaited():
    command = [sys.executable, "-m", "greentls", "hello", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(pcap([packet(PLAIN)]))
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""
