"""check_response(): what is accepted, and what each refusal says."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from greentls.errors import OCSPError, ResponderUnavailable
from greentls.ocsp import check_response
from greentls.ocsp.response import (
    CLOCK_SKEW,
    MAX_RESPONSE,
    WITHOUT_NEXT_UPDATE,
    build_request,
    is_short_lived,
    issuer_of,
    responder_url,
)
from tests.support.helpers import PATIENCE
from tests.support.ocsp_authority import Authority, ago, now


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "http://ocsp.test/")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another CA, of the same name."""
    return Authority(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def leaf(authority):
    return authority.issue().certificate


def check(authority, der, leaf, when=None):
    return check_response(der, leaf, authority.ca.certificate, when or time.time())


# -- accepted ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "by key"])
@pytest.mark.parametrize("certid", [hashes.SHA1(), hashes.SHA256()], ids=lambda each: each.name)
@pytest.mark.parametrize("status", ["good", "revoked", "unknown"])
def test_what_the_issuer_has_signed(authority, leaf, status, certid, by_name):
    begins, ends = ago(minutes=5), ago(minutes=-55)
    der = authority.respond(leaf, status, begins=begins, ends=ends, certid=certid, by_name=by_name)
    answer = check(authority, der, leaf)
    assert (answer.status, answer.der) == (status, der)
    assert (answer.this_update, answer.next_update) == (begins.timestamp(), ends.timestamp())
    assert answer.good_until == ends.timestamp()
    assert abs(answer.produced_at - time.time()) < PATIENCE
    assert answer.responder == "CN=greentls OCSP test CA" if by_name else answer.responder.startswith("key ")
    assert (answer.revoked_at is not None) is (status == "revoked")
    assert answer.reason == ("keyCompromise" if status == "revoked" else None)


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
def test_what_a_delegate_has_signed(authority, leaf, kind):
    key = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    delegate = authority.delegate(key=key)
    der = authority.respond(leaf, signer=delegate, include=[delegate])
    assert check(authority, der, leaf).responder == "CN=OCSP delegate"


def by_openssl(authority, certificates, directory, signer, *options):
    """What `openssl ocsp` answers to one request for all of them."""
    files = []
    for index, certificate in enumerate(certificates):
        files.append(directory / f"{index}.pem")
        files[-1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    asked = [part for file in files for part in ("-cert", file)]
    for arguments in (
        ("-issuer", authority.ca_file, *asked, "-reqout", directory / "request"),
        (
            *("-index", authority.index(), "-CA", authority.ca_file, "-reqin", directory / "request"),
            *("-rsigner", signer.cert_file, "-rkey", signer.key_file, "-nmin", "60", *options),
            *("-respout", directory / "response"),
        ),
    ):
        done = subprocess.run(["openssl", "ocsp", *arguments], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
    return (directory / "response").read_bytes()


@pytest.mark.programs
def test_several_answers_in_one_response(authority, tmp_path):
    """Each certificate finds its own."""
    first, second, absent = (authority.issue().certificate for _ in range(3))
    authority.revoke(second)
    der = by_openssl(authority, [first, second], tmp_path, authority.ca)
    assert check(authority, der, first).status == "good"
    assert check(authority, der, second).status == "revoked"
    with pytest.raises(OCSPError, match="not about certificate"):
        check(authority, der, absent)


def test_of_several_answers_about_one_certificate_the_worst_counts(authority, leaf):
    good, revoked = (authority.respond(leaf, status) for status in ("good", "revoked"))
    for answers in ((good, revoked), (revoked, good)):
        assert check(authority, merge(authority.key, *answers), leaf).status == "revoked"
    over = authority.respond(leaf, "revoked", begins=ago(days=3), ends=ago(days=2))
    assert check(authority, merge(authority.key, over, good), leaf).status == "good"
    with pytest.raises(OCSPError, match="each of its answers about this certificate is of another time"):
        check(authority, merge(authority.key, over, over), leaf)


def test_a_renewed_issuer_with_the_same_key_and_name(authority, leaf):
    """What names the issuer is its name and its key, not one of its certificates."""
    renewed = authority._builder(authority.name, authority.key, ago(days=1), now()).sign(authority.key, hashes.SHA256())
    assert check_response(authority.respond(leaf), leaf, renewed, time.time()).status == "good"


# -- time --------------------------------------------------------------------------------------------------------------


def test_time(authority, leaf):
    begins, ends = ago(hours=2), ago(hours=1)
    der = authority.respond(leaf, begins=begins, ends=ends)
    begin, end = begins.timestamp(), ends.timestamp()
    for when in (begin - CLOCK_SKEW, begin, end, end + CLOCK_SKEW):
        assert check(authority, der, leaf, when).good_until == end
    with pytest.raises(OCSPError, match="not good yet: thisUpdate is 301 s ahead"):
        check(authority, der, leaf, begin - CLOCK_SKEW - 1)
    with pytest.raises(OCSPError, match="expired: its nextUpdate was 301 s ago"):
        check(authority, der, leaf, end + CLOCK_SKEW + 1)


def test_without_next_update_it_is_good_for_a_day(authority, leaf):
    begins = ago(hours=12)
    der = authority.respond(leaf, begins=begins, ends=None)
    answer = check(authority, der, leaf)
    assert answer.next_update is None
    assert answer.good_until == begins.timestamp() + 86_400 == begins.timestamp() + WITHOUT_NEXT_UPDATE
    with pytest.raises(OCSPError, match="expired: it has no nextUpdate, and thisUpdate was 90000 s ago"):
        check(authority, der, leaf, begins.timestamp() + 90_000)


# -- refused -----------------------------------------------------------------------------------------------------------


def test_another_cas_signature(authority, other, leaf):
    with pytest.raises(OCSPError, match="the signature does not fit"):  # of the same name
        check(authority, authority.respond(leaf, signer=other.ca), leaf)
    with pytest.raises(
        OCSPError, match=r"wrong signer: key .* is neither the issuer nor a certificate in the response"
    ):
        check(authority, authority.respond(leaf, signer=other.ca, by_name=False), leaf)
    foreign = other.delegate()
    with pytest.raises(OCSPError, match="wrong signer: CN=OCSP delegate is neither"):
        check(authority, authority.respond(leaf, signer=foreign), leaf)
    with pytest.raises(OCSPError, match="wrong signer: the issuer has not issued the certificate of CN=OCSP delegate"):
        check(authority, authority.respond(leaf, signer=foreign, include=[foreign]), leaf)


def test_delegates_that_may_not(authority, leaf, tmp_path):
    for delegate, problem in (
        (authority.delegate(purpose=ExtendedKeyUsageOID.SERVER_AUTH), "is not for OCSP signing"),
        (authority.delegate(days=-1), "is valid from .* to "),
    ):
        with pytest.raises(OCSPError, match=f"wrong signer: the certificate of CN=OCSP delegate {problem}"):
            check(authority, authority.respond(leaf, signer=delegate, include=[delegate]), leaf)
    server = authority.issue()  # what every customer of the CA has
    with pytest.raises(OCSPError, match="wrong signer: the certificate of CN=localhost is not for OCSP signing"):
        check(authority, authority.respond(leaf, signer=server, include=[server]), leaf)


def test_a_delegate_of_a_delegate_is_none(authority, leaf, tmp_path):
    first = authority.delegate()
    below = Authority(tmp_path, ca=first)
    second = below.delegate(name="a third one")
    with pytest.raises(OCSPError, match="wrong signer"):
        check(authority, authority.respond(leaf, signer=second, include=[second, first]), leaf)


@pytest.mark.programs
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-rmd", "sha1"), "signed with sha1, which proves nothing"),
        # cryptography does not tell the hash
        (("-rsigopt", "rsa_padding_mode:pss"), "unknown here: Signature algorithm OID: 1.2.840.113549.1.1.10"),
    ],
    ids=["sha1", "pss"],
)
def test_signatures_that_are_weak_or_unknown(authority, leaf, tmp_path, options, said):
    delegate = authority.delegate(key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
    der = by_openssl(authority, [leaf], tmp_path, delegate, *options)
    with pytest.raises(OCSPError, match=said):
        check(authority, der, leaf)


def test_about_another_certificate(authority, other, leaf):
    with pytest.raises(OCSPError, match="not about certificate"):
        check(authority, authority.respond(authority.issue().certificate), leaf)
    # the same serial number, of a CA with the same name and another key
    theirs = other.respond(leaf, signer=authority.ca)
    with pytest.raises(OCSPError, match="not about certificate"):
        check(authority, theirs, leaf)


@pytest.mark.parametrize(
    ("der", "said"),
    [("30030a0101", r"malformed request \(1\)"), ("30030a0103", r"try later \(3\)"), ("30030a0106", "unauthorized")],
)
def test_a_responder_without_an_answer(authority, leaf, der, said):
    with pytest.raises(ResponderUnavailable, match=f"OCSP responder: it answers {said}"):
        check(authority, bytes.fromhex(der), leaf)


@pytest.mark.parametrize(
    "der", [b"", b"<html>", b"\x30", b"\x30\x80", b"\x30\x03\x0a\x01\x00", b"\x30\x03\x0a\x01\x63"]
)
def test_what_is_no_response(authority, leaf, der):
    with pytest.raises(OCSPError, match="malformed"):
        check(authority, der, leaf)


def test_one_that_is_too_long(authority, leaf):
    with pytest.raises(OCSPError, match=f"it has {MAX_RESPONSE + 1} bytes"):
        check(authority, bytes(MAX_RESPONSE + 1), leaf)


def test_no_prefix_and_no_flipped_bit_makes_another_answer(authority, leaf):
    delegate = authority.delegate()
    der = authority.respond(leaf, signer=delegate, include=[delegate])
    good = check(authority, der, leaf)
    for length in range(len(der)):
        with pytest.raises(OCSPError):
            check(authority, der[:length], leaf)
    accepted = 0
    for position in range(len(der)):
        flipped = bytearray(der)
        flipped[position] ^= 1 << position % 8
        try:
            answer = check(authority, bytes(flipped), leaf)
        except OCSPError:
            continue
        assert answer == replace(good, der=bytes(flipped))  # what is not signed: an algorithm's name, say
        accepted += 1
    assert accepted < 10


# -- what else there is ------------------------------------------------------------------------------------------------


def test_the_responder_of_a_certificate(authority):
    assert responder_url(authority.issue().certificate) == "http://ocsp.test/"
    assert responder_url(authority.issue(url=None).certificate) is None
    for url in ("https://ocsp.test/", "ldap://ocsp.test/", "file:///etc/passwd"):
        assert responder_url(authority.issue(url=url).certificate) is None
    assert responder_url(authority.issue(url="HTTP://ocsp.test/").certificate) == "HTTP://ocsp.test/"


def test_short_lived_certificates(authority):
    assert is_short_lived(authority.issue(days=7).certificate)
    assert not is_short_lived(authority.issue(days=8).certificate)


def test_the_issuer_is_found_by_its_signature(authority, other, leaf):
    ours, theirs = authority.ca.certificate, other.ca.certificate
    assert issuer_of(leaf, [theirs, leaf, ours]) is ours
    assert issuer_of(leaf, [theirs]) is None


@pytest.mark.programs
def test_openssl_understands_the_request(authority, leaf, tmp_path):
    (tmp_path / "request").write_bytes(build_request(leaf, authority.ca.certificate))
    command = ["openssl", "ocsp", "-reqin", tmp_path / "request", "-req_text"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    assert f"{leaf.serial_number:X}" in said
    assert "Nonce" not in said


# -- DER, by hand ------------------------------------------------------------------------------------------------------


def parts(data):
    """(tag, content) of each element."""
    found = []
    while data:
        length, start = data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
        found.append((data[0], data[start : start + length]))
        data = data[start + length :]
    return found


def element(tag, *contents):
    content = b"".join(contents)
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def taken_apart(der):
    """The ResponseData's elements, and what stands behind the signature in the BasicOCSPResponse."""
    ((_, whole),) = parts(der)
    (_, explicit) = parts(whole)[1]
    (_, response_bytes) = parts(explicit)[0]
    (_, basic) = parts(response_bytes)[1]
    data, _, _, *rest = parts(parts(basic)[0][1])
    return parts(data[1]), rest


def put_together(data, rest, algorithm, key, *arguments):
    tbs = element(0x30, *(element(*each) for each in data))
    signature = element(0x03, b"\0", key.sign(tbs, *arguments))
    basic = element(0x30, tbs, element(0x30, algorithm), signature, *(element(*each) for each in rest))
    basic_oid = bytes.fromhex("06092b0601050507300101")
    explicit = element(0xA0, element(0x30, basic_oid, element(0x04, basic)))
    return element(0x30, b"\x0a\x01\x00", explicit)


ECDSA_WITH_SHA256 = bytes.fromhex("06082a8648ce3d040302")


def merge(key, *ders):
    """One response with the answers of all of them."""
    data, rest = taken_apart(ders[0])
    where = next(index for index, (tag, _) in enumerate(data) if tag == 0x30 and index > 1)
    answers = [taken_apart(der)[0][where][1] for der in ders]
    data[where] = 0x30, b"".join(answers)
    return put_together(data, rest, ECDSA_WITH_SHA256, key, ec.ECDSA(hashes.SHA256()))
