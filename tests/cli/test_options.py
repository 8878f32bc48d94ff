"""What options mean: addresses, numbers, seconds."""

from __future__ import annotations

import argparse
import socket

import pytest

from greentls.cli.options import count, listen, seconds, written
from greentls.errors import ConfigurationError


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("4096", 4096)])
def test_a_count(text, value):
    assert count(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "a"])
def test_what_is_no_count(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number above 0"):
        count(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.25", 0.25), ("60", 60.0)])
def test_seconds(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["-1", "inf", "nan", "", "1 s"])
def test_what_is_no_number_of_seconds(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds"):
        seconds(text)


def test_addresses_are_written_as_they_are_read():
    assert written("127.0.0.1", 80) == "127.0.0.1:80"
    assert written("::1", 80, 0, 0) == "[::1]:80"


@pytest.mark.parametrize(("bind", "host"), [("127.0.0.1:0", "127.0.0.1"), ("localhost:0", "localhost")])
def test_a_listener_does_not_block(bind, host):
    found, listener = listen(bind)
    with listener:
        assert found == host
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_an_address_that_is_taken_is_said_so():
    _, listener = listen("127.0.0.1:0")
    with listener, pytest.raises(ConfigurationError, match="choose another port"):
        listen(written(*listener.getsockname()))


@pytest.mark.parametrize("bind", ["", "localhost", ":443", "localhost:", "localhost:65536", "::1:443", "localhost:-1"])
def test_what_is_no_address(bind):
    with pytest.raises(ConfigurationError, match="not HOST:PORT"):
        listen(bind)
