"""Attacks by the first ClientHello."""

from __future__ import annotations

from greentls.wire.handshake import message_bytes, opaque
from greentls.wire.registry import ExtensionType
from tests.adversary.attacks.families import attack
from tests.adversary.puppet import hello_bytes


def change_extensions(peer, extensions):
    """One of them: gone, odd, or a new one."""
    kind = peer.rng.choice(list(extensions))
    what = peer.rng.randrange(5)
    if what == 0:
        del extensions[kind]
    elif what == 1:
        extensions[kind] = peer.rng.randbytes(peer.rng.choice((0, 1, 2, 5, 40)))
    elif what == 2:
        extensions[kind] += peer.rng.randbytes(1)
    elif what == 3:
        extensions[kind] = extensions[kind][:-1]
    else:
        for _ in range(peer.rng.choice((1, 10, 500))):
            extensions[peer.rng.randrange(65536)] = peer.rng.randbytes(peer.rng.randrange(20))


@attack("hello", target="server")
def odd_extensions(peer):
    state = peer.rng.getstate()

    def change(extensions):
        peer.rng.setstate(state)  # the second hello is changed as the first one was
        change_extensions(peer, extensions)

    peer.change = change
    peer.offer_share = peer.rng.random() < 0.7


@attack("hello", target="server")
def odd_fields(peer):
    fields = list(peer.hello())
    what = peer.rng.randrange(4)
    if what == 0:
        fields[0] = peer.rng.choice((0x0200, 0x0300, 0x0301, 0x0304, 0x7F17, 0xFFFF))
    elif what == 1:
        fields[2] = peer.rng.randbytes(peer.rng.choice((0, 1, 31, 33, 255)))
    elif what == 2:
        fields[3] = peer.rng.choice(((), (0,), (0x1301, 0x5600), tuple(range(2000)), (0xC02B, 0x1301) * 500))
    else:
        fields.append(peer.rng.choice(((), (1,), (0, 1), tuple(range(255)))))
    peer.hello = lambda: tuple(fields)


@attack("hello", target="server")
def odd_names(peer):
    names = (
        b"",
        b"\0",
        b"LOCALHOST",
        b"localhost.",
        b"localhost\0.evil",
        b"a" * 255,
        b"a" * 256,
        b"\xff\xfe",
        b"127.0.0.1",
    )
    peer.name = peer.rng.choice(names)


@attack("hello", target="server")
def any_bytes(peer):
    """The record is right, its message is mutated, and the transcript has it as it was sent."""

    def opening():
        hello = bytearray(hello_bytes(peer.hello(), peer.extensions()))
        for _ in range(peer.rng.randrange(1, 6)):
            at = peer.rng.randrange(4, len(hello))
            if peer.rng.random() < 0.5:
                hello[at] = peer.rng.randrange(256)
            elif peer.rng.random() < 0.5:
                del hello[at : at + peer.rng.randrange(1, 20)]
            else:
                hello[at:at] = peer.rng.randbytes(peer.rng.randrange(1, 20))
            if len(hello) < 10:
                break
        peer.say(message_bytes(1, bytes(hello[4:])))

    peer.open = opening


@attack("hello", ("1.3",), "server")
def many_identities(peer):
    def change(extensions):
        number = peer.rng.choice((1, 3, 500))
        identities = b"".join(opaque(2, peer.rng.randbytes(32)) + bytes(4) for _ in range(number))
        binders = opaque(1, bytes(32)) * number
        extensions[ExtensionType.pre_shared_key] = opaque(2, identities) + opaque(2, binders)

    peer.change = change
