"""A peer that sends records without data, as many as it can. In memory: what one operation is made to do."""

from __future__ import annotations

from itertools import islice

import pytest

from greentls.core.callbacks import MAX_MESSAGES_WITHOUT_DATA
from greentls.errors import ConnectionDead, TLSError
from greentls.openssl import facts
from greentls.wire.registry import AlertDescription, ContentType, HandshakeType
from tests.support.openssl import hide, late
from tests.support.pairs import TLS12, TLS13, attempt, move
from tests.support.sealer import hostile

MANY = 500  # records of a flood
MOST_IN_A_RECORD = 100  # messages

HELLO_REQUEST = bytes((HandshakeType.hello_request, 0, 0, 0))
WARNING = bytes((1, AlertDescription.user_canceled))


def ticket(number):
    """A NewSessionTicket (RFC 8446 4.6.1)."""
    body = bytes(8) + b"\4" + number.to_bytes(4, "big") + b"\0\x20" + bytes(32) + b"\0\0"
    return bytes((HandshakeType.new_session_ticket, 0, 0, len(body))) + body


def client_hello():
    """The smallest that OpenSSL begins to look at: it asks for renegotiation."""
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\xc0\x2c" + b"\1\0"
    return bytes((HandshakeType.client_hello, 0, 0, len(body))) + body


def key_updates(sealer, requested=True):
    while True:
        yield sealer.key_update(requested)


def records(sealer, *kinds):
    """Of (content type, fragment) again and again; None is a KeyUpdate."""
    while True:
        for each in kinds:
            yield sealer.record(*each) if each else sealer.key_update()


EMPTY = ContentType.application_data, b""
ALERT = ContentType.alert, WARNING

# name: version, the victim is a server, what comes
FLOODS = {
    "KeyUpdate that is answered, at a server": (TLS13, True, key_updates),
    "KeyUpdate that is answered, at a client": (TLS13, False, key_updates),
    "KeyUpdate that is not": (TLS13, True, lambda sealer: key_updates(sealer, requested=False)),
    "NewSessionTicket": (
        TLS13,
        False,
        lambda sealer: records(sealer, (ContentType.handshake, ticket(0))),
    ),
    "NewSessionTickets, a hundred to a record": (
        TLS13,
        False,
        lambda sealer: records(sealer, (ContentType.handshake, b"".join(map(ticket, range(MOST_IN_A_RECORD))))),
    ),
    "empty data": (TLS13, True, lambda sealer: records(sealer, EMPTY)),
    "empty data, TLS 1.2": (TLS12, True, lambda sealer: records(sealer, EMPTY)),
    "warnings": (TLS13, True, lambda sealer: records(sealer, ALERT)),
    "warnings, TLS 1.2": (TLS12, True, lambda sealer: records(sealer, ALERT)),
    "warnings and empty data": (TLS12, True, lambda sealer: records(sealer, ALERT, EMPTY)),
    "warnings and KeyUpdates": (TLS13, True, lambda sealer: records(sealer, ALERT, ALERT, None)),
    "all of them": (TLS13, True, lambda sealer: records(sealer, EMPTY, ALERT, None, EMPTY, EMPTY)),
    "renegotiation": (TLS12, True, lambda sealer: records(sealer, (ContentType.handshake, client_hello()))),
    "renegotiation and warnings": (
        TLS12,
        True,
        lambda sealer: records(sealer, (ContentType.handshake, client_hello()), ALERT),
    ),
    "HelloRequest": (TLS12, False, lambda sealer: records(sealer, (ContentType.handshake, HELLO_REQUEST))),
}
each_flood = pytest.mark.parametrize("version, server_side, flood", FLOODS.values(), ids=FLOODS.keys())


@each_flood
def test_one_read_looks_at_few_of_them(pki, version, server_side, flood):
    """hazard: SSL_read() goes on for as long as there are records without data: seconds, for some MiB."""
    victim, _, sealer = hostile(pki, version, server_side)
    victim.receive_data(b"".join(islice(flood(sealer), MANY)))
    with pytest.raises(TLSError, match="too "):
        victim.read()
    assert victim.messages <= MAX_MESSAGES_WITHOUT_DATA + MOST_IN_A_RECORD
    assert victim.unsent < 8192
    with pytest.raises(ConnectionDead):
        victim.read()


@each_flood
def test_they_are_counted_when_they_come_one_by_one(pki, version, server_side, flood):
    victim, _, sealer = hostile(pki, version, server_side)
    with pytest.raises(TLSError, match="too "):
        for record in islice(flood(sealer), 3 * MAX_MESSAGES_WITHOUT_DATA):
            victim.receive_data(record)
            assert attempt(victim.read) is None


@each_flood
def test_the_peer_is_told(pki, version, server_side, flood):
    victim, peer, sealer = hostile(pki, version, server_side)
    victim.receive_data(b"".join(islice(flood(sealer), MANY)))
    with pytest.raises(TLSError):
        victim.read()
    move(victim, peer)
    with pytest.raises(TLSError, match=f"{late('unexpected message')}|no renegotiation"):
        peer.read()


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_a_peer_that_sends_data_in_between_may_update_its_keys_for_ever(pki, server_side):
    victim, _, sealer = hostile(pki, TLS13, server_side)
    for _ in range(10):
        victim.receive_data(b"".join(sealer.key_update() for _ in range(30)) + sealer.data(b"data"))
        assert victim.read() == b"data"


def test_shutdown_counts_them_too(pki):
    victim, _, sealer = hostile(pki, TLS13, True)
    victim.shutdown()
    victim.receive_data(b"".join(islice(key_updates(sealer), MANY)))
    with pytest.raises(TLSError, match="too many"):
        victim.shutdown()


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_an_openssl_that_hides_the_function_counts_as_well(pki, version, monkeypatch):
    hide(monkeypatch, "SSL_set_info_callback")
    monkeypatch.setattr(facts, "_twin", facts._twin.__wrapped__)
    flood = key_updates if version == TLS13 else FLOODS["renegotiation"][2]
    for _ in range(2):
        victim, _, sealer = hostile(pki, version, True)
        victim.receive_data(sealer.data(b"data"))
        assert victim.read() == b"data"
        victim.receive_data(b"".join(islice(flood(sealer), MANY)))
        with pytest.raises(TLSError, match="too many post-handshake"):
            victim.read()
