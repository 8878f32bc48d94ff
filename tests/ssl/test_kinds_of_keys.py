"""Kinds of keys that pyOpenSSL or the standard library's OpenSSL do not know: they work, or are refused when loaded."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

import greentls.ssl
from greentls.certificates import CertificateChain
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.errors import ConfigurationError, TLSError
from tests.support.helpers import DATA
from tests.support.openssl import lib
from tests.support.pairs import TLS12, TLS13, chain, client, client_context, handshake, server_context
from tests.support.ssl_pairs import connected

PAIR, CA = DATA / "mldsa65.pem", DATA / "mldsa65-ca.pem"  # valid until 2126

try:
    load_pem_private_key(PAIR.read_bytes(), None)
except (UnsupportedAlgorithm, ValueError):  # cryptography 47 has the names, and cannot with OpenSSL
    KNOWS_ML_DSA = False
else:
    KNOWS_ML_DSA = lib.OpenSSL_version_num() >= 0x30500000


def own_context():
    return greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


if KNOWS_ML_DSA:

    class TestMLDSA:
        """RFC 9881 certificates, signatures by draft-ietf-tls-mldsa."""

        def clients(self, pki, trust=str(CA), **settings):
            return client_context(pki, TLS13, trust=TrustAnchors(files=(trust,)), **settings)

        def test_a_server_signs_with_it_and_a_client_verifies_the_chain(self, pki):
            own = chain(PAIR, None)
            server = server_context(pki, TLS13, certificates=[own])
            one, other = client(self.clients(pki)), Connection(server)
            handshake(one, other)
            assert one.peer_certificates[0] == own.der == other.certificate
            assert len(one.verified_chain) == 2
            one, other = client(self.clients(pki), one.session), Connection(server)
            handshake(one, other)
            assert one.session_reused
            with pytest.raises(TLSError, match="certificate verify failed"):
                handshake(client(self.clients(pki, pki.ca_file)), Connection(server))
            with pytest.raises(TLSError, match="ostname mismatch"):
                handshake(client(self.clients(pki), name="elsewhere.example"), Connection(server))

        def test_a_client_shows_one(self, pki):
            demanding = {"verify_mode": VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT}
            server = server_context(pki, TLS13, trust=TrustAnchors(files=(str(CA),)), **demanding)
            one, other = client(client_context(pki, TLS13, certificates=[chain(PAIR, None)])), Connection(server)
            handshake(one, other)
            assert other.peer_certificates == [chain(PAIR, None).der]

        @pytest.mark.parametrize("ml_dsa", [True, False])
        def test_a_client_that_does_not_know_it_gets_the_other_one(self, pki, ml_dsa):
            both = [chain(PAIR, None), chain(pki.cert_file, pki.key_file)]
            algorithms = "mldsa65" if ml_dsa else "ecdsa_secp256r1_sha256"
            trust = TrustAnchors(files=(str(CA), pki.ca_file))
            one = client(client_context(pki, TLS13, trust=trust, signature_algorithms=algorithms))
            handshake(one, Connection(server_context(pki, TLS13, certificates=both)))
            assert one.peer_certificates[0] == both[not ml_dsa].der

        def test_tls_12_has_no_use_for_it(self, pki):
            with pytest.raises(TLSError, match="no shared cipher"):
                handshake(
                    client(client_context(pki, TLS12)),
                    Connection(server_context(pki, TLS12, certificates=[chain(PAIR, None)])),
                )

        @pytest.mark.parametrize("form", [str, Path, Path.read_bytes, lambda path: path.read_bytes().decode()])
        def test_over_sockets(self, form):
            """The standard library's OpenSSL, which is asked first, may never have heard of it."""
            server, client = own_context(), greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            server.load_cert_chain(form(PAIR))
            client.load_verify_locations(CA)
            with connected(client, server) as (sock, _):
                assert sock.getpeercert()["subjectAltName"] == (("DNS", "localhost"),)

else:

    @pytest.mark.parametrize("load", [CertificateChain.load, lambda pair: own_context().load_cert_chain(pair)])
    def test_ml_dsa_is_refused_when_it_is_loaded(load):
        with pytest.raises((ConfigurationError, ssl.SSLError), match=r"mldsa65\.pem.*(newer|another)") as refused:
            load(PAIR)
        assert refused.value.reason != "EE_KEY_TOO_SMALL"  # which the standard library's OpenSSL says of it


def pair_of(kind, directory):
    """A certificate of a key that TLS has no use for, or that is too weak."""
    key = x25519.X25519PrivateKey.generate() if kind == "X25519" else rsa.generate_private_key(65537, 1024)
    signer = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    day = datetime.timedelta(days=1)
    builder = builder.serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
    path = directory / "pair.pem"
    form = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    path.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM) + key.private_bytes(*form))
    return path


@pytest.mark.parametrize("form", [str, Path.read_bytes])
@pytest.mark.parametrize(
    ("kind", "problem"), [("X25519", "unknown certificate type"), ("RSA-1024", "ee key too small")]
)
def test_what_no_handshake_could_use_is_refused_when_it_is_loaded(tmp_path, form, kind, problem):
    """hazard: it is taken, and then each connection fails."""
    with pytest.raises(ssl.SSLError, match=problem) as refused:
        own_context().load_cert_chain(form(pair_of(kind, tmp_path)))
    assert refused.value.reason == problem.upper().replace(" ", "_")


def test_a_lower_security_level_takes_a_weaker_key(tmp_path):
    context = own_context()
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.load_cert_chain(pair_of("RSA-1024", tmp_path))
    context.compile(True)
