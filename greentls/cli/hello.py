"""greentls hello: what clients say first, from a file, a capture or the network, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from greentls.cli.options import count, listen, seconds
from greentls.errors import ConfigurationError, WireError
from greentls.wire.fingerprint import ja3, ja3_string, ja4, ja4_r
from greentls.wire.hello import ClientHello
from greentls.wire.messages import Alert
from greentls.wire.not_tls import NotTLS, recognise
from greentls.wire.parser import Parser
from greentls.wire.registry import (
    AlertDescription,
    AlertLevel,
    CertificateCompressionAlgorithm,
    CertificateStatusType,
    CertificateType,
    CipherSuite,
    CompressionMethod,
    ContentType,
    ECPointFormat,
    ExtensionType,
    HandshakeType,
    NamedGroup,
    ProtocolVersion,
    PskKeyExchangeMode,
    SignatureScheme,
    name,
)

__all__ = ["add_parser"]

SOME_FAILED = 1  # exit status: of several clients some were reported on standard error
BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shells have it: head has seen enough

MAX_INPUT = 4 * 1024 * 1024  # the largest hello, in records of one byte, written as 0x16, 0x03, ... has 2.3 MiB
GOODBYE_SECONDS = 1.0  # for the client to read the alert; to close before it does could destroy it
WIDTH, LABEL = 100, 22  # columns of the table, and of what stands before its values; fingerprints are left longer

DESCRIPTION = """\
Shows the ClientHello that a TLS client begins with: what it offers, every extension, and its JA3 and JA4 fingerprints.
FILE is a capture (.pcap, .pcapng: every hello in it), what a client sent, its hello alone without a record, or either
of these as hex text.
"""

EPILOG = """\
examples:
  greentls hello capture.pcapng
      every hello with its time and addresses; captures need pip install 'greentls[capture]'
  tcpdump -U -i any -w - 'tcp port 443' | greentls hello --json | jq -r .server_name
      the names that clients ask for, as they come
  greentls hello --listen localhost:8443
      the next client's, such as: curl https://localhost:8443/ (which then reports a handshake failure)
  xxd -p hello.bin | greentls hello
      hex; whitespace, colons, commas and 0x are left out

JSON is one document in a line for each hello. Fields, and extensions as far as they are known, have their names from
RFC 8446; "extensions" has the bytes of all, in their order. Bytes are hex; numbers come with their names.

exit status: 0; 1 if clients of a capture or of --listen were reported on standard error; 2 with one line for what
cannot be used: a malformed hello, no hello, a broken file; 130 after Ctrl-C.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to argparse's sub-parsers."""
    parser = commands.add_parser(
        "hello",
        help="show what a client offers: its ClientHello, from a capture or live",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("file", metavar="FILE", nargs="?", default="-", help="default -: standard input")
    source.add_argument("--listen", metavar="HOST:PORT", help="wait for a client, and send it away; port 0: any")
    add = parser.add_argument
    add("--count", metavar="N", type=count, default=1, help="with --listen: number of clients; default %(default)s")
    add("--timeout", metavar="S", type=seconds, default=10.0, help="with --listen: for a hello; default %(default)g")
    add("--json", action="store_true", help="one JSON document in a line for each hello")
    add("--verbose", action="store_true", help="name the streams of a capture that are not TLS, too")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    show = partial(_show, _document if arguments.json else _table)
    try:
        if arguments.listen is not None:
            return _listen(arguments.listen, arguments.count, arguments.timeout, show)
        return _read(arguments.file, arguments.verbose, show)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more when it ends
        return BROKEN_PIPE


class Found(NamedTuple):
    """size: the message's, in bytes. records: how many it came in, 0 for none."""

    hello: ClientHello
    size: int
    records: int


class Where(NamedTuple):
    """time: in seconds since 1970."""

    time: float
    source: str
    destination: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}"


Show = Callable[[Found, "Where | None"], "list[WireError]"]


# -- where hellos come from --------------------------------------------------------------------------------------------


class HelloReader:
    """Takes what a client sends and gives its hellos: the first, and the one that answers a HelloRetryRequest.

    done: the rest is not wanted, because it is encrypted, not a client's, malformed, or not TLS; in that case not_tls
    says what it is.
    """

    def __init__(self) -> None:
        self.done = False
        self.not_tls: NotTLS | None = None
        self._opening = b""  # as much as tells TLS from others
        self._found: Found | None = None
        self._records = 0  # of handshake messages, since the last hello
        self._parser = Parser(
            on_record=self._on_record,
            on_handshake_begin=self._on_handshake_begin,
            on_client_hello=self._on_client_hello,
            on_encrypted=self._end,
            on_application_data=self._end,
            on_not_tls=self._on_not_tls,
        )

    def feed(self, data: bytes) -> Iterator[Found]:
        """Raises WireError, after the hellos before the fault."""
        self._opening = (self._opening + data[:2])[:2]
        while data and not self.done:
            try:
                data = data[self._parser.feed(data) :]
            except WireError:
                self.done = True
                raise
            self._parser.resume()
            if self._found:
                yield self._found
                self._found = None

    def eof(self) -> None:
        """Raises WireError if that is inside of something."""
        if self.done:
            return
        if self._opening and not _RECORD.match(self._opening):
            self._on_not_tls(NotTLS.UNKNOWN)  # too short to be known
        else:
            self._parser.eof()

    def _on_record(self, content_type: int, version: int, fragment: bytes) -> None:
        if content_type == ContentType.handshake:
            self._records += 1

    def _on_handshake_begin(self, msg_type: int, length: int) -> None:
        if msg_type != HandshakeType.client_hello:
            self._end()

    def _on_client_hello(self, hello: ClientHello) -> None:
        self._found = Found(hello, len(hello.to_bytes()), self._records + 1)
        self._records = -1  # the record that it ends in has not ended yet
        self._parser.pause()

    def _on_not_tls(self, kind: NotTLS) -> None:
        self.not_tls = kind
        self._end()

    def _end(self, *_: object) -> None:
        self.done = True
        self._parser.pause()


_CAPTURES = (
    b"\xa1\xb2\xc3\xd4",  # pcap: microseconds
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",  # nanoseconds
    b"\x4d\x3c\xb2\xa1",
    b"\xa1\xb2\xcd\x34",  # Kuznetzov's
    b"\x34\xcd\xb2\xa1",
    b"\x0a\x0d\x0d\x0a",  # pcapng
)

_RECORD = re.compile(rb"[\x14-\x18]\x03")


def _read(file_name: str, verbose: bool, show: Show) -> int:
    shown = "standard input" if file_name == "-" else file_name
    with open(0 if file_name == "-" else file_name, "rb", closefd=file_name != "-") as file:
        head = file.read(4)
        if head in _CAPTURES:
            return _read_capture(shown, file, head, verbose, show)
        data = head + file.read(MAX_INPUT)
    count = 0
    try:
        for found in _hellos(data if data[:1] == b"\1" or _RECORD.match(data) else _from_hex(shown, data)):
            count += 1
            for fault in show(found, None):
                raise fault
    except WireError as error:
        raise ConfigurationError(shown, str(error)) from None
    if not count:
        raise ConfigurationError(shown, "no ClientHello in it")
    return 0


def _hellos(data: bytes) -> Iterator[Found]:
    """Raises WireError."""
    if data.startswith(b"\1"):
        yield Found(ClientHello.parse(data), len(data), 0)
        return
    reader = HelloReader()
    yield from reader.feed(data)
    if reader.not_tls:
        expected = "TLS records or a ClientHello expected"
        raise WireError("TLSPlaintext", reader.not_tls.value, expected, AlertDescription.unexpected_message)
    reader.eof()


def _from_hex(shown: str, text: bytes) -> bytes:
    try:
        data = bytes.fromhex(re.sub(rb"0[xX]|[\s:,]", b"", text).decode("ascii"))
    except ValueError:
        kind = recognise(text) or NotTLS.UNKNOWN
        problem = "neither a capture nor TLS nor hex" if kind == NotTLS.UNKNOWN else kind.value
        remedy = "give a capture, a client's bytes, or hex as xxd -p prints it"
        raise ConfigurationError(shown, problem, remedy) from None
    if not data:
        raise ConfigurationError(shown, "empty")
    return data


def _read_capture(shown: str, file: BinaryIO, head: bytes, verbose: bool, show: Show) -> int:
    try:
        from greentls.cli.capture import BrokenCapture, Capture, Stream
    except ModuleNotFoundError:
        raise ConfigurationError(shown, "reading captures needs dpkt", "pip install 'greentls[capture]'") from None
    capture = Capture(file, head)
    readers: dict[Stream, HelloReader] = {}
    count, status = 0, 0
    try:
        for stream, when, data in capture.streams():
            where = Where(when, _address(stream.source), _address(stream.destination))
            if stream not in readers:
                readers[stream] = HelloReader()
            reader = readers[stream]
            try:
                for found in reader.feed(data):
                    count += 1
                    for fault in show(found, where):
                        status = _complain(f"{shown}: {where}: {fault}")
                if not data:
                    reader.eof()
            except WireError as error:
                status = _complain(f"{shown}: {where}: {error}")
            if reader.not_tls and verbose:
                _complain(f"{shown}: {where}: not TLS: {reader.not_tls.value}")
            if reader.done or not data:
                stream.done = True
                del readers[stream]
    except BrokenCapture as error:
        raise ConfigurationError(shown, f"broken after packet {capture.packets}: {error}") from None
    if not count and not status:
        packets = f"packets: {capture.packets}"
        if capture.unread:
            packets += f", link types that are not understood: {', '.join(map(str, sorted(capture.unread)))}"
        raise ConfigurationError(shown, "no ClientHello in it", packets)
    return status


def _listen(bind: str, count: int, timeout: float, show: Show) -> int:
    try:
        _, listener = listen(bind)
    except ConfigurationError as error:
        raise ConfigurationError(f"--listen {bind}", error.problem, error.remedy) from None
    status = 0
    with listener:
        listener.setblocking(True)
        print(f"greentls hello: listening on {_address(listener.getsockname())}", file=sys.stderr, flush=True)
        for _ in range(count):
            sock, peer = listener.accept()
            with sock:
                where = Where(time.time(), _address(peer), _address(sock.getsockname()))
                status |= _meet(sock, where, timeout, show)
    return status


def _meet(sock: socket.socket, where: Where, timeout: float, show: Show) -> int:
    try:
        found = _first_hello(sock, timeout)
    except WireError as error:
        _say_goodbye(sock, error.alert)
        return _complain(f"{where}: {error}")
    except OSError as error:
        return _complain(f"{where}: no ClientHello: {error.strerror or error}")
    faults = show(found, where)
    _say_goodbye(sock, AlertDescription.handshake_failure)
    return max((_complain(f"{where}: {fault}") for fault in faults), default=0)


def _first_hello(sock: socket.socket, timeout: float) -> Found:
    """Raises WireError, OSError."""
    reader = HelloReader()
    for data in _receive(sock, timeout):
        for found in reader.feed(data):
            return found
        if reader.done:
            break
    reader.eof()
    if reader.not_tls:
        raise ConnectionError(f"not TLS: {reader.not_tls.value}")
    raise ConnectionError("not a client" if reader.done else "closed by the client")


def _receive(sock: socket.socket, timeout: float) -> Iterator[bytes]:
    """What comes until the client closes. Raises TimeoutError, however slowly it comes."""
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        if not (data := sock.recv(65536)):
            return
        yield data
    raise TimeoutError("timed out")


def _say_goodbye(sock: socket.socket, alert: int) -> None:
    try:
        sock.sendall(b"\x15\x03\x03\x00\x02" + Alert(AlertLevel.fatal, alert).to_bytes())
        sock.shutdown(socket.SHUT_WR)
        for _ in _receive(sock, GOODBYE_SECONDS):
            pass
    except OSError:  # it is gone, or does not go
        pass


def _address(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _complain(sentence: str) -> int:
    print(f"greentls hello: {sentence}", file=sys.stderr, flush=True)
    return SOME_FAILED


# -- what is shown -----------------------------------------------------------------------------------------------------


def _show(form: Callable[..., str], found: Found, where: Where | None) -> list[WireError]:
    """Prints a hello, and returns what is malformed in its extensions."""
    values: dict[int, Any] = {}
    faults: dict[int, WireError] = {}
    for extension_type in found.hello.extensions.types:
        try:
            values[extension_type] = _parsed(found.hello, extension_type)
        except WireError as error:
            faults[extension_type] = error
    print(form(found, where, values, faults), flush=True)
    return list(faults.values())


def _parsed(hello: ClientHello, extension_type: int) -> Any:
    """What an extension says; None if it is not known how it says it. Raises WireError."""
    if extension_type == ExtensionType.application_layer_protocol_negotiation:
        return hello.alpn_protocols
    return getattr(hello, name(ExtensionType, extension_type), None)


def _fingerprints(hello: ClientHello) -> dict[str, str | None]:
    """None: malformed extensions do not let it be made."""
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
    except OverflowError:  # pcapng can say any
        return f"{seconds:.0f}"


def _printable(text: str) -> str:
    r"""Bytes other than printable ASCII as \x1b: a client's names shall do nothing to a terminal. The backslash too."""
    sent = text.encode("ascii", "surrogateescape")
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in sent)


# A field or an extension: whose numbers are in it.
_ENUMS: dict[str, type[IntEnum]] = {
    "legacy_version": ProtocolVersion,
    "supported_versions": ProtocolVersion,
    "cipher_suites": CipherSuite,
    "legacy_compression_methods": CompressionMethod,
    "extension_type": ExtensionType,
    "ech_outer_extensions": ExtensionType,
    "supported_groups": NamedGroup,
    "group": NamedGroup,
    "ec_point_formats": ECPointFormat,
    "signature_algorithms": SignatureScheme,
    "signature_algorithms_cert": SignatureScheme,
    "delegated_credential": SignatureScheme,
    "psk_key_exchange_modes": PskKeyExchangeMode,
    "compress_certificate": CertificateCompressionAlgorithm,
    "cert_type": CertificateType,
    "client_certificate_type": CertificateType,
    "server_certificate_type": CertificateType,
    "status_type": CertificateStatusType,
}


# As JSON


def _document(found: Found, where: Where | None, values: dict[int, Any], faults: dict[int, WireError]) -> str:
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


def _plain(field: str, value: Any) -> Any:
    """A parsed value in JSON's types."""
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
    return [_plain(field, each) for each in value]


# As a table


def _table(found: Found, where: Where | None, values: dict[int, Any], faults: dict[int, WireError]) -> str:
    hello = found.hello
    shares = values.get(ExtensionType.key_share, ())
    psks = values.get(ExtensionType.pre_shared_key)
    sizes = [_bytes(len(each.identity)) for each in psks.identities] if psks else []
    records = f"{found.records} record{'s' if found.records > 1 else ''}" if found.records else "no record"
    lines = [
        *([f"{where}  {_time(where.time)}"] if where else []),
        _row("size", [f"{_bytes(found.size)} in {records}"]),
        _row("legacy_version", [name(ProtocolVersion, hello.legacy_version)]),
        _row("supported_versions", _items(values, ExtensionType.supported_versions)),
        _row("server_name", _items(values, ExtensionType.server_name)),
        _row("ALPN", _items(values, ExtensionType.application_layer_protocol_negotiation)),
        _row("legacy_session_id", [_bytes(len(hello.legacy_session_id))]),
        _row("psk_identities", [f"{len(sizes)}: {', '.join(sizes)}"] if sizes else []),
        _row("supported_groups", _items(values, ExtensionType.supported_groups)),
        _row("key_share", [f"{name(NamedGroup, each.group)} {_bytes(len(each.key_exchange))}" for each in shares]),
        _row("signature_algorithms", _items(values, ExtensionType.signature_algorithms)),
        *(f"{label:{LABEL}}{text or '-'}" for label, text in _fingerprints(hello).items()),
        f"cipher_suites: {len(hello.cipher_suites)}",
        *(f"  0x{number:04X}  {name(CipherSuite, number)}" for number in hello.cipher_suites),
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


def _items(values: dict[int, Any], extension_type: ExtensionType) -> list[str]:
    value = values.get(extension_type) or ()
    return [_text(extension_type.name, each) for each in ([value] if isinstance(value, str) else value)]


def _row(label: str, items: list[str]) -> str:
    """Folded between items, not inside of them."""
    text = label.ljust(LABEL).replace(" ", "\xa0") + (", ".join(item.replace(" ", "\xa0") for item in items) or "-")
    indent = " " * LABEL
    folded = textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return folded.replace("\xa0", " ")


def _text(field: str, value: Any) -> str:
    """A parsed value for people: of bytes their number, and nothing for what says all by being there."""
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
    return ("; " if value and hasattr(value[0], "_asdict") else ", ").join(_text(field, each) for each in value) or "-"


def _bytes(count: int) -> str:
    return f"{count} byte{'s' if count != 1 else ''}"


def _clip(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
