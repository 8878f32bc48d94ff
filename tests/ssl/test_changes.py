"""A context may be changed after use: connections keep what they began with, the next one has the new."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

import greentls.ssl
from tests.support.helpers import Pki
from tests.support.ssl_pairs import both_versions, connected, contexts, failure, handshake, sides, talk


def names(sock):
    return sock.getpeercert()["subjectAltName"]


@both_versions
class TestChanges:
    def test_a_renewed_certificate_is_the_next_connections(self, pki, version):
        client, server = contexts(pki, version)
        with connected(client, server) as old:
            server.load_cert_chain(*pki.issue("localhost", "renewed.test"))
            with connected(client, server) as new:
                assert names(new[0]) == (("DNS", "localhost"), ("DNS", "renewed.test"))
            assert names(old[0]) == (
                ("DNS", "localhost"),
                ("IP Address", "127.0.0.1"),
                ("IP Address", "0:0:0:0:0:0:0:1"),
            )
            talk(*old)

    def test_alpn(self, pki, version):
        client, server = contexts(pki, version)
        for context in (client, server):
            context.set_alpn_protocols(["old"])
        with connected(client, server) as old:
            for context in (client, server):
                context.set_alpn_protocols(["new"])
            with connected(client, server) as new:
                assert [sock.selected_alpn_protocol() for sock in (*old, *new)] == ["old", "old", "new", "new"]

    def test_versions(self, pki, version):
        client, server = contexts(pki, version)
        other = {"1.2": ssl.TLSVersion.TLSv1_3, "1.3": ssl.TLSVersion.TLSv1_2}[version]
        with connected(client, server) as old:
            for context in (client, server):
                context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
                context.minimum_version = context.maximum_version = other
            with connected(client, server) as new:
                assert new[0].version() == other.name.replace("_", ".")
            assert old[0].version() == f"TLSv{version}"
            talk(*old)

    def test_verification(self, pki, version):
        _, server = contexts(pki, version)
        client = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        assert isinstance(failure(client, server)[0], ssl.SSLCertVerificationError)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        with connected(client, server) as old:
            client.load_verify_locations(pki.ca_file)
            client.verify_mode = ssl.CERT_REQUIRED
            client.check_hostname = True
            with connected(client, server) as new:
                assert names(new[0])
            talk(*old)
            assert isinstance(failure(client, server, server_hostname="else.test")[0], ssl.SSLCertVerificationError)

    def test_callbacks(self, pki, version):
        client, server = contexts(pki, version)
        asked = []
        with connected(client, server):
            server.sni_callback = lambda sock, name, context: asked.append(name)
        with connected(client, server):
            server.sni_callback = None
        with connected(client, server):
            assert asked == ["localhost"]

    def test_one_made_before_the_change_has_the_old_settings_even_if_its_handshake_comes_later(self, pki, version):
        client, server = contexts(pki, version)
        ends = sides(client, server)
        server.load_cert_chain(*pki.issue("renewed.test"))
        handshake(*ends)
        assert names(ends[0].tls)[0] == ("DNS", "localhost")


def set_again(context, name):
    setattr(context, name, getattr(context, name))


SAME = {
    **{
        name: lambda context, pki, name=name: set_again(context, name)
        for name in (
            "alpn_callback",
            "callback_timeout",
            "check_hostname",
            "client_hello_callback",
            "handshake_timeout",
            "hostname_checks_common_name",
            "keylog_filename",
            "maximum_version",
            "minimum_version",
            "options",
            "plain_http_answer",
            "post_handshake_auth",
            "session_id_context",
            "session_lifetime",
            "verify_flags",
            "verify_mode",
            "_msg_callback",
        )
    },
    "load_cert_chain": lambda context, pki: context.load_cert_chain(pki.cert_file, pki.key_file),
    "load_verify_locations, a file": lambda context, pki: context.load_verify_locations(pki.ca_file),
    "load_verify_locations, data": lambda context, pki: context.load_verify_locations(
        cadata=Path(pki.ca_file).read_text()
    ),
    "set_alpn_protocols": lambda context, pki: context.set_alpn_protocols(["h2", "http/1.1"]),
    "set_ciphers": lambda context, pki: context.set_ciphers("ECDHE+AESGCM"),
}


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
class TestCompiling:
    def context(self, pki, server_side, tmp_path):
        context = contexts(pki)[1 if server_side else 0]
        for name in ("load_cert_chain", "set_alpn_protocols", "set_ciphers"):
            SAME[name](context, pki)
        context.load_verify_locations(pki.ca_file)
        context.load_verify_locations(cadata=Path(pki.ca_file).read_text())
        context.keylog_filename = str(tmp_path / "keys")
        context._msg_callback = print
        if server_side:
            context.sni_callback = print
            context.alpn_callback = print
            context.num_tickets = 3
            context.session_store = greentls.open_store("memory://")
        return context

    @pytest.mark.parametrize("change", SAME.values(), ids=SAME)
    def test_what_changes_nothing_costs_nothing(self, pki, tmp_path, server_side, change):
        context = self.context(pki, server_side, tmp_path)
        before = context.compile(server_side)
        assert context.compile(server_side) is before
        change(context, pki)
        assert context.compile(server_side) is before

    @pytest.mark.parametrize(
        "change",
        [
            lambda context, pki: context.set_ciphers("ECDHE+CHACHA20"),
            lambda context, pki: context.set_alpn_protocols(["h2"]),
            lambda context, pki: setattr(context, "options", context.options | ssl.OP_NO_TICKET),
            lambda context, pki: setattr(context, "verify_flags", ssl.VERIFY_X509_STRICT),
            lambda context, pki: setattr(context, "keylog_filename", None),
            lambda context, pki: setattr(context, "session_lifetime", 1),
            lambda context, pki: context.load_cert_chain(*pki.issue("another")),
            lambda context, pki: context.set_ecdh_curve("secp384r1"),
        ],
    )
    def test_what_changes_something_is_compiled_once_more(self, pki, tmp_path, server_side, change):
        context = self.context(pki, server_side, tmp_path)
        before = context.compile(server_side)
        change(context, pki)
        after = context.compile(server_side)
        assert after is not before
        assert context.compile(server_side) is after


@pytest.mark.parametrize("name", ["sni_callback", "num_tickets", "session_store"])
def test_nor_does_what_is_a_servers(pki, name):
    _, context = contexts(pki)
    context.sni_callback = print
    context.num_tickets = 3
    context.session_store = greentls.open_store("memory://")
    before = context.compile(True)
    set_again(context, name)
    assert context.compile(True) is before


@both_versions
def test_a_pool_that_sets_everything_before_each_connection_resumes_all_the_same(pki, version):
    """As urllib3 does."""
    client, server = contexts(pki, version)
    session, reused = None, []
    for _ in range(3):
        for context in (client, server):
            context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST
            set_again(context, "verify_mode")
            context.set_alpn_protocols(["http/1.1"])
        client.load_verify_locations(pki.ca_file)
        server.load_cert_chain(pki.cert_file, pki.key_file)
        with connected(client, server, session=session) as (here, _):
            reused.append(here.session_reused)
            session = here.session
    assert reused == [False, True, True]


@both_versions
class TestSessionsOfAnotherContext:
    """The standard library refuses them all; here a session may go to a context whose settings fit."""

    def session(self, client, server, **options):
        with connected(client, server, **options) as (here, _):
            return here.session

    def test_one_of_the_same_settings_resumes(self, pki, version):
        client, server = contexts(pki, version)
        session = self.session(client, server)
        with connected(contexts(pki, version)[0], server, session=session) as (here, _):
            assert here.session_reused

    def test_nobody_gets_round_verification_by_a_session_that_was_made_without(self, pki, version, tmp_path):
        strict, _ = contexts(pki, version)
        _, server = contexts(Pki(tmp_path), version)
        loose = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        loose.check_hostname = False
        loose.verify_mode = ssl.CERT_NONE
        assert isinstance(failure(strict, server)[0], ssl.SSLCertVerificationError)
        refused, _ = failure(strict, server, session=self.session(loose, server))
        assert isinstance(refused, ssl.SSLError | ValueError)
