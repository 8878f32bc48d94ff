"""Attacks after the handshake."""

from __future__ import annotations

from greentls.wire.handshake import message_bytes, opaque
from greentls.wire.registry import AlertDescription, HandshakeType
from tests.adversary.attacks.families import FLOOD, KINDS, attack, how_many, talk
from tests.adversary.puppet import ALERT, CCS, DATA, HANDSHAKE, MAX_FRAGMENT, certificate_request


@attack("after")
def nothing(peer):
    """The control: an ordinary peer, whose data come whole however its records were cut."""
    peer.expected = True
    for _ in range(peer.rng.randrange(4)):
        talk(peer)
        peer.go()


@attack("after")
def tiny_records(peer):
    peer.expected = True
    for _ in range(peer.rng.choice((3, FLOOD))):
        peer.data(b"x")


@attack("after", ("1.3",))
def key_updates(peer):
    for _ in range(how_many(peer)):
        peer.record(HANDSHAKE, b"\x18\0\0\1" + bytes((peer.rng.randrange(2),)))
        peer.use(peer.sealing.update())


@attack("after", ("1.3",))
def half_a_key_update(peer):
    peer.doomed = True
    peer.record(HANDSHAKE, b"\x18\0\0")
    peer.record(DATA, b"in the middle of a message")


@attack("after", ("1.3",), "client")
def tickets(peer):
    for _ in range(how_many(peer)):
        body = bytes(4) + peer.rng.randbytes(4) + opaque(1, b"\0") + opaque(2, peer.rng.randbytes(16)) + bytes(2)
        peer.record(HANDSHAKE, message_bytes(HandshakeType.new_session_ticket, body))


@attack("after")
def empty_data(peer):
    number = how_many(peer)
    for _ in range(number):
        peer.record(DATA, b"", padding=peer.rng.randrange(3))


@attack("after")
def warnings(peer):
    for _ in range(how_many(peer)):
        peer.record(ALERT, b"\1" + bytes((peer.rng.choice((AlertDescription.user_canceled, 100, 41)),)))


@attack("after", ("1.3",), "client")
def certificate_requests(peer):
    for _ in range(how_many(peer)):
        peer.record(HANDSHAKE, certificate_request(peer.rng.randbytes(8)))


@attack("after")
def renegotiation(peer):
    kind = peer.rng.choice((HandshakeType.client_hello, HandshakeType.hello_request, HandshakeType.server_hello))
    body = b"" if kind == HandshakeType.hello_request else peer.hello_again[4:]
    for _ in range(peer.rng.choice((1, 1, 20))):
        peer.record(HANDSHAKE, message_bytes(kind, body))


@attack("after")
def a_handshake_message(peer):
    """Any, any time: Finished, Certificate, EndOfEarlyData, ..."""
    size = peer.rng.choice((0, 1, 12, 32, 300))
    peer.record(HANDSHAKE, message_bytes(peer.rng.choice(KINDS), peer.rng.randbytes(size)))


@attack("after")
def an_endless_message(peer):
    """16 MiB, as its header says."""
    peer.doomed = True
    peer.record(HANDSHAKE, bytes((peer.rng.choice(KINDS),)) + b"\xff\xff\xff" + bytes(1000))
    for _ in range(12):
        peer.record(HANDSHAKE, bytes(MAX_FRAGMENT))


@attack("after")
def change_cipher_spec(peer):
    """OpenSSL's TLS 1.3 passes over some that are in clear and as they should be; over a flood it may not."""
    number = how_many(peer)
    content, sealed = peer.rng.choice((b"\1", b"\1", b"\2", b"\1\1", b"")), peer.rng.random() < 0.5
    for _ in range(number):
        peer.record(CCS, content, sealed=sealed)
    peer.doomed |= content != b"\1" or sealed or peer.version == "1.2"


@attack("after")
def plaintext(peer):
    peer.doomed = True
    peer.record(peer.rng.choice((DATA, HANDSHAKE, ALERT)), b"\1\0 not encrypted", sealed=False)


@attack("after")
def an_alert_in_clear(peer):
    peer.doomed = True
    peer.record(ALERT, peer.rng.choice((b"\1\0", b"\2\x28")), sealed=False)


@attack("after")
def a_wrong_type(peer):
    peer.doomed = True
    if peer.version == "1.3":
        how = peer.rng.choice(({"outer": HANDSHAKE}, {"outer": 24}, {}))
        peer.record(peer.rng.choice((0x18, 99, None)) if not how else DATA, b"of no type", **how)
    else:
        peer.record(peer.rng.choice((24, 99)), b"of no type")


@attack("after")
def a_wrong_version(peer):
    peer.record(DATA, b"of another version", version=peer.rng.choice((0x0301, 0x0304, 0x0200, 0x7F00)))
    peer.doomed = True


@attack("after")
def a_record_too_long(peer):
    peer.doomed = True
    if peer.rng.random() < 0.5:
        peer.record(DATA, bytes(MAX_FRAGMENT + peer.rng.choice((1, 200, 2000))))
    else:
        peer.record(DATA, bytes(peer.rng.choice((MAX_FRAGMENT + 2049, 65535))), sealed=False)


@attack("after")
def a_damaged_record(peer):
    peer.doomed = True
    peer.record(DATA, b"whole")
    record = bytearray(peer.flight.pop())
    record[peer.rng.randrange(5, len(record))] ^= 1 << peer.rng.randrange(8)
    peer.flight.append(bytes(record))


@attack("after")
def a_record_twice(peer):
    peer.doomed = True
    peer.data(b"once")
    peer.flight.append(peer.flight[-1])


@attack("after")
def a_record_too_short(peer):
    peer.doomed = True
    peer.record(DATA, peer.rng.randbytes(peer.rng.randrange(17)), sealed=False)


@attack("after")
def a_fatal_alert(peer):
    """In the place of close_notify: a truncation, and no end."""
    peer.doomed = True
    peer.record(ALERT, b"\2" + bytes((peer.rng.choice((10, 20, 40, 80, 255)),)))


@attack("after")
def close_notify_as_a_fatal_alert(peer):
    peer.record(ALERT, b"\2\0")
    peer.closed = True


@attack("after")
def odd_alerts(peer):
    peer.record(ALERT, peer.rng.choice((b"\1", b"", b"\3\0", b"\1\0\1\0", b"\0\0")))
    peer.closed = True  # where the first two bytes are close_notify


@attack("after")
def data_behind_close_notify(peer):
    peer.record(ALERT, b"\1\0")
    peer.closed = True
    peer.record(DATA, b"after the end")
    peer.go()
    peer.record(DATA, b"after the end")


@attack("after")
def half_a_record(peer):
    peer.record(DATA, peer.rng.randbytes(500))
    record = peer.flight.pop()
    peer.flight.append(record[: peer.rng.randrange(1, len(record))])
    peer.go()
    peer.silent = True


@attack("after")
def half_close(peer):
    peer.go()
    peer.wire.eof()
    peer.silent = True


@attack("after", ("1.3",))
def key_updates_for_one_that_does_not_read(peer):
    """Each asks for an answer, which the target cannot send."""
    peer.wire.deaf = True
    for _ in range(2 * FLOOD):  # their answers would be some 100 KiB
        peer.record(HANDSHAKE, b"\x18\0\0\1\1")
        peer.use(peer.sealing.update())
        peer.data(b"x")
    peer.go(1)
    peer.wire.deaf = False
