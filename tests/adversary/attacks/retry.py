"""Attacks by the ClientHello that answers a HelloRetryRequest."""

from __future__ import annotations

from greentls.wire.handshake import opaque, uint16s
from greentls.wire.registry import ExtensionType
from tests.adversary.attacks.families import ALPN, attack
from tests.adversary.puppet import P256, X25519


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
