"""Compares greentls.wire with dpkt, scapy, tlslite-ng and tls-parser, and tests whether its time is linear.

Parsers go to different depths, so each row says what it does. In each round, every row gets a turn of about a
millisecond. Before that, all parsers have to agree on the content of the hello.

--curves feeds streams of up to 1 MiB, byte by byte or cut into records of one byte. If the time is linear, the exponent
of time = a * size ** exponent is near 1.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from greentls.wire import ClientHello, Parser, RecordReader
from greentls.wire.extensions import Body
from greentls.wire.handshake import message_bytes
from greentls.wire.registry import HandshakeType

HELLOS = Path(__file__).parents[2] / "tests" / "data" / "hellos"

DEPTHS = {
    "message": "a message out of its record",
    "outline": "all but the extensions, and where each of those is",
    "extensions": "and a list of every extension's bytes",
    "three fields": "server_name, session id, PSK identities",
    "bodies": "every extension parsed",
}


class Row(NamedTuple):
    """A function of a parser."""

    parser: str  # "greentls" or a competitor's name on PyPI
    depth: str  # of DEPTHS
    words: str  # the called function, and what it decodes
    parse: Callable[[], Any]
    fields: Callable[[Any], dict[str, Any]]  # takes the result; returns ClientHello's fields


# The parsers --------------------------------------------------------------------------------------------------------
# Each function takes the hello with its record and without. It raises ImportError if the parser is not installed.


def greentls(stream: bytes, message: bytes) -> list[Row]:
    attributes = ((name, getattr(ClientHello, name)) for name in dir(ClientHello))
    bodies = {value._type: name for name, value in attributes if isinstance(value, Body)}

    def three_fields():
        hello = ClientHello.parse(message)
        return hello.server_name, hello.legacy_session_id, hello.psk_identities

    def every_body():
        hello = ClientHello.parse(message)
        return hello, [getattr(hello, bodies[number]) for number in hello.extensions.types if number in bodies]

    def outline_fields(hello):
        names = ("legacy_version", "random", "legacy_session_id", "cipher_suites", "legacy_compression_methods")
        return {name: getattr(hello, name) for name in names} | {"types": hello.extensions.types}

    def body_fields(parsed):
        hello, _ = parsed
        return outline_fields(hello) | {
            "server_name": hello.server_name,
            "alpn_protocols": hello.alpn_protocols,
            "supported_groups": hello.supported_groups,
            "supported_versions": hello.supported_versions,
            "signature_algorithms": hello.signature_algorithms,
            "ec_point_formats": hello.ec_point_formats,
            "psk_key_exchange_modes": hello.psk_key_exchange_modes,
            "key_share": tuple(map(tuple, hello.key_share)),
            "psk_identities": tuple(map(tuple, hello.psk_identities)),
        }

    rows = {
        "message": (
            "RecordReader().feed(); it also reassembles and checks the order of records",
            lambda: next(RecordReader().feed(stream)),
            lambda message: {"message": message},
        ),
        "outline": (
            "ClientHello.parse()",
            lambda: ClientHello.parse(message),
            outline_fields,
        ),
        "extensions": (
            "ClientHello.parse(), list(hello.extensions)",
            lambda: (hello := ClientHello.parse(message), list(hello.extensions)),
            lambda parsed: outline_fields(parsed[0]) | {"extensions": tuple(map(tuple, parsed[1]))},
        ),
        "three fields": (
            "ClientHello.parse(), and these attributes",
            three_fields,
            lambda parsed: dict(zip(("server_name", "legacy_session_id", "psk_identities"), parsed, strict=True)),
        ),
        "bodies": (
            "ClientHello.parse(), and the attribute of each of its extensions: all but GREASE and the unknown",
            every_body,
            body_fields,
        ),
    }
    return [Row("greentls", depth, *row) for depth, row in rows.items()]


def dpkt(stream: bytes, message: bytes) -> list[Row]:
    import dpkt.ssl

    def fields(handshake):
        hello = handshake.data
        return {
            "legacy_version": hello.version,
            "random": hello.random,
            "legacy_session_id": hello.session_id,
            "cipher_suites": tuple(suite.code for suite in hello.ciphersuites),
            "legacy_compression_methods": hello.compression_methods,
            "types": tuple(number for number, _ in hello.extensions),
            "extensions": tuple(hello.extensions),
        }

    words = "ssl.TLSHandshake(); an object for each cipher suite, and bytes for each extension: no body is decoded"
    return [Row("dpkt", "extensions", words, lambda: dpkt.ssl.TLSHandshake(message), fields)]


def scapy(stream: bytes, message: bytes) -> list[Row]:
    logging.getLogger("scapy").setLevel(logging.ERROR)
    with warnings.catch_warnings():  # about ciphers that cryptography will drop
        warnings.simplefilter("ignore")
        from scapy.layers.tls.handshake import TLSClientHello

    def fields(hello):
        extensions = {extension.type: extension for extension in hello.ext}

        def of(number, name):
            return tuple(getattr(extensions[number], name)) if number in extensions else ()

        names = of(0, "servernames")
        return {
            "legacy_version": hello.version,
            "random": hello.gmt_unix_time.to_bytes(4, "big") + hello.random_bytes,
            "legacy_session_id": hello.sid,
            "cipher_suites": tuple(hello.ciphers),
            "legacy_compression_methods": tuple(hello.comp),
            "types": tuple(extension.type for extension in hello.ext),
            "server_name": names[0].servername.decode() if names else None,
            "alpn_protocols": tuple(each.protocol.decode() for each in of(16, "protocols")),
            "supported_groups": of(10, "groups"),
            "supported_versions": of(43, "versions"),
            "signature_algorithms": of(13, "sig_algs"),
            "ec_point_formats": of(11, "ecpl"),
            "psk_key_exchange_modes": of(45, "kxmodes"),
            "key_share": tuple((share.group, share.key_exchange) for share in of(51, "client_shares")),
        }

    words = (
        "TLSClientHello(), which decodes eagerly and makes a TLS session; of Chromium's extensions it leaves ECH, "
        "ALPS, compress_certificate and signed_certificate_timestamp as bytes"
    )
    return [Row("scapy", "bodies", words, lambda: TLSClientHello(message), fields)]


def tlslite_ng(stream: bytes, message: bytes) -> list[Row]:
    from tlslite.messages import ClientHello as TlsliteHello
    from tlslite.utils.codec import Parser as TlsliteParser

    def number16(pair):
        return pair[0] << 8 | pair[1]

    def fields(hello):
        def of(number, name):
            extension = hello.getExtension(number)
            return tuple(getattr(extension, name)) if extension else ()

        return {
            "legacy_version": number16(hello.client_version),
            "random": bytes(hello.random),
            "legacy_session_id": bytes(hello.session_id),
            "cipher_suites": tuple(hello.cipher_suites),
            "legacy_compression_methods": tuple(hello.compression_methods),
            "types": tuple(extension.extType for extension in hello.extensions),
            "extensions": tuple((extension.extType, bytes(extension.extData)) for extension in hello.extensions),
            "server_name": hello.server_name.decode() or None,
            "alpn_protocols": tuple(each.decode() for each in of(16, "protocol_names")),
            "supported_groups": of(10, "groups"),
            "supported_versions": tuple(map(number16, of(43, "versions"))),
            "signature_algorithms": tuple(map(number16, of(13, "sigalgs"))),
            "ec_point_formats": of(11, "formats"),
            "psk_key_exchange_modes": of(45, "modes"),
            "key_share": tuple((share.group, bytes(share.key_exchange)) for share in of(51, "client_shares")),
            "psk_identities": tuple((bytes(psk.identity), psk.obfuscated_ticket_age) for psk in of(41, "identities")),
        }

    words = "messages.ClientHello().parse(), which decodes eagerly; of Chromium's extensions ECH and ALPS stay bytes"
    # The type is read first, as in tlslite-ng.
    return [
        Row("tlslite-ng", "bodies", words, lambda: TlsliteHello().parse(TlsliteParser(bytearray(message[1:]))), fields)
    ]


def tls_parser(stream: bytes, message: bytes) -> list[Row]:
    from tls_parser.handshake_protocol import TlsHandshakeRecord

    words = "TlsHandshakeRecord.from_bytes(); it splits headers, and has no ClientHello"
    return [
        Row(
            "tls-parser",
            "message",
            words,
            lambda: TlsHandshakeRecord.from_bytes(stream),
            lambda parsed: {"message": parsed[0].subprotocol_messages[0].to_bytes()},
        )
    ]


COMPETITORS = (dpkt, scapy, tlslite_ng, tls_parser)


def rows_for(stream: bytes, message: bytes) -> list[Row]:
    """Returns the functions of the installed parsers."""
    rows = greentls(stream, message)
    for make in COMPETITORS:
        try:
            rows += make(stream, message)
        except ImportError:
            pass
    return rows


def check(rows: list[Row]) -> dict[str, list[str]]:
    """Returns the fields on which each parser agrees with greentls. Raises SystemExit if one does not agree."""
    expected: dict[str, Any] = {}
    agreed: dict[str, set[str]] = {}
    for row in rows:
        for field, value in row.fields(row.parse()).items():
            if value != expected.setdefault(field, value):
                raise SystemExit(f"{row.parser} ({row.depth}) reads {field} as {value!r}, not {expected[field]!r}")
            agreed.setdefault(row.parser, set()).add(field)
    return {parser: sorted(fields) for parser, fields in agreed.items()}


# Side by side -------------------------------------------------------------------------------------------------------


def seconds_of(parse: Callable[[], object], calls: int) -> float:
    turns = range(calls)
    start = time.perf_counter()
    for _ in turns:
        parse()
    return time.perf_counter() - start


def interleaved(functions: list[Callable[[], object]], rounds: int, turn: float) -> list[list[float]]:
    """Returns for each function the seconds of a call in each round. turn: about the seconds for its turn."""
    calls = [max(1, round(turn / min(seconds_of(each, 1) for _ in range(5)))) for each in functions]
    times: list[list[float]] = [[] for _ in functions]
    gc.collect()
    gc.freeze()
    gc.disable()  # as in timeit: one function's garbage would slow down others
    try:
        for _ in range(rounds):
            for function, count, each in zip(functions, calls, times, strict=True):
                each.append(seconds_of(function, count) / count)
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return times


def side_by_side(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Returns microseconds by "parser: depth"."""
    stream = (HELLOS / f"{options.hello}.bin").read_bytes()
    rows = rows_for(stream, next(RecordReader().feed(stream)))
    check(rows)
    rounds = max(1, round(options.seconds / options.turn / len(rows)))
    times = interleaved([row.parse for row in rows], rounds, options.turn)
    return {
        f"{row.parser}: {DEPTHS[row.depth]}": {"us": statistics.median(each) * 1e6}
        for row, each in zip(rows, times, strict=True)
    }


# Linear time --------------------------------------------------------------------------------------------------------


def handshake_messages(size: int) -> bytes:
    """Returns size bytes of the longest allowed messages: 64 KiB for the first, 256 KiB for others."""
    data = b""
    while len(data) < size:
        longest = (256 if data else 64) * 1024
        data += message_bytes(HandshakeType.finished, bytes(min(longest, size - len(data)) - 4))
    return data


def in_records(data: bytes, size: int) -> bytes:
    return b"".join(
        b"\x16\3\3" + len(data[at : at + size]).to_bytes(2, "big") + data[at : at + size]
        for at in range(0, len(data), size)
    )


def with_record_reader(pieces: list[bytes]) -> int:
    reader = RecordReader()
    return sum(len(message) for piece in pieces for message in reader.feed(piece))


def with_parser(pieces: list[bytes]) -> int:
    found = []
    parser = Parser(on_finished=lambda finished: found.append(4 + len(finished.verify_data)))
    for piece in pieces:
        parser.feed(piece)
    return sum(found)


def byte_by_byte(size: int) -> list[bytes]:
    stream = in_records(handshake_messages(size), 2**14)
    return [stream[at : at + 1] for at in range(len(stream))]


def tiny_records(size: int) -> list[bytes]:
    """Returns a short first message, which may have few records, then records of one byte."""
    first = message_bytes(HandshakeType.finished, b"x")
    return [in_records(first, 5) + in_records(handshake_messages(size - 5), 1)]


SHORTEST, LONGEST = 2**14, 2**20  # bytes of a stream
SECONDS_PER_BYTE = 1.5e-6  # about: Parser, byte by byte

CURVES = {
    "RecordReader, byte by byte": (with_record_reader, byte_by_byte),
    "Parser, byte by byte": (with_parser, byte_by_byte),
    "RecordReader, at once, in records of one byte": (with_record_reader, tiny_records),
    "Parser, at once, in records of one byte": (with_parser, tiny_records),
}


def linear_time(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Returns the exponent of each curve. Halves the longest streams until all take about the given seconds."""
    results = {}
    for name, (read, cut) in CURVES.items():
        longest = LONGEST
        while longest > SHORTEST * 2 and longest * SECONDS_PER_BYTE * 2 * len(CURVES) > options.seconds:
            longest //= 2
        sizes = [SHORTEST << power for power in range(20) if SHORTEST << power <= longest]
        pieces = [cut(size) for size in sizes]
        for size, each in zip(sizes, pieces, strict=True):
            if (got := read(each)) != size:
                raise SystemExit(f"{name}: {got} bytes of messages came out of {size}")
        times = interleaved([lambda each=each, read=read: read(each) for each in pieces], 1, 0.0)
        logarithms = [math.log(size) for size in sizes], [math.log(statistics.median(each)) for each in times]
        results[name] = {
            "exponent": statistics.linear_regression(*logarithms).slope,
            "ns_byte": statistics.median(times[-1]) / sizes[-1] * 1e9,
        }
    return results


# The program --------------------------------------------------------------------------------------------------------


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hello", default="chromium", help="of tests/data/hellos (chromium)")
    parser.add_argument("--seconds", type=float, default=3.0, help="that all rows take together, about (3)")
    parser.add_argument("--turn", type=float, default=0.001, help="seconds of a row's turn in a round (0.001)")
    parser.add_argument("--curves", action="store_true", help="whether time is linear, instead")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    print(json.dumps(linear_time(options) if options.curves else side_by_side(options)))


if __name__ == "__main__":
    main()
