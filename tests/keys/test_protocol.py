"""Messages to and from a key process: read whole, in pieces, cut off, and with bytes behind them."""

from __future__ import annotations

import pytest

from greentls.keys.protocol import receive, send

LIMIT = 1000
BODIES = [b"L", b"S" * 33, bytes(range(256)), b"x" * LIMIT]


class Stream:
    """A socket that gives what was sent to it, so many bytes at a time."""

    def __init__(self, data=b"", size=65536):
        self.data, self.size = bytearray(data), size

    def sendall(self, data):
        self.data += data

    def recv(self, size):
        part = bytes(self.data[: min(size, self.size)])
        del self.data[: len(part)]
        return part


def message(number, body):
    stream = Stream()
    send(stream, number, body)
    return bytes(stream.data)


@pytest.mark.parametrize("size", [1, 3, 8, 65536])
def test_messages_in_pieces_of_any_size(size):
    sent = list(enumerate(BODIES, 0xFFFFFFF0))
    stream = Stream(b"".join(message(*each) for each in sent), size)
    assert [receive(stream, LIMIT) for _ in sent] == sent
    assert receive(stream, LIMIT) is None


@pytest.mark.parametrize("body", BODIES)
def test_a_message_leaves_what_is_behind_it(body):
    stream = Stream(message(7, body) + b"behind")
    assert receive(stream, LIMIT) == (7, body)
    assert bytes(stream.data) == b"behind"


@pytest.mark.parametrize("body", BODIES)
def test_a_message_that_is_cut_off_is_an_error(body):
    whole = message(7, body)
    for end in range(1, len(whole)):
        with pytest.raises(ConnectionError, match="closed"):
            receive(Stream(whole[:end]), LIMIT)


@pytest.mark.parametrize("length", [0, LIMIT + 1, 2**31, 2**32 - 1])
def test_a_length_beyond_the_limits_is_refused_before_the_body_comes(length):
    stream = Stream(bytes(4) + length.to_bytes(4, "big") + b"body")
    with pytest.raises(ConnectionError, match=f"{length} bytes were announced"):
        receive(stream, LIMIT)
    assert bytes(stream.data) == b"body"
