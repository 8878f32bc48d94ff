"""CertificateChain: read from every form that a certificate and a key come in."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from greentls.certificates import CertificateChain, is_path, parse_certificates, read_certificate
from greentls.errors import ConfigurationError
from tests.keys.signing import private_key


@pytest.fixture(scope="module")
def pair(pki):
    certificate, key = pki.issue("www.example.org", "192.0.2.7")
    return certificate, key, x509.load_pem_x509_certificate(Path(certificate).read_bytes()), private_key(key)


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


FORMS = {
    "paths": lambda file, key_file, certificate, key: (file, key_file),
    "Path objects": lambda file, key_file, certificate, key: (Path(file), Path(key_file)),
    "PEM text": lambda file, key_file, certificate, key: (Path(file).read_text(), Path(key_file).read_text()),
    "PEM bytes": lambda file, key_file, certificate, key: (Path(file).read_bytes(), Path(key_file).read_bytes()),
    "both in one PEM": lambda file, key_file, *_: (Path(key_file).read_text() + Path(file).read_text(), None),
    "DER": lambda file, key_file, certificate, key: (
        der(certificate),
        key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    ),
    "objects": lambda file, key_file, certificate, key: (certificate, key),
    "a list of objects": lambda file, key_file, certificate, key: ([certificate], key),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_the_same_chain(pair, form):
    chain = CertificateChain.load(*form(*pair))
    assert (chain.der, chain.intermediates) == (der(pair[2]), ())
    assert chain.names == ("192.0.2.7", "www.example.org")
    assert chain.signer is None
    assert chain == CertificateChain.load(pair[0], pair[1])


def test_intermediates_come_behind_the_leaf(pki, pair):
    both = [pair[2], pki.ca]
    for form in (der(pair[2]) + der(pki.ca), both):
        chain = CertificateChain.load(form, pair[3])
        assert [chain.certificate, *chain.intermediates] == both


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file, key_file: (file, None), "no PEM private key in it"),
        (lambda file, key_file: (key_file, key_file), "not a PEM certificate"),
        (lambda file, key_file: (file, b"no key"), "no PEM private key in it|there is no|No such file"),
        (lambda file, key_file: ([], key_file), "there is none"),
    ],
    ids=["no key", "no certificate", "neither PEM nor a path", "an empty list"],
)
def test_what_is_wrong_is_said(pair, change, said):
    with pytest.raises((ConfigurationError, OSError), match=said):
        CertificateChain.load(*change(pair[0], pair[1]))


def test_a_key_of_another_certificate_does_not_fit(pki, pair):
    with pytest.raises(ConfigurationError, match="the key does not fit"):
        CertificateChain.load(pair[0], pki.key_file)


@pytest.mark.parametrize("end", [1, 2, 3, 100, -1])
def test_der_that_is_cut_off_is_no_certificate(pair, end):
    with pytest.raises(ValueError):
        parse_certificates(der(pair[2]) + der(pair[2])[:end])
    with pytest.raises(ValueError):
        read_certificate(der(pair[2])[:end])


def test_what_is_a_path(pair):
    assert all(map(is_path, [pair[0], pair[0].encode(), Path(pair[0])]))
    assert not any(map(is_path, [der(pair[2]), Path(pair[0]).read_text(), Path(pair[0]).read_bytes(), None, 7]))
