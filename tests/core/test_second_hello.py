"""The second ClientHello, after a HelloRetryRequest: what hooks have decided by the first one must be true of it."""

from __future__ import annotations

import pytest

from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import TLSError
from greentls.openssl import connections
from greentls.wire import ClientHello, RecordReader
from greentls.wire.extensions import Extensions
from greentls.wire.registry import ExtensionType
from greentls.wire.retry import changed_field
from tests.support.openssl import lib
from tests.support.pairs import VERSIONS, attempt, client, client_context, handshake, move, server_context

ILLEGAL_PARAMETER = b"\x15\x03\x03\x00\x02\x02\x2f"
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"  # before a second hello, for middleboxes (RFC 8446 D.4)
SERVER_HELLO = 2


def retried(pki, session=None, **settings):
    """(client, server), the client with its second hello ready."""
    settings.setdefault("groups", "P-256")
    there = Connection(server_context(pki, VERSIONS["1.3"], **settings))
    context = client_context(pki, VERSIONS["1.3"], groups="X25519:P-256", alpn_protocols=[b"h2", b"http/1.1"])
    here = client(context, session)
    assert attempt(here.do_handshake) is None
    move(here, there)
    assert attempt(there.do_handshake) is None
    move(there, here)
    return here, there


def hello_of(connection):
    assert attempt(connection.do_handshake) is None
    (message,) = RecordReader().feed(connection.data_to_send().removeprefix(CHANGE_CIPHER_SPEC))
    return ClientHello.parse(message)


def record(message):
    return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message


def refusal(there, hello):
    """What the server says of the hello, and raises."""
    there.receive_data(record(hello if isinstance(hello, bytes) else hello.to_bytes()))
    with pytest.raises(TLSError) as caught:
        there.do_handshake()
    return there.data_to_send(), str(caught.value)


def with_field(hello, **fields):
    names = ("legacy_version", "random", "legacy_session_id", "cipher_suites", "legacy_compression_methods")
    return ClientHello(**{**{name: getattr(hello, name) for name in (*names, "extensions")}, **fields})


# -- by the client's own OpenSSL, whose transcript is right -----------------------------------------------------------


def test_another_name_is_refused_and_no_hook_is_asked_again(pki):
    names = []
    here, there = retried(pki, hooks=Hooks(servername=lambda connection, name: names.append(name)))
    connections.set_server_name(here.ssl, "admin.example")
    attempt(here.do_handshake)
    move(here, there)
    with pytest.raises(TLSError, match=r"after the HelloRetryRequest another server_name"):
        there.do_handshake()
    assert there.data_to_send() == ILLEGAL_PARAMETER
    assert names == ["localhost"]
    assert there.server_name == "localhost"


def test_another_alpn_offer_is_refused(pki):
    offers = []
    here, there = retried(pki, hooks=Hooks(alpn=lambda connection, offered: offers.append(offered)))
    lib.SSL_set_alpn_protos(here.ssl, b"\x03foo", 4)
    attempt(here.do_handshake)
    move(here, there)
    with pytest.raises(TLSError, match=r"another application_layer_protocol_negotiation"):
        there.do_handshake()
    assert there.data_to_send() == ILLEGAL_PARAMETER
    assert offers == [(b"h2", b"http/1.1")]


# -- by hand -----------------------------------------------------------------------------------------------------------

FIELDS = {
    "legacy_version": 0x0301,
    "random": bytes(32),
    "legacy_session_id": bytes(32),
    "cipher_suites": (0x1302,),
    "legacy_compression_methods": (1, 0),
}


@pytest.mark.parametrize("field", FIELDS)
def test_another_field_is_refused(pki, field):
    here, there = retried(pki)
    hello = hello_of(here)
    assert getattr(hello, field) != FIELDS[field]
    said, why = refusal(there, with_field(hello, **{field: FIELDS[field]}))
    assert said == ILLEGAL_PARAMETER
    assert f"another {field}" in why


def test_what_openssl_reads_as_the_first_hello_is_what_was_sent(pki):
    """hazard: OpenSSL has no function that gives the message."""
    seen = []
    there = Connection(
        server_context(pki, hooks=Hooks(servername=lambda connection, _: seen.append(connection.handshake.hello)))
    )
    here = client(client_context(pki))
    attempt(here.do_handshake)
    sent = here.data_to_send()
    there.receive_data(sent)
    attempt(there.do_handshake)
    assert seen == [sent[5:]]
    move(there, here)
    handshake(here, there)
    assert there.handshake.hello is None, "nobody needs it any more"


def changed(extensions, place):
    kind, data = extensions[place]
    extensions[place] = kind, data[:-1] + bytes([data[-1] ^ 1]) if data else b"!"


def removed(extensions, place):
    del extensions[place]


KEPT = ("server_name", "supported_groups", "session_ticket", "signature_algorithms", "supported_versions")


@pytest.mark.parametrize("change", [changed, removed])
def test_each_extension_counts(pki, change):
    """By its bytes, and by its presence."""
    seen = set()
    for place in range(len(hello_of(retried(pki)[0]).extensions)):
        here, there = retried(pki)
        hello = hello_of(here)
        extensions = list(hello.extensions)
        kind = extensions[place].extension_type
        if kind == ExtensionType.key_share and change is changed:
            continue
        change(extensions, place)
        said, why = refusal(there, with_field(hello, extensions=Extensions.of(*extensions)))
        assert said == ILLEGAL_PARAMETER, (kind, why)
        assert change is removed or f"another {ExtensionType(kind).name}" in why
        seen.add(kind)
    assert {ExtensionType[each] for each in KEPT} <= seen


@pytest.mark.parametrize(
    ("kind", "data"),
    [(44, b"\0\1c"), (42, b""), (0x2A2A, b""), (27, b"\2\0\2"), (41, b"\0\x07\0\1i\0\0\0\0\0\x21\x20" + bytes(32))],
    ids=["cookie", "early_data", "GREASE", "compress_certificate", "pre_shared_key"],
)
def test_an_extension_that_is_added_is_refused(pki, kind, data):
    """Also one that OpenSSL does not know, and tells nobody of; and a cookie, since ours asks for none."""
    here, there = retried(pki)
    hello = hello_of(here)
    said, why = refusal(there, with_field(hello, extensions=Extensions.of(*hello.extensions, (kind, data))))
    assert said == ILLEGAL_PARAMETER, why


def test_one_that_is_there_twice_is_refused(pki):
    here, there = retried(pki)
    hello = hello_of(here)
    twice = Extensions.of((0x2A2A, b""), *hello.extensions, (0x2A2A, b""))
    assert refusal(there, with_field(hello, extensions=twice))[0] == ILLEGAL_PARAMETER


def test_a_hello_without_tls_1_3_is_refused(pki):
    here, there = retried(pki)
    hello = hello_of(here)
    left = [each for each in hello.extensions if each.extension_type != ExtensionType.supported_versions]
    assert refusal(there, with_field(hello, extensions=Extensions.of(*left)))[0] == ILLEGAL_PARAMETER


# -- what may change ---------------------------------------------------------------------------------------------------


def test_the_order_of_extensions_may_change(pki):
    """hazard: GnuTLS 3.8 shuffles them for each hello."""
    here, there = retried(pki)
    hello = hello_of(here)
    there.receive_data(
        record(with_field(hello, extensions=Extensions.of(*reversed(list(hello.extensions)))).to_bytes())
    )
    assert attempt(there.do_handshake) is None
    answer = there.data_to_send()
    assert (answer[0], answer[5]) == (22, SERVER_HELLO)


def test_padding_may_come_go_and_grow(pki):
    for before in (None, 0, 5):
        for after in (None, 0, 9):
            there = Connection(server_context(pki, VERSIONS["1.3"], groups="P-256"))
            here = client(client_context(pki, VERSIONS["1.3"], groups="X25519:P-256"))
            first = padded(hello_of(here), before)
            there.receive_data(record(first.to_bytes()))
            assert attempt(there.do_handshake) is None
            move(there, here)
            there.receive_data(record(padded(hello_of(here), after).to_bytes()))
            assert attempt(there.do_handshake) is None
            answer = there.data_to_send()
            assert (answer[0], answer[5]) == (22, SERVER_HELLO)


def padded(hello, size):
    padding = [] if size is None else [(ExtensionType.padding, bytes(size))]
    return with_field(hello, extensions=Extensions.of(*hello.extensions, *padding))


def test_identities_may_be_left_out_and_none_added():
    def hello(*identities, extra=()):
        row = b"".join(len(each).to_bytes(2, "big") + each + bytes(4) for each in identities)
        binders = (b"\x20" + bytes(32)) * len(identities)
        body = len(row).to_bytes(2, "big") + row + len(binders).to_bytes(2, "big") + binders
        psk = [(ExtensionType.pre_shared_key, body)] if identities else []
        return ClientHello(0x303, bytes(32), b"", (0x1301,), (0,), Extensions.of(*extra, *psk))

    early = [(ExtensionType.early_data, b"")]
    for second in ((b"one", b"two"), (b"two",), ()):
        assert changed_field(hello(b"one", b"two", extra=early), hello(*second)) is None
    assert changed_field(hello(b"one"), hello(b"one", b"two")) == "pre_shared_key"
    assert changed_field(hello(), hello(b"one")) == "pre_shared_key"
    assert changed_field(hello(b"one", extra=early), hello(b"one", extra=early)) == "early_data"


def test_what_is_sealed_anew_for_the_second_hello_may_change():
    """RFC 9849 6.1.5: a client that believes to know an ECHConfig of ours; GREASE stays the same."""
    ech, name = ExtensionType.encrypted_client_hello, (ExtensionType.server_name, b"public")

    def hello(*extensions):
        return ClientHello(0x303, bytes(32), b"", (0x1301,), (0,), Extensions.of(*extensions))

    assert changed_field(hello((ech, b"first"), name), hello((ech, b"second"), name)) is None
    assert changed_field(hello((ech, b"first"), name), hello(name)) == "encrypted_client_hello"
