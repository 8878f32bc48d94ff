"""The second ClientHello, after a HelloRetryRequest: what of it may differ from the first (RFC 8446 4.1.2)."""

from __future__ import annotations

from collections import Counter

from greentls.wire.hello import ClientHello
from greentls.wire.registry import ExtensionType, name

__all__ = ["changed_field"]

_FIELDS = ("legacy_version", "random", "legacy_session_id", "cipher_suites", "legacy_compression_methods")

# A client may add, remove or resize padding. pre_shared_key is looked at by itself.
_FREE = {ExtensionType.padding, ExtensionType.pre_shared_key}

# What is in them is made anew: the share that was asked for; and what a client has sealed that believes to know an
# ECHConfig of ours (RFC 9849 6.1.5).
_RENEWED = {ExtensionType.key_share, ExtensionType.encrypted_client_hello}


def changed_field(first: ClientHello, second: ClientHello) -> str | None:
    """A field or extension that the second hello must not have changed, added or removed; None if it is lawful.

    A cookie counts as added, since no HelloRetryRequest of ours has one. The order of extensions means nothing
    (RFC 8446 4.2), and GnuTLS 3.8 shuffles them for each hello. Raises WireError for a pre_shared_key that cannot be
    read.
    """
    for field in _FIELDS:
        if getattr(first, field) != getattr(second, field):
            return field
    before, after = _fixed(first), _fixed(second)
    before.pop((ExtensionType.early_data, b""), None)  # which must go
    if differing := (before - after) + (after - before):
        return name(ExtensionType, min(differing)[0])
    if not {each.identity for each in second.psk_identities} <= {each.identity for each in first.psk_identities}:
        return ExtensionType.pre_shared_key.name  # identities may be left out, and all have new binders
    return None


def _fixed(hello: ClientHello) -> Counter[tuple[int, bytes]]:
    return Counter(
        (each.extension_type, b"" if each.extension_type in _RENEWED else each.extension_data)
        for each in hello.extensions
        if each.extension_type not in _FREE
    )
