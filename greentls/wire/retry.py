"""Compares the second ClientHello, after a HelloRetryRequest, with the first one (RFC 8446 4.1.2)."""

from __future__ import annotations

from collections import Counter

from greentls.wire.hello import ClientHello
from greentls.wire.registry import ExtensionType, name

__all__ = ["changed_field"]

_FIELDS = ("legacy_version", "random", "legacy_session_id", "cipher_suites", "legacy_compression_methods")

# A client may add, remove or resize padding. pre_shared_key is compared separately.
_FREE = {ExtensionType.padding, ExtensionType.pre_shared_key}

# Their content is new: the requested share, and what a client encrypts that has an ECHConfig for us (RFC 9849 6.1.5).
_RENEWED = {ExtensionType.key_share, ExtensionType.encrypted_client_hello}


def changed_field(first: ClientHello, second: ClientHello) -> str | None:
    """Returns a field or extension that the second hello changed, added or removed against the RFC, or None.

    A cookie counts as added, because our HelloRetryRequests have none. The order of extensions has no meaning (RFC 8446
    4.2), and GnuTLS 3.8 shuffles them in each hello. Raises WireError if a pre_shared_key cannot be read.
    """
    for field in _FIELDS:
        if getattr(first, field) != getattr(second, field):
            return field
    before, after = _fixed(first), _fixed(second)
    before.pop((ExtensionType.early_data, b""), None)  # it must be absent now
    if differing := (before - after) + (after - before):
        return name(ExtensionType, min(differing)[0])
    if not {each.identity for each in second.psk_identities} <= {each.identity for each in first.psk_identities}:
        return ExtensionType.pre_shared_key.name  # identities may be left out, and binders are new
    return None


def _fixed(hello: ClientHello) -> Counter[tuple[int, bytes]]:
    return Counter(
        (each.extension_type, b"" if each.extension_type in _RENEWED else each.extension_data)
        for each in hello.extensions
        if each.extension_type not in _FREE
    )
