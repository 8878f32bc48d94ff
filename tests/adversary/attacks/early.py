"""Attacks by early data."""

from __future__ import annotations

from greentls.wire.handshake import message_bytes
from tests.adversary.attacks.families import FLOOD, attack
from tests.adversary.puppet import ALERT, DATA, HANDSHAKE, Keys13


def takes_early_data(peer):
    """A server over wrap_bio() passes over it, whatever it holds: who reads there cannot tell it from other data."""
    return peer.case.face == "socket"


def early(function):
    return attack("early", ("1.3",), "server")(function)


@early
def early_data(peer):
    """The control, in records of any size."""
    for _ in range(peer.rng.randrange(1, 4)):
        peer.early(peer.rng.randbytes(peer.rng.randrange(1, 200)))
    peer.expected = True


@early
def too_much(peer):
    peer.forged = takes_early_data(peer)
    for _ in range(20):
        peer.early(bytes(peer.rng.choice((1000, 16384))))


@early
def without_its_end(peer):
    peer.early(b"early")
    peer.end_of_early_data = False
    peer.forged = takes_early_data(peer)


@early
def under_a_wrong_key(peer):
    peer.forged = takes_early_data(peer)
    peer.use(Keys13(peer.rng.randbytes(32)))
    peer.record(DATA, b"nonsense")


@early
def in_the_clear(peer):
    peer.forged = takes_early_data(peer)
    peer.record(DATA, b"not encrypted", sealed=False)


@early
def a_message_in_early_data(peer):
    peer.early(b"early")
    peer.record(HANDSHAKE, message_bytes(peer.rng.choice((1, 20, 24, 11)), peer.rng.randbytes(32)))
    peer.forged = takes_early_data(peer)


@early
def empty_early_data(peer):
    for _ in range(peer.rng.choice((1, 20, FLOOD))):
        peer.early(b"")


@early
def without_a_ticket(peer):
    """Which the server passes over (RFC 8446 4.2.10)."""
    peer.resuming, peer.transcript, peer.together, peer.flight = None, b"", b"", []
    peer.open()
    peer.use(Keys13(peer.rng.randbytes(32)))
    peer.record(DATA, b"for nobody")
    peer.expected = True


@early
def after_a_retry(peer):
    """The server asks for another share, and passes over the early data."""
    peer.transcript, peer.together, peer.flight = b"", b"", []
    peer.offer_share = False
    peer.open()
    peer.early(b"too early")
    peer.early_said.clear()
    peer.expected = True
    if peer.rng.random() < 0.3:
        peer.expected = False
        peer.second = lambda: peer.record(DATA, b"in between")


@early
def the_same_flight_twice(peer):
    peer.early(b"pay ten")
    peer._flush()
    peer.case.replay(b"".join(peer.flight))
    peer.expected = True


@early
def an_alert_in_early_data(peer):
    peer.early(b"early")
    alert = peer.rng.choice((b"\1\0", b"\2\x28", b"\1\x5a"))
    peer.record(ALERT, alert)
    peer.forged = takes_early_data(peer) and alert[0] == 2
