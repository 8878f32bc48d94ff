#!/usr/bin/env python3
"""Fuzzes greentls.wire: whatever comes in, nothing but WireError goes out, and how it was cut makes no difference.

python -m tests.wire.fuzz_parser [-max_total_time=SECONDS] [whatever else libFuzzer takes] [CORPUS...]

Coverage-guided with atheris, which has wheels for few Pythons; without it the seeds are mutated at random.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.support.helpers import DATA

SEEDS = DATA / "hellos"

try:
    import atheris
except ImportError:
    atheris = None

GUIDED = atheris is not None and __name__ == "__main__"  # the tests, which import this file, want nothing instrumented

with atheris.instrument_imports(include=["greentls.wire"]) if GUIDED else contextlib.nullcontext():
    from greentls.errors import WireError
    from greentls.wire import fingerprint, messages
    from greentls.wire.extensions import Body, Extensions
    from greentls.wire.handshake import message_bytes
    from greentls.wire.hello import ClientHello, ServerHello
    from greentls.wire.not_tls import recognise
    from greentls.wire.parser import _EVENTS, Parser
    from greentls.wire.proxy import ProxyReader
    from greentls.wire.record import RecordReader
    from greentls.wire.registry import ExtensionType, HandshakeType

STRUCTURES = [
    (HandshakeType.client_hello, ClientHello),
    (HandshakeType.server_hello, ServerHello),
    (HandshakeType.certificate, messages.Certificate),
    (HandshakeType.new_session_ticket, messages.NewSessionTicket),
    (HandshakeType.server_key_exchange, messages.ServerKeyExchange),
    (HandshakeType.certificate_request, messages.CertificateRequest),
    (HandshakeType.certificate_status, messages.CertificateStatus),
    (HandshakeType.finished, messages.Finished),
]


def one_input(data: bytes) -> None:
    """Raises if anything is wrong with the parser. The first byte says with which part of it."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def stream(data: bytes) -> None:
    for read in (read_records, read_events, read_proxy):
        same_however_cut(read, data)
    assert len({recognise(data[:size]) for size in range(min(len(data), 20) + 1)} - {None}) <= 1


def handshake_record(data: bytes) -> None:
    """data, in a record of which the header is right."""
    stream(b"\x16\3\1" + len(data[: 2**14]).to_bytes(2, "big") + data)


def message(data: bytes) -> None:
    for handshake_type, structure in STRUCTURES:
        for encoded in (data, message_bytes(handshake_type, data)):
            with contextlib.suppress(WireError):
                parsed = structure.parse(encoded)
                assert parsed.to_bytes() == encoded
                look_at(parsed)


def extension(data: bytes) -> None:
    """data as the body of one extension, which its first byte chooses."""
    if data:
        number = list(ExtensionType)[data[0] % len(ExtensionType)]
        extensions = Extensions.of((number, data[1:]))
        look_at(ClientHello(0x0303, bytes(32), b"", (), extensions=extensions))
        look_at(ServerHello(0x0303, bytes(32), b"", 0, extensions=extensions))


TARGETS = (stream, handshake_record, message, extension)


def look_at(parsed: object) -> None:
    """At every attribute, and the fingerprints."""
    kind = type(parsed)
    for name in dir(kind):
        if isinstance(getattr(kind, name), Body | property):
            with contextlib.suppress(WireError):
                getattr(parsed, name)
    if isinstance(parsed, ClientHello):
        for make in (fingerprint.ja3, fingerprint.ja4, fingerprint.ja4_r):
            with contextlib.suppress(WireError):
                make(parsed)


def same_however_cut(read, data: bytes) -> None:
    size = len(data) % 7 + 1
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert read([data]) == read(pieces)


def read_records(pieces):
    reader, found = RecordReader(), []
    try:
        for piece in pieces:
            for message in reader.feed(piece):
                found.append(message)
    except WireError as error:
        found.append(str(error))
    return found


def read_events(pieces):
    events = []
    in_pieces = ("on_handshake_body", "on_encrypted", "on_application_data")

    def handler(event):
        def handle(*args):
            if event in in_pieces and events and events[-1][0] == event:
                events[-1][-1] += args[-1]
            else:
                events.append([event, *args])

        return handle

    parser = Parser(**{event: handler(event) for event in _EVENTS})
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.eof()
    except WireError as error:
        events.append([str(error)])
    return events


def read_proxy(pieces):
    reader, header = ProxyReader(), None
    try:
        for piece in pieces:
            header = header or reader.feed(piece)
        return header and (header, header.ssl)
    except WireError as error:
        return error.field


def seeds(directories: list[Path]) -> list[bytes]:
    """Inputs, each with the byte in front that says which target it is for."""
    found = [path.read_bytes() for directory in directories for path in sorted(directory.glob("*.bin"))]
    proxied = [b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)]
    extensions = [bytes([at, 0, 2, 1, 0]) for at in range(len(ExtensionType))]
    parts = [(0, found), (0, proxied), (1, [seed[5:] for seed in found]), (2, [seed[5:] for seed in found])]
    parts += [(2, [seed[9:] for seed in found]), (3, extensions)]
    return [bytes([target]) + seed for target, bodies in parts for seed in bodies]


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(mutated) + 1)
        choice = rng.randrange(4)
        if choice == 0:
            mutated[at : at + 1] = bytes([rng.randrange(256)])
        elif choice == 1:
            del mutated[at : at + rng.randrange(1, 20)]
        elif choice == 2:
            mutated[at : at + 2] = rng.randrange(65536).to_bytes(2, "big")
        else:
            start = rng.randrange(len(other) + 1)
            mutated[at:at] = other[start : start + rng.randrange(1, 50)]
    return bytes(mutated)


def at_random(corpus: list[bytes], seconds: float) -> int:
    """Runs for so long; returns how many inputs."""
    rng, end, runs = random.Random(0), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        one_input(mutate(rng.choice(corpus), rng.choice(corpus), rng))
        runs += 1
    return runs


def main(arguments: list[str]) -> None:
    options = dict(argument[1:].partition("=")[::2] for argument in arguments if argument.startswith("-"))
    directories = [argument for argument in arguments if not argument.startswith("-")]
    corpus = seeds([SEEDS, *map(Path, directories)])
    for seed in corpus:
        one_input(seed)
    if not atheris:
        runs = at_random(corpus, float(options.get("max_total_time", 60)))
        print(f"Done {runs} runs of mutated seeds; atheris is not installed")
        return
    with tempfile.TemporaryDirectory() as scratch:  # libFuzzer writes what it finds into the first of the directories
        for number, seed in enumerate(corpus):
            Path(scratch, str(number)).write_bytes(seed)
        settings = [] if "max_len" in options else ["-max_len=4096"]
        atheris.Setup([sys.argv[0], *settings, *arguments, *([] if directories else [scratch])], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
