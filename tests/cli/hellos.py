"""Captured ClientHellos, some made by hand, and `greentls hello` as a process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.helpers import DATA, PATIENCE

HELLOS = DATA / "hellos"


STREAMS = {path.stem: path.read_bytes() for path in sorted(HELLOS.glob("*.bin"))}


EXPECTED = {name: json.loads((HELLOS / f"{name}.json").read_text()) for name in STREAMS}


PLAIN, RETRY = STREAMS["openssl-3.0"], STREAMS["openssl-3.0-retry"]


every_hello = pytest.mark.parametrize("name", STREAMS)


def bare(stream):
    """The first hello of a stream, without its records."""
    message = b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        size = int.from_bytes(stream[3:5], "big")
        message += stream[5 : 5 + size]
        stream = stream[5 + size :]
    return message


def record(fragment, content_type=22):
    return bytes([content_type, 3, 1]) + len(fragment).to_bytes(2, "big") + fragment


def hello_with(*extensions):
    """A hello's record, with extensions as (type, bytes)."""
    block = b"".join(number.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body for number, body in extensions)
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + len(block).to_bytes(2, "big") + block
    return record(b"\1" + len(body).to_bytes(3, "big") + body)


def server_name(host):
    entry = b"\0" + len(host).to_bytes(2, "big") + host
    return 0, len(entry).to_bytes(2, "big") + entry


BAD_NAME = hello_with((0, b"\0\4\0\0\x09a"), (10, b"\0\2\0\x1d"))


NAME_FAULT = "server_name: 1 bytes left, host_name needs 9"


def run(*arguments, input=b"", **keywords):
    """The command as a process: (status, standard output, standard error)."""
    command = [sys.executable, "-W", "default", "-m", "greentls", "hello", *map(str, arguments)]
    done = subprocess.run(command, input=input, capture_output=True, timeout=PATIENCE, **keywords)
    return done.returncode, done.stdout.decode(), done.stderr.decode()
