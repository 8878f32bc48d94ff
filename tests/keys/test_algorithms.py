"""Signature algorithms: what a key can sign with, and that a signature is checked."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from greentls.errors import ConfigurationError, SigningError
from greentls.keys.algorithms import ALGORITHMS, algorithms_of, check, digest
from tests.keys.signing import KINDS, private_key, signature


@pytest.fixture(scope="module", params=KINDS)
def key(pki, request):
    return private_key(pki.issue("localhost", kind=request.param)[1])


def test_every_algorithm_belongs_to_one_kind_of_key(pki):
    found = [algorithms_of(private_key(pki.issue("localhost", kind=kind)[1]).public_key()) for kind in KINDS]
    assert sorted(name for names in found for name in names) == sorted(ALGORITHMS)


@pytest.mark.parametrize("other", [ec.generate_private_key(ec.SECP521R1()), x25519.X25519PrivateKey.generate()])
def test_other_keys_are_refused(other):
    with pytest.raises(ConfigurationError, match=r"is not supported; use P-256"):
        algorithms_of(other.public_key())


def test_a_signature_is_confirmed_for_its_message_and_its_algorithm_only(key):
    public, names = key.public_key(), algorithms_of(key.public_key())
    for name in names:
        good = signature(key, b"message", name)
        check(public, good, b"message", name)
        wrong = bytes([good[0]]) + bytes(len(good) - 1)
        others = [(good, b"massage", name), (wrong, b"message", name), (b"", b"message", name)]
        others += [(good, b"message", each) for each in names if each != name]
        for forged, message, other in others:
            with pytest.raises(SigningError, match="does not confirm"):
                check(public, forged, message, other)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_digest_is_the_one_in_the_name(name):
    if name == "ed25519":
        with pytest.raises(ValueError, match="signs the message itself"):
            digest(b"message", name)
    else:
        assert digest(b"message", name) == hashlib.new(name.rpartition("_")[2], b"message").digest()
        assert ALGORITHMS[name].digest_name == name.rpartition("_")[2].upper()
