"""What a session may be resumed for: whatever decides whether a peer would be accepted binds it.

A resumption verifies nothing. So what a full handshake would refuse must not be resumed: at a server, at a client that
was handed a session, and with early data.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from greentls.core.config import (
    HOOKS_NOT_IN_IDENTITY,
    NOT_IN_IDENTITY,
    NOT_IN_SCOPE,
    VERIFY_FAIL_IF_NO_PEER_CERT,
    VERIFY_NONE,
    VERIFY_PEER,
    Config,
    TrustAnchors,
)
from greentls.core.connection import Connection
from greentls.core.early_data import EarlyConnection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import TLSError
from greentls.openssl import library, symbols
from greentls.tickets import TicketKey, TicketKeys
from tests.support.pairs import (
    TLS12,
    TLS13,
    Sessions,
    both_versions,
    chain,
    client,
    client_context,
    handshake,
    server_context,
)

REQUIRED = VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT
CRL_CHECK_CHAIN = 0xC  # X509_VERIFY_PARAM_set_flags(3)


def in_a_store(**others):
    return Sessions().hooks(**others)


def in_tickets(**others):
    keys = TicketKeys.static([TicketKey(bytes(16), bytes(32), bytes(32))])
    return Hooks(ticket_key=lambda _, name: keys.opening(name) if name is not None else (keys.keys[0], False), **others)


kept = pytest.mark.parametrize("kept", [in_a_store, in_tickets], ids=["store", "ticket"])


def lax(pki, version, **settings):
    return client_context(pki, version, verify_mode=VERIFY_NONE, **settings)


def visit(clients, server, session=None, name="localhost"):
    """A handshake that has to succeed: (resumed?, a session)."""
    one = client(clients, session, name)
    handshake(one, Connection(server))
    return one.session_reused, one.session


@pytest.fixture(scope="module")
def issued(pki):
    """(certificate file, key file) of a client. RSA: 112 bits, which are too few for security level 3."""
    return pki.issue("client.example", client=True, kind="rsa")


# -- a server ----------------------------------------------------------------------------------------------------------


@kept
@both_versions
@pytest.mark.parametrize(
    "stricter",
    [
        {"verify_flags": CRL_CHECK_CHAIN},
        {"client_signature_algorithms": "ecdsa_secp256r1_sha256"},
        {"ciphers": "DEFAULT@SECLEVEL=3"},
    ],
    ids=lambda settings: "=".join(map(str, *settings.items())),
)
def test_a_stricter_server_does_not_resume_what_a_laxer_one_has_let_in(pki, issued, kept, version, stricter):
    hooks, trust = kept(), TrustAnchors(files=(pki.ca_file,))
    settings = {"hooks": hooks, "trust": trust, "verify_mode": REQUIRED}
    clients = client_context(pki, version, certificates=[chain(*issued)])
    _, session = visit(clients, server_context(pki, version, **settings))
    assert visit(clients, server_context(pki, version, **settings), session)[0]
    _, session = visit(clients, server_context(pki, version, **settings))
    with pytest.raises(TLSError):
        visit(clients, server_context(pki, version, **settings, **stricter))
    with pytest.raises(TLSError):
        visit(clients, server_context(pki, version, **settings, **stricter), session)


@kept
def test_a_session_of_a_cipher_that_is_not_enabled_any_more(pki, kept):
    """OpenSSL looks at what the client offers only (openssl-facts 4.5)."""
    hooks = kept()
    before = server_context(pki, TLS12, hooks=hooks, ciphers="AES256-SHA:ECDHE-ECDSA-AES256-SHA")
    after = server_context(pki, TLS12, hooks=hooks, ciphers="ECDHE+AESGCM")
    clients = client_context(pki, TLS12)
    _, session = visit(clients, before)
    one, other = client(clients, session), Connection(after)
    handshake(one, other)
    assert not other.session_reused
    assert "GCM" in other.cipher[0]


@kept
@both_versions
def test_a_peer_with_a_pre_shared_key_is_not_taken_for_one_with_a_certificate(pki, kept, version):
    """The server that demands a certificate lets in who knows a key; once there are no such keys it must not."""
    hooks, trust = kept(), TrustAnchors(files=(pki.ca_file,))
    suites = {"ciphers": "PSK-AES128-GCM-SHA256:ECDHE+AESGCM", "ciphersuites": "TLS_AES_128_GCM_SHA256"}
    settings = {"trust": trust, "verify_mode": REQUIRED, **suites}
    knows = lax(pki, version, hooks=Hooks(psk_client=lambda *_: ("me", b"k" * 32)), **suites)
    with_keys = server_context(pki, version, hooks=replace(hooks, psk_server=lambda *_: b"k" * 32), **settings)
    without = server_context(pki, version, hooks=hooks, **settings)
    forgot = lax(pki, version, hooks=Hooks(psk_client=lambda *_: None), **suites)
    assert visit(forgot, with_keys, visit(knows, with_keys)[1])[0]
    with pytest.raises(TLSError, match="peer did not return a certificate"):
        visit(forgot, without, visit(knows, with_keys)[1])


@both_versions
def test_an_identity_of_ones_own_stands_for_the_names_and_for_nothing_else(pki, version):
    hooks, own = in_a_store(), b"of my own"
    named = [chain(*pki.issue("elsewhere.example", "localhost"))]
    one = server_context(pki, version, hooks=hooks, session_id_context=own)
    other = server_context(pki, version, hooks=hooks, session_id_context=own, certificates=named)
    strict = server_context(
        pki,
        version,
        hooks=hooks,
        session_id_context=own,
        trust=TrustAnchors(files=(pki.ca_file,)),
        verify_mode=REQUIRED,
    )
    assert visit(client_context(pki, version), other, visit(client_context(pki, version), one)[1])[0]
    with pytest.raises(TLSError, match="peer did not return a certificate"):
        visit(client_context(pki, version), strict, visit(client_context(pki, version), one)[1])


# Of each setting another value; None: it binds no session of either side.
OTHERS = {
    "server_side": None,
    "trust": lambda pki: TrustAnchors(certificates=(pki.ca,)),
    "crls": lambda pki: [pki.crl()],
    "minimum_version": lambda pki: TLS13,
    "maximum_version": lambda pki: TLS12,
    "options": lambda pki: ssl.OP_CIPHER_SERVER_PREFERENCE,
    "verify_mode": lambda pki: VERIFY_PEER,
    "verify_flags": lambda pki: CRL_CHECK_CHAIN,
    "ciphers": lambda pki: "ECDHE+AESGCM",
    "ciphersuites": lambda pki: "TLS_AES_256_GCM_SHA384",
    "groups": lambda pki: "P-384",
    "signature_algorithms": lambda pki: "ecdsa_secp256r1_sha256",
    "client_signature_algorithms": lambda pki: "ecdsa_secp256r1_sha256",
    "post_handshake_auth": lambda pki: True,
    "certificates": lambda pki: [chain(*pki.issue("client.example", client=True))],
    "alpn_protocols": lambda pki: [b"h2"],
    "hostname_checks_common_name": lambda pki: False,
}
SETTINGS = {field.name for field in fields(Config)}
HOOKS = {field.name for field in fields(Hooks)}
SERVERS_ONLY = {"server_side", "psk_identity_hint", "dh_parameters", "max_early_data"}


def test_a_setting_binds_sessions_until_somebody_writes_down_why_it_need_not():
    """This fails for a new field of Config: give it another value in OTHERS, or a reason in the module."""
    assert not SETTINGS - NOT_IN_IDENTITY.keys() - OTHERS.keys()
    assert not SETTINGS - NOT_IN_SCOPE.keys() - OTHERS.keys() - SERVERS_ONLY
    assert not (NOT_IN_IDENTITY.keys() | NOT_IN_SCOPE.keys()) - SETTINGS
    assert not HOOKS_NOT_IN_IDENTITY.keys() - HOOKS


@pytest.mark.parametrize("setting", sorted(SETTINGS - NOT_IN_IDENTITY.keys() - {"server_side"}))
def test_every_other_setting_binds_a_servers_sessions(pki, setting):
    other = (
        server_context(pki, **{setting: OTHERS[setting](pki)})
        if "version" not in setting
        else Config(
            server_side=True, certificates=[chain(pki.cert_file, pki.key_file)], **{setting: OTHERS[setting](pki)}
        )
    )
    assert server_context(pki).session_id_context == server_context(pki).session_id_context != other.session_id_context


@pytest.mark.parametrize("setting", sorted(SETTINGS - NOT_IN_SCOPE.keys() - SERVERS_ONLY))
def test_every_other_setting_binds_a_clients_sessions(pki, setting):
    hooks = Hooks(new_session=print)
    one, same = (Config(server_side=False, hooks=hooks).session_scope for _ in range(2))
    assert one == same != Config(server_side=False, hooks=hooks, **{setting: OTHERS[setting](pki)}).session_scope


def test_workers_of_equal_settings_agree(pki):
    """Also where one of them has an enum, whose text is another one in each Python, and the other one its number."""
    program = """
import ssl, sys
from greentls.certificates import CertificateChain
from greentls.core.config import Config, TrustAnchors
files, version = sys.argv[1:4], ssl.TLSVersion.TLSv1_2 if sys.argv[4] == "enum" else 0x0303
settings = {"trust": TrustAnchors(files=files[2:]), "certificates": [CertificateChain.load(*files[:2])]}
print(Config(server_side=True, minimum_version=version, verify_mode=1, **settings).session_id_context.hex())
"""
    files = pki.cert_file, pki.key_file, pki.ca_file
    told = [subprocess.check_output([sys.executable, "-c", program, *files, kind]) for kind in ("enum", "number")]
    assert told[0] == told[1]


@pytest.mark.parametrize("hook", sorted(HOOKS - HOOKS_NOT_IN_IDENTITY.keys()))
def test_a_hook_that_a_resumption_does_not_ask_binds_a_servers_sessions(pki, hook):
    """It may refuse a peer in a full handshake; a session from before there was one never met it."""
    hooks = Hooks(**{hook: lambda *_: None})
    assert server_context(pki).session_id_context != server_context(pki, hooks=hooks).session_id_context


# -- a client that was handed a session --------------------------------------------------------------------------------


class Evil(Connection):
    """A server that resumes whatever it can."""

    session_id_context = b""


class Handed:
    """A server, evil, and the session that a client has from it."""

    def __init__(self, pki, version, *names, **issue):
        files = pki.issue(*(names or ("localhost",)), **issue)
        self.server = server_context(pki, version, certificates=[chain(*files)], hooks=in_a_store())

    def session(self, clients, name="localhost", verify_hostname=True):
        one = Connection(clients, server_hostname=name, verify_hostname=verify_hostname)
        handshake(one, Evil(self.server))
        return one.session

    def resumed(self, clients, session, name="localhost"):
        """Whether it is; the handshake has to succeed."""
        one = client(clients, session, name)
        handshake(one, Evil(self.server))
        return one.session_reused


copies = pytest.mark.parametrize("copy", [lambda it: it, lambda it: Session.from_bytes(bytes(it))], ids=["", "bytes"])


@copies
@both_versions
def test_a_session_of_another_name_is_left_out(pki, version, copy):
    handed = Handed(pki, version, "evil.example")
    strict = client_context(pki, version)
    session = copy(handed.session(strict, "evil.example"))
    assert handed.resumed(strict, session, "evil.example")
    session = copy(handed.session(strict, "evil.example"))
    with pytest.raises(TLSError, match="ostname mismatch"):
        handed.resumed(strict, session, "bank.example")


@copies
@both_versions
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_session_made_without_a_check_of_the_name(pki, version, copy, name):
    context = client_context(pki, version)
    for names, good in ((("evil.example",), False), ((name,), True)):
        handed = Handed(pki, version, *names)
        session = copy(handed.session(context, name, verify_hostname=False))
        if good:
            assert handed.resumed(context, session, name)
        else:
            with pytest.raises(TLSError, match="mismatch"):
                handed.resumed(context, session, name)


@copies
@both_versions
def test_a_session_made_under_other_trust_anchors(pki, version, copy):
    """Also one that the same anchors would let in: what it was made under is no matter, what would be found now is."""
    handed = Handed(pki, version)
    elsewhere = chain(*pki.issue("elsewhere.example")).certificate
    distrusts = client_context(pki, version, trust=TrustAnchors(certificates=(elsewhere,)))
    for made in (client_context(pki, version), lax(pki, version)):
        session = copy(handed.session(made))
        assert handed.resumed(made, session)
        session = copy(handed.session(made))
        with pytest.raises(TLSError, match="certificate verify failed"):
            handed.resumed(distrusts, session)


@both_versions
def test_a_session_whose_certificate_was_revoked_since(pki, version):
    handed, clients = Handed(pki, version), client_context(pki, version)
    number = handed.server.certificates[0].certificate.serial_number
    assert handed.resumed(client_context(pki, version, crls=[pki.crl()]), handed.session(clients))
    with pytest.raises(TLSError, match="certificate revoked"):
        handed.resumed(client_context(pki, version, crls=[pki.crl(number)]), handed.session(clients))


@both_versions
def test_a_session_whose_certificate_has_expired(pki, version):
    handed = Handed(pki, version, days=-1)
    assert handed.resumed(lax(pki, version), handed.session(lax(pki, version)))
    with pytest.raises(TLSError, match="certificate has expired"):
        handed.resumed(client_context(pki, version), handed.session(lax(pki, version)))


@both_versions
@pytest.mark.parametrize(
    "stricter",
    [{"verify_flags": CRL_CHECK_CHAIN}, {"ciphers": "DEFAULT@SECLEVEL=3"}],
    ids=lambda settings: "=".join(map(str, *settings.items())),
)
def test_a_session_made_under_laxer_settings(pki, version, stricter):
    handed = Handed(pki, version, kind="rsa")
    session = handed.session(client_context(pki, version))
    with pytest.raises(TLSError):
        handed.resumed(client_context(pki, version, **stricter), session)


def test_a_session_of_a_cipher_that_the_client_does_not_offer_any_more(pki):
    """OpenSSL offers the session, not the cipher, and ends the handshake when the server resumes."""
    handed = Handed(pki, TLS12)
    session = handed.session(client_context(pki, TLS12, ciphers="ECDHE+AES128"))
    assert not handed.resumed(client_context(pki, TLS12, ciphers="ECDHE+AES256"), session)


# -- early data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "protocols", "limit"),
    [
        ("localhost", [b"h2"], 1000),
        ("localhost", [b"http/1.1", b"h2"], 1000),
        ("localhost", [b"http/1.1"], 0),
        ("localhost", [], 0),
        ("127.0.0.1", [b"h2"], 0),  # which is not told to the server
        ("other.example", [b"h2"], 0),
    ],
)
def test_early_data_needs_the_name_and_the_protocol_of_its_session(pki, name, protocols, limit):
    """OpenSSL raises "inconsistent early data" where they differ (RFC 8446 4.2.10)."""
    files = pki.issue("localhost", "127.0.0.1", "other.example")
    hooks = replace(in_a_store(), early_data=lambda *_: True, alpn=lambda _, offered: offered[-1])
    server = server_context(pki, TLS13, max_early_data=1000, hooks=hooks, certificates=[chain(*files)])
    _, session = visit(client_context(pki, TLS13, alpn_protocols=[b"h2"]), server)
    one = client(client_context(pki, TLS13, alpn_protocols=protocols), session, name)
    assert one.early_data_limit == limit
    one.offer_early_data(b"early")
    other = EarlyConnection(server)
    handshake(one, other)
    other.do_handshake()
    assert bool(other.early_data) is bool(limit)
    assert one.established and other.established


@kept
def test_early_data_that_the_ticket_did_not_allow_is_refused_and_nothing_else(pki, kept):
    """A client of its own mind sends it (RFC 8446 4.2.10 forbids it); OpenSSL takes it, and is then fatal about it."""
    hooks = kept(early_data=lambda *_: True)
    none = server_context(pki, TLS13, hooks=hooks)
    some = server_context(pki, TLS13, hooks=hooks, max_early_data=1000)
    clients = client_context(pki, TLS13)
    session = visit(clients, none)[1]
    assert session.max_early_data == 0
    bold = Session.from_bytes(bytes(session))
    allow_early_data(bold)
    one, other = client(clients, bold), EarlyConnection(some)
    one.offer_early_data(b"early")
    assert one.early_data_limit == 1000
    handshake(one, other)
    assert other.session_reused and not other.early_data
    assert one.early_data_accepted is False


def allow_early_data(session):
    set_max = symbols.address("SSL_SESSION_set_max_early_data")
    library.ffi.cast("int (*)(SSL_SESSION *, uint32_t)", set_max)(session.pointer, 1000)
