"""What a connection tells about itself: channel bindings, chains, ciphers, groups, tickets; and a context's counts."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import greentls.ssl
from tests.support.ssl_pairs import both_versions, connected, contexts, failure, implementations, pair, sides


def der(*files):
    return [ssl.PEM_cert_to_DER_cert(Path(file).read_text()) for file in files]


class TestChannelBinding:
    @both_versions
    @pytest.mark.parametrize("kind", greentls.ssl.CHANNEL_BINDING_TYPES)
    def test_both_sides_have_the_same_in_a_full_and_in_a_resumed_handshake(self, pki, version, kind):
        client, server = contexts(pki, version)
        bindings, session = [], None
        for resumed in (False, True):
            with connected(client, server, session=session) as (here, there):
                assert here.session_reused is there.session_reused is resumed
                bindings.append(here.get_channel_binding(kind))
                assert there.get_channel_binding(kind) == bindings[-1]
                session = here.session
        assert all(bindings)
        assert (bindings[0] == bindings[1]) is (kind == "tls-server-end-point")

    @both_versions
    @implementations
    def test_tls_unique_is_the_standard_librarys(self, pki, version, modules):
        client, server = pair(pki, version, modules)
        assert client.tls.get_channel_binding() == server.tls.get_channel_binding() is not None

    def test_tls_server_end_point_is_the_certificates_hash(self, pki):
        client, _ = pair(pki)
        assert client.tls.get_channel_binding("tls-server-end-point") == hashlib.sha256(*der(pki.cert_file)).digest()

    def test_before_the_handshake_there_is_none(self, pki):
        for end in sides(*contexts(pki)):
            assert [end.tls.get_channel_binding(kind) for kind in greentls.ssl.CHANNEL_BINDING_TYPES] == [None] * 3
            with pytest.raises(ValueError, match="not implemented"):
                end.tls.get_channel_binding("tls-nonsense")


@pytest.fixture
def intermediate(pki, tmp_path):
    """Files: a certificate with the intermediate CA's behind it; its key; the intermediate's alone; its own alone."""
    key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an intermediate CA")])
    ca = (
        pki._builder(name, key, 300).add_extension(x509.BasicConstraints(True, 0), True).sign(pki._key, hashes.SHA256())
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    leaf = (
        x509.CertificateBuilder(name, x509.Name([]), leaf_key.public_key(), 7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), True)
        .sign(key, hashes.SHA256())
    )
    pem = [each.public_bytes(Encoding.PEM) for each in (leaf, ca)]
    paths = [tmp_path / each for each in ("chain.pem", "chain.key", "intermediate.pem", "leaf.pem")]
    paths[0].write_bytes(b"".join(pem))
    paths[1].write_bytes(leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[2].write_bytes(pem[1])
    paths[3].write_bytes(pem[0])
    return paths


@both_versions
class TestChains:
    def test_the_verified_one_goes_up_to_the_trust_anchor(self, pki, version, intermediate):
        chain, key, ca, leaf = intermediate
        client, server = contexts(pki, version)
        server.load_cert_chain(chain, key)
        with connected(client, server) as (here, there):
            assert here.get_unverified_chain() == der(leaf, ca)
            assert here.get_verified_chain() == der(leaf, ca, pki.ca_file)
            assert there.get_unverified_chain() == there.get_verified_chain() == []

    def test_it_may_end_in_what_the_peer_did_not_send(self, pki, version, intermediate):
        _, key, ca, leaf = intermediate
        client, server = contexts(pki, version)
        server.load_cert_chain(leaf, key)
        assert isinstance(failure(client, server)[0], ssl.SSLCertVerificationError)
        client.load_verify_locations(ca)
        with connected(client, server) as (here, _):
            assert here.get_unverified_chain() == der(leaf)
            assert here.get_verified_chain() == der(leaf, ca, pki.ca_file)

    def test_without_verification_they_are_the_same(self, pki, version, intermediate):
        chain, key, ca, leaf = intermediate
        client, server = contexts(pki, version)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        server.load_cert_chain(chain, key)
        with connected(client, server) as (here, _):
            assert here.get_verified_chain() == here.get_unverified_chain() == der(leaf, ca)

    def test_a_servers_begins_with_the_clients_own_certificate(self, pki, version, intermediate):
        chain, key, ca, leaf = intermediate
        client, server = contexts(pki, version)
        client.load_cert_chain(chain, key)
        server.load_verify_locations(pki.ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
        with connected(client, server) as (_, there):
            assert there.get_unverified_chain() == der(leaf, ca)
            assert there.get_verified_chain() == der(leaf, ca, pki.ca_file)


@both_versions
class TestCiphers:
    def test_shared_ciphers_are_a_servers(self, pki, version):
        client, server = contexts(pki, version)
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305")
        server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256")
        with connected(client, server) as (here, there):
            assert here.shared_ciphers() is None
            shared = there.shared_ciphers()
            assert there.cipher() == here.cipher() in shared
            if version == "1.2":
                assert [name for name, _, _ in shared] == ["ECDHE-ECDSA-AES128-GCM-SHA256"]
            else:
                assert {protocol for _, protocol, _ in shared} == {"TLSv1.3"}

    def test_a_cipher_of_one_side_only_is_none(self, pki, version):
        client, server = contexts(pki, version)
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        if version == "1.2":
            assert "HANDSHAKE" in str(failure(client, server)[0]).upper()
        else:
            with connected(client, server) as (here, _):  # TLS 1.3's are no business of set_ciphers()
                assert here.version() == "TLSv1.3"

    @pytest.mark.parametrize(
        ("curve", "group"),
        [("prime256v1", "secp256r1"), ("secp384r1", "secp384r1"), (b"secp521r1", "secp521r1")],
    )
    def test_set_ecdh_curve_is_the_group(self, pki, version, curve, group):
        client, server = contexts(pki, version)
        server.set_ecdh_curve(curve)
        with connected(client, server) as (here, there):
            assert here.group() == there.group() == group

    def test_no_common_curve_is_no_handshake(self, pki, version):
        client, server = contexts(pki, version)
        client.set_ecdh_curve("secp384r1")
        server.set_ecdh_curve("secp521r1")
        assert all(isinstance(each, ssl.SSLError) for each in failure(client, server))


def test_a_curve_that_openssl_does_not_know_is_refused(pki):
    with pytest.raises(ValueError, match="unknown"):
        contexts(pki)[1].set_ecdh_curve("of my own")
    with pytest.raises(TypeError):
        contexts(pki)[1].set_ecdh_curve()


@pytest.mark.parametrize("count", [None, 0, 1, 5])
def test_num_tickets(pki, count):
    client, server = contexts(pki)
    tickets = []

    def look(connection, direction, version, content_type, message_type, data):
        if message_type == ssl._TLSMessageType.NEWSESSION_TICKET and content_type == ssl._TLSContentType.HANDSHAKE:
            tickets.append(direction)

    client._msg_callback = look
    if count is not None:
        server.num_tickets = count
    with connected(client, server) as (here, _):
        assert tickets == ["read"] * (2 if count is None else count)
        assert (here.session is None) is (count == 0) or not here.session.has_ticket


def test_num_tickets_is_a_servers_and_not_negative(pki):
    client, server = contexts(pki)
    for context, number in ((client, 1), (server, -1)):
        with pytest.raises(ValueError):
            context.num_tickets = number


@both_versions
class TestSessionStats:
    def test_connections_are_counted(self, pki, version):
        client, server = contexts(pki, version)
        session = None
        for _ in range(3):
            with connected(client, server, session=session) as (here, _):
                session = here.session
        made = {"number": 0, "connect_renegotiate": 0, "accept_renegotiate": 0, "timeouts": 0, "cache_full": 0}
        assert client.session_stats() == {
            **made, "connect": 3, "connect_good": 3, "accept": 0, "accept_good": 0, "hits": 2, "misses": 0
        }  # fmt: skip
        assert server.session_stats() == {
            **made, "connect": 0, "connect_good": 0, "accept": 3, "accept_good": 3, "hits": 2, "misses": 0
        }  # fmt: skip
        assert set(server.session_stats()) == set(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).session_stats())

    def test_a_handshake_that_failed_is_no_good_one(self, pki, version):
        _, server = contexts(pki, version)
        distrust = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        failure(distrust, server)
        stats = distrust.session_stats(), server.session_stats()
        assert [stats[0]["connect"], stats[0]["connect_good"]] == [1, 0]
        assert [stats[1]["accept"], stats[1]["accept_good"]] == [1, 0]

    def test_a_change_of_the_context_forgets_none_that_is_open(self, pki, version):
        client, server = contexts(pki, version)
        with connected(client, server):
            server.set_alpn_protocols(["another"])
            with connected(client, server):
                assert server.session_stats()["accept_good"] == 2


@both_versions
@pytest.mark.parametrize("checks", [True, False])
def test_hostname_checks_common_name(pki, tmp_path, version, checks):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = pki._builder(name, key, 10).sign(pki._key, hashes.SHA256())
    client, server = contexts(pki, version)
    server.load_cert_chain(certificate, key)
    assert client.hostname_checks_common_name is True
    client.hostname_checks_common_name = checks
    if checks:
        with connected(client, server) as (here, _):
            assert here.getpeercert()["subject"] == ((("commonName", "localhost"),),)
    else:
        assert failure(client, server)[0].verify_code == 62
