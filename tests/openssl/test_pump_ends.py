"""leave(): the last words of a pump whose socket is closed next. Of both pumps."""

from __future__ import annotations

import socket
import struct

import pytest

from greentls.errors import TLSError
from greentls.openssl import bios
from greentls.openssl.pump import CLOSED, DONE, WANT_READ
from tests.openssl.pumps import TLS13, established, pair, read, sockets
from tests.support.helpers import wait_until


@pytest.mark.parametrize("for_good", [True, False])
def test_last_words_and_the_end_are_one_segment(base, files, for_good):
    """The kernel sends what it was to hold back after 200 ms, so on a busy machine it may take a second try."""
    assert any(segments_of_an_end(base, files, for_good) == 1 for _ in range(10)) == for_good


def segments_of_an_end(base, files, for_good):
    """How many segments the peer gets when close_notify is said and the socket is closed."""
    client, server = established(base, files, TLS13, socks=(socks := sockets(tcp=True)))
    socks[1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    before = segments(socks[0])
    assert server.leave(for_good) == DONE
    server.detach()
    socks[1].close()
    wait_until(lambda: read(client) == CLOSED, "close_notify")
    wait_until(lambda: client.refill() == DONE and client.eof, "the end")
    return segments(socks[0]) - before


@pytest.mark.parametrize("before", ["fresh", "dead", "said"])
def test_who_leaves_says_no_more_than_may_be_said(base, files, before):
    make = pair if before == "fresh" else established
    _, server = make(base, files, TLS13, socks=(socks := sockets()))
    server.writable = False
    server.dead = "it failed" if before == "dead" else ""
    assert server.leave(True) == WANT_READ
    with pytest.raises(BlockingIOError):
        socks[0].recv(1)


def test_who_leaves_sends_what_was_left(base, files):
    client, server = established(base, files, TLS13)
    assert server.step_shutdown() == DONE
    server.writable = False
    assert server.leave(True) == WANT_READ
    assert read(client) == CLOSED


def test_who_leaves_does_not_mind_that_the_peer_is_gone(base, files):
    _, server = established(base, files, TLS13, socks=(socks := sockets()))
    socks[0].close()
    assert server.leave(True) == DONE
    bios.append(server.outgoing, b"what is left")
    server.detach()
    assert server.leave(True) == WANT_READ


def test_a_failure_to_say_close_notify_is_told_when_all_is_sent(base, files):
    _, server = established(base, files, TLS13, socks=(socks := sockets()))
    bios.append(server.outgoing, b"an alert")
    server.dead = "it failed"
    with pytest.raises(TLSError, match="it failed"):
        server.leave(True)
    assert socks[0].recv(100) == b"an alert"


def segments(sock):
    """tcpi_segs_in of tcp(7): how many have come."""
    return struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144), 140)[0]
