"""A ClientHello as a table or as JSON, for greentls hello."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from typing import NamedTuple

from greentls.errors import WireError
from greentls.wire import registry
from greentls.wire.fingerprint import ja3, ja3_string, ja4, ja4_r
from greentls.wire.hello import ClientHello
from greentls.wire.registry import ExtensionType, name

__all__ = ["Found", "Where", "document", "show", "table"]

WIDTH, LABEL = 100, 22  # columns of the table, and of its labels; fingerprints may be longer


class Found(NamedTuple):
    """A hello. size: of the message in bytes. records: the number of its records, 0 for none."""

    hello: ClientHello
    size: int
    records: int


class Where(NamedTuple):
    """When and where a hello was sent. time: seconds since the epoch."""

    time: float
    source: str
    destination: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}"


def show(form: Callable[..., str], found: Found, where: Where | None) -> list[WireError]:
    """Prints a hello, and returns the errors in its extensions."""
    values: dict[int, object] = {}
    faults: dict[int, WireError] = {}
    for extension_type in found.hello.extensions.types:
        try:
            values[extension_type] = _parsed(found.hello, extension_type)
        except WireError as error:
            faults[extension_type] = error
    print(form(found, where, values, faults), flush=True)
    return list(faults.values())


def _parsed(hello: ClientHello, extension_type: int) -> object:
    """Returns an extension's parsed body, or None if its format is unknown. Raises WireError."""
    if extension_type == ExtensionType.application_layer_protocol_negotiation:
        return hello.alpn_protocols
    return getattr(hello, name(ExtensionType, extension_type), None)


def _fingerprints(hello: ClientHello) -> dict[str, str | None]:
    """Returns each fingerprint by name; None if a malformed extension prevents it."""
    found: dict[str, str | None] = {}
    for function in (ja3, ja3_string, ja4, ja4_r):
        try:
            found[function.__name__] = function(hello)
        except WireError:
            found[function.__name__] = None
    return found


def _time(seconds: float) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)).isoformat()
    except OverflowError:  # pcapng allows any time
        return f"{seconds:.0f}"


def _printable(text: str) -> str:
    r"""Shows bytes other than printable ASCII, and the backslash, like \x1b: no name may control a terminal."""
    sent = text.encode("ascii", "surrogateescape")
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in sent)


# Enums, and the fields and extensions that have their numbers.
_FIELDS: dict[type[IntEnum], str] = {
    ExtensionType: "extension_type ech_outer_extensions",
    registry.CertificateCompressionAlgorithm: "compress_certificate",
    registry.CertificateStatusType: "status_type",
    registry.CertificateType: "cert_type client_certificate_type server_certificate_type",
    registry.CipherSuite: "cipher_suites",
    registry.CompressionMethod: "legacy_compression_methods",
    registry.ECPointFormat: "ec_point_formats",
    registry.NamedGroup: "supported_groups group",
    registry.ProtocolVersion: "legacy_version supported_versions",
    registry.PskKeyExchangeMode: "psk_key_exchange_modes",
    registry.SignatureScheme: "signature_algorithms signature_algorithms_cert delegated_credential",
}
_ENUMS = {field: enum for enum, fields in _FIELDS.items() for field in fields.split()}


# As JSON


def document(found: Found, where: Where | None, values: dict[int, object], faults: dict[int, WireError]) -> str:
    hello = found.hello
    outline = {
        field: _plain(field, getattr(hello, field))
        for field in ("legacy_version", "random", "legacy_session_id", "cipher_suites", "legacy_compression_methods")
    }
    known = {name(ExtensionType, number): value for number, value in values.items() if value is not None}
    document = {
        **({"time": _time(where.time), "source": where.source, "destination": where.destination} if where else {}),
        "size": found.size,
        "records": found.records,
        **outline,
        "extensions": [_plain("extension", extension) for extension in hello.extensions],
        **{field: _plain(field, value) for field, value in known.items()},
        **_fingerprints(hello),
        **({"malformed": [str(fault) for fault in faults.values()]} if faults else {}),
    }
    return json.dumps(document)


def _plain(field: str, value: object) -> object:
    """Returns a parsed value in JSON's types."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return {"value": value, "name": name(_ENUMS[field], value)} if field in _ENUMS else value
    if hasattr(value, "_asdict"):  # a named tuple
        return {each: _plain(each, part) for each, part in value._asdict().items()}
    assert isinstance(value, tuple)
    return [_plain(field, each) for each in value]


# As a table


def table(found: Found, where: Where | None, values: dict[int, object], faults: dict[int, WireError]) -> str:
    hello = found.hello
    shares = hello.key_share if ExtensionType.key_share in values else ()
    psks = hello.psk_identities if ExtensionType.pre_shared_key in values else ()
    sizes = [_bytes(len(each.identity)) for each in psks]
    records = f"{found.records} record{'s' if found.records > 1 else ''}" if found.records else "no record"
    lines = [
        *([f"{where}  {_time(where.time)}"] if where else []),
        _row("size", [f"{_bytes(found.size)} in {records}"]),
        _row("legacy_version", [name(registry.ProtocolVersion, hello.legacy_version)]),
        _row("supported_versions", _items(values, ExtensionType.supported_versions)),
        _row("server_name", _items(values, ExtensionType.server_name)),
        _row("ALPN", _items(values, ExtensionType.application_layer_protocol_negotiation)),
        _row("legacy_session_id", [_bytes(len(hello.legacy_session_id))]),
        _row("psk_identities", [f"{len(sizes)}: {', '.join(sizes)}"] if sizes else []),
        _row("supported_groups", _items(values, ExtensionType.supported_groups)),
        _row("key_share", [f"{_text('group', each.group)} {_bytes(len(each.key_exchange))}" for each in shares]),
        _row("signature_algorithms", _items(values, ExtensionType.signature_algorithms)),
        *(f"{label:{LABEL}}{text or '-'}" for label, text in _fingerprints(hello).items()),
        f"cipher_suites: {len(hello.cipher_suites)}",
        *(f"  0x{number:04X}  {name(registry.CipherSuite, number)}" for number in hello.cipher_suites),
        f"extensions: {len(hello.extensions)}",
    ]
    for number, data in hello.extensions:
        field = name(ExtensionType, number)
        if number in faults:
            text = f"malformed: {faults[number]}"
        else:
            text = data.hex() if values[number] is None else _text(field, values[number])
        lines.append(_clip(f"  {number:5}  {_bytes(len(data)):>11}  {field}{': ' if text else ''}{text}"))
    return "\n".join(lines) + "\n"


def _items(values: dict[int, object], extension_type: ExtensionType) -> list[str]:
    value = values.get(extension_type) or ()
    return [_text(extension_type.name, each) for each in (value if isinstance(value, tuple) else (value,))]


def _row(label: str, items: list[str]) -> str:
    """Returns a row, folded between items."""
    text = label.ljust(LABEL).replace(" ", "\xa0") + (", ".join(item.replace(" ", "\xa0") for item in items) or "-")
    indent = " " * LABEL
    folded = textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return folded.replace("\xa0", " ")


def _text(field: str, value: object) -> str:
    """Returns a parsed value as text: the number of bytes, and nothing for a flag."""
    if isinstance(value, bytes):
        return _bytes(len(value))
    if isinstance(value, str):
        return _printable(value)
    if value is True:
        return ""
    if isinstance(value, int):
        return name(_ENUMS[field], value) if field in _ENUMS else str(value)
    if hasattr(value, "_asdict"):  # a named tuple
        parts = {each: _text(each, part) for each, part in value._asdict().items()}
        return ", ".join(f"{each} ({part})" if "," in part else f"{each} {part}" for each, part in parts.items())
    assert isinstance(value, tuple)
    return ("; " if value and hasattr(value[0], "_asdict") else ", ").join(_text(field, each) for each in value) or "-"


def _bytes(count: int) -> str:
    return f"{count} byte{'s' if count != 1 else ''}"


def _clip(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
