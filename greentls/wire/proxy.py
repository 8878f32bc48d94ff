"""The PROXY protocol, versions 1 and 2: a proxy in front of us sends the client's addresses before TLS begins.

https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt (section numbers below are this document's). Read headers
only from proxies that you know, and require one on each of their connections: a client that may choose whether to send
a header can claim any address.

A violation is a WireError. Ignore its alert and close the connection, because the protocol has no alerts.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

from greentls.errors import WireError
from greentls.wire.reader import Reader
from greentls.wire.registry import AlertDescription

__all__ = ["MAX_V1_SIZE", "MAX_V2_SIZE", "TLV", "ProxyHeader", "ProxyReader", "ProxySSL", "TLVType"]

MAX_V1_SIZE = 107  # bytes of the longest line, with its end (2.1)

# Addresses take up to 216 bytes. The rest is TLVs, and the largest of these is a client's certificate. The length
# allows 64 KiB. nginx takes 4 KiB, HAProxy its buffer of 16 KiB; the latter is enough for post-quantum certificates.
MAX_V2_SIZE = 16 * 1024

_V1_START = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED_SIZE = 16  # signature, version and command, family and transport, length


class TLVType(IntEnum):
    """The types of 2.2.1 and following; 0xE0-0xEF are for proxies' own use, 0xF0-0xF7 experimental."""

    alpn = 0x01
    authority = 0x02
    crc32c = 0x03
    noop = 0x04
    unique_id = 0x05
    ssl = 0x20
    ssl_version = 0x21
    ssl_cn = 0x22
    ssl_cipher = 0x23
    ssl_sig_alg = 0x24
    ssl_key_alg = 0x25
    ssl_group = 0x26
    ssl_sig_scheme = 0x27
    ssl_client_cert = 0x28
    netns = 0x30


class TLV(NamedTuple):
    """A type and its value. type: a TLVType, or an unnamed int."""

    type: int
    value: bytes


class ProxySSL(NamedTuple):
    """The TLS between the client and the proxy (2.2.6).

    client: bit 1 means that the client used TLS, bit 2 that it sent a certificate on this connection, bit 4 in this
    session. verify: 0 if that certificate was verified. tlvs: ssl_version, ssl_cn, ...
    """

    client: int
    verify: int
    tlvs: tuple[TLV, ...]


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says about a connection.

    version: 1 or 2. transport: "TCP", "UDP" or "". source, destination: (address, port) of the client's connection to
    the proxy, or the path of a Unix socket as bytes. They are None if the proxy did not know them, or if local is true:
    then the proxy itself is the client (a health check). In both cases the connection's own addresses apply.
    """

    version: int
    local: bool = False
    transport: str = ""
    source: tuple[str, int] | bytes | None = None
    destination: tuple[str, int] | bytes | None = None
    tlvs: tuple[TLV, ...] = ()

    def tlv(self, tlv_type: int) -> bytes | None:
        """Returns the first value of this type, or None."""
        return next((value for found, value in self.tlvs if found == tlv_type), None)

    @property
    def ssl(self) -> ProxySSL | None:
        """The proxy's TLS with the client, or None. Raises WireError if it is malformed."""
        value = self.tlv(TLVType.ssl)
        if value is None:
            return None
        reader = Reader(value, "PP2_TYPE_SSL")
        return ProxySSL(reader.u8("client"), reader.u32("verify"), _tlvs(reader))


class ProxyReader:
    """Reads a header from a connection's first bytes. rest: the bytes after the header."""

    def __init__(self) -> None:
        self.rest = b""
        self._bytes = bytearray()
        self._header: ProxyHeader | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> ProxyHeader | None:
        """Takes bytes and returns the header, or None if it needs more bytes.

        Raises WireError if the bytes are not a header, and RuntimeError after the header.
        """
        if self._header is not None:
            raise RuntimeError("the header is complete: further bytes are not for this reader")
        self._bytes += data
        size = _header_size(self._bytes)
        if size is None or len(self._bytes) < size:
            return None
        header = bytes(self._bytes[:size])
        self.rest = bytes(self._bytes[size:])
        self._header = _parse_v1(header) if header.startswith(_V1_START) else _parse_v2(header)
        return self._header


def _header_size(data: bytearray) -> int | None:
    """Returns the size of the header that begins with data, or None if it is not known yet."""
    if data.startswith(_V1_START):
        end = data.find(b"\r\n", 0, MAX_V1_SIZE)
        if end < 0 and len(data) >= MAX_V1_SIZE:
            raise _error("PROXY line", "no end", f"at most {MAX_V1_SIZE} bytes expected")
        return None if end < 0 else end + 2
    if data.startswith(_V2_SIGNATURE):
        if len(data) < _V2_FIXED_SIZE:
            return None
        size = _V2_FIXED_SIZE + int.from_bytes(data[14:16], "big")
        if size > MAX_V2_SIZE:
            raise _error("PROXY header", f"{size} bytes", f"at most {MAX_V2_SIZE} expected")
        return size
    if not _V1_START.startswith(data) and not _V2_SIGNATURE.startswith(data):
        raise _error("PROXY header", f"{bytes(data[:12])!r}", "'PROXY ' or the signature of version 2 expected")
    return None


# Version 1: a line of text (2.1) ------------------------------------------------------------------------------------


def _parse_v1(line: bytes) -> ProxyHeader:
    words = line[:-2].decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(1)  # the rest of the line has to be ignored
    if words[1] not in _V1_FAMILIES or len(words) != 6:
        raise _error("PROXY line", repr(" ".join(words)), "TCP4 or TCP6, two addresses and two ports expected")
    family, (source, destination, source_port, destination_port) = words[1], words[2:]
    return ProxyHeader(
        1,
        transport="TCP",
        source=(_v1_address(family, source), _v1_port(source_port)),
        destination=(_v1_address(family, destination), _v1_port(destination_port)),
    )


_V1_FAMILIES = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}


def _v1_address(family: str, text: str) -> str:
    try:
        address = _V1_FAMILIES[family](text)
        if "%" not in text:  # a scope has a meaning only on the proxy's machine
            return str(address)
    except ValueError:
        pass
    raise _error("PROXY line", repr(text), f"an address of {family} expected")


def _v1_port(text: str) -> int:
    # No leading zero, and nothing else that int() accepts: "+1", "1_0", " 1".
    if text.isascii() and text.isdigit() and str(int(text)) == text and int(text) < 2**16:
        return int(text)
    raise _error("PROXY line", repr(text), "a port expected")


# Version 2: binary (2.2) --------------------------------------------------------------------------------------------


def _parse_v2(header: bytes) -> ProxyHeader:
    reader = Reader(header, "PROXY header", len(_V2_SIGNATURE))
    version, command = divmod(reader.u8("ver_cmd"), 16)
    family, transport = divmod(reader.u8("fam"), 16)
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise _error("ver_cmd", f"version {version}, command {command}", "version 2, command 0 or 1 expected")
    if family not in _FAMILIES or transport not in _TRANSPORTS:
        raise _error("fam", f"family {family}, transport {transport}", "at most 3 and at most 2 expected")
    body = reader.narrow(2, "PROXY header")
    if command == _LOCAL:
        return ProxyHeader(2, local=True)  # the whole block has to be skipped, with its TLVs
    size = _FAMILIES[family]
    if not size or not transport:
        return ProxyHeader(2)  # unspecified: the end of the addresses and the start of the TLVs are unknown
    addresses = body.take(size, "src_addr"), body.take(size, "dst_addr")
    source, destination = (
        address.rstrip(b"\0") if family == _UNIX else (str(ipaddress.ip_address(address)), body.u16("port"))
        for address in addresses
    )
    tlvs = _tlvs(body)
    _check_crc32c(header, tlvs)
    return ProxyHeader(2, False, _TRANSPORTS[transport], source, destination, tlvs)


_LOCAL, _PROXY = 0, 1
_UNIX = 3
_FAMILIES = {0: 0, 1: 4, 2: 16, _UNIX: 108}  # the size of an address
_TRANSPORTS = {0: "", 1: "TCP", 2: "UDP"}


def _tlvs(reader: Reader) -> tuple[TLV, ...]:
    tlvs = []
    while reader:
        tlvs.append(TLV(reader.u8("type"), reader.opaque(2, "value")))
    return tuple(tlvs)


def _check_crc32c(header: bytes, tlvs: tuple[TLV, ...]) -> None:
    """Checks 2.2.3's checksum, which covers the whole header with zeros in its own place."""
    expected = [int.from_bytes(tlv.value, "big") for tlv in tlvs if tlv.type == TLVType.crc32c]
    if not expected:
        return
    if len(expected) > 1:
        raise _error("PP2_TYPE_CRC32C", f"{len(expected)} of them", "one expected")
    index = [tlv.type for tlv in tlvs].index(TLVType.crc32c)
    value = tlvs[index].value
    end = len(header) - sum(_TLV_HEADER_SIZE + len(tlv.value) for tlv in tlvs[index + 1 :])
    found = crc32c(header[: end - len(value)] + bytes(len(value)) + header[end:])
    if len(value) != 4 or found != expected[0]:
        raise _error("PP2_TYPE_CRC32C", value.hex(), f"{found:08x} expected")


_TLV_HEADER_SIZE = 3


def crc32c(data: bytes) -> int:
    """Returns the CRC-32 with Castagnoli's polynomial (RFC 3720 12.1; test vectors in B.4)."""
    table, register = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    return register ^ 0xFFFFFFFF


@cache
def _crc32c_table() -> tuple[int, ...]:
    def entry(register: int) -> int:
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)  # the polynomial with reversed bits
        return register

    return tuple(map(entry, range(256)))


def _error(field: str, got: str, expected: str) -> WireError:
    return WireError(field, got, expected, AlertDescription.decode_error)
