"""SSL_CTX: certificates that fit their keys, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from greentls.errors import ConfigurationError
from greentls.openssl import contexts
from greentls.openssl.library import lib


def der(pair):
    certificate, key = (Path(path).read_bytes() for path in pair)
    private = load_pem_private_key(key, None).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER), private


@pytest.fixture
def pairs(pki):
    return {kind: der(pki.issue("localhost", kind=kind)) for kind in ("ec", "rsa")}


@pytest.fixture
def context():
    return contexts.new()


def test_certificates_of_several_kinds_stand_side_by_side(context, pairs):
    for pair in pairs.values():
        contexts.use_certificate(context, *pair)
        contexts.check_certificate(*pair)
    assert not lib.ERR_peek_error()


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (b"nonsense", None, "OpenSSL cannot use it"),
        (None, b"nonsense", "OpenSSL cannot use it"),
        (None, "another", "key values mismatch"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_error(context, pki, pairs, certificate, key, said):
    mine, my_key = pairs["ec"]
    keys = {"another": der(pki.issue("localhost"))[1], None: my_key}  # of another kind: CertificateChain looks
    pair = certificate or mine, keys.get(key, key)
    with pytest.raises(ConfigurationError, match=said):
        contexts.use_certificate(context, *pair)
    with pytest.raises(ConfigurationError, match=said):
        contexts.check_certificate(*pair)
    assert not lib.ERR_peek_error()


def test_a_key_below_the_security_level_is_refused(pairs):
    with pytest.raises(ConfigurationError, match="key too small"):
        contexts.check_certificate(*pairs["rsa"], "ALL:@SECLEVEL=5")


def test_trust_anchors_are_told_and_other_certificates_are_not(context, pki):
    contexts.add_trust_anchor(context, pki.ca)
    with open(pki.cert_file, "rb") as file:
        contexts.add_trust_anchor(context, x509.load_pem_x509_certificate(file.read()))
    assert contexts.ca_certificates(context) == [pki.ca.public_bytes(Encoding.DER)]
