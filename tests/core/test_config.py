"""Config: settings that compile into one SSL_CTX, which is not changed once it is used."""

from __future__ import annotations

import pickle
import ssl
from dataclasses import FrozenInstanceError

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from greentls.core.config import MAX_EARLY_DATA, Config, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import ConfigurationError, TLSError
from greentls.openssl import library
from tests.support.pairs import TLS12, TLS13, attempt, chain, client, client_context, handshake, server_context


def test_the_session_id_context_survives_renewal_and_differs_between_sites(pki):
    renewed = server_context(pki, certificates=[chain(*pki.issue("localhost", "127.0.0.1", "::1"))])
    elsewhere = server_context(pki, certificates=[chain(*pki.issue("elsewhere.example"))])
    assert server_context(pki).session_id_context == renewed.session_id_context != elsewhere.session_id_context


def test_trust_anchors_in_a_file_count_by_what_is_in_it(pki, tmp_path):
    """Otherwise a session made under an anchor that was removed since would outlive it."""
    before, after = (chain(*pki.issue(name)).certificate.public_bytes(Encoding.PEM) for name in ("a.test", "b.test"))
    identities = []
    for name, content in ("one.pem", before), ("copy.pem", before), ("one.pem", after):
        (tmp_path / name).write_bytes(content)
        context = server_context(pki, trust=TrustAnchors(files=(str(tmp_path / name),)))
        identities.append(context.session_id_context)
    assert identities[0] == identities[1] != identities[2]


def test_contexts_are_not_mutated_after_use(pki):
    context = server_context(pki)
    Connection(context)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        context.ciphers = "ALL"


REFUSED = {
    "ciphers": ({"ciphers": "NONSENSE"}, "ciphers 'NONSENSE': OpenSSL knows none of them"),
    "ciphersuites": ({"ciphersuites": "NONSENSE"}, "cipher suites 'NONSENSE'"),
    "groups": ({"groups": "X25519:NONSENSE"}, "groups 'X25519:NONSENSE'"),
    "signature algorithms": ({"signature_algorithms": "NONSENSE"}, "signature algorithms 'NONSENSE'"),
    "clients' algorithms": ({"client_signature_algorithms": "NONSENSE"}, "signature algorithms 'NONSENSE'"),
    "no lifetime": ({"session_lifetime": 0}, "session_lifetime 0: not a number of seconds above 0"),
    "a lifetime of ages": ({"session_lifetime": 1 << 31}, "session_lifetime 2147483648"),
    "a long hint": ({"psk_identity_hint": b"x" * 257}, "psk_identity_hint: .*at most 256 bytes"),
    "much early data": ({"max_early_data": MAX_EARLY_DATA + 1}, f"not a number of bytes up to {MAX_EARLY_DATA}"),
    "early data of anybody": ({"max_early_data": 1}, "nobody tells what is a replay"),
    "keys for no tickets": (
        {"hooks": Hooks(ticket_key=lambda *_: None), "options": ssl.OP_NO_TICKET},
        "ticket keys with OP_NO_TICKET",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_that_cannot_be_used_is_named(pki, case):
    settings, said = REFUSED[case]
    with pytest.raises(ConfigurationError, match=said):
        server_context(pki, **settings)
    assert not library.lib.ERR_peek_error()
    server_context(pki)


@pytest.mark.parametrize("versions", [(TLS13, TLS12), (0x0305, 0), (0x1234, 0)])
def test_versions_that_are_none_are_refused(pki, versions):
    minimum, maximum = versions
    kind = {"server_side": False, "minimum_version": minimum, "maximum_version": maximum}
    if versions == (TLS13, TLS12):  # OpenSSL says so in the handshake only
        with pytest.raises(TLSError, match="no protocols available"):
            attempt(client(Config(**kind)).do_handshake)
    else:
        with pytest.raises(ConfigurationError, match=f"versions 0x{minimum:04x} to 0x0000: this OpenSSL has none"):
            Config(**kind)


def test_a_file_without_trust_anchors_is_named(pki, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    with pytest.raises(ConfigurationError, match=f"trust anchors {empty}: no PEM certificates there"):
        client_context(pki, trust=TrustAnchors(files=(str(empty),)))


def test_settings_cannot_be_changed_and_go_to_no_other_process(pki):
    config = server_context(pki)
    with pytest.raises(FrozenInstanceError):
        config.verify_mode = 1
    with pytest.raises(TypeError, match="make it anew in the other process"):
        pickle.dumps(config)


def test_what_was_counted_is_told_by_the_names_of_ssl(pki):
    config = server_context(pki)
    handshake(client(client_context(pki)), Connection(config))
    assert config.session_stats.keys() == ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).session_stats().keys()
    assert (config.session_stats["accept"], config.session_stats["accept_good"]) == (1, 1)


def test_trust_anchors_that_were_loaded(pki):
    assert client_context(pki).ca_certificates == [pki.ca.public_bytes(Encoding.DER)]
    certificates = TrustAnchors(certificates=(pki.ca,))
    assert client_context(pki, trust=certificates).ca_certificates == [pki.ca.public_bytes(Encoding.DER)]
