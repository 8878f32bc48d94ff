"""No secret in clear: not in a repr, which logs and error trackers print, and not in an exception's text."""

from __future__ import annotations

import base64
import functools
import os
import ssl
import traceback

import pytest
from cryptography.hazmat.primitives import serialization

from greentls import SSLContext
from greentls.certificates import Callback, CertificateChain
from greentls.core.hooks import Hooks
from greentls.errors import ConfigurationError
from greentls.sessions.client import ClientSessions
from greentls.sessions.server import SessionCache
from greentls.ssl.hooks.callbacks import PSKClient, PSKServer, TicketKeyChoice
from greentls.stores import open_store
from greentls.stores.memory import MemoryStore
from greentls.stores.sealed import SealedStore
from greentls.tickets import TicketKey, TicketKeys, _Agreed
from tests.support.session_der import master_secret
from tests.support.ssl_pairs import connected, contexts, failure

SECRET = os.urandom(32)


def forms(secret):
    """What a secret of bytes looks like in a text."""
    return {str(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode().rstrip("=")}


def assert_not_in(text, secret=SECRET):
    for form in forms(secret):
        assert form not in text


def psk(_, key=SECRET):
    return key


def test_the_forms_are_found():
    for text in (f"{SECRET!r}", f"{[SECRET]}", SECRET.hex(), f"{functools.partial(psk, key=SECRET)!r}"):
        with pytest.raises(AssertionError):
            assert_not_in(text)


@pytest.fixture
def ticket_key():
    return TicketKey(SECRET[:16], SECRET, SECRET)


class TestReprs:
    def test_of_keys(self, ticket_key, tmp_path):
        ticket_key = TicketKey(os.urandom(16), SECRET, SECRET)
        path = tmp_path / "ticket.key"
        path.write_bytes(ticket_key.name + SECRET + SECRET)
        path.chmod(0o600)
        shared = TicketKeys.shared(MemoryStore())
        shared._held = (_Agreed(0, 1, ticket_key),)
        for each in (
            ticket_key,
            (ticket_key, True),
            TicketKeys.static([ticket_key]),
            TicketKeys.file(path),
            shared,
            shared._held,
            TicketKeyChoice(TicketKeys.static([ticket_key]), 1),
            Hooks(ticket_key=TicketKeyChoice(TicketKeys.static([ticket_key]), 1)),
        ):
            assert_not_in(f"{each!r} {each}")

    def test_of_stores(self, tmp_path):
        memory = MemoryStore()
        memory.put(b"id", SECRET, 60)
        memory.add("name", SECRET, 60)
        path = tmp_path / "fleet.key"
        path.write_bytes(SECRET)
        path.chmod(0o600)
        opened = open_store(f"memcached://127.0.0.1?secret_file={path}")
        for each in (memory, SealedStore(memory, [SECRET]), opened, opened.store, SessionCache(memory)):
            assert_not_in(f"{each!r} {each}")

    def test_of_what_answers_for_keys(self):
        partial = functools.partial(psk, key=SECRET)
        context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_psk_server_callback(partial)
        for each in (PSKClient(partial, 1), PSKServer(partial, 1), Hooks(psk_server=PSKServer(partial, 1)), context):
            assert_not_in(f"{each!r} {each}")
        assert_not_in(f"{context.compile(True)!r}")

    def test_of_sessions_certificates_and_their_connections(self, pki):
        chain = CertificateChain.load(pki.cert_file, pki.key_file)
        number = chain.key.private_numbers().private_value
        client, server = contexts(pki, "1.2")
        client.client_sessions = ClientSessions()
        server.session_store = MemoryStore()
        with connected(client, server) as (here, there):
            session = here._connection.session
            blob = session.to_bytes()
            some = session, here.session, client.client_sessions, chain, client, server, here, there
            texts = [f"{each!r} {each}" for each in some]
            texts += [f"{each.compile(side)!r}" for side, each in enumerate((client, server))]
        master = master_secret(blob)
        for text in texts:
            assert str(number) not in text
            assert_not_in(text, number.to_bytes(32, "big"))
            assert_not_in(text, master)


class TestAnswersOfAWrongKind:
    """What a callback answers by mistake is often what it has at hand: a key."""

    KEY = "-----BEGIN PRIVATE KEY-----\n" + SECRET.hex() + "\n-----END PRIVATE KEY-----\n"

    # alpn_callback is not among them: what it answers crosses the network in clear.
    @pytest.mark.parametrize(
        "hook", ["sni_callback", "client_hello_callback", "verify_callback", "ocsp_callback", "certificates"]
    )
    @pytest.mark.parametrize("answer", [KEY, SECRET, (KEY,), {"key": SECRET}], ids=["text", "bytes", "tuple", "dict"])
    def test_is_not_shown(self, pki, hook, answer, caplog, capfd):
        client, server = contexts(pki)
        client.ocsp = "check"

        def wrong(*_, **__):
            return answer

        if hook == "verify_callback":
            client.verify_callback = wrong
        else:
            setattr(server, hook, Callback(wrong) if hook == "certificates" else wrong)
        errors = failure(client, server)
        assert hook == "ocsp_callback" or any(isinstance(each, Exception) for each in errors)
        texts = [
            str(each) + repr(each) + "".join(traceback.format_exception(each))
            for each in errors
            if isinstance(each, Exception)
        ]
        assert SECRET.hex() not in caplog.text + capfd.readouterr().err + "".join(texts)
        assert_not_in(caplog.text + "".join(texts))

    def test_nor_where_keys_are_given_for_something_else(self):
        with pytest.raises(TypeError, match="a list is not a TicketKeys") as caught:
            SSLContext(ssl.PROTOCOL_TLS_SERVER).ticket_keys = [SECRET]
        assert_not_in(str(caught.value))
        with pytest.raises(ConfigurationError, match="has no shared values") as refused:
            TicketKeys.shared({"store": SECRET})
        assert_not_in(str(refused.value))

    def test_nor_a_certificates_callbacks_pair_of_a_certificate_and_a_key(self, pki, caplog):
        chain = CertificateChain.load(pki.cert_file, pki.key_file)
        pem = chain.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        for answer in ((pem,), (chain, pem), [pem, pem, pem], pem):
            source = Callback(lambda _, answer=answer: answer)
            with pytest.raises(TypeError, match="neither None") as caught:
                source.get("a.example")
            assert pem.splitlines()[1] not in caplog.text + str(caught.value) + repr(caught.value.args)


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "redis://:hunter2@host/0",
            "redis://user:hunter2@host?x",
            "redis://user:hunt?er2hunter2@host",
            "redis:user:hunter2@host",
            "memory://user:hunter2@?entries=1",
            "memcached://user:hunter2@host:11211?insecure=1",
            "memcached://user:hunter2@host?insecure=1&nonsense=1",
            "memcached://host?secret=hunter2",
            "memcached://host?password=hunter2&insecure=1",
            "memcached://host?hunter2",
        ],
    )
    def test_a_password_in_one_is_not_shown(self, url):
        with pytest.raises(ConfigurationError) as caught:
            open_store(url)
        assert "hunter2" not in str(caught.value) + repr(caught.value.args)
        assert url.partition(":")[0] in str(caught.value)
