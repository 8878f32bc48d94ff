"""What greentls has OpenSSL do: each function here is a feature, and asserts what must come of it."""

from __future__ import annotations

import base64
import decimal
import time

import pytest
from cryptography import x509

from greentls.certificates import CertificateChain
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, VERIFY_POST_HANDSHAKE, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.early_data import EarlyConnection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConfigurationError, TLSError
from greentls.openssl import contexts, errors
from greentls.tickets import TicketKey
from tests.keys.signing import Remote
from tests.support import openssl
from tests.support.pairs import (
    TLS12,
    TLS13,
    Sessions,
    attempt,
    chain,
    client,
    client_context,
    handshake,
    move,
    server_context,
)
from tests.support.sealer import hostile

STAPLE = b"\x30\x03\x0a\x01\x06"  # OCSPResponse: unauthorized


def handshakes(pki):
    for version, name in ((TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")):
        clients = client_context(pki, version, alpn_protocols=[b"h2"], hostname_checks_common_name=False)
        servers = server_context(pki, version, hooks=Hooks(alpn=lambda connection, offered: offered[0]))
        here, there = client(clients), Connection(servers)
        handshake(here, there)
        there.write(b"data")
        move(there, here)
        assert (here.read(), here.pending, there.server_name) == (b"data", 0, "localhost")
        assert (here.version, here.tls13, here.alpn_protocol) == (name, version == TLS13, b"h2")
        assert here.cipher in there.shared_ciphers
        assert here.peer_certificates == [there.certificate] and len(here.verified_chain) == 2
        assert here.verify_data(True) == there.verify_data(False) != b""
        assert here.export_keying_material(b"label", 8) == there.export_keying_material(b"label", 8)
        assert here.release()
        attempt(here.shutdown)
        move(here, there)
        assert there.read() == b"" and there.closed_by_peer


def a_group(pki):
    here = client(client_context(pki, TLS13, groups="prime256v1"))
    handshake(here, Connection(server_context(pki)))
    assert here.group in (None, "prime256v1", "secp256r1")  # None where its functions are hidden


def settings(pki):
    for setting in ("ciphers", "ciphersuites", "groups", "signature_algorithms", "client_signature_algorithms"):
        with pytest.raises(ConfigurationError):
            server_context(pki, **{setting: "none-such"})
    suite = "ECDHE-ECDSA-AES128-GCM-SHA256"
    clients = client_context(pki, TLS12, ciphers=suite, signature_algorithms="ecdsa_secp256r1_sha256")
    servers = server_context(pki, num_tickets=1)
    here = client(clients)
    handshake(here, Connection(servers))
    assert here.cipher[0] == suite
    assert servers.session_stats["accept_good"] == 1
    assert len(clients.ca_certificates) == 1


def several_certificates(pki):
    """Two, each with an intermediate one, which nobody needs; here the CA's has to do."""
    with open(pki.ca_file, "rb") as file:
        authority = x509.load_pem_x509_certificate(file.read())
    pairs = (pki.cert_file, pki.key_file), pki.issue("localhost", kind="rsa")
    chains = [CertificateChain.load(*pair) for pair in pairs]
    for each in chains:
        object.__setattr__(each, "intermediates", (authority,))
    here = client(client_context(pki, trust=TrustAnchors(certificates=(authority,))))
    handshake(here, Connection(server_context(pki, certificates=chains)))
    assert len(here.peer_certificates) == 2


def one_certificate_with_an_intermediate_one(pki):
    one = CertificateChain.load(pki.cert_file, pki.key_file)
    object.__setattr__(one, "intermediates", (pki.ca,))
    here = client(client_context(pki))
    handshake(here, Connection(server_context(pki, certificates=[one])))
    assert len(here.peer_certificates) == 2


def revoked_certificates(pki):
    servers = server_context(pki)
    (one,) = servers.certificates
    handshake(client(client_context(pki, crls=[pki.crl()])), Connection(servers))
    with pytest.raises(TLSError):
        handshake(client(client_context(pki, crls=[pki.crl(one.certificate.serial_number)])), Connection(servers))


def groups_of_integers(pki):
    """ffdhe2048 (RFC 7919 A.1)."""
    with decimal.localcontext() as exactly:
        exactly.prec = 700
        digits = int(decimal.Decimal(1).exp() * 2**1918)
    prime = 2**2048 - 2**1984 + (digits + 560316) * 2**64 - 1
    der = b"\x30\x82\x01\x08\x02\x82\x01\x01" + prime.to_bytes(257, "big") + b"\x02\x01\x02"  # PKCS #3
    path = pki.directory / "ffdhe2048.pem"
    path.write_bytes(b"-----BEGIN DH PARAMETERS-----\n%s-----END DH PARAMETERS-----\n" % base64.encodebytes(der))
    suite = "DHE-RSA-AES128-GCM-SHA256"
    here = client(client_context(pki, TLS12, ciphers=suite))
    chains = [CertificateChain.load(*pki.issue("localhost", kind="rsa"))]
    handshake(here, Connection(server_context(pki, certificates=chains, dh_parameters=str(path))))
    assert here.cipher[0] == suite
    with pytest.raises(ConfigurationError):
        server_context(pki, dh_parameters=pki.ca_file)


def a_key_of_another_certificate(pki):
    one, other = (CertificateChain.load(*pki.issue(name)) for name in ("a.example", "b.example"))
    with pytest.raises(ConfigurationError):
        contexts.check_certificate(one.der, other.private_key)


def names_of_servers(pki):
    handshake(client(client_context(pki), name="localhost"), Connection(server_context(pki)))
    with pytest.raises(TLSError):
        handshake(client(client_context(pki), name="192.0.2.1"), Connection(server_context(pki)))
    with pytest.raises((TLSError, ConfigurationError)):  # where OpenSSL compares such a name, and where it does not
        handshake(client(client_context(pki), name="-no-dns-name-"), Connection(server_context(pki)))


def sessions(pki):
    for version in (TLS12, TLS13):
        kept = Sessions()
        servers, clients = server_context(pki, version, hooks=kept.hooks()), client_context(pki, version)
        here = client(clients)
        handshake(here, Connection(servers))
        with pytest.raises(ConfigurationError):
            Session.from_bytes(b"none")
        session = Session.from_bytes(bytes(here.session))
        assert session.resumable and session.id and session.server_name == "localhost"
        assert session.copy() == session
        assert 0 < session.remaining <= session.lifetime and time.time() - session.made < 60
        assert (session.alpn_protocol, session.max_early_data, session.id_context) == (b"", 0, b"")
        assert session.has_ticket is (version == TLS13) and session.ticket_lifetime_hint >= 0
        assert session.single_use is (version == TLS13)
        again = client(clients, session)
        handshake(again, Connection(servers))
        assert again.session_reused and again.early_data_limit == 0
        there = Connection(servers)
        handshake(client(clients), there)
        there.receive_data(b"\x15\x03\x03\x00\x20" + bytes(32))  # no record of this connection: its session is removed
        with pytest.raises(TLSError):
            there.read()


def a_session_offered_to_a_client_that_trusts_nobody(pki):
    here = client(client_context(pki))
    handshake(here, Connection(server_context(pki)))
    again = client(client_context(pki, trust=TrustAnchors()), here.session)
    with pytest.raises(TLSError) as caught:
        handshake(again, Connection(server_context(pki)))
    assert caught.value.verify_message and not again.session_reused


def ticket_keys(pki):
    key = TicketKey.new()
    for version in (TLS12, TLS13):
        hooks = Hooks(ticket_key=lambda connection, name: (key, False))
        servers, clients = server_context(pki, version, hooks=hooks), client_context(pki, version)
        here = client(clients)
        handshake(here, Connection(servers))
        again = client(clients, here.session)
        handshake(again, Connection(server_context(pki, version, hooks=hooks)))
        assert again.session_reused


def early_data(pki):
    kept = Sessions()
    hooks = kept.hooks(early_data=lambda connection, random: len(random) == 32)
    servers, clients = server_context(pki, TLS13, max_early_data=100, hooks=hooks), client_context(pki, TLS13)
    here = client(clients)
    handshake(here, EarlyConnection(servers))
    here, there = client(clients, here.session), EarlyConnection(servers)
    here.early_data = b"early"
    attempt(here.do_handshake)
    move(here, there)
    assert attempt(there.do_handshake) and there.read() == b"early"
    handshake(here, there)
    assert here.early_data_accepted


def staples(pki):
    told = []
    for version in (TLS12, TLS13):
        clients = client_context(pki, version, hooks=Hooks(ocsp=lambda connection, staple: told.append(staple)))
        servers = server_context(pki, version, hooks=Hooks(ocsp=lambda connection, _: STAPLE))
        handshake(client(clients), Connection(servers))
    assert told == [STAPLE] * 2


def client_certificates(pki):
    certificates = [chain(*pki.issue("user", client=True))]
    trust, seen = TrustAnchors(files=(pki.ca_file,)), []
    hooks = Hooks(verify=lambda connection, chain, resumed: seen.append(len(chain)))
    for version in (TLS12, TLS13):
        mode = VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT
        servers = server_context(pki, version, trust=trust, verify_mode=mode, hooks=hooks)
        clients, there = client_context(pki, version, certificates=certificates), Connection(servers)
        handshake(client(clients), there)
        assert there.peer_certificates[0] == certificates[0].der
    assert seen == [2, 2]

    clients = client_context(pki, TLS13, certificates=certificates, post_handshake_auth=True)
    servers = server_context(pki, TLS13, trust=trust, verify_mode=VERIFY_PEER | VERIFY_POST_HANDSHAKE)
    here, there = client(clients), Connection(servers)
    handshake(here, there)
    there.request_client_certificate()
    there.write(b"?")
    move(there, here)
    assert here.read() == b"?"
    move(here, there)
    attempt(there.read)
    assert there.peer_certificates[0] == certificates[0].der


def refusals(pki):
    def refuse(connection, chain, resumed):
        if resumed in refused:
            raise LookupError

    refused = set()
    clients, servers = client_context(pki, TLS13, hooks=Hooks(verify=refuse)), server_context(pki)
    first = client(clients)
    handshake(first, Connection(servers))
    refused.update((True, False))
    for session in (first.session, None):
        here = client(clients, session)
        with pytest.raises(LookupError):
            handshake(here, Connection(servers))
        assert here.data_to_send()  # an alert


def a_flood(pki):
    victim, _, sealer = hostile(pki, TLS13, True)
    victim.receive_data(b"".join(sealer.key_update() for _ in range(100)))
    with pytest.raises(TLSError, match="too many"):
        victim.read()


def configs_by_name(pki):
    lines, messages = [], []
    told = Hooks(
        keylog=lambda connection, line: lines.append(line),
        message=lambda *message: messages.append(message),
        certificate=lambda connection: None,
    )
    verified = {"trust": TrustAnchors(files=(pki.ca_file,)), "verify_mode": VERIFY_PEER}  # if there is a certificate
    other = server_context(pki, hooks=told, **verified)
    switch = Hooks(servername=lambda connection, name: connection.switch_config(other))
    for hooks in (told, switch):
        handshake(client(client_context(pki)), Connection(server_context(pki, hooks=hooks)))
    assert lines and messages


def shared_keys(pki):
    for version in (TLS12, TLS13):
        ciphers = (
            {"ciphers": "PSK-AES128-GCM-SHA256"} if version == TLS12 else {"ciphersuites": "TLS_AES_128_GCM_SHA256"}
        )
        hooks = Hooks(psk_client=lambda connection, hint: (hint or "me", b"k" * 32))
        clients = client_context(pki, version, hooks=hooks, verify_mode=0, trust=TrustAnchors(), **ciphers)
        hooks = Hooks(psk_server=lambda connection, identity: b"k" * 32)
        servers = server_context(pki, version, certificates=(), hooks=hooks, psk_identity_hint=b"hint", **ciphers)
        handshake(client(clients), Connection(servers))


def a_key_elsewhere(pki):
    remote = Remote(pki.key_file)
    certificates = [CertificateChain.load(pki.cert_file, remote.signing)]
    here = client(client_context(pki, TLS13))
    handshake(here, Connection(server_context(pki, certificates=certificates)))
    assert len(remote.asked) == 1


def errors_of_before(pki):
    """What stands in OpenSSL's queue when a hook is called stands there again after it."""
    errors.take()
    openssl.lib.ERR_put_error(20, 0, 193, b"", 0)
    saved = errors.save()
    assert errors.take() == []
    errors.restore(saved)
    (code,) = errors.take()
    assert errors.describe(code) == ("SSL routines", "no shared cipher")


FEATURES = [
    handshakes, a_group, settings, several_certificates, one_certificate_with_an_intermediate_one,
    revoked_certificates, groups_of_integers, a_key_of_another_certificate, names_of_servers, sessions,
    a_session_offered_to_a_client_that_trusts_nobody, ticket_keys, early_data, staples, client_certificates,
    refusals, a_flood, configs_by_name, shared_keys, a_key_elsewhere, errors_of_before,
]  # fmt: skip
