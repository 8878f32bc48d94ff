"""JA3 and JA4, the fingerprints of a client, computed from its ClientHello. Both leave out GREASE.

JA3 is Salesforce's (2017): it hashes numbers in the client's order with MD5. JA4 is FoxIO's (2023, BSD 3-Clause; the
rest of JA4+ has another licence and is not here). It has a readable part and two hashes of sorted lists, so a client
that shuffles its extensions keeps its fingerprint.
https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md

Both read extensions, so every function raises WireError if one of these is malformed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from struct import pack

from greentls.wire.hello import ClientHello
from greentls.wire.registry import GREASE, ExtensionType, ProtocolVersion

__all__ = ["ja3", "ja3_string", "ja4", "ja4_r"]


def ja3_string(hello: ClientHello) -> str:
    """Returns the text that JA3 hashes: version, cipher suites, extensions, groups, point formats, in decimal."""
    lists = (hello.cipher_suites, hello.extensions.types, hello.supported_groups, hello.ec_point_formats)
    return ",".join([str(hello.legacy_version), *("-".join(map(str, _without_grease(numbers))) for numbers in lists)])


def ja3(hello: ClientHello) -> str:
    """Returns the JA3 fingerprint, 32 hex digits."""
    return hashlib.md5(ja3_string(hello).encode(), usedforsecurity=False).hexdigest()


def ja4(hello: ClientHello, transport: str = "t") -> str:
    """Returns the JA4 fingerprint, for example t13d1516h2_8daaf6152771_e5627efa2ab1.

    transport: "t" for TLS over TCP, "q" for QUIC, "d" for DTLS.
    """
    readable, cipher_suites, extensions = _ja4_parts(hello, transport)
    return f"{readable}_{_hash12(cipher_suites)}_{_hash12(extensions)}"


def ja4_r(hello: ClientHello, transport: str = "t") -> str:
    """Like ja4(), but with the lists in place of their hashes."""
    return "_".join(_ja4_parts(hello, transport))


def _ja4_parts(hello: ClientHello, transport: str) -> tuple[str, str, str]:
    if transport not in ("t", "q", "d"):
        raise ValueError(f"transport {transport!r}: 't', 'q' or 'd' expected")
    cipher_suites = _without_grease(hello.cipher_suites)
    extensions = _without_grease(hello.extensions.types)
    readable = "".join(
        (
            transport,
            _ja4_version(hello),
            "d" if ExtensionType.server_name in extensions else "i",
            f"{min(len(cipher_suites), 99):02}",
            f"{min(len(extensions), 99):02}",
            _ja4_alpn(hello),
        )
    )
    hashed = [number for number in extensions if number not in _IN_READABLE_PART]
    signature_algorithms = _without_grease(hello.signature_algorithms)
    extension_part = _hex(sorted(hashed))
    if extension_part and signature_algorithms:
        extension_part += "_" + _hex(signature_algorithms)
    return readable, _hex(sorted(cipher_suites)), extension_part


_IN_READABLE_PART = (ExtensionType.server_name, ExtensionType.application_layer_protocol_negotiation)

_JA4_VERSIONS: dict[int, str] = {
    ProtocolVersion.TLSv1_3: "13",
    ProtocolVersion.TLSv1_2: "12",
    ProtocolVersion.TLSv1_1: "11",
    ProtocolVersion.TLSv1_0: "10",
    ProtocolVersion.SSLv3: "s3",
    ProtocolVersion.SSLv2: "s2",
    ProtocolVersion.DTLSv1_0: "d1",
    ProtocolVersion.DTLSv1_2: "d2",
    ProtocolVersion.DTLSv1_3: "d3",
}


def _ja4_version(hello: ClientHello) -> str:
    """The two characters of the highest offered version."""
    if ExtensionType.supported_versions in hello.extensions:
        version = max(_without_grease(hello.supported_versions), default=0)
    else:
        version = hello.legacy_version
    return _JA4_VERSIONS.get(version, "00")


def _ja4_alpn(hello: ClientHello) -> str:
    """The first and last character of the first protocol, or of its hex digits if either is not alphanumeric."""
    protocols = hello.alpn_protocols
    if not protocols or not protocols[0]:
        return "00"
    first = protocols[0]
    if not (_is_alphanumeric(first[0]) and _is_alphanumeric(first[-1])):
        first = first.encode("ascii", "surrogateescape").hex()
    return first[0] + first[-1]


def _is_alphanumeric(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _without_grease(numbers: Iterable[int]) -> list[int]:
    return [number for number in numbers if number not in GREASE]


def _hex(numbers: Sequence[int]) -> str:
    return pack(f">{len(numbers)}H", *numbers).hex(",", 2)


def _hash12(part: str) -> str:
    return hashlib.sha256(part.encode()).hexdigest()[:12] if part else "0" * 12
