"""What a hostile hello costs: work is counted, not timed. 64 KiB may hold 30 thousand elements of any list."""

from __future__ import annotations

import contextlib
import sys

import pytest

from greentls.errors import WireError
from greentls.wire.extensions import MAX_EXTENSIONS, Body, Extensions
from greentls.wire.fingerprint import ja3, ja4, ja4_r
from greentls.wire.hello import ClientHello, ServerHello
from greentls.wire.reader import MAX_ELEMENTS

SIZE = 64_000

# Elements that are as short as they can be, for one list or another.
PATTERNS = {
    "zeros": b"\0",
    "of one byte": b"\x01a",
    "key shares": b"\0\x1d\0\0",
    "key shares of one byte": b"\0\x1d\0\1x",
    "names": b"\x01\0\0",
    "requests": b"\x03\0\0",
    "identities": b"\0\1x\0\0\0\0",
    "opaque16 of one byte": b"\0\1x",
    "ones": b"\1",
    "numbers": b"\x13\x02",
}


def calls(function, *arguments):
    """How many calls it makes, of functions in Python and in C; malformed input is an answer like others."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        with contextlib.suppress(WireError):
            function(*arguments)
    finally:
        sys.setprofile(None)
    return count


def bodies(pattern):
    """The pattern as a body, and as a list behind a length of one or two bytes, alone or behind another field."""
    many = pattern * (SIZE // len(pattern))
    listed = len(many).to_bytes(2, "big") + many
    half = many[: SIZE // 2 // len(pattern) * len(pattern)]
    halves = len(half).to_bytes(2, "big") + half
    for body in (many, listed, b"\x01" + listed, halves + halves, b"\xff" + many[:255]):
        yield body
        yield body + b"\0\0"


def hello(kind, *extensions, cipher_suites=(0x1301,)):
    if kind is ClientHello:
        return ClientHello(0x0303, bytes(32), b"", cipher_suites, (0,), Extensions.of(*extensions))
    return ServerHello(0x0303, bytes(32), b"", 0x1301, 0, Extensions.of(*extensions))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", [ClientHello, ServerHello])
def test_no_list_of_an_extension_costs_more_than_its_limit(kind, pattern):
    """hazard: a hello that costs its sender nothing costs the server 18 ms for three lists that a hook looks at."""
    for attribute in dir(kind):
        if isinstance(body := getattr(kind, attribute), Body):
            for data in bodies(PATTERNS[pattern]):
                looked_at = hello(kind, (body._type, data))
                assert calls(getattr, looked_at, attribute) < 16 * MAX_ELEMENTS, (attribute, data[:8])


@pytest.mark.parametrize("function", [ja3, ja4, ja4_r, lambda hello: hello.grease, ClientHello.to_bytes])
@pytest.mark.parametrize("suites", [range(32_000), (0x0A0A,) * 32_000], ids=["different", "grease"])
def test_no_number_costs_a_call(function, suites):
    numbers = b"".join(number.to_bytes(2, "big") for number in range(16_000))
    lists = [(10, len(numbers).to_bytes(2, "big") + numbers), (13, len(numbers).to_bytes(2, "big") + numbers)]
    assert calls(function, hello(ClientHello, *lists, cipher_suites=tuple(suites))) < 300


def test_a_table_of_extensions_costs_no_more_than_its_limit():
    for count, expected in ((MAX_EXTENSIONS, 4), (16_000, 20)):
        block = b"".join(number.to_bytes(2, "big") + b"\0\0" for number in range(count))
        assert calls(Extensions, block) < expected * count


def test_as_many_elements_as_are_allowed_are_read_and_one_more_is_refused():
    share = b"\0\x1d\0\1x"
    shares = hello(ClientHello, (51, (len(share) * MAX_ELEMENTS).to_bytes(2, "big") + share * MAX_ELEMENTS)).key_share
    assert len(shares) == MAX_ELEMENTS
    more = MAX_ELEMENTS + 1
    with pytest.raises(WireError, match="client_shares: 5 bytes more, at most 256 elements expected"):
        _ = hello(ClientHello, (51, (len(share) * more).to_bytes(2, "big") + share * more)).key_share
