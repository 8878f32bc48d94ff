"""What a hostile peer does, in families. Each attack is a function of a Peer and drives it to the end of its part.

An attack says what must come of it: peer.forged (the target may not finish its handshake), peer.doomed (the target
has to end with an error), peer.said (what it may give to its caller). Where it says nothing, both answers are right.
"""

from __future__ import annotations

from greentls.wire.handshake import message_bytes, opaque, uint16s
from greentls.wire.registry import AlertDescription, ExtensionType, HandshakeType
from tests.adversary.puppet import (
    ALERT,
    CCS,
    DATA,
    HANDSHAKE,
    MAX_FRAGMENT,
    P256,
    X25519,
    Keys13,
    certificate_request,
    hello_bytes,
)

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


# -- after the handshake -----------------------------------------------------------------------------------------------


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


# -- during the handshake ----------------------------------------------------------------------------------------------


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


@attack("during", ("1.3",), "client")
def unasked_extensions(peer):
    kind = peer.rng.choice(
        (ExtensionType.early_data, ExtensionType.server_certificate_type, 0xABCD, ExtensionType.cookie)
    )
    peer.more_extensions = ((kind, b""),)
    peer.forged = kind != 0xABCD  # OpenSSL passes over what it does not know


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


# -- the hello ---------------------------------------------------------------------------------------------------------


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


# -- HelloRetryRequest -------------------------------------------------------------------------------------------------


def second_hello(name, change):
    def function(peer):
        peer.offer_share = False
        peer.second = lambda: forge_second(peer, change)

    function.__name__ = name
    attack("retry", ("1.3",), "server")(function)


def forge_second(peer, change):
    if change is not None:
        peer.forged = True
        change(peer)


def replacing(kind, body):
    def change(peer):
        def in_it(extensions):
            extensions[kind] = body

        peer.change = in_it

    return change


def without(kind):
    def change(peer):
        peer.change = lambda extensions: extensions.pop(kind)

    return change


def fields_of(**changed):
    def change(peer):
        before = dict(zip(("version", "random", "session_id", "suites"), peer.hello(), strict=True))
        peer.hello = lambda: tuple({**before, **changed}.values())

    return change


second_hello("the_same_again", None)
second_hello("another_name", replacing(ExtensionType.server_name, opaque(2, b"\0" + opaque(2, b"admin.example"))))
second_hello("no_name", without(ExtensionType.server_name))
second_hello(
    "other_protocols",
    replacing(ExtensionType.application_layer_protocol_negotiation, opaque(2, opaque(1, b"http/1.1"))),
)
second_hello("no_protocols", without(ALPN))
second_hello("other_groups", replacing(ExtensionType.supported_groups, uint16s(2, (X25519,))))
second_hello("other_algorithms", replacing(ExtensionType.signature_algorithms, uint16s(2, (0x0403,))))
second_hello("other_versions", replacing(ExtensionType.supported_versions, uint16s(1, (0x0304, 0x0303))))
second_hello("a_new_extension", replacing(ExtensionType.signed_certificate_timestamp, b""))
second_hello("another_random", fields_of(random=bytes(32)))
second_hello("another_session_id", fields_of(session_id=bytes(32)))
second_hello("other_suites", fields_of(suites=(0x1301, 0x1302)))
second_hello(
    "another_group",
    replacing(ExtensionType.key_share, opaque(2, P256.to_bytes(2, "big") + opaque(2, b"\4" + bytes(64)))),
)
second_hello("no_share", replacing(ExtensionType.key_share, opaque(2, b"")))


@attack("retry", ("1.3",), "client")
def retries(peer):
    """Of a server: once as it should be, for what was not offered, without a change, twice."""
    group = peer.rng.choice((P256, P256, X25519, 0x0019, 0xABCD))
    cookie = (ExtensionType.cookie, opaque(2, peer.rng.randbytes(peer.rng.choice((1, 32, 3000)))))
    share = (ExtensionType.key_share, group.to_bytes(2, "big"))
    extensions = peer.rng.choice(((share,), (cookie,), (share, cookie), (), (share, share), ((0xABCD, b""), share)))
    number = peer.rng.choice((1, 1, 2))

    def before():
        for _ in range(number):
            peer.retry(extensions)

    peer.before = before
    peer.forged = number == 2 or extensions != (cookie,)


# -- early data --------------------------------------------------------------------------------------------------------


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


# -- before the hello --------------------------------------------------------------------------------------------------

NOISE = {
    "bytes": lambda rng: rng.randbytes(rng.choice((1, 4, 5, 100, 5000))),
    "http": lambda rng: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ssl2": lambda rng: b"\x80\x2e\1\0\2\0\x15\0\0\0\x10" + rng.randbytes(40),
    "data": lambda rng: b"\x17\3\3\x40\0" + bytes(16384),
    "data_flood": lambda rng: (b"\x17\3\3\x40\0" + bytes(16384)) * 64,
    "alerts": lambda rng: b"\x15\3\1\0\2\1\x5a" * rng.choice((1, 3000)),
    "close_notify": lambda rng: b"\x15\3\1\0\2\1\0",
    "change_cipher_specs": lambda rng: b"\x14\3\1\0\1\1" * rng.choice((1, 3000)),
    "empty_handshake": lambda rng: b"\x16\3\1\0\0" * rng.choice((1, 3000)),
    "endless": lambda rng: (b"\x16\3\1\x40\0\1\xff\xff\xff" + bytes(16380)) + (b"\x16\3\1\x40\0" + bytes(16384)) * 16,
    "one_byte_records": lambda rng: b"\x16\3\1\0\1\1" + b"\x16\3\1\0\1\0" * rng.choice((10, 20_000)),
    "records_of_other_types": lambda rng: bytes((rng.randrange(256),)) + b"\3\1\0\2" + rng.randbytes(2),
}
