"""The parser advises, OpenSSL decides: what OpenSSL accepts the parser reads, and both read the same in it."""

from __future__ import annotations

import random

import pytest
from OpenSSL import SSL

from greentls.wire.hello import ClientHello
from greentls.wire.record import RecordReader
from tests.support.wire_helpers import RANDOM, client_hello, extension, record, records, u8, u16, v8, v16
from tests.wire.captured import HELLOS
from tests.wire.fuzz_parser import mutate

GROUPS = extension(10, v16(u16(23), u16(29), u16(0x1A1A)))
POINT_FORMATS = extension(11, v8(u8(0)))
ALGORITHMS = extension(13, v16(u16(0x0403), u16(0x0804), u16(0xFAFA)))
VERSIONS = extension(43, v8(u16(0x0303), u16(0x7A7A), u16(0x9999)))
BASE = (GROUPS, POINT_FORMATS, ALGORITHMS)
SUITES = (0x1A1A, 0xC02B, 0xC02C, 0x00FF, 0xFFFF)

UNUSUAL = {
    "the least": client_hello(*BASE, suites=SUITES),
    "an unknown version": client_hello(*BASE, suites=SUITES, version=0x03FF),
    "versions of nobody": client_hello(*BASE, VERSIONS, suites=SUITES),
    "GREASE twice": client_hello(*BASE, extension(0x2A2A), extension(0x2A2A, b"x"), suites=SUITES),
    "an unknown extension twice": client_hello(*BASE, extension(0x1234, b"1"), extension(0x1234), suites=SUITES),
    "a long unknown extension": client_hello(*BASE, extension(0xABCD, bytes(20000)), suites=SUITES),
    "malformed extensions that OpenSSL does not know": client_hello(
        *BASE, extension(27, b"\xff"), extension(28), extension(17613, b"?"), extension(34, b"\1"), suites=SUITES
    ),
    "encrypt_then_mac with a body": client_hello(*BASE, extension(22, b"what"), suites=SUITES),
    "a name that is not ASCII": client_hello(*BASE, extension(0, v16(u8(0), v16(b"b\xfccher.example"))), suites=SUITES),
    "an empty ticket": client_hello(*BASE, extension(35), suites=SUITES),
    "a status type of nobody": client_hello(*BASE, extension(5, u8(9) + b"???"), suites=SUITES),
    "300 suites": client_hello(*BASE, suites=(*range(0x2000, 0x212C), *SUITES)),
    "other compression methods": client_hello(*BASE, suites=SUITES, compression=b"\1\x40\0"),
    "a session id of nobody": client_hello(*BASE, suites=SUITES, session_id=b"s" * 32),
    "a session id of one byte": client_hello(*BASE, suites=SUITES, session_id=b"s"),
    "no random": client_hello(*BASE, suites=SUITES, random=bytes(len(RANDOM))),
}


class Server:
    """OpenSSL, as a server that has not chosen anything yet."""

    def __init__(self, pki):
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate_file(pki.cert_file)
        self._context.use_privatekey_file(pki.key_file)
        self._context.set_cipher_list(b"ALL:@SECLEVEL=0")
        self._context.set_min_proto_version(SSL.TLS1_VERSION)
        self._context.set_tlsext_servername_callback(self._name)
        self._context.set_alpn_select_callback(self._protocols)

    def _name(self, connection):
        self.server_name = connection.get_servername()

    def _protocols(self, connection, offered):
        self.alpn_protocols = offered
        return SSL.NO_OVERLAPPING_PROTOCOLS

    def accepts(self, stream):
        """Whether a ServerHello comes back."""
        self.server_name, self.alpn_protocols = None, []
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        connection.bio_write(stream)
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            try:
                answer = connection.bio_read(65536)
            except SSL.WantReadError:
                return False
            return answer[0] == 22 and answer[5] == 2
        except SSL.Error:
            return False
        raise AssertionError("a handshake without a Finished")


@pytest.fixture(scope="module")
def server(pki):
    return Server(pki)


def assert_parser_reads(stream, server):
    hello = ClientHello.parse(next(RecordReader().feed(stream)))
    name = None if hello.server_name is None else hello.server_name.encode("ascii", "surrogateescape")
    assert name == (server.server_name and server.server_name.lower())
    if server.alpn_protocols:
        assert [
            protocol.encode("ascii", "surrogateescape") for protocol in hello.alpn_protocols
        ] == server.alpn_protocols
    return hello


# These ask for what this server does not have: the curve of its certificate, RSA; and the third is two hellos.
REFUSED = {"openssl-3.0-tls12", "openssl-3.0-tls10", "openssl-3.0-retry"}


@pytest.mark.parametrize(("stream", "expected"), [param for param in HELLOS if param.id not in REFUSED])
def test_real_hellos(server, stream, expected):
    assert server.accepts(stream)
    hello = assert_parser_reads(stream, server)
    assert list(hello.alpn_protocols) == expected["told"].get("alpn_protocols", [])


@pytest.mark.parametrize("encoded", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_hellos(server, encoded):
    whole = record(encoded[:16000]) + records(encoded[16000:], 16000)
    for stream in (whole, records(encoded, 100), records(encoded, 1) if len(encoded) < 4096 else whole):
        assert server.accepts(stream)
        assert assert_parser_reads(stream, server).to_bytes() == encoded


@pytest.mark.parametrize("place", ["before", "inside"])
def test_empty_records_round_a_hello(server, place):
    """RFC 8446 5.1 forbids to send them; OpenSSL passes them over, up to 32 in a row."""
    encoded = UNUSUAL["the least"]
    cut = 0 if place == "before" else 20
    stream = (record(encoded[:cut]) if cut else b"") + record(b"") * 30 + record(encoded[cut:])
    assert server.accepts(stream)
    assert assert_parser_reads(stream, server).to_bytes() == encoded


def test_mutated_hellos(server):
    """Whatever OpenSSL still accepts."""
    rng = random.Random(8446)
    seeds = [param.values[0] for param in HELLOS if len(param.values[0]) < 3000]
    seeds += [record(encoded) for encoded in UNUSUAL.values() if len(encoded) < 3000]
    accepted = 0
    for _ in range(3000):
        mutated = bytearray(rng.choice(seeds))
        if rng.random() < 0.5:
            for _ in range(rng.randrange(1, 4)):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        else:
            mutated = bytearray(mutate(bytes(mutated), rng.choice(seeds), rng))
        if server.accepts(bytes(mutated)):
            accepted += 1
            assert_parser_reads(bytes(mutated), server)
    assert accepted > 300
