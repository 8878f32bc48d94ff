"""SSL: the names that a connection asks for, and what it tells before its handshake."""

from __future__ import annotations

import pytest

from greentls.core.config import Config
from greentls.errors import ConfigurationError
from greentls.openssl import connections
from greentls.openssl.library import lib


@pytest.fixture
def ssl():
    config = Config(server_side=False)
    made, _, _ = connections.new(config.address, False)
    return made


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("127.0.0.1", b"\x7f\0\0\1"),
        ("127.000.000.001", b"\x7f\0\0\1"),
        ("010.0.0.1", b"\x0a\0\0\1"),  # decimal, as OpenSSL reads it
        ("::1", bytes(15) + b"\1"),
        ("2001:db8::5", b"\x20\x01\x0d\xb8" + bytes(11) + b"\5"),
        ("256.0.0.1", None),
        ("1.2.3", None),
        ("fe80::1%eth0", None),
        ("localhost", None),
        ("1.2.3.4.", None),
        ("", None),
    ],
)
def test_what_is_an_address(name, packed):
    assert connections.packed_ip(name) == packed


@pytest.mark.parametrize(
    ("name", "sent"), [("localhost", "localhost"), ("bücher.example", "xn--bcher-kva.example"), ("a" * 255, "a" * 255)]
)
def test_a_name_is_sent_as_ascii(ssl, name, sent):
    connections.set_server_name(ssl, name)
    assert connections.server_name(ssl) == sent


def test_a_name_that_is_too_long_is_refused(ssl):
    with pytest.raises(ConfigurationError, match="longer than 255 bytes"):
        connections.set_server_name(ssl, "a" * 256)
    assert connections.server_name(ssl) is None


@pytest.mark.parametrize(
    "name", ["localhost", "_service.example", "a_b.example", "127.0.0.1", "::1", "xn--bcher-kva.test"]
)
@pytest.mark.parametrize("common_name", [True, False])
def test_any_name_can_be_expected(ssl, name, common_name):
    """Also one that OpenSSL 4.0 calls improper."""
    connections.check_host(ssl, name, common_name)
    assert not lib.ERR_peek_error()


def test_a_name_with_a_nul_byte_is_none(ssl):
    with pytest.raises(ConfigurationError, match="neither a DNS name nor an IP address"):
        connections.check_host(ssl, "localhost\0.evil.test", True)
    assert not lib.ERR_peek_error()


def test_before_the_handshake_nothing_is_known(ssl):
    assert connections.cipher(ssl) is None
    assert connections.shared_ciphers(ssl) is None
    assert connections.own_certificate(ssl) is None
    assert connections.verified_peer_chain(ssl) == []
    assert not connections.knows_peer(ssl)
    assert not connections.received_shutdown(ssl)
    assert connections.early_data_accepted(ssl) is None
    assert (connections.alpn_protocol(ssl), connections.finished(ssl, True)) == (b"", b"")
    with pytest.raises(ValueError, match="exports no 16 bytes"):
        connections.exported_keying_material(ssl, b"label", 16, None)
    assert not lib.ERR_peek_error()
