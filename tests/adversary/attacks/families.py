"""The families of attacks, and what most attacks do."""

from __future__ import annotations

from greentls.wire.registry import ExtensionType, HandshakeType
from tests.adversary.puppet import ALERT

FLOOD = 2000  # messages: more than any ordinary peer sends in a row, and less than a socket's buffer


ALPN = ExtensionType.application_layer_protocol_negotiation


KINDS = [int(each) for each in HandshakeType]


FAMILIES = {}  # name: {attack's name: (function, versions, whose target: server, client or both)}


def attack(family, versions=("1.2", "1.3"), target="both"):
    def add(function):
        FAMILIES.setdefault(family, {})[function.__name__] = (function, versions, target)
        return function

    return add


def talk(peer):
    """Some data, which the target has to get."""
    if peer.rng.random() < 0.7:
        peer.data(peer.rng.randbytes(peer.rng.choice((1, 100, 3000))))


def leave(peer):
    """The end, as the case likes: with close_notify or without."""
    if peer.rng.random() < 0.5:
        peer.record(ALERT, b"\1\0")
        peer.closed = True
    peer.go()
    peer.listen()


def how_many(peer):
    """Of a flood. The long one has to be stopped."""
    number = peer.rng.choice((1, 3, FLOOD))
    peer.doomed = number == FLOOD
    return number
