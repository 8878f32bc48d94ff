"""server_hostname, and what it matches: as in the standard library, side by side. OpenSSL 4 is more particular."""

from __future__ import annotations

import ssl

import pytest

import greentls.ssl
from tests.support.ssl_pairs import Side, both_versions, contexts, handshake, outcome

NAMES = [
    "localhost", "LOCALHOST", "host", "x", "1", "4294967295", "1.2", "127.1", "0x7f.1", "256.1.1.1", "1.2.3.4.5",
    "localhost.", "host.", "127.0.0.1.", "a_b", "_x._tcp.test", "-x", "x-", "a b", "a/b", "@", " ", "x\n", "\x7f",
    "*", "*.test", "xn--a", "\xfc.test", "a..b", "..", ".", ".test", "", "a\0b",
    "127.0.0.1", "127.00.0.01", "01.2.3.4", "1.2.3.4", "::1", "::ffff:127.0.0.1", "[::1]", "fe80::1%1", "::1%lo",
    "a" * 63, "a" * 64, ".".join(["a" * 60] * 4), ".".join(["a" * 60] * 4) + ".abcdefghijk", ".".join(["a" * 60] * 5),
]  # fmt: skip
# Of a certificate for localhost, *.wild.test, x, host. and others
MATCHING = ["x", "1", "host.", "a.wild.test", "wild.test", "a.b.wild.test", "a.wild.test.", "x.", "host", "-x", "X"]


def end(module, pki, version, name, check, certificate=None):
    """How a handshake ends for a client that asks for the name, and what the server has heard of it."""
    client, server = contexts(pki, version, module)
    if certificate:
        server.load_cert_chain(*certificate)
    client.check_hostname = check
    heard = []
    # On purpose, ours is told a name in lower case.
    server.sni_callback = lambda sock, server_name, context: heard.append(server_name and server_name.lower())
    here = outcome(Side, client, server_hostname=name)
    if isinstance(here, Exception):
        return type(here), getattr(here, "reason", None)
    error = outcome(handshake, here, Side(server, server_side=True))
    if error is None:
        return heard, here.tls.server_hostname
    return heard, type(error), error.verify_code, error.verify_message, error.reason


@both_versions
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_any_name_is_as_the_standard_librarys(pki, version, name):
    for check in (True, False):
        assert end(greentls.ssl, pki, version, name, check) == end(ssl, pki, version, name, check)


@pytest.fixture(scope="module")
def odd(pki):
    """A certificate for names that are hardly any."""
    return pki.issue("x", "1", "host.", "*.wild.test", "-x")


@both_versions
@pytest.mark.parametrize("name", MATCHING)
def test_what_matches_is_what_matches_there(pki, version, odd, name):
    assert end(greentls.ssl, pki, version, name, True, odd) == end(ssl, pki, version, name, True, odd)


@both_versions
@pytest.mark.parametrize("name", ["x", "1", "host.", "-x"])
def test_odd_names_can_match(pki, version, odd, name):
    assert end(greentls.ssl, pki, version, name, True, odd) == ([name], name)


@both_versions
@pytest.mark.parametrize("name", ["x", "host.", "localhost."])
def test_and_do_not_match_another(pki, version, name):
    heard, error, code, _, _ = end(greentls.ssl, pki, version, name, True)
    assert (heard, error, code) == ([name], ssl.SSLCertVerificationError, 62)
