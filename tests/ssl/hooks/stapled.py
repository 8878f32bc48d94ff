"""A client and a server whose certificate has an OCSP responder."""

from __future__ import annotations

from types import SimpleNamespace

from tests.support.ocsp_authority import Authority, ago
from tests.support.ssl_pairs import contexts


def pair(authority, version="1.3", issued=None, **settings):
    """(client's context, server's, the certificate). settings: the client's."""
    issued = issued or authority.issue()
    files = SimpleNamespace(ca_file=authority.ca_file, cert_file=issued.cert_file, key_file=issued.key_file)
    client, server = contexts(files, version)
    for name, value in settings.items():
        setattr(client, name, value)
    return client, server, issued.certificate


def other_ca(tmp_path):
    (tmp_path / "other").mkdir()
    return Authority(tmp_path / "other")


BAD = {
    "none": (lambda a, c, t: None, 73, "the server has sent no OCSP response"),
    "revoked": (lambda a, c, t: a.respond(c, "revoked"), 23, "certificate revoked at 20"),
    "unknown": (lambda a, c, t: a.respond(c, "unknown"), 75, "CN=greentls OCSP test CA does not know the certificate"),
    "expired": (lambda a, c, t: a.respond(c, begins=ago(days=2), ends=ago(days=1)), 74, "expired: its nextUpdate was"),
    "early": (lambda a, c, t: a.respond(c, begins=ago(days=-1)), 74, "not good yet"),
    "other signer": (lambda a, c, t: a.respond(c, signer=other_ca(t).ca), 74, "the signature does not fit"),
    "try later": (lambda a, c, t: bytes.fromhex("30030a0103"), 74, "it answers try later (3)"),
}
