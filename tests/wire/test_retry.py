"""The hello after a HelloRetryRequest: each field that must not change, and each change that RFC 8446 4.1.2 allows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from greentls.wire.extensions import Extensions
from greentls.wire.hello import ClientHello
from greentls.wire.registry import ExtensionType
from greentls.wire.retry import changed_field

KEY_SHARE, PADDING, PSK = ExtensionType.key_share, ExtensionType.padding, ExtensionType.pre_shared_key
NAME, EARLY, COOKIE = ExtensionType.server_name, ExtensionType.early_data, ExtensionType.cookie


def psk(*identities):
    listed = b"".join(len(each).to_bytes(2, "big") + each + bytes(4) for each in identities)
    binders = b"\x20" + bytes(32)
    return PSK, len(listed).to_bytes(2, "big") + listed + (33 * len(identities)).to_bytes(2, "big") + binders * len(
        identities
    )


def hello(*extensions, **fields):
    first = ClientHello(0x0303, b"r" * 32, b"s" * 32, (0x1301, 0x1302), (0,), Extensions.of(*extensions))
    return replace(first, **fields)


FIRST = hello((NAME, b"name"), (KEY_SHARE, b"share"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("legacy_version", 0x0301),
        ("random", b"R" * 32),
        ("legacy_session_id", b""),
        ("cipher_suites", (0x1302, 0x1301)),
        ("legacy_compression_methods", (0, 1)),
    ],
)
def test_a_field_that_has_changed_is_named(field, value):
    assert changed_field(FIRST, replace(FIRST, **{field: value})) == field


@pytest.mark.parametrize(
    "extensions",
    [
        [(NAME, b"name"), (KEY_SHARE, b"share")],
        [(NAME, b"name"), (KEY_SHARE, b"another")],
        [(KEY_SHARE, b"share"), (NAME, b"name")],
        [(NAME, b"name"), (KEY_SHARE, b"share"), (PADDING, bytes(100))],
    ],
    ids=["same", "share", "order", "padding"],
)
def test_what_may_change(extensions):
    assert changed_field(FIRST, hello(*extensions)) is None


@pytest.mark.parametrize(
    ("extensions", "named"),
    [
        ([(NAME, b"other"), (KEY_SHARE, b"share")], "server_name"),
        ([(KEY_SHARE, b"share")], "server_name"),
        ([(NAME, b"name")], "key_share"),
        ([(NAME, b"name"), (KEY_SHARE, b"share"), (COOKIE, b"cookie")], "cookie"),
        ([(NAME, b"name"), (KEY_SHARE, b"share"), (EARLY, b"")], "early_data"),
    ],
)
def test_an_extension_that_was_changed_removed_or_added_is_named(extensions, named):
    assert changed_field(FIRST, hello(*extensions)) == named


def test_early_data_is_no_longer_offered():
    first = hello((NAME, b"name"), (EARLY, b""))
    assert changed_field(first, hello((NAME, b"name"))) is None
    assert changed_field(first, first) == "early_data"


def test_identities_may_be_left_out_but_not_added():
    first = hello((NAME, b"name"), psk(b"one", b"two"))
    for kept in ((b"one", b"two"), (b"two",)):
        assert changed_field(first, hello((NAME, b"name"), psk(*kept))) is None
    assert changed_field(first, hello((NAME, b"name"))) is None
    assert changed_field(first, hello((NAME, b"name"), psk(b"one", b"three"))) == "pre_shared_key"
    assert changed_field(hello((NAME, b"name")), hello((NAME, b"name"), psk(b"one"))) == "pre_shared_key"
