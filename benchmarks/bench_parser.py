"""How fast ClientHellos are parsed, beside dpkt, scapy, tlslite-ng and tls-parser, and whether time is linear.

    python benchmarks/bench_parser.py --rounds 300

Parsers differ in how deep they go, so each row says what it does, and a ratio is that of two equals only where it says
"same depth". Time is taken in rounds: every row's turn takes about a millisecond, then the next row's, and so on; a
ratio is taken within a round, and its median over all rounds is the claim. Before that all parsers have to agree on
what is in the hello.

The second part feeds streams of up to 1 MiB, byte by byte or cut into records of one byte: if time per byte stays the
same, time is linear, and the exponent of time = a * size ** exponent is near 1.

Progress and tables go to standard error, JSON to standard output. `make bench` installs the competitors and runs this.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import logging
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from greentls.wire import ClientHello, Parser, RecordReader
from greentls.wire.extensions import Body
from greentls.wire.handshake import message_bytes
from greentls.wire.registry import HandshakeType

HELLOS = Path(__file__).parents[1] / "tests" / "data" / "hellos"

DEPTHS = {
    "message": "from the record to a whole handshake message, nothing of it parsed",
    "outline": "version, random, session id, cipher suites, compression methods; where each extension is",
    "extensions": "the outline, and a list of every extension's type and bytes",
    "three fields": "server_name, legacy_session_id and psk_identities, which a server needs to find a session",
    "bodies": "the outline, and the body of every extension that the parser knows",
}


class Row(NamedTuple):
    """One thing that is measured."""

    parser: str  # "greentls" or a competitor's name on PyPI
    depth: str  # of DEPTHS
    words: str  # what is called, and what it decodes
    parse: Callable[[], Any]
    fields: Callable[[Any], dict[str, Any]]  # what parse() gave, in the words and types of ClientHello


# The parsers --------------------------------------------------------------------------------------------------------
# Each function takes the hello with its record, and without; and raises ImportError if the parser is not installed.


def greentls(stream: bytes, message: bytes) -> list[Row]:
    bodies = {value._type: name for name, value in vars(ClientHello).items() if isinstance(value, Body)}

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
    with warnings.catch_warnings():  # of ciphers that cryptography is about to drop
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
    # The type is read before, as tlslite-ng does itself.
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


COMPETITORS = {"dpkt": dpkt, "scapy": scapy, "tlslite-ng": tlslite_ng, "tls-parser": tls_parser}


def rows_for(stream: bytes, message: bytes) -> tuple[list[Row], list[str]]:
    """The rows, and the names of the competitors that are not installed."""
    rows, absent = greentls(stream, message), []
    for name, make in COMPETITORS.items():
        try:
            rows += make(stream, message)
        except ImportError:
            absent.append(name)
    return rows, absent


def check(rows: list[Row]) -> dict[str, list[str]]:
    """Which fields each parser agrees on with greentls; SystemExit where one does not."""
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
    """For each function the seconds of a call, by round. turn: about how many seconds it gets in each."""
    calls = [max(1, round(turn / min(seconds_of(each, 1) for _ in range(5)))) for each in functions]
    times: list[list[float]] = [[] for _ in functions]
    gc.collect()
    gc.freeze()
    gc.disable()  # as timeit: who makes garbage would make the others pay
    try:
        for _ in range(rounds):
            for function, count, each in zip(functions, calls, times, strict=True):
                each.append(seconds_of(function, count) / count)
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return times


def middle(values: list[float], scale: float = 1.0, digits: int = 2) -> dict[str, Any]:
    """The median, and between which values nine of ten lie."""
    cuts = statistics.quantiles(values, n=20) if len(values) > 1 else values * 2
    spread = [round(cuts[0] * scale, digits), round(cuts[-1] * scale, digits)]
    return {"median": round(statistics.median(values) * scale, digits), "nine of ten": spread}


def side_by_side(stream: bytes, options: argparse.Namespace) -> dict[str, Any]:
    message = next(RecordReader().feed(stream))
    rows, absent = rows_for(stream, message)
    agreed = check(rows)
    times = interleaved([row.parse for row in rows], options.rounds, options.turn)
    ours = [(row, each) for row, each in zip(rows, times, strict=True) if row.parser == "greentls"]
    theirs = [(row, each) for row, each in zip(rows, times, strict=True) if row.parser != "greentls"]
    return {
        "bytes": len(message),
        "extensions": len(ClientHello.parse(message).extensions),
        "absent": absent,
        "agreed on": agreed,
        "microseconds": [
            {"parser": row.parser, "depth": row.depth, "does": row.words, **middle(each, 1e6)}
            for row, each in zip(rows, times, strict=True)
        ],
        "times faster": [
            {
                "greentls": our.depth,
                "than": their.parser,
                "same depth": our.depth == their.depth,
                **middle([b / a for a, b in zip(our_times, their_times, strict=True)]),
            }
            for our, our_times in ours
            for their, their_times in theirs
            # "message" starts at the record, the others at the message.
            if (our.depth == "message") == (their.depth == "message")
        ],
    }


# Linear time --------------------------------------------------------------------------------------------------------


def handshake_messages(size: int) -> bytes:
    """size bytes of messages as long as RecordReader and Parser take them: 64 KiB the first, 256 KiB the others."""
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
    """One message of a byte more than its header, since few records may hold the first; then records of one byte."""
    first = message_bytes(HandshakeType.finished, b"x")
    return [in_records(first, 5) + in_records(handshake_messages(size - 5), 1)]


CURVES = {
    "RecordReader, byte by byte": (with_record_reader, byte_by_byte),
    "Parser, byte by byte": (with_parser, byte_by_byte),
    "RecordReader, at once, in records of one byte": (with_record_reader, tiny_records),
    "Parser, at once, in records of one byte": (with_parser, tiny_records),
}


def linear_time(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    results = {}
    for name, (read, cut) in CURVES.items():
        sizes = [2**power for power in range(14, 31) if 2**power <= options.curve_bytes]
        pieces = [cut(size) for size in sizes]
        for size, each in zip(sizes, pieces, strict=True):
            if (got := read(each)) != size:
                raise SystemExit(f"{name}: {got} bytes of messages came out of {size}")
        functions = [lambda each=each, read=read: read(each) for each in pieces]
        times = interleaved(functions, options.curve_rounds, 0.0)
        medians = [statistics.median(each) for each in times]
        per_byte = [median / size * 1e9 for median, size in zip(medians, sizes, strict=True)]
        logarithms = [math.log(size) for size in sizes], [math.log(median) for median in medians]
        exponent = statistics.linear_regression(*logarithms).slope if len(sizes) > 1 else None
        results[name] = {
            "exponent": exponent and round(exponent, 3),
            "nanoseconds per byte": {
                str(size): middle([second / size for second in each], 1e9, 0)
                for size, each in zip(sizes, times, strict=True)
            },
        }
        say(f"\n{name}: time = a * size ** {exponent:.2f}" if exponent else f"\n{name}")
        for size, median, cost in zip(sizes, medians, per_byte, strict=True):
            bar = "#" * round(30 * cost / max(per_byte))
            say(f"  {size >> 10:>6} KiB {median * 1e3:>9.1f} ms {cost:>7.0f} ns per byte {bar}")
    return results


# The program --------------------------------------------------------------------------------------------------------


def table(name: str, result: dict[str, Any], say: Callable[[str], None]) -> None:
    say(f"\n{name}: ClientHello of {result['bytes']} bytes, {result['extensions']} extensions")
    for row in result["microseconds"]:
        low, high = row["nine of ten"]
        say(f"  {row['parser']:<11} {row['depth']:<13} {row['median']:>8.2f} us  ({low:.2f} to {high:.2f})")
    for row in result["times faster"]:
        low, high = row["nine of ten"]
        equal = "  same depth" if row["same depth"] else ""
        say(f"  {row['greentls']:<13} x{row['median']:<6.2f} ({low:.2f} to {high:.2f}) against {row['than']}{equal}")
    for competitor in result["absent"]:
        say(f"  {competitor} is absent: pip install {competitor}")


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem for path in HELLOS.glob("*.bin"))
    parser.add_argument(
        "--hellos",
        nargs="+",
        default=["chromium", "chromium-psk"],
        choices=known,
        metavar="NAME",
        help=f"of tests/data/hellos: {', '.join(known)} (chromium, and chromium-psk, which offers a ticket)",
    )
    parser.add_argument("--rounds", type=int, default=300, help="interleaved rounds (300)")
    parser.add_argument("--turn", type=float, default=0.001, help="seconds of a row's turn in a round (0.001)")
    parser.add_argument("--curve-bytes", type=int, default=2**20, help="the longest stream of the curves (1 MiB)")
    parser.add_argument("--curve-rounds", type=int, default=3, help="interleaved rounds of each curve (3)")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    hellos = {}
    for name in options.hellos:
        hellos[name] = side_by_side((HELLOS / f"{name}.bin").read_bytes(), options)
        table(name, hellos[name], say)
    return {"hellos": hellos, "linear time": linear_time(options, say)}


def main() -> None:
    options = parse()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # moving between cores costs caches
    results = measure(options, lambda line: print(line, file=sys.stderr))
    print(
        json.dumps(
            {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "python": platform.python_version(),
                "packages": {name: version_of(name) or "absent" for name in ("greentls", *COMPETITORS)},
                "depths": DEPTHS,
                "settings": vars(options),
                "results": results,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
