"""Certificates, keys, passwords, trust anchors and revocation lists, in every form that SSLContext takes."""

from __future__ import annotations

import datetime
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

import greentls.ssl
from tests.support.clients import in_thread
from tests.support.helpers import PATIENCE, Pki
from tests.support.ssl_pairs import both_versions, connected, contexts, failure

PASSWORD = "päßword"


def own_context():
    return greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def serves(context, pki):
    """The DER that a client gets."""
    client, _ = contexts(pki)
    with connected(client, context) as (sock, _):
        return sock.getpeercert(binary_form=True)


class Pair:
    """The test CA's certificate for localhost and its key, in every form."""

    def __init__(self, pki, directory):
        self.cert_file, self.key_file = Path(pki.cert_file), Path(pki.key_file)
        self.cert_pem, self.key_pem = self.cert_file.read_bytes(), self.key_file.read_bytes()
        self.certificate = x509.load_pem_x509_certificate(self.cert_pem)
        self.key = load_pem_private_key(self.key_pem, None)
        self.cert_der = self.certificate.public_bytes(Encoding.DER)
        self.key_der = self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self.both = directory / "both.pem"
        self.both.write_bytes(self.key_pem + self.cert_pem)
        self.cert_der_file = directory / "cert.der"
        self.cert_der_file.write_bytes(self.cert_der)
        self.key_der_file = directory / "key.der"
        self.key_der_file.write_bytes(self.key_der)


@pytest.fixture
def pair(pki, tmp_path):
    return Pair(pki, tmp_path)


@pytest.mark.parametrize(
    "form",
    [
        lambda pair: (str(pair.cert_file), str(pair.key_file)),
        lambda pair: (pair.cert_file, pair.key_file),
        lambda pair: (bytes(pair.cert_file), bytes(pair.key_file)),
        lambda pair: (pair.both,),
        lambda pair: (pair.cert_der_file, pair.key_der_file),
        lambda pair: (pair.cert_pem, pair.key_pem),
        lambda pair: (pair.cert_pem.decode(), pair.key_pem.decode()),
        lambda pair: (pair.cert_pem + pair.key_pem,),
        lambda pair: (pair.cert_der, pair.key_der),
        lambda pair: (pair.certificate, pair.key),
        lambda pair: ([pair.certificate], pair.key_pem),
        lambda pair: (pair.cert_file, pair.key),
        lambda pair: (pair.certificate, pair.key_file),
    ],
    ids=[
        "paths as str",
        "paths",
        "paths as bytes",
        "one file",
        "DER files",
        "PEM bytes",
        "PEM text",
        "one PEM",
        "DER bytes",
        "objects",
        "a list, and PEM",
        "a path and an object",
        "an object and a path",
    ],
)
def test_load_cert_chain_takes(pki, pair, form):
    context = own_context()
    context.load_cert_chain(*form(pair))
    assert serves(context, pki) == pair.cert_der


def encrypted(pair, kind, where):
    """The key's PEM, or its path. traditional: with a Proc-Type, before PKCS #8."""
    form = {"PKCS8": PrivateFormat.PKCS8, "traditional": PrivateFormat.TraditionalOpenSSL}[kind]
    key = pair.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(PASSWORD.encode()))
    if where == "memory":
        return key
    path = pair.both.with_name("encrypted.pem")
    path.write_bytes(key)
    return path


@pytest.mark.parametrize("kind", ["PKCS8", "traditional"])
@pytest.mark.parametrize("where", ["file", "memory"])
@pytest.mark.parametrize(
    "give", [str, str.encode, lambda text: bytearray(text.encode())], ids=["str", "bytes", "array"]
)
@pytest.mark.parametrize("called", [False, True], ids=["value", "function"])
def test_an_encrypted_key_is_opened_by_its_password_which_is_asked_once(pki, pair, kind, where, give, called):
    asked = []

    def ask():
        asked.append("once")
        return give(PASSWORD)

    key = encrypted(pair, kind, where)
    context = own_context()
    context.load_cert_chain(pair.cert_file, key, ask if called else give(PASSWORD))
    assert asked == ["once"] * called
    assert serves(context, pki) == pair.cert_der


@pytest.mark.parametrize("where", ["file", "memory"])
@pytest.mark.parametrize("password", ["wrong", lambda: "wrong", b"", lambda: b""])
def test_a_wrong_password_is_an_ssl_error_and_the_context_stays_as_it_was(pki, pair, where, password):
    key = encrypted(pair, "PKCS8", where)
    context = own_context()
    context.load_cert_chain(pair.cert_file, pair.key_file)
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain(pair.cert_file, key, password)
    assert serves(context, pki) == pair.cert_der


@pytest.mark.parametrize("where", ["file", "memory"])
def test_what_a_password_function_raises_comes_out_as_itself(pair, where):
    def ask():
        raise failure

    failure = LookupError("nobody there to type it")
    key = encrypted(pair, "PKCS8", where)
    with pytest.raises(LookupError) as caught:
        own_context().load_cert_chain(pair.cert_file, key, ask)
    assert caught.value is failure


def test_a_password_of_a_wrong_kind_is_a_type_error(pair):
    for password in (42, lambda: 42, object()):
        with pytest.raises(TypeError, match="string"):
            own_context().load_cert_chain(pair.cert_file, encrypted(pair, "PKCS8", "file"), password)


@pytest.mark.programs
@both_versions
def test_with_two_kinds_of_key_a_client_gets_the_one_that_it_can_verify(pki, serve, version):
    _, server = contexts(pki, version)
    server.load_cert_chain(*pki.issue("localhost", kind="rsa"))
    address = serve(server, lambda sock, address: None)
    kinds = []
    for algorithms in ("ecdsa_secp256r1_sha256", "rsa_pss_rsae_sha256"):
        command = f"openssl s_client -connect {address[0]}:{address[1]} -tls{version.replace('.', '_')} -sigalgs"
        done = in_thread(
            subprocess.run,
            [*command.split(), algorithms],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
        )
        kinds.append(type(x509.load_pem_x509_certificate(done.stdout).public_key()))
    assert issubclass(kinds[0], EllipticCurvePublicKey)
    assert issubclass(kinds[1], RSAPublicKey)


class TestTrust:
    def der(self, pki):
        return ssl.PEM_cert_to_DER_cert(Path(pki.ca_file).read_text())

    def directory(self, pki, tmp_path):
        shutil.copy(pki.ca_file, tmp_path / "ca.pem")
        subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
        return tmp_path

    @pytest.mark.programs
    @both_versions
    @pytest.mark.parametrize(
        "give",
        [
            lambda self, pki, tmp_path: {"cafile": pki.ca_file},
            lambda self, pki, tmp_path: {"cafile": Path(pki.ca_file)},
            lambda self, pki, tmp_path: {"cafile": pki.ca_file.encode()},
            lambda self, pki, tmp_path: {"capath": self.directory(pki, tmp_path)},
            lambda self, pki, tmp_path: {"cadata": Path(pki.ca_file).read_text()},
            lambda self, pki, tmp_path: {"cadata": "a comment\n" + Path(pki.ca_file).read_text() * 2},
            lambda self, pki, tmp_path: {"cadata": self.der(pki)},
            lambda self, pki, tmp_path: {"cadata": bytearray(self.der(pki) * 2)},
        ],
        ids=["cafile", "a Path", "bytes", "capath", "PEM", "PEM with a comment, twice", "DER", "DER twice"],
    )
    def test_load_verify_locations_takes(self, pki, tmp_path, version, give):
        _, server = contexts(pki, version)
        client = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        refused, _ = failure(client, server)
        assert isinstance(refused, ssl.SSLCertVerificationError)
        client.load_verify_locations(**give(self, pki, tmp_path))
        with connected(client, server) as (sock, _):
            assert sock.getpeercert()["issuer"] == ((("commonName", "greentls test CA"),),)

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"cafile": "/no/such/file"},
            {"cadata": ""},
            {"cadata": b""},
            {"cadata": "no certificate"},
            {"cadata": b"no certificate"},
            {"cadata": 42},
        ],
    )
    def test_it_refuses_what_the_standard_library_refuses_in_the_same_way(self, wrong):
        errors = []
        for module in (greentls.ssl, ssl):
            with pytest.raises((OSError, TypeError, ValueError)) as caught:
                module.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(**wrong)
            errors.append(caught.value)
        ours, theirs = errors
        assert type(ours) is type(theirs)
        assert ours.args[0] == theirs.args[0]

    def test_what_was_loaded_is_told(self, pki):
        ours, theirs = (module.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for module in (greentls.ssl, ssl))
        for context in (ours, theirs):
            context.load_verify_locations(pki.ca_file)
            context.load_verify_locations(cadata=self.der(pki))
        assert ours.get_ca_certs() == theirs.get_ca_certs() != []
        assert ours.get_ca_certs(binary_form=True) == [self.der(pki)]
        assert ours.cert_store_stats() == {"x509": 1, "crl": 0, "x509_ca": 1}

    def test_a_file_whose_contents_changed_counts_anew(self, pki, tmp_path):
        _, server = contexts(pki)
        anchors, other_directory = tmp_path / "anchors.pem", tmp_path / "other"
        other_directory.mkdir()
        other = Pki(other_directory)
        shutil.copy(other.ca_file, anchors)
        client = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(anchors)
        assert isinstance(failure(client, server)[0], ssl.SSLCertVerificationError)
        anchors.write_bytes(Path(pki.ca_file).read_bytes() + b"\n")
        client.load_verify_locations(anchors)
        with connected(client, server):
            pass


class TestRevocation:
    @pytest.fixture
    def crl(self, pki, tmp_path):
        """crl(certificate files): a list that revokes them."""

        def write(*revoked):
            now = datetime.datetime.now(datetime.timezone.utc)
            builder = (
                x509.CertificateRevocationListBuilder()
                .issuer_name(pki.ca.subject)
                .last_update(now - datetime.timedelta(days=1))
                .next_update(now + datetime.timedelta(days=1))
            )
            for file in revoked:
                serial = x509.load_pem_x509_certificate(Path(file).read_bytes()).serial_number
                entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
                builder = builder.add_revoked_certificate(entry.build())
            path = tmp_path / f"{len(revoked)}.crl"
            path.write_bytes(builder.sign(pki._key, hashes.SHA256()).public_bytes(Encoding.PEM))
            return str(path)

        return write

    @both_versions
    @pytest.mark.parametrize("check", ["VERIFY_CRL_CHECK_LEAF", "VERIFY_CRL_CHECK_CHAIN"])
    def test_a_revoked_certificate_is_refused(self, pki, crl, version, check):
        client, server = contexts(pki, version)
        client.verify_flags |= getattr(ssl, check)
        client.load_verify_locations(crl(pki.cert_file))
        assert client.cert_store_stats() == {"x509": 1, "crl": 1, "x509_ca": 1}
        refused, alerted = failure(client, server)
        assert isinstance(refused, ssl.SSLCertVerificationError)
        assert (refused.verify_code, refused.verify_message) == (23, "certificate revoked")
        assert "REVOKED" in str(alerted).upper()

    @both_versions
    def test_another_certificate_is_not(self, pki, crl, version):
        client, server = contexts(pki, version)
        client.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        client.load_verify_locations(crl(pki.issue("elsewhere.test")[0]))
        with connected(client, server):
            pass

    @both_versions
    def test_no_list_is_no_proof(self, pki, version):
        client, server = contexts(pki, version)
        client.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        refused, _ = failure(client, server)
        assert (refused.verify_code, refused.verify_message) == (3, "unable to get certificate CRL")
