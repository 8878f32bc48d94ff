"""Captures: the bytes, what the peer was told to send, and how tshark dissects them."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import tempfile

from tests.capture.tap import version_of
from tests.support.helpers import DATA

HELLO_FIELDS = {
    "legacy_version": "tls.handshake.version",
    "random": "tls.handshake.random",
    "legacy_session_id": "tls.handshake.session_id",
    "cipher_suites": "tls.handshake.ciphersuite",
    "compression_methods": "tls.handshake.comp_method",
    "extensions": "tls.handshake.extension.type",
    "extension_lengths": "tls.handshake.extension.len",
    "server_name": "tls.handshake.extensions_server_name",
    "alpn_protocols": "tls.handshake.extensions_alpn_str",
    "supported_groups": "tls.handshake.extensions_supported_group",
    "ec_point_formats": "tls.handshake.extensions_ec_point_format",
    "supported_versions": "tls.handshake.extensions.supported_version",
    "signature_schemes": "tls.handshake.sig_hash_alg",
    "key_share_groups": "tls.handshake.extensions_key_share_group",
    "key_exchanges": "tls.handshake.extensions_key_share_key_exchange",
    "psk_identities": "tls.handshake.extensions.psk.identity.identity",
    "obfuscated_ticket_ages": "tls.handshake.extensions.psk.identity.obfuscated_ticket_age",
    "psk_key_exchange_modes": "tls.extension.psk_ke_mode",
    "compress_certificate": "tls.compress_certificate.algorithm",
    "record_size_limit": "tls.record_size_limit",
    "ja3_string": "tls.handshake.ja3_full",
    "ja3": "tls.handshake.ja3",
    "ja3s_string": "tls.handshake.ja3s_full",
}


FLIGHT_FIELDS = {
    "content_types": "tls.record.content_type",
    "handshake_types": "tls.handshake.type",
    "message_lengths": "tls.handshake.length",
    "certificates": "tls.handshake.certificate",
    "named_curve": "tls.handshake.server_named_curve",
    "point": "tls.handshake.server_point",
    "dh_p": "tls.handshake.p",
    "dh_g": "tls.handshake.g",
    "dh_Ys": "tls.handshake.ys",
    "ticket_lifetime_hint": "tls.handshake.session_ticket_lifetime_hint",
    "ticket": "tls.handshake.session_ticket",
    "certificate_types": "tls.handshake.cert_type",
}


def dissect(stream: bytes, fields: dict[str, str], from_server: bool) -> dict[str, list[str]]:
    """Each field's values, as tshark prints them; a field that the bytes do not have is left out."""
    if not shutil.which("tshark"):
        return {}
    ends = [b"\x0a\0\0\1\x0a\0\0\2", struct.pack(">HH", 50000, 443)]
    if from_server:
        ends = [ends[0][4:] + ends[0][:4], struct.pack(">HH", 443, 50000)]
    packets, sequence = b"", 1
    for at in range(0, len(stream), 60000):
        piece = stream[at : at + 60000]
        tcp = ends[1] + struct.pack(">IIBBHHH", sequence, 1, 5 << 4, 0x18, 65535, 0, 0) + piece
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + ends[0] + tcp
        packets += struct.pack("<IIII", 0, 0, len(ip), len(ip)) + ip
        sequence += len(piece)
    with tempfile.NamedTemporaryFile(suffix=".pcap") as capture:
        capture.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101) + packets)
        capture.flush()
        wanted = [argument for field in fields.values() for argument in ("-e", field)]
        command = ["tshark", "-r", capture.name, "-o", "tcp.check_checksum:FALSE", "-T", "fields", "-E", "aggregator=;"]
        lines = subprocess.run([*command, *wanted], check=True, capture_output=True, text=True).stdout.splitlines()
    columns = [
        [value for column in row for value in column.split(";") if value]
        for row in zip(*(line.split("\t") for line in lines), strict=True)
    ]
    return {name: values for name, values in zip(fields, columns, strict=True) if values}


def _lines(value: object, indent: str = "") -> str:
    """JSON with a line for each field."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    fields = (f"{indent}  {json.dumps(name)}: {_lines(field, indent + '  ')}" for name, field in value.items())
    return "{\n" + ",\n".join(fields) + f"\n{indent}}}"


class Captures:
    def __init__(self, only: list[str]) -> None:
        self._only = only

    def wants(self, name: str) -> bool:
        return not self._only or name in self._only

    def keep(self, kind: str, name: str, stream: bytes, peer: str, told: dict[str, object]) -> None:
        """kind: "hellos" or "flights"."""
        from_server = kind == "flights"
        fields = {**HELLO_FIELDS, **FLIGHT_FIELDS} if from_server else HELLO_FIELDS
        expected = {
            "peer": peer,
            "told": told,
            "tshark_version": version_of("tshark", "-v") if shutil.which("tshark") else "",
            "tshark": dissect(stream, fields, from_server),
        }
        directory = DATA / kind
        directory.mkdir(exist_ok=True)
        (directory / f"{name}.bin").write_bytes(stream)
        (directory / f"{name}.json").write_text(_lines(expected) + "\n")
        print(f"{kind}/{name}: {len(stream)} bytes from {peer}")
