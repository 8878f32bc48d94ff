"""Config: settings that compile into one SSL_CTX, which is not changed once it is used."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from greentls.core.config import TrustAnchors
from greentls.core.connection import Connection
from tests.support.pairs import chain, server_context


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


def test_pyopenssl_contexts_are_not_mutated_after_use(pki):
    context = server_context(pki)
    Connection(context)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        context.ciphers = "ALL"
    assert isinstance(context.ssl_context, SSL.Context)
