"""Captures: reads what clients sent over TCP, in order, from a .pcap or .pcapng file.

dpkt reads files and packets. This module adds streams, and several interfaces in one file.

A stream begins at its SYN or, without one, at a segment that looks like a ClientHello. The latter is for connections
that are older than the capture or begin with something else (STARTTLS, CONNECT). The side that answers a SYN is not
read. The reader of a stream sets done when it does not need the rest.

The file is read packet by packet, and memory is bounded whatever it contains.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import BinaryIO

import dpkt

__all__ = ["BrokenCapture", "Capture", "Stream"]

MAX_BLOCK = 16 * 1024 * 1024  # bytes of a packet or another block; libpcap has the same limit
MAX_INTERFACES = 65536  # in a section
MAX_OPEN = 4096  # streams that wait for the rest of a hello, or for their first byte
MAX_PASSED = 65536  # remembered streams that were read; their segments may be retransmitted
MAX_AHEAD = 128 * 1024  # bytes of a stream that arrived too early; a hello has at most 64 KiB
SEGMENT_OVERHEAD = 64  # about the bytes of memory that a kept segment needs besides its data

Direction = tuple[bytes, int, bytes, int]  # source address and port, destination address and port

_SECTION_HEADER = b"\x0a\x0d\x0d\x0a"
_INTERFACE_DESCRIPTION, _OLD_PACKET, _ENHANCED_PACKET = 1, 2, 6
_RESOLUTION, _OFFSET = 9, 14  # if_tsresol, if_tsoffset

# A handshake record with a client_hello, perhaps after a ChangeCipherSpec, as before a second hello.
_HELLO = re.compile(rb"(?:\x14\x03[\x00-\x04]\x00\x01\x01)?\x16\x03[\x00-\x04]..\x01\x00", re.DOTALL)


class Stream:
    """The bytes that one side sent. source, destination: address and port."""

    def __init__(self, direction: Direction, sequence: int) -> None:
        self.direction = direction
        self.first = sequence  # the sequence number of the first byte
        self.done = False
        self.held = 0
        self._taken = 0  # number of bytes
        self._ahead: list[tuple[int, bytes]] = []  # a heap of segments with their offsets in the stream

    @property
    def next(self) -> int:
        """The sequence number of the next byte."""
        return (self.first + self._taken) % 2**32

    @property
    def source(self) -> tuple[str, int]:
        return _readable(*self.direction[:2])

    @property
    def destination(self) -> tuple[str, int]:
        return _readable(*self.direction[2:])

    def take(self, sequence: int, data: bytes) -> bytes:
        """Takes a segment and returns the bytes that follow now, in order and each once. Early bytes are held."""
        heappush(self._ahead, (self._taken + _distance(sequence, self.next), data))
        self.held += len(data) + SEGMENT_OVERHEAD
        pieces = []
        while self._ahead and self._ahead[0][0] <= self._taken:
            start, segment = heappop(self._ahead)
            self.held -= len(segment) + SEGMENT_OVERHEAD
            pieces.append(segment[self._taken - start :])
            self._taken += len(pieces[-1])
        return b"".join(pieces)


class BrokenCapture(Exception):
    """The rest of the file cannot be read."""


class Capture:
    """A capture file. head: the first bytes of file, if they were read already.

    packets: the number of packets so far. unread: unknown link types (tcpdump.org/linktypes.html) of packets.
    """

    def __init__(self, file: BinaryIO, head: bytes = b"") -> None:
        self.packets = 0
        self.unread: set[int] = set()
        self._file = _File(file, head)
        self._pcapng = head.startswith(_SECTION_HEADER)
        self._open: OrderedDict[Direction, Stream] = OrderedDict()
        self._passed: OrderedDict[Direction, int] = OrderedDict()  # Stream.next of each

    def streams(self) -> Iterator[tuple[Stream, float, bytes]]:
        """Yields (stream, time in seconds since the epoch, data) for each piece of a stream; b"" is its end.

        Raises BrokenCapture.
        """
        time = 0.0
        try:
            for time, link_type, packet in self._pcapng_packets() if self._pcapng else self._pcap_packets():
                self.packets += 1
                found = self._segment(link_type, packet)
                if found is None:
                    continue
                for stream, data in self._pieces(*found):
                    yield stream, time, data
        except (dpkt.Error, struct.error, ValueError) as error:
            raise BrokenCapture(str(error) or "cut short") from None
        for stream in self._open.values():
            yield stream, time, b""

    # Files -----------------------------------------------------------------------------------------------------------

    def _pcap_packets(self) -> Iterator[tuple[float, int, bytes]]:
        reader = dpkt.pcap.Reader(self._file)
        link_type = reader.datalink() & 0xFFFF  # the rest of the field is about checksums
        for time, packet in reader:
            yield float(time), link_type, packet

    def _pcapng_packets(self) -> Iterator[tuple[float, int, bytes]]:
        order, blocks = "<", _LITTLE
        interfaces: list[tuple[int, int, float]] = []  # link type, offset of times in seconds, units per second
        while head := self._file.read(12):  # the shortest block
            if len(head) < 12:
                raise ValueError("cut short")
            if head.startswith(_SECTION_HEADER):
                order, blocks = ("<", _LITTLE) if head.endswith(b"\x1a") else (">", _BIG)
                interfaces = []
            kind, length = struct.unpack(f"{order}II", head[:8])
            block = head + self._file.read(length - 12)
            if kind == _INTERFACE_DESCRIPTION:
                if len(interfaces) == MAX_INTERFACES:
                    raise ValueError(f"more than {MAX_INTERFACES} interfaces")
                interfaces.append(_interface(blocks[kind](block), order))
            elif kind in blocks:
                packet = blocks[kind](block)
                if packet.iface_id >= len(interfaces):
                    raise ValueError(f"a packet of interface {packet.iface_id}, which is not described")
                link_type, offset, units = interfaces[packet.iface_id]
                yield offset + (packet.ts_high << 32 | packet.ts_low) / units, link_type, packet.pkt_data

    # Packets ---------------------------------------------------------------------------------------------------------

    def _segment(self, link_type: int, packet: bytes) -> tuple[Direction, dpkt.tcp.TCP] | None:
        """Returns the TCP segment in a packet, inside any tags and tunnels that dpkt knows."""
        if link_type not in _LINKS:
            self.unread.add(link_type)
            return None
        try:
            layer = _LINKS[link_type](packet)
        except Exception:  # malformed: dpkt raises IndexError and others besides its own errors
            return None
        ip = None
        while isinstance(layer, dpkt.Packet):
            if isinstance(layer, dpkt.tcp.TCP) and ip is not None:
                return (ip.src, layer.sport, ip.dst, layer.dport), layer
            if isinstance(layer, (dpkt.ip.IP, dpkt.ip6.IP6)):
                ip = layer
            layer = layer.data
        return None

    # Streams ---------------------------------------------------------------------------------------------------------

    def _pieces(self, direction: Direction, segment: dpkt.tcp.TCP) -> Iterator[tuple[Stream, bytes]]:
        sequence, data = segment.seq, segment.data
        stream = self._open.get(direction)
        if segment.flags & dpkt.tcp.TH_SYN:
            if segment.flags & dpkt.tcp.TH_ACK:
                return
            sequence = (sequence + 1) % 2**32
            if stream is None or stream.first != sequence:  # otherwise it is a retransmission
                if stream is not None:
                    yield self._close(stream), b""
                stream = self._begin(direction, sequence)
        if stream is None and _HELLO.match(data):
            passed = self._passed.get(direction)
            if passed is None or _distance(sequence, passed) >= 0:  # otherwise a retransmission of what was read
                stream = self._begin(direction, sequence)
        if stream is not None and data:
            self._open.move_to_end(direction)
            if piece := stream.take(sequence, data):
                yield stream, piece
            if stream.done:
                self._close(stream)
            elif stream.held > MAX_AHEAD:
                yield self._close(stream), b""
        if len(self._open) > MAX_OPEN:
            yield self._close(next(iter(self._open.values()))), b""

    def _begin(self, direction: Direction, sequence: int) -> Stream:
        stream = self._open[direction] = Stream(direction, sequence)
        return stream

    def _close(self, stream: Stream) -> Stream:
        del self._open[stream.direction]
        self._passed[stream.direction] = stream.next
        if len(self._passed) > MAX_PASSED:
            self._passed.popitem(last=False)
        return stream


class _File:
    """A file for dpkt, which trusts any length in the file. So the limit is here."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._file, self._head = file, head

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BLOCK:
            raise ValueError(f"a length of {size} bytes")
        head, self._head = self._head[:size], self._head[size:]
        return head + self._file.read(size - len(head))


def _raw(packet: bytes) -> dpkt.ip.IP | dpkt.ip6.IP6:
    return dpkt.ip6.IP6(packet) if packet[0] >> 4 == 6 else dpkt.ip.IP(packet)


_LINKS = {
    0: dpkt.loopback.Loopback,  # BSD's and macOS's
    1: dpkt.ethernet.Ethernet,
    12: _raw,
    101: _raw,
    108: dpkt.loopback.Loopback,
    113: dpkt.sll.SLL,
    228: _raw,
    229: _raw,
    276: dpkt.sll2.SLL2,
}

_LITTLE = {
    _INTERFACE_DESCRIPTION: dpkt.pcapng.InterfaceDescriptionBlockLE,
    _OLD_PACKET: dpkt.pcapng.PacketBlockLE,
    _ENHANCED_PACKET: dpkt.pcapng.EnhancedPacketBlockLE,
}
_BIG = {
    _INTERFACE_DESCRIPTION: dpkt.pcapng.InterfaceDescriptionBlock,
    _OLD_PACKET: dpkt.pcapng.PacketBlock,
    _ENHANCED_PACKET: dpkt.pcapng.EnhancedPacketBlock,
}


def _interface(description: dpkt.pcapng.InterfaceDescriptionBlock, order: str) -> tuple[int, int, float]:
    """Returns the link type, the offset of times in seconds, and their units per second."""
    options = {option.code: option.data for option in description.opts}
    [resolution] = options.get(_RESOLUTION, b"\6")  # a power of 10, or of 2
    [offset] = struct.unpack_from(f"{order}q", options.get(_OFFSET, bytes(8)))
    return description.linktype, offset, float(2 ** (resolution & 127) if resolution & 128 else 10**resolution)


def _distance(sequence: int, other: int) -> int:
    """Returns sequence - other, for numbers modulo 2^32."""
    return (sequence - other + 2**31) % 2**32 - 2**31


def _readable(address: bytes, port: int) -> tuple[str, int]:
    return str(ipaddress.ip_address(address)), port
