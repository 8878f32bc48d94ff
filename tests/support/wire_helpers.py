"""What the tests of greentls.wire share: an encoder of their own, to hold the parser against, and ways of feeding."""

from __future__ import annotations

from hypothesis import strategies as st

TRAILING = b"\xa5\x5a and more"


def u8(number):
    return bytes([number])


def u16(number):
    return bytes([number >> 8, number & 255])


def u24(number):
    return bytes([number >> 16, number >> 8 & 255, number & 255])


def u32(number):
    return u16(number >> 16) + u16(number & 65535)


def v8(*parts):
    content = b"".join(parts)
    return u8(len(content)) + content


def v16(*parts):
    content = b"".join(parts)
    return u16(len(content)) + content


def v24(*parts):
    content = b"".join(parts)
    return u24(len(content)) + content


def message(handshake_type, *parts):
    return u8(handshake_type) + v24(*parts)


def record(fragment, content_type=22, version=0x0301):
    return u8(content_type) + u16(version) + v16(fragment)


def records(data, size, content_type=22, version=0x0301):
    """data in records of size bytes each."""
    return b"".join(record(data[at : at + size], content_type, version) for at in range(0, len(data), size))


CHANGE_CIPHER_SPEC = record(b"\1", 20)

RANDOM = bytes(range(32))


def extension(number, body=b""):
    return u16(number) + v16(body)


def client_hello(
    *extensions, version=0x0303, random=RANDOM, session_id=b"", suites=(0x1301, 0xC02F), compression=b"\0", block=None
):
    """extensions: as extension() makes them. block: what stands in their place, length and all."""
    return message(
        1,
        u16(version),
        random,
        v8(session_id),
        v16(*map(u16, suites)),
        v8(compression),
        v16(*extensions) if block is None else block,
    )


def server_hello(*extensions, version=0x0303, random=RANDOM, session_id=b"", suite=0x1301, compression=0, block=None):
    return message(
        2,
        u16(version),
        random,
        v8(session_id),
        u16(suite),
        u8(compression),
        v16(*extensions) if block is None else block,
    )


def byte_by_byte(data):
    return (data[at : at + 1] for at in range(len(data)))


def proper_prefixes(data):
    return (data[:size] for size in range(len(data)))


def cut(data, sizes):
    """data in pieces of these sizes; what is left over last."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


# Hypothesis ---------------------------------------------------------------------------------------------------------

byte = st.integers(0, 0xFF)
uint16 = st.integers(0, 0xFFFF)
uint32 = st.integers(0, 0xFFFFFFFF)
opaque = st.binary(max_size=40)
sizes = st.lists(st.integers(0, 30), max_size=20)


def tuples(elements, max_size=6):
    return st.lists(elements, max_size=max_size).map(tuple)
