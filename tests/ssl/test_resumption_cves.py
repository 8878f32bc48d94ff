"""What went wrong with resumption elsewhere, tried here. Each test has the number of an advisory in its name."""

from __future__ import annotations

import shutil
import ssl
from dataclasses import replace

import pytest

import greentls.ssl
from greentls.certificates import Callback, Directory
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_NONE, VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import TLSError
from greentls.tickets import TicketKey, TicketKeys
from tests.support.pairs import VERSIONS, Sessions, chain, client, client_context, handshake, server_context
from tests.support.ssl_pairs import TLS_VERSIONS, Side, both_versions, carry, finished


def in_a_store():
    return Sessions().hooks()


def in_tickets():
    keys = TicketKeys.static([TicketKey(bytes(16), bytes(32), bytes(32))])
    return Hooks(ticket_key=lambda _, name: keys.opening(name) if name is not None else (keys.keys[0], False))


everywhere = pytest.mark.parametrize("kept", [in_a_store, in_tickets, Hooks], ids=["store", "keys", "tickets"])


def authority(pki, name):
    """(TrustAnchors that know one client only, the client's certificate)."""
    own = chain(*pki.issue(name, client=True))
    return TrustAnchors(certificates=(own.certificate,)), own


PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: an anchor need not be a root


class TestNginxCVE202523419:
    """Virtual hosts of one listener shared sessions: who had one of a host without client certificates, or with those
    of another CA, resumed it at a host that demands its own. https://nvd.nist.gov/vuln/detail/CVE-2025-23419"""

    NAMES = "public.example", "tenant.example", "admin.example"

    @pytest.fixture
    def hosts(self, pki, version, kept):
        """(a listener that goes by the name, {name: who may come in there})."""
        hooks, number = kept(), VERSIONS[version]
        settings = {"certificates": [chain(*pki.issue(*self.NAMES))], "verify_flags": PARTIAL_CHAIN}
        owners = {name: authority(pki, f"client.{name}") for name in self.NAMES[1:]}
        mode = VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT
        contexts = {
            name: server_context(pki, number, hooks=hooks, trust=trust, verify_mode=mode, **settings)
            for name, (trust, _) in owners.items()
        }

        def choose(connection, name):
            if name in contexts:
                connection.switch_config(contexts[name])

        listener = server_context(pki, number, hooks=replace(hooks, servername=choose), **settings)
        return listener, {name: own for name, (_, own) in owners.items()}

    def visit(self, pki, version, listener, name, own=None, session=None):
        certificates = [own] if own else []
        one = client(client_context(pki, VERSIONS[version], certificates=certificates), session, name)
        handshake(one, Connection(listener))
        return one

    @everywhere
    @both_versions
    def test_a_session_of_one_host_opens_no_other(self, pki, hosts, version, kept):
        listener, owners = hosts
        for name, own in (("public.example", None), ("tenant.example", owners["tenant.example"])):
            first = self.visit(pki, version, listener, name, own)
            assert self.visit(pki, version, listener, name, own, first.session).session_reused
            first = self.visit(pki, version, listener, name, own)
            with pytest.raises(TLSError, match=r"did not return a certificate|verify failed"):
                self.visit(pki, version, listener, "admin.example", own, first.session)
        own = owners["admin.example"]
        first = self.visit(pki, version, listener, "admin.example", own)
        assert self.visit(pki, version, listener, "admin.example", own, first.session).session_reused


class TestGoCVE202568121:
    """GO-2026-4337: a configuration was copied or chosen per client, and its CAs changed, while the copies shared the
    keys of tickets: a session that the old CAs let in was resumed under the new ones, at servers and at clients.
    https://pkg.go.dev/vuln/GO-2026-4337"""

    @everywhere
    @both_versions
    def test_a_server_whose_client_cas_have_changed(self, pki, version, kept):
        hooks, number = kept(), VERSIONS[version]
        (old, own), (new, _) = (authority(pki, name) for name in ("old.example", "new.example"))
        mode = VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT
        settings = {"hooks": hooks, "verify_mode": mode, "verify_flags": PARTIAL_CHAIN}
        before, after = (server_context(pki, number, trust=trust, **settings) for trust in (old, new))
        clients = client_context(pki, number, certificates=[own])
        one = client(clients)
        handshake(one, Connection(before))
        with pytest.raises(TLSError, match="certificate verify failed"):
            handshake(client(clients, one.session), Connection(after))

    @both_versions
    def test_a_client_whose_root_cas_have_changed(self, pki, version):
        server = server_context(pki, VERSIONS[version], hooks=in_a_store())
        one = client(client_context(pki, VERSIONS[version]))
        handshake(one, Connection(server))
        elsewhere = TrustAnchors(certificates=(chain(*pki.issue("elsewhere.example")).certificate,))
        with pytest.raises(TLSError, match="certificate verify failed"):
            handshake(client(client_context(pki, VERSIONS[version], trust=elsewhere), one.session), Connection(server))

    @both_versions
    def test_one_context_that_is_changed_between_two_connections(self, pki, version, tmp_path):
        """Both sides; SSLContext, which may be changed, compiles another Context."""
        server = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(pki.cert_file, pki.key_file)
        server.session_store = greentls.open_store("memory://")
        clients = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        clients.load_verify_locations(pki.ca_file)
        clients.load_cert_chain(*pki.issue("client.example", client=True))
        for context in (server, clients):
            context.minimum_version = context.maximum_version = TLS_VERSIONS[version]
        session = shake(clients, server).session
        assert shake(clients, server, session=session).session_reused
        session = shake(clients, server).session
        server.load_verify_locations(pki.ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
        sock = shake(clients, server, session=session)
        assert not sock.session_reused


class TestNodeCVE202648934:
    """A client checked a certificate's name in full handshakes only, so that a session of one host was resumed with
    another one. https://nvd.nist.gov/vuln/detail/CVE-2026-48934"""

    @pytest.mark.parametrize("checked", [True, False], ids=["checked there", "not checked"])
    @pytest.mark.parametrize("given", ["session=", ".session"])
    @both_versions
    def test_a_session_of_another_host(self, pki, version, checked, given):
        """The other end is the standard library's: it resumes under any name."""
        evil = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        evil.load_cert_chain(*pki.issue("evil.example"))
        evil.minimum_version = evil.maximum_version = TLS_VERSIONS[version]
        clients = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        clients.load_verify_locations(pki.ca_file)
        clients.check_hostname = checked
        name = "evil.example" if checked else "bank.example"
        session = shake(clients, evil, name).session
        clients.check_hostname = True
        assert shake(clients, evil, "evil.example", session=session).session_reused
        with pytest.raises(ssl.SSLCertVerificationError, match="ostname mismatch"):
            shake(clients, evil, "bank.example", session, given)


class TestNodeCVE202648928:
    """A server compared names with their case, so that "ADMIN.example" was not the host that demands a certificate.
    https://nvd.nist.gov/vuln/detail/CVE-2026-48928"""

    SPELLINGS = "admin.example", "ADMIN.EXAMPLE", "Admin.Example"

    @pytest.mark.parametrize("spelling", SPELLINGS)
    @both_versions
    def test_every_hook_gets_the_name_in_lower_case(self, pki, version, spelling):
        seen = []
        server = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*pki.issue("admin.example"))
        server.client_hello_callback = lambda sock, hello: seen.append(hello.server_name)
        server.sni_callback = lambda sock, name, context: seen.append(name)
        clients = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        clients.load_verify_locations(pki.ca_file)
        clients.maximum_version = TLS_VERSIONS[version]
        shake(clients, server, spelling)
        assert seen == ["admin.example"] * 2

    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_sources_of_certificates_find_it(self, pki, tmp_path, spelling):
        certificate, key = pki.issue("admin.example")
        own = chain(certificate, key)
        for suffix, path in ((".pem", certificate), (".key", key)):
            shutil.copy(path, tmp_path / f"admin{suffix}")
        assert Directory(tmp_path).get(spelling)[0].der == own.der
        assert Callback(lambda name: [own] if name == "admin.example" else None).get(spelling)[0].der == own.der

    @both_versions
    def test_a_session_is_of_the_name_however_it_is_written(self, pki, version):
        server = server_context(
            pki, VERSIONS[version], certificates=[chain(*pki.issue("admin.example"))], hooks=in_a_store()
        )
        clients = client_context(pki, VERSIONS[version], verify_mode=VERIFY_NONE)
        one = client(clients, name="admin.example")
        handshake(one, Connection(server))
        two = client(clients, one.session, "ADMIN.example")
        handshake(two, Connection(server))
        assert two.session_reused


def shake(client, server, name="localhost", session=None, given="session="):
    """An SSLObject of the client's after a handshake in memory, and once it has read the tickets."""
    options = {"session": session} if given == "session=" else {}
    here, there = Side(client, server_hostname=name, **options), Side(server, server_side=True)
    if given == ".session":
        here.tls.session = session
    done = [False, False]
    while not all(done):
        for index, (side, other) in enumerate(((here, there), (there, here))):
            done[index] = done[index] or finished(side.tls.do_handshake)
            carry(side, other)
    there.tls.write(b"hello")
    carry(there, here)
    assert here.tls.read() == b"hello"
    return here.tls
