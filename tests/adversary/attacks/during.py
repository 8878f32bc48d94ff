"""Attacks during the handshake."""

from __future__ import annotations

from greentls.wire.handshake import message_bytes, opaque
from greentls.wire.registry import ExtensionType
from tests.adversary.attacks.families import ALPN, KINDS, attack
from tests.adversary.puppet import ALERT, CCS, DATA, HANDSHAKE
from tests.support.openssl import lib


def tampered(peer, at, change):
    """The at-th message that the peer says goes out as change(message) has it, which the transcript does not know."""
    counted = iter(range(1000))

    def tamper(message):
        return change(message) if next(counted) == at else [(HANDSHAKE, message)]

    peer.tamper = tamper


FORGERIES = []  # (peer, message) -> [(content type, bytes)]: the target must find out


def forging(change):
    FORGERIES.append(change)

    def forge(peer):
        def wrapped(message):
            peer.forged = True
            return change(peer, message)

        tampered(peer, peer.rng.randrange(6), wrapped)

    forge.__name__ = change.__name__
    return attack("during")(forge)


@forging
def a_message_is_left_out(peer, message):
    return []


@forging
def a_message_comes_twice(peer, message):
    return [(HANDSHAKE, message)] * 2


@forging
def a_message_is_cut_off(peer, message):
    return [(HANDSHAKE, message[: peer.rng.randrange(len(message))])]


@forging
def a_message_is_short(peer, message):
    """And says so."""
    body = message[4:]
    return [(HANDSHAKE, message_bytes(message[0], body[: peer.rng.randrange(max(len(body), 1))] if body else b"\0"))]


@forging
def a_message_is_long(peer, message):
    return [(HANDSHAKE, message_bytes(message[0], message[4:] + peer.rng.randbytes(peer.rng.randrange(1, 50))))]


@forging
def a_message_is_of_another_type(peer, message):
    kind = peer.rng.choice([each for each in KINDS if each != message[0]])
    return [(HANDSHAKE, message_bytes(kind, message[4:]))]


@forging
def bits_flip(peer, message):
    changed = bytearray(message)
    for at in {peer.rng.randrange(len(changed)) for _ in range(peer.rng.randrange(1, 4))}:
        changed[at] ^= 1 << peer.rng.randrange(8)
    return [(HANDSHAKE, bytes(changed))]


@forging
def another_message_goes_first(peer, message):
    size = peer.rng.choice((0, 1, 36, 200))
    kind = peer.rng.choice(KINDS[1:])  # over a HelloRequest a client passes (RFC 5246 7.4.1.1)
    return [(HANDSHAKE, message_bytes(kind, peer.rng.randbytes(size))), (HANDSHAKE, message)]


@forging
def data_goes_first(peer, message):
    return [(DATA, b"before the handshake is finished"), (HANDSHAKE, message)]


@forging
def data_in_its_middle(peer, message):
    at = peer.rng.randrange(1, len(message))
    return [(HANDSHAKE, message[:at]), (DATA, b"in the middle"), (HANDSHAKE, message[at:])]


@attack("during")
def something_goes_first(peer):
    """Alerts and ChangeCipherSpec, which some versions allow at some places."""
    what = peer.rng.choice(
        [(CCS, b"\1")] * 3
        + [(CCS, b"\2"), (CCS, b"\1\1"), (ALERT, b"\1\x5a"), (ALERT, b"\2\x28"), (ALERT, b"\1\0"), (24, b"")]
    )
    number = peer.rng.choice((1, 1, 40))
    tampered(peer, peer.rng.randrange(6), lambda message: [what] * number + [(HANDSHAKE, message)])


@attack("during")
def empty_records(peer):
    number = peer.rng.choice((1, 40))
    content_type = peer.rng.choice((HANDSHAKE, DATA, ALERT, CCS))
    tampered(peer, peer.rng.randrange(6), lambda message: [(content_type, b"")] * number + [(HANDSHAKE, message)])


@attack("during")
def the_end(peer):
    def end(message):
        peer.forged = True
        if peer.rng.random() < 0.5:
            peer.record(ALERT, b"\1\0")
        peer.go()
        peer.wire.eof()
        return []

    tampered(peer, peer.rng.randrange(6), end)


@attack("during", ("1.3",))
def in_clear(peer):
    """A message that has to be encrypted is not."""

    def clear(message):
        peer.forged = peer.sealing is not None
        peer._flush()
        peer._record(HANDSHAKE, message, sealed=False)
        return []

    tampered(peer, peer.rng.randrange(6), clear)


@attack("during", target="client")
def another_signature(peer):
    """By the right key, of something else; or with another key."""
    peer.forged = True
    if peer.rng.random() < 0.5:
        sign = peer.sign
        peer.sign = lambda data: sign(data + b"!")
    else:
        peer.credentials = peer.credentials[0], peer.other_key


# OpenSSL passes over extensions that it does not know ("Unknown extension. We allow it", verify_extension() in
# https://github.com/openssl/openssl/blob/openssl-3.0/ssl/statem/extensions.c), where RFC 8446 4.2 has a client refuse
# them. It knows server_certificate_type from 3.2 on. Python's ssl finishes these handshakes over the same OpenSSL, too.
UNKNOWN = {0xABCD}
if lib.OpenSSL_version_num() < 0x30200000:
    UNKNOWN.add(ExtensionType.server_certificate_type)


@attack("during", ("1.3",), "client")
def unasked_extensions(peer):
    kind = peer.rng.choice(
        (ExtensionType.early_data, ExtensionType.server_certificate_type, 0xABCD, ExtensionType.cookie)
    )
    peer.more_extensions = ((kind, b""),)
    peer.forged = kind not in UNKNOWN


@attack("during", ("1.3",), "client")
def another_protocol(peer):
    """ALPN that was not offered."""
    peer.more_extensions = ((ALPN, opaque(2, opaque(1, b"gopher"))),)
    peer.forged = True


@attack("during", ("1.3",), "client")
def a_certificate_is_asked_for(peer):
    peer.ask_for_certificate = True
    peer.forged = peer.rng.random() < 0.5
    if peer.forged:
        tampered(peer, 2, lambda message: [(HANDSHAKE, message_bytes(13, peer.rng.randbytes(40)))])
