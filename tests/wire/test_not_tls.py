"""Streams that are not TLS: recognised as soon as their bytes allow, and not before."""

from __future__ import annotations

import pytest

from greentls.wire.not_tls import NotTLS, recognise

OPENINGS = {
    b"GET / HTTP/1.1\r\n": NotTLS.HTTP_REQUEST,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": NotTLS.HTTP_REQUEST,
    b"OPTIONS * HTTP/1.1\r\n": NotTLS.HTTP_REQUEST,
    b"SSH-2.0-OpenSSH_9.2\r\n": NotTLS.SSH_BANNER,
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n": NotTLS.PROXY_V1,
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0": NotTLS.PROXY_V2,
    b"\x80\x2e\x01\x00\x02\0\x15": NotTLS.SSLV2_HELLO,
    b"\xff\xff\x01\x03\x01\0\x15": NotTLS.SSLV2_HELLO,
    b"EHLO example.org\r\n": NotTLS.UNKNOWN,
    b"\x80\x2e\x02\x00\x02": NotTLS.UNKNOWN,
    b"\0\0\0\0": NotTLS.UNKNOWN,
    b"get / HTTP/1.1\r\n": NotTLS.UNKNOWN,
    b"GETS": NotTLS.UNKNOWN,
}


@pytest.mark.parametrize(("stream", "kind"), OPENINGS.items())
def test_a_kind_once_it_is_clear_stays_the_same(stream, kind):
    said = [recognise(bytearray(stream[:end])) for end in range(1, len(stream) + 1)]
    undecided = said.count(None)
    assert said == [None] * undecided + [kind] * (len(said) - undecided)
    assert recognise(stream) is kind


def test_nothing_is_undecided():
    assert recognise(b"") is None


@pytest.mark.parametrize("first", [b"P", b"PR", b"C", b"S", b"SS", b"\r\n\r", b"\x80\x2e\x01\x03"])
def test_what_several_kinds_begin_with_is_undecided(first):
    assert recognise(first) is None
