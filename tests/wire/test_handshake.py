"""The header of a handshake message: read as it was written, and refused unless it fits exactly."""

from __future__ import annotations

import pytest

from greentls.errors import WireError
from greentls.wire.handshake import (
    MAX_HANDSHAKE_MESSAGE,
    MAX_HELLO_BYTES,
    check_size,
    message_bytes,
    opaque,
    open_message,
    uint16s,
)
from greentls.wire.registry import HandshakeType

FINISHED = HandshakeType.finished


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)), b"x" * 70000])
def test_a_message_opens_as_it_was_built(body):
    message = message_bytes(FINISHED, body)
    assert message[0] == FINISHED
    assert int.from_bytes(message[1:4], "big") == len(body)
    assert open_message(message, FINISHED, "Finished").rest() == body


@pytest.mark.parametrize("change", [lambda message: message[:-1], lambda message: message + b"\0"])
def test_bytes_too_few_or_too_many_are_named(change):
    with pytest.raises(WireError, match=r"Finished: [57] bytes, 6 expected"):
        open_message(change(message_bytes(FINISHED, b"ab")), FINISHED, "Finished")


def test_another_type_is_refused():
    with pytest.raises(WireError, match="msg_type: finished, client_hello expected"):
        open_message(message_bytes(FINISHED, b""), HandshakeType.client_hello, "ClientHello")


@pytest.mark.parametrize(("first", "limit"), [(True, MAX_HELLO_BYTES), (False, MAX_HANDSHAKE_MESSAGE)])
def test_the_limit_depends_on_whether_it_is_the_first(first, limit):
    check_size(limit, first)
    with pytest.raises(WireError, match=f"at most {limit} expected"):
        check_size(limit + 1, first)


def test_vectors():
    assert opaque(1, b"abc") == b"\3abc"
    assert opaque(3, b"") == b"\0\0\0"
    assert uint16s(2, (1, 0xFFFF)) == b"\0\4\0\1\xff\xff"
    with pytest.raises(OverflowError):
        opaque(1, bytes(256))
