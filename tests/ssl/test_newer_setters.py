"""What newer Pythons add to ssl.SSLContext: here on every Python, or nowhere. No setter reaches only the base."""

from __future__ import annotations

import ssl

import pytest

import greentls.ssl
from greentls.openssl.contexts import set_options
from greentls.ssl.compiled import read_settings
from greentls.ssl.context import INHERITED
from greentls.ssl.replacement import Absent, hide_unknown
from tests.support.ssl_pairs import connected, contexts, failure, handshake, sides

OP_PREFER_NO_DHE_KEX = 1 << 35


def test_nothing_of_the_base_is_inherited_without_a_reason():
    """This fails on a Python whose SSLContext has something new: implement it, or write down why it does no harm."""
    absent = [name for name, value in vars(greentls.ssl.SSLContext).items() if isinstance(value, Absent)]
    assert absent == []


def test_what_an_sslobject_asks_its_sslobj_for_is_there(pki):
    """The standard library's class hands every call on; a newer one has more to hand on."""
    client, server = sides(*contexts(pki))
    handshake(client, server)
    unasked = {"do_handshake", "read", "write", "unwrap", "verify_client_post_handshake", "selected_npn_protocol"}
    unasked |= {"client_sigalg", "server_sigalg"}  # of Python 3.15: cryptography's wheels leave out what tells them
    for name in set(dir(ssl.SSLObject)) - unasked:
        value = getattr(client.tls, name)
        if not name.startswith("_") and callable(value):
            value()


def test_what_nobody_has_thought_of_is_absent_rather_than_ignored():
    class Base:
        def set_ciphers(self):
            pass

        def set_moonphase(self):
            pass

        protocol = tide = 1

    class Ours(Base):
        def set_ciphers(self):
            pass

    hide_unknown(Ours, Base, INHERITED)
    ours = Ours()
    ours.set_ciphers()
    assert ours.protocol == 1
    assert not hasattr(Ours, "set_moonphase") and not hasattr(ours, "set_moonphase") and not hasattr(ours, "tide")
    with pytest.raises(AttributeError, match="Ours has no tide"):
        ours.tide = 2


def agree(client, server):
    """Whether there is a handshake between them; cryptography 44 does not tell the group."""
    return not any(isinstance(each, ssl.SSLError) for each in failure(client, server))


@pytest.mark.parametrize("who", ["client", "server"])
class TestSetters:
    def pair(self, pki, who, setter, value, version="1.3"):
        client, server = contexts(pki, version)
        getattr(client if who == "client" else server, setter)(value)
        return client, server

    def test_ciphersuites(self, pki, who):
        with connected(*self.pair(pki, who, "set_ciphersuites", "TLS_CHACHA20_POLY1305_SHA256")) as ends:
            assert {end.cipher()[0] for end in ends} == {"TLS_CHACHA20_POLY1305_SHA256"}

    def test_groups(self, pki, who):
        for others, good in (("P-521", True), ("P-256:X25519", False)):
            client, server = self.pair(pki, who, "set_groups", "P-384:P-521")
            (server if who == "client" else client).set_groups(others)
            assert agree(client, server) is good

    def test_server_sigalgs(self, pki, who):
        assert agree(*self.pair(pki, who, "set_server_sigalgs", "ecdsa_secp256r1_sha256"))
        assert not agree(*self.pair(pki, who, "set_server_sigalgs", "rsa_pss_rsae_sha256"))

    def test_client_sigalgs(self, pki, who):
        for algorithm, good in (("ecdsa_secp256r1_sha256", True), ("rsa_pss_rsae_sha256", False)):
            client, server = self.pair(pki, who, "set_client_sigalgs", algorithm)
            client.load_cert_chain(*pki.issue("client.example", client=True))
            server.load_verify_locations(pki.ca_file)
            server.verify_mode = ssl.CERT_REQUIRED
            assert agree(client, server) is good


@pytest.mark.parametrize("setter", ["set_ciphersuites", "set_groups", "set_server_sigalgs", "set_client_sigalgs"])
def test_what_openssl_does_not_know_is_refused_and_nothing_changes(setter):
    context = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    before = read_settings(context, False)
    with pytest.raises(ssl.SSLError, match="moonphase"):
        getattr(context, setter)("moonphase")
    with pytest.raises(TypeError):
        getattr(context, setter)(42)
    assert read_settings(context, False) == before


def test_a_curve_and_groups_are_one_setting(pki):
    client, server = contexts(pki)
    server.set_groups("P-384")
    server.set_ecdh_curve("secp521r1")
    for group, good in (("P-384", False), ("P-521", True)):
        client.set_groups(group)
        assert agree(client, server) is good


def test_a_server_may_leave_post_quantum_groups_out(pki):
    client, server = contexts(pki, "1.3")
    server.set_groups("X25519:P-256:P-384")
    with connected(client, server) as ends:
        assert {end.group() for end in ends} == {"x25519"}


def test_an_option_above_32_bits(pki):
    """OpenSSL 3 has 64."""
    _, server = contexts(pki)
    server.options |= OP_PREFER_NO_DHE_KEX
    in_force = set_options(server.compile(True).ssl_context, 0)
    assert in_force & OP_PREFER_NO_DHE_KEX and in_force & ssl.OP_CIPHER_SERVER_PREFERENCE
