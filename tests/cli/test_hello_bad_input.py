"""`greentls hello`: what it says of input that it cannot use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from greentls.cli import main
from tests.cli.hellos import BAD_NAME, NAME_FAULT, PLAIN, bare, hello_with, record, run
from tests.cli.packets import connection, packet, pcap, pcapng
from tests.support.helpers import PATIENCE

PCAP, PCAPNG = pcap([packet(PLAIN)]), pcapng([packet(PLAIN)])
HINT = "give a capture, a client's bytes, or hex as xxd -p prints it"


BAD_INPUT = {
    "nothing": (b"", "empty"),
    "white space": (b" \n", "empty"),
    "text": (b"hello, world\n", f"not a capture, TLS or hex; {HINT}"),
    "half a byte": (b"160", f"not a capture, TLS or hex; {HINT}"),
    "binary": (b"\x7fELF\x02\x01", f"not a capture, TLS or hex; {HINT}"),
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", f"an HTTP request; {HINT}"),
    "a PROXY header": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", f"a PROXY header, version 1; {HINT}"),
    "hex of an HTTP request": (
        b"GET / HTTP/1.1\r\n".hex().encode(),
        "TLSPlaintext: an HTTP request, TLS records or a ClientHello expected",
    ),
    "hex of a pcap": (
        PCAP.hex().encode(),
        "TLSPlaintext: not TLS, and unknown, TLS records or a ClientHello expected",
    ),
    "half a header": (b"\x16\3\1", "TLSPlaintext: the stream ends inside it, the rest of it expected"),
    "half a record": (PLAIN[:100], "TLSPlaintext: the stream ends inside it, the rest of it expected"),
    "half a hello": (record(bare(PLAIN)[:100]), "Handshake: the stream ends inside it, the rest of it expected"),
    "half a bare hello": (bare(PLAIN)[:100], "ClientHello: 100 bytes, 343 expected"),
    "one byte": (b"\1", "ClientHello: 1 bytes, 4 expected"),
    "more after a bare hello": (bare(PLAIN) + b"x", f"ClientHello: {len(bare(PLAIN)) + 1} bytes, 343 expected"),
    "a large hello": (record(b"\1\xff\xff\xff"), "length: 16777215 bytes, at most 65536 expected"),
    "a large record": (b"\x16\3\1\xff\xff", "length: 65535 bytes, at most 16384 expected"),
    "no hello": (record(b"\2\0\0\0"), "no ClientHello in it"),
    "an alert": (record(b"\2\x28", 21), "no ClientHello in it"),
    "application data": (record(b"data", 23), "no ClientHello in it"),
    "a malformed name": (BAD_NAME, NAME_FAULT),
    "an extension twice": (
        hello_with((23, b""), (23, b"")),
        "extensions: repeated, extended_master_secret at most once expected",
    ),
    "a pcap's magic": (PCAP[:4], "broken after packet 0: got 4, 24 needed at least"),
    "half a pcap's packet header": (PCAP[:30], "broken after packet 0: got 6, 16 needed at least"),
    "half a pcap's packet": (PCAP[:-300], "FILE: 192.0.2.1:40000 -> 198.51.100.2:443: TLSPlaintext: the stream ends"),
    "an empty pcap": (PCAP[:24], "no ClientHello in it; packets: 0"),
    "a long packet": (PCAP[:24] + b"\xff" * 16, "broken after packet 0: a length of 4294967295 bytes"),
    "an unknown link": (
        PCAP[:20] + b"\x7f\0\0\0" + PCAP[24:],
        "no ClientHello in it; packets: 1, unknown link types: 127",
    ),
    "a pcapng's magic": (PCAPNG[:4], "broken after packet 0: cut short"),
    "half a pcapng's block": (PCAPNG[:-300], "broken after packet 0: cut short"),
    "a long block": (
        PCAPNG[:28] + b"\1\0\0\0\xff\xff\xff\xff\0\0\0\0",
        "broken after packet 0: a length of 4294967283 b",
    ),
    "a short block": (PCAPNG[:28] + b"\1\0\0\0\7\0\0\0\0\0\0\0", "broken after packet 0: a length of -5 bytes"),
    "no interface": (
        PCAPNG[:28] + PCAPNG[48:],
        "broken after packet 0: a packet of interface 0, which is not described",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_one_line_that_names_it(hello, case):
    data, told = BAD_INPUT[case]
    status, out, err = hello(data)
    assert err.count("\n") == 1
    assert err.startswith("greentls hello: FILE: ")
    assert told in err
    assert status == (1 if "->" in told else 2)
    assert bool(out) == (case in ("a malformed name", "an extension twice"))


def test_a_malformed_extension_is_marked_in_its_place(hello):
    _, out, _ = hello(BAD_NAME)
    assert f"      0      6 bytes  server_name: malformed: {NAME_FAULT}\n" in out
    assert "supported_groups      x25519\n" in out
    assert "ja3                   8" not in out
    _, line, _ = hello("--json", BAD_NAME)
    document = json.loads(line)
    assert document["malformed"] == [NAME_FAULT]
    assert "server_name" not in document
    assert document["supported_groups"] == [{"value": 29, "name": "x25519"}]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch"], "nosuch: No such file or directory; check the path and its permissions"),
        (["/"], "/: Is a directory; check the path and its permissions"),
        (["--listen", "localhost"], "--listen localhost: not HOST:PORT; write localhost:8443 or [::1]:8443"),
        (
            ["--listen", "192.0.2.1:0"],
            "--listen 192.0.2.1:0: Cannot assign requested address; give a name or an address",
        ),
    ],
)
def test_what_cannot_be_read(hello, arguments, told):
    status, out, err = hello(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"greentls hello: {told}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "localhost:0", "file"], "argument FILE: not allowed with argument --listen"),
        (["file", "--listen", "localhost:0"], "argument --listen: not allowed with argument FILE"),
        (["--count", "0"], "argument --count: '0' is not a number above 0"),
        (["--timeout", "soon"], "argument --timeout: 'soon' is not a number of seconds"),
        (["one", "two"], "unknown option: two"),
    ],
)
def test_usage(capfd, arguments, told):
    with pytest.raises(SystemExit) as caught:
        main(["hello", *arguments])
    assert caught.value.code == 2
    assert capfd.readouterr() == ("", f"greentls hello: {told}; see greentls hello --help\n")


def test_captures_need_dpkt(hello, monkeypatch):
    monkeypatch.setitem(sys.modules, "dpkt", None)
    monkeypatch.delitem(sys.modules, "greentls.cli.capture")
    for capture in PCAP, PCAPNG:
        told = "greentls hello: FILE: reading captures needs dpkt; pip install 'greentls[capture]'\n"
        assert hello(capture) == (2, "", told)
    assert hello(PLAIN)[0] == 0


def test_closed_standard_input():
    status, out, err = run(preexec_fn=lambda: os.close(0))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_standard_output_that_nobody_reads(tmp_path):
    (tmp_path / "capture").write_bytes(pcap([each for port in range(1, 200) for each in connection(PLAIN, port=port)]))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "greentls", "hello", str(tmp_path / "capture")]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=PATIENCE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help(capfd):
    with pytest.raises(SystemExit):
        main(["hello", "--help"])
    text, _ = capfd.readouterr()
    assert set(re.findall(r"^  --([a-z-]+)", text, re.MULTILINE)) == {"listen", "count", "timeout", "json", "verbose"}
    for told in ("examples:", "greentls[capture]", "tcpdump", "jq", "xxd -p", "curl", "exit status", "130"):
        assert told in text
    assert max(map(len, text.splitlines())) <= 120
