"""Certificates that the standard library takes in silence, and cryptography with a warning."""

from __future__ import annotations

import datetime
import ssl
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.utils import CryptographyDeprecationWarning

import greentls.certificates
import greentls.ssl
from tests.support.ssl_pairs import both_versions, connected, talk

NOT_POSITIVE = {"zero": 0x00, "-1": 0xFF, "-128": 0x80}
CA = "a CA whose name is long enough for lengths to take two bytes"
SERIAL = b"\x02\x01\x01"  # an INTEGER, 1
SHORT = 0x30, 0x82  # a SEQUENCE whose length takes two bytes


def der(key, ca_key, name, ca_name, last_byte):
    """A certificate whose serial number is this byte."""
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, ca_name)]
    made = (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2024, 1, 1))
        .not_valid_after(datetime.datetime(2050, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .add_extension(x509.BasicConstraints(name == ca_name, None), True)
        .sign(ca_key, hashes.SHA256())
    )
    tbs = made.tbs_certificate_bytes
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    assert tbs.count(SERIAL) == tbs.count(algorithm) == 1 and tuple(tbs[:2]) == SHORT
    tbs = tbs.replace(SERIAL, SERIAL[:2] + bytes([last_byte]))
    signature = ca_key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    body = tbs + algorithm + bytes([0x03, len(signature) + 1, 0]) + signature
    return bytes(SHORT) + len(body).to_bytes(2, "big") + body


def warned(data):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        x509.load_der_x509_certificate(data)
    return [each.category for each in said]


@both_versions
@pytest.mark.parametrize("serial", NOT_POSITIVE.values(), ids=NOT_POSITIVE.keys())
def test_no_warning_and_no_refusal(tmp_path, version, serial):
    """Not even where warnings are errors."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = der(ca_key, ca_key, CA, CA, serial)
    leaf = der(key, ca_key, "localhost", CA, serial)
    assert warned(ca) == warned(leaf) == [CryptographyDeprecationWarning] or serial == 0  # which 44 took for positive
    chain, private = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_text(ssl.DER_cert_to_PEM_cert(leaf) + ssl.DER_cert_to_PEM_cert(ca))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client, server = (greentls.ssl.SSLContext(side) for side in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER))
        oracle = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (client, oracle):
            context.load_verify_locations(cadata=ca)
            context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(ca))
        server.load_cert_chain(chain, private)
        client.verify_callback = lambda sock, chain, resumed: shown.append(chain)
        client.client_sessions = greentls.ClientSessions()
        for context in (client, server):
            context.minimum_version = context.maximum_version = {"1.2": 0x0303, "1.3": 0x0304}[version]
        for _ in range(2):
            with connected(client, server) as (sock, other):
                talk(sock, other)
                assert sock.getpeercert()["serialNumber"] == oracle.get_ca_certs()[0]["serialNumber"]
                assert sock.get_channel_binding("tls-server-end-point")
        assert client.get_ca_certs() == oracle.get_ca_certs()
    assert shown


def test_the_filter_is_about_greentls_only_and_there_once():
    def read(data, function=greentls.certificates.read_certificate):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            before = list(warnings.filters)
            for _ in range(3):
                function(data)
            return [each.category for each in said], len(warnings.filters) - len(before)

    key = ec.generate_private_key(ec.SECP256R1())
    ca = der(key, key, CA, CA, 0xFF)
    assert read(ca) == ([], 1)
    assert read(ca, x509.load_der_x509_certificate) == ([CryptographyDeprecationWarning] * 3, 0)
