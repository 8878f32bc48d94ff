"""TCP connections as packets, and packets as captures."""

from __future__ import annotations

import io
import socket
import struct

import dpkt

from tests.cli.hellos import record

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
