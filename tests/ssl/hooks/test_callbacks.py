"""The context's other callbacks and what a handshake may ask later: key log, messages, pre-shared keys, PHA."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ssl
import stat

import gevent
import gevent.socket
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from gevent.event import Event

import greentls.ssl
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import (
    both_versions,
    connected,
    contexts,
    failure,
    handshake,
    handshakes,
    pair,
    sides,
    talk,
)

CIPHER = "ECDHE-ECDSA-AES256-GCM-SHA384"  # and TLS 1.3's first has SHA-384 too
LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266


def exported_1_2(master, client_random, server_random):
    """RFC 5705 4, with a context of no bytes, by the PRF of RFC 5246 5."""
    seed = LABEL + client_random + server_random + bytes(2)
    a = hmac.digest(master, seed, "sha384")
    return hmac.digest(master, a + seed, "sha384")[:32]


def exported_1_3(exporter_secret):
    """RFC 8446 7.5."""

    def expand(secret, label, context, length):
        info = length.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + bytes([len(context)]) + context
        return HKDFExpand(hashes.SHA384(), length, info).derive(secret)

    nothing = hashlib.sha384().digest()
    return expand(expand(exporter_secret, LABEL, nothing, 48), b"exporter", nothing, 32)


class TestKeyLog:
    LINES = {  # noqa: RUF012
        "1.2": {"CLIENT_RANDOM"},
        "1.3": {
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            "SERVER_TRAFFIC_SECRET_0",
            "EXPORTER_SECRET",
        },
    }

    def read(self, path):
        """{label: (client's random, secret)}"""
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        return {label: (bytes.fromhex(r), bytes.fromhex(secret)) for label, r, secret in map(str.split, lines)}

    @both_versions
    def test_the_secrets_are_those_of_the_connection(self, pki, tmp_path, version):
        client, server = contexts(pki, version)
        randoms = {}

        def look(connection, direction, version, content_type, message_type, data):
            if content_type == ssl._TLSContentType.HANDSHAKE and message_type in (1, 2):
                randoms[direction] = data[6:38]

        client._msg_callback = look
        client.set_ciphers(CIPHER)
        logs = []
        for side, context in (("client", client), ("server", server)):
            logs.append(tmp_path / side)
            context.keylog_filename = str(logs[-1])
            assert context.keylog_filename == str(logs[-1])
        with connected(client, server) as (here, _):
            binding = here.get_channel_binding("tls-exporter")
        ours, theirs = map(self.read, logs)
        assert ours == theirs
        assert set(ours) == self.LINES[version]
        assert {random for random, _ in ours.values()} == {randoms["write"]}
        if version == "1.2":
            assert exported_1_2(ours["CLIENT_RANDOM"][1], randoms["write"], randoms["read"]) == binding
        else:
            assert exported_1_3(ours["EXPORTER_SECRET"][1]) == binding

    def test_lines_are_appended_to_what_others_have_written(self, pki, tmp_path):
        path = tmp_path / "keys"
        path.write_text("# of somebody else\n")
        client, server = contexts(pki)
        client.keylog_filename = str(path)
        for _ in range(2):
            with connected(client, server):
                pass
        assert path.read_text().startswith("# of somebody else\n")
        assert path.read_text().count("CLIENT_TRAFFIC_SECRET_0 ") == 2

    def test_it_may_be_turned_off_again(self, pki, tmp_path):
        path = tmp_path / "keys"
        client, server = contexts(pki)
        client.keylog_filename = str(path)
        client.keylog_filename = None
        with connected(client, server):
            pass
        assert "SECRET" not in path.read_text()

    def test_a_file_that_cannot_be_written_is_refused_at_once(self, pki, tmp_path):
        client, _ = contexts(pki)
        with pytest.raises(OSError):
            client.keylog_filename = str(tmp_path / "no such directory" / "keys")
        with pytest.raises(TypeError):
            client.keylog_filename = 42
        assert client.keylog_filename is None

    @both_versions
    def test_one_that_cannot_be_written_later_ends_the_handshake(self, pki, tmp_path, version):
        client, server = contexts(pki, version)
        path = tmp_path / "keys"
        client.keylog_filename = str(path)
        path.unlink()
        path.mkdir()
        refused, _ = failure(client, server)
        assert isinstance(refused, IsADirectoryError)

    def test_a_new_file_is_the_owners(self, pki, tmp_path):
        path = tmp_path / "keys"
        client, server = contexts(pki)
        client.keylog_filename = str(path)
        path.unlink()
        with connected(client, server):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_create_default_context_takes_it_from_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
        assert greentls.ssl.create_default_context().keylog_filename == str(tmp_path / "keys")


@both_versions
@pytest.mark.parametrize("side", ["client", "server"])
class TestKeyLogCallback:
    def test_it_gets_what_the_file_gets(self, pki, tmp_path, version, side):
        ends = contexts(pki, version)
        ours = ends[side == "server"]
        seen = []
        ours.keylog_callback = lambda sock, line: seen.append((sock, line))
        ours.keylog_filename = str(tmp_path / "keys")
        with connected(*ends) as socks:
            written = [line for line in (tmp_path / "keys").read_bytes().splitlines() if line[:1] not in (b"", b"#")]
            assert {line.split()[0].decode() for line in written} == TestKeyLog.LINES[version]
            assert seen == [(socks[side == "server"], line) for line in written]

    def test_it_needs_no_file_and_may_wait(self, pki, version, side):
        ends = contexts(pki, version)
        inside, go_on = Event(), Event()

        def keep(sock, line):
            inside.set()
            assert go_on.wait(PATIENCE)

        ends[side == "server"].keylog_callback = keep
        running = gevent.spawn(handshakes, *ends)
        assert inside.wait(PATIENCE)
        with connected(*contexts(pki, version)):
            pass
        assert not running.ready()
        go_on.set()
        with contextlib.ExitStack() as stack:
            here, there = map(stack.enter_context, running.get(timeout=PATIENCE))
            talk(here, there)

    @pytest.mark.parametrize("how", ["exception", "deadline"])
    def test_what_it_raises_ends_the_handshake(self, pki, version, side, how):
        """hazard: OpenSSL's callback returns nothing, so OpenSSL goes on whatever happens in it."""
        broken = LookupError("of the callback")

        def fail(sock, line):
            if how == "exception":
                raise broken
            Event().wait()

        ends = contexts(pki, version)
        ends[side == "server"].keylog_callback = fail
        ends[side == "server"].callback_timeout = 0.05
        raised = failure(*ends)[side == "server"]
        if how == "exception":
            assert raised is broken
        else:
            assert isinstance(raised, TimeoutError) and "keylog_callback" in str(raised)

    def test_it_is_callable_or_none(self, pki, version, side):
        context = contexts(pki, version)[side == "server"]
        with pytest.raises(TypeError, match="must be callable"):
            context.keylog_callback = "a string"
        context.keylog_callback = print
        compiled = context.compile(side == "server")
        context.keylog_callback = print
        assert context.compile(side == "server") is compiled
        context.keylog_callback = None
        assert context.keylog_callback is None


class TestExportedKeyingMaterial:
    """RFC 5705, RFC 8446 7.5."""

    @both_versions
    def test_both_ends_have_the_same_and_nothing_else_has(self, pki, version):
        with connected(*contexts(pki, version)) as (here, there), connected(*contexts(pki, version)) as (other, _):
            made = []
            for arguments in (("EXPERIMENTAL one", 32), ("EXPERIMENTAL two", 32), ("EXPERIMENTAL one", 32, b"context")):
                made.append(here.export_keying_material(*arguments))
                assert there.export_keying_material(*arguments) == made[-1]
                assert other.export_keying_material(*arguments) != made[-1]
            assert len(set(made)) == 3
            assert {len(each) for each in made} == {32}
            assert here.export_keying_material(b"EXPERIMENTAL one", 32) == made[0]
            assert len(here.export_keying_material("EXPERIMENTAL one", 1000)) == 1000

    @both_versions
    def test_an_empty_context_is_none_only_under_tls_1_3(self, pki, version):
        with connected(*contexts(pki, version)) as (here, _):
            none, empty = (here.export_keying_material("EXPERIMENTAL", 32, context) for context in (None, b""))
            assert (none == empty) is (version == "1.3")

    @both_versions
    def test_the_channel_binding_is_one_of_them(self, pki, version):
        with connected(*contexts(pki, version)) as (here, there):
            assert here.get_channel_binding("tls-exporter") == there.export_keying_material(LABEL, 32, b"")

    def test_what_cannot_be_had(self, pki):
        client, server = contexts(pki, "1.2")
        with connected(client, server) as (here, _):
            for label, length in (("master secret", 32), ("EXPERIMENTAL", 0), ("EXPERIMENTAL", -1)):
                with pytest.raises(ValueError):
                    here.export_keying_material(label, length)
            assert len(here.export_keying_material("EXPERIMENTAL", 1)) == 1  # no error is left behind
        with connected(*contexts(pki, "1.3")) as (here, _):
            with pytest.raises(ValueError):
                here.export_keying_material("EXPERIMENTAL", 255 * 48 + 1)  # HKDF-Expand, RFC 5869 2.3
            with pytest.raises(UnicodeEncodeError):
                here.export_keying_material("é", 32)

    def test_there_is_none_before_the_handshake(self, pki):
        client, _ = contexts(pki)
        here, there = gevent.socket.socketpair()
        sock = client.wrap_socket(here, server_hostname="localhost", do_handshake_on_connect=False)
        with there, sock, pytest.raises(ValueError, match="handshake not done yet"):
            sock.export_keying_material("EXPERIMENTAL", 32)


@both_versions
class TestMessages:
    def test_it_sees_each_handshake_message_with_the_standard_librarys_enums(self, pki, version):
        client, server = contexts(pki, version)
        seen = []

        def look(connection, direction, version, content_type, message_type, data):
            if content_type == ssl._TLSContentType.HANDSHAKE:
                assert data[0] == message_type
                assert len(data) == 4 + int.from_bytes(data[1:4], "big")
                seen.append((connection, direction, version, message_type))

        client._msg_callback = look
        assert client._msg_callback is look
        with connected(client, server) as (here, _):
            messages = [(direction, message.name) for _, direction, _, message in seen]
            assert messages[:2] == [("write", "CLIENT_HELLO"), ("read", "SERVER_HELLO")]
            assert ("read", "CERTIFICATE") in messages
            assert {("read", "FINISHED"), ("write", "FINISHED")} <= set(messages)
            assert {connection for connection, *_ in seen} == {here}
            assert seen[-1][2] is ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]

    def test_it_gets_an_ssl_object_too(self, pki, version):
        client, server = contexts(pki, version)
        seen = set()
        server._msg_callback = lambda connection, *_: seen.add(connection)
        ends = sides(client, server)
        handshake(*ends)
        assert seen == {ends[1].tls}

    def test_an_alert_is_one_of_its_messages(self, pki, version):
        _, server = contexts(pki, version)
        distrust = greentls.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        alerts = []

        def look(connection, direction, version, content_type, message_type, data):
            if content_type == ssl._TLSContentType.ALERT:
                alerts.append((direction, message_type))

        distrust._msg_callback = look
        failure(distrust, server)
        assert alerts == [("write", ssl._TLSAlertType.UNKNOWN_CA)]

    def test_what_it_raises_comes_out_as_itself(self, pki, version):
        def look(*_):
            raise broken

        broken = LookupError("of the callback")
        client, server = contexts(pki, version)
        server._msg_callback = look
        assert failure(client, server)[1] is broken


def test_a_message_callback_is_callable_or_none(pki):
    client, _ = contexts(pki)
    with pytest.raises(TypeError, match="not callable"):
        client._msg_callback = "a string"
    client._msg_callback = print
    client._msg_callback = None
    assert client._msg_callback is None


class TestPreSharedKeys:
    KEY = b"sixteen bytes of"

    def contexts(self, version):
        client, server = (greentls.ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER))
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        for context in (client, server):
            context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]
            context.set_ciphers("PSK")
        return client, server

    @both_versions
    def test_both_know_the_key_and_need_no_certificate(self, version):
        client, server = self.contexts(version)
        hints, identities = [], []

        def choose(hint):
            hints.append(hint)
            return "client of the tést", self.KEY

        def find(identity):
            identities.append(identity)
            return self.KEY

        client.set_psk_client_callback(choose)
        server.set_psk_server_callback(find, "a hint")
        with connected(client, server) as (here, there):
            assert here.getpeercert() is there.getpeercert() is None
            assert here.version() == f"TLSv{version}"
        assert hints[0] == {"1.2": "a hint", "1.3": None}[version]
        assert set(identities) == {"client of the tést"}

    @both_versions
    @pytest.mark.parametrize("key", [b"another key of 16", b""], ids=["another", "unknown"])
    def test_without_the_same_key_there_is_no_connection(self, version, key):
        client, server = self.contexts(version)
        client.set_psk_client_callback(lambda hint: ("client", self.KEY))
        server.set_psk_server_callback(lambda identity: key)
        assert all(isinstance(each, ssl.SSLError) for each in failure(client, server))

    @both_versions
    @pytest.mark.parametrize("side", ["client", "server"])
    def test_what_a_callback_raises_comes_out_as_itself(self, version, side):
        def fail(_):
            raise broken

        broken = LookupError("no such key")
        client, server = self.contexts(version)
        client.set_psk_client_callback(fail if side == "client" else lambda hint: ("client", self.KEY))
        server.set_psk_server_callback(fail if side == "server" else lambda identity: self.KEY)
        assert failure(client, server)[["client", "server"].index(side)] is broken

    @both_versions
    @pytest.mark.parametrize(
        ("answer", "error"),
        [((None, bytes(10_000)), ValueError), (("x" * 10_000, b"key"), ValueError), (42, TypeError)],
    )
    def test_an_answer_that_does_not_fit_is_refused(self, version, answer, error):
        client, server = self.contexts(version)
        client.set_psk_client_callback(lambda hint: answer)
        server.set_psk_server_callback(lambda identity: self.KEY)
        assert isinstance(failure(client, server)[0], error)

    def test_each_side_has_its_own_and_it_is_callable(self):
        client, server = self.contexts("1.2")
        with pytest.raises(ssl.SSLError, match="Cannot add PSK client callback"):
            server.set_psk_client_callback(lambda hint: (None, b""))
        with pytest.raises(ssl.SSLError, match="Cannot add PSK server callback"):
            client.set_psk_server_callback(lambda identity: b"")
        with pytest.raises(TypeError):
            client.set_psk_client_callback("a string")
        client.set_psk_client_callback(None)
        server.set_psk_server_callback(None)


class TestPostHandshakeAuthentication:
    """RFC 8446 4.6.2: the server asks for the client's certificate when the first request tells that it is needed."""

    def contexts(self, pki, offers=True, certificate=True):
        client, server = contexts(pki)
        client.post_handshake_auth = offers
        if certificate:
            client.load_cert_chain(*pki.client)
        server.post_handshake_auth = True
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_verify_locations(pki.ca_file)
        return client, server

    def test_the_certificate_comes_when_it_is_asked_for(self, pki):
        with connected(*self.contexts(pki)) as (here, there):
            assert there.getpeercert() is None
            there.verify_client_post_handshake()
            for source, target in ((there, here), (here, there)):  # the request, the answer
                source.sendall(b"data")
                assert target.recv(100) == b"data"
            assert there.getpeercert()["subject"] == ((("commonName", "a client"),),)
            talk(here, there)

    def test_over_memory_bios(self, pki):
        here, there = sides(*self.contexts(pki))
        handshake(here, there)
        assert there.tls.getpeercert() is None
        there.tls.verify_client_post_handshake()
        for source, target in ((there, here), (here, there)):
            source.tls.write(b"data")
            target.incoming.write(source.outgoing.read())
            assert target.tls.read() == b"data"
        assert there.tls.getpeercert()["subject"] == ((("commonName", "a client"),),)

    def test_a_client_without_one_is_refused(self, pki):
        with connected(*self.contexts(pki, certificate=False)) as (here, there):
            there.verify_client_post_handshake()
            there.sendall(b"data")
            here.recv(100)
            with pytest.raises(ssl.SSLError, match=r"(?i)peer.did.not.return.a.certificate"):
                there.recv(100)
            with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
                here.recv(100)

    def test_unless_it_is_optional(self, pki):
        client, server = self.contexts(pki, certificate=False)
        server.verify_mode = ssl.CERT_OPTIONAL
        with connected(client, server) as (here, there):
            there.verify_client_post_handshake()
            talk(there, here)
            assert there.getpeercert() is None

    def test_a_client_that_did_not_offer_it_is_not_asked(self, pki):
        client, server = self.contexts(pki, offers=False)
        expected = pytest.raises(ssl.SSLError, match=r"(?i)extension.not.received")
        with connected(client, server) as (_, there), expected:
            there.verify_client_post_handshake()

    def test_a_client_asks_nobody(self, pki):
        client, server = self.contexts(pki)
        with connected(client, server) as (here, _), pytest.raises(ssl.SSLError, match=r"(?i)not.server"):
            here.verify_client_post_handshake()

    def test_tls_1_2_has_no_such_thing(self, pki):
        _, server = pair(pki, "1.2")
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.ssl.version"):
            server.tls.verify_client_post_handshake()
