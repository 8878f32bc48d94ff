"""Certificate revocation lists in handshakes."""

from __future__ import annotations

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.ssl.hooks.stapled import pair
from tests.support.ocsp_authority import Authority
from tests.support.ssl_pairs import both_versions, connected, failure


def crl(authority, *revoked, days=1):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.name)
        .last_update(now - datetime.timedelta(days=10))
        .next_update(now + datetime.timedelta(days=days))
    )
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256())


@both_versions
def test_a_client_refuses_whom_a_crl_names(authority, version, tmp_path, another):
    client, server, certificate = pair(authority, version)
    other = crl(authority, authority.issue().certificate)
    this = crl(authority, certificate)
    pem, der = this.public_bytes(Encoding.PEM), this.public_bytes(Encoding.DER)
    (tmp_path / "crl.pem").write_bytes(another.public_bytes(Encoding.PEM) + pem)
    (tmp_path / "crl.der").write_bytes(der)
    places = str(tmp_path / "crl.pem"), tmp_path / "crl.der"
    for source in (this, [another, this], pem, pem.decode(), der, *places, [*places]):
        client.crl = source
        refused, alerted = failure(client, server)
        assert isinstance(refused, ssl.SSLCertVerificationError)
        assert (refused.verify_code, refused.verify_message) == (23, "certificate revoked")
        assert "CERTIFICATE_REVOKED" in str(alerted).upper().replace(" ", "_")
    for source in (other, None):
        client.crl = source
        with connected(client, server):
            pass


@pytest.fixture
def another(tmp_path):
    """The list of another CA."""
    (tmp_path / "another").mkdir()
    return crl(Authority(tmp_path / "another", name="another CA"))


@both_versions
def test_a_crl_that_is_old_or_another_cas_is_no_proof(authority, version, another):
    client, server, _ = pair(authority, version)
    for source, code in ((crl(authority, days=-1), 12), (another, 3)):
        client.crl = source
        refused, _ = failure(client, server)
        assert refused.verify_code == code, refused  # it has expired; there is none


@both_versions
def test_a_server_refuses_the_client_whom_a_crl_names(authority, version):
    client, server, _ = pair(authority, version)
    mine = authority.issue()
    client.load_cert_chain(mine.cert_file, mine.key_file)
    server.load_verify_locations(authority.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    server.crl = crl(authority)
    before = server.compile(True).session_id_context
    server.crl = crl(authority, mine.certificate)
    assert server.compile(True).session_id_context != before  # what the old list let pass is not resumed
    _, refused = failure(client, server)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert refused.verify_code == 23


@both_versions
@pytest.mark.parametrize("how", ["crl", "verify_flags"])
def test_the_lists_of_a_names_context_count_whatever_the_listeners_are(authority, version, how, tmp_path):
    """SSL_set_SSL_CTX() brings another store, and leaves the flags of the connection as they were."""
    client, server, _ = pair(authority, version)
    mine = authority.issue()
    client.load_cert_chain(mine.cert_file, mine.key_file)
    _, strict, _ = pair(authority, version)
    server.sni_callback = lambda sock, name, context: setattr(sock, "context", strict)
    for context in (server, strict):
        context.load_verify_locations(authority.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    lists = tmp_path / "lists.pem"
    lists.write_bytes(crl(authority, mine.certificate).public_bytes(Encoding.PEM))
    if how == "crl":
        strict.crl = lists
    else:
        strict.load_verify_locations(lists)
        strict.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    _, refused = failure(client, server)
    assert isinstance(refused, ssl.SSLCertVerificationError), refused
    assert refused.verify_code == 23


def test_what_is_no_crl(authority, tmp_path):
    client, _, _ = pair(authority)
    (tmp_path / "garbage").write_text("garbage")
    for source in (tmp_path / "garbage", authority.ca_file, b"-----BEGIN X509 CRL-----\n", b"\x30\x80\0\0"):
        with pytest.raises(ssl.SSLError, match="no certificate revocation list in it"):
            client.crl = source
    with pytest.raises(FileNotFoundError):
        client.crl = tmp_path / "nowhere"
    assert client.crl == ()
    client.crl = crl(authority)
    assert len(client.crl) == 1
