"""greentls hello: shows ClientHellos from a file, a capture or the network, as a table or as JSON."""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from greentls.cli import hello_forms as forms
from greentls.cli.hello_forms import Found, Where
from greentls.cli.options import Commands, count, listen, seconds, written
from greentls.errors import ConfigurationError, WireError
from greentls.wire.hello import ClientHello
from greentls.wire.messages import Alert
from greentls.wire.not_tls import NotTLS, recognise
from greentls.wire.parser import Parser
from greentls.wire.registry import AlertDescription, AlertLevel, ContentType, HandshakeType

__all__ = ["add_parser"]

SOME_FAILED = 1  # exit status: some of several clients were reported on standard error
BROKEN_PIPE = 141  # 128 + SIGPIPE, as in shells: the reader has closed the pipe

MAX_INPUT = 4 * 1024 * 1024  # the largest hello, in records of one byte, written as 0x16, 0x03, ... has 2.3 MiB
GOODBYE_SECONDS = 1.0  # for the client to read the alert, which an earlier close() could destroy

DESCRIPTION = """\
Shows a TLS client's first message, the ClientHello: what it offers, every extension, and its JA3 and JA4 fingerprints.
FILE is a capture (.pcap or .pcapng; every hello in it is shown), the bytes that a client sent, a hello without a
record, or either of these as hex text.
"""

EPILOG = """\
examples:
  greentls hello capture.pcapng
      shows every hello with its time and addresses; captures need pip install 'greentls[capture]'
  tcpdump -U -i any -w - 'tcp port 443' | greentls hello --json | jq -r .server_name
      prints the names that clients ask for, as they arrive
  greentls hello --listen localhost:8443
      shows the next client's, such as curl https://localhost:8443/ (which reports a handshake failure)
  xxd -p hello.bin | greentls hello
      reads hex; whitespace, colons, commas and 0x are ignored

JSON is one document per hello, each on one line. Fields and known extensions have their names from RFC 8446.
"extensions" has the bytes of all extensions in order. Bytes are hex, and numbers come with their names.

exit status: 0; 1 if clients of a capture or of --listen were reported on standard error; 2 with one line for unusable
input: a malformed hello, no hello, a broken file; 130 after Ctrl-C.
"""


def add_parser(commands: Commands) -> None:
    """Adds the command to argparse's sub-parsers."""
    help = "show what a client offers: its ClientHello, from a capture or live"
    parser = commands.add_parser("hello", help=help, description=DESCRIPTION, epilog=EPILOG)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: -, standard input")
    source.add_argument("--listen", metavar="HOST:PORT", help="wait for a client and refuse it; port 0: any")
    add = parser.add_argument
    add("--count", metavar="N", type=count, default=1, help="with --listen: number of clients; default %(default)s")
    add("--timeout", metavar="S", type=seconds, default=10.0, help="with --listen: for a hello; default %(default)g")
    add("--json", action="store_true", help="print one JSON document per hello, each on one line")
    add("--verbose", action="store_true", help="also name the streams of a capture that are not TLS")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    show = partial(forms.show, forms.document if arguments.json else forms.table)
    try:
        if arguments.listen is not None:
            return _listen(arguments.listen, arguments.count, arguments.timeout, show)
        return _read(arguments.file, arguments.verbose, show)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again at exit
        return BROKEN_PIPE


Show = Callable[[Found, "Where | None"], "list[WireError]"]


# -- where hellos come from --------------------------------------------------------------------------------------------


class HelloReader:
    """Reads a client's bytes and yields its hellos: the first, and the one that answers a HelloRetryRequest.

    done: the rest is not needed, because it is encrypted, not a client's, malformed, or not TLS. not_tls: the kind of
    stream if it is not TLS.
    """

    def __init__(self) -> None:
        self.done = False
        self.not_tls: NotTLS | None = None
        self._opening = b""  # enough bytes to recognise TLS
        self._found: Found | None = None
        self._records = 0  # handshake records since the last hello
        self._parser = Parser(
            on_record=self._on_record,
            on_handshake_begin=self._on_handshake_begin,
            on_client_hello=self._on_client_hello,
            on_encrypted=self._end,
            on_application_data=self._end,
            on_not_tls=self._on_not_tls,
        )

    def feed(self, data: bytes) -> Iterator[Found]:
        """Raises WireError after the hellos before the fault."""
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
        """Raises WireError if the stream ends inside a record or message."""
        if self.done:
            return
        if self._opening and not _RECORD.match(self._opening):
            self._on_not_tls(NotTLS.UNKNOWN)  # too short to be recognised
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
        self._records = -1  # the hello's last record has not ended yet
        self._parser.pause()

    def _on_not_tls(self, kind: NotTLS) -> None:
        self.not_tls = kind
        self._end()

    def _end(self, *_: object) -> None:
        self.done = True
        self._parser.pause()


# The first bytes of pcap with microseconds, with nanoseconds, and Kuznetzov's, each in both byte orders; of pcapng.
_CAPTURES = [*map(bytes.fromhex, ["a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "a1b2cd34", "34cdb2a1", "0a0d0d0a"])]

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
        problem = "not a capture, TLS or hex" if kind == NotTLS.UNKNOWN else kind.value
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
            where = Where(when, written(*stream.source), written(*stream.destination))
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
            packets += f", unknown link types: {', '.join(map(str, sorted(capture.unread)))}"
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
        print(f"greentls hello: listening on {written(*listener.getsockname())}", file=sys.stderr, flush=True)
        for _ in range(count):
            sock, peer = listener.accept()
            with sock:
                where = Where(time.time(), written(*peer), written(*sock.getsockname()))
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
    """Yields data until the client closes. Raises TimeoutError after timeout seconds in all."""
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
    except OSError:  # the client is gone, or does not close
        pass


def _complain(sentence: str) -> int:
    print(f"greentls hello: {sentence}", file=sys.stderr, flush=True)
    return SOME_FAILED
