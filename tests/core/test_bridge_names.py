"""The server name: asked about before OpenSSL looks for a session, and what sessions are bound to."""

from __future__ import annotations

import gevent
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from gevent.event import Event

from greentls.core import callbacks
from greentls.core.config import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.errors import TLSError, UnsupportedOpenSSL
from greentls.openssl import client_hello
from greentls.sessions.server import SessionCache
from greentls.stores.memcached import MemcachedStore
from greentls.stores.memory import MemoryStore
from tests.support.helpers import PATIENCE
from tests.support.pairs import (
    VERSIONS,
    Sessions,
    attempt,
    both_versions,
    chain,
    client,
    client_context,
    handshake,
    move,
    server_context,
)

NAMES = ("a.example", "b.example")


@pytest.fixture(scope="module")
def pairs_of_names(pki):
    """{name: its certificate}, and one for both."""
    return {name: chain(*pki.issue(name)) for name in NAMES} | {"both": chain(*pki.issue(*NAMES))}


class Site:
    """A server for two names: a certificate each, or one for both. keeps: "dict", "memcached" or "tickets"."""

    def __init__(self, pki, certificates, version, keeps, switches, url=None):
        hooks, self.drain, self.close = {}, lambda: None, lambda: None
        if keeps == "dict":
            sessions = Sessions()
            hooks = {"get_session": sessions.get, "new_session": sessions.new, "remove_session": sessions.remove}
        elif keeps == "memcached":
            cache = SessionCache(MemcachedStore([url]), PATIENCE)
            hooks = {"get_session": cache.get, "store_session": cache.put, "remove_session": cache.remove}
            self.drain, self.close = lambda: cache.drain(PATIENCE), cache.close
        contexts = {name: server_context(pki, version, certificates=[certificates[name]]) for name in NAMES}
        self.names = []

        def choose(connection, name):
            assert connection.server_name == name == name.lower()
            self.names.append(name)
            if switches:
                connection.switch_config(contexts[name])

        self.server = server_context(
            pki, version, certificates=[certificates["both"]], hooks=Hooks(servername=choose, **hooks)
        )
        self.client = client_context(pki, version)

    def connect(self, name, session=None):
        here, there = client(self.client, session, name), Connection(self.server)
        handshake(here, there)
        assert there.server_name == name.lower()
        self.drain()
        return here, there


@pytest.mark.parametrize("keeps", ["dict", "memcached", "tickets"])
@pytest.mark.parametrize("switches", [True, False], ids=["a certificate each", "one certificate"])
@both_versions
def test_a_session_resumes_under_its_own_name_only(pki, pairs_of_names, memcached, version, keeps, switches):
    """hazard: OpenSSL looks for the session before the name, and RFC 6066 3 forbids what it then does (facts 3.7)."""
    site = Site(pki, pairs_of_names, version, keeps, switches, (memcached.host, memcached.port))
    first, _ = site.connect("a.example")
    assert first.session.resumable
    elsewhere, there = site.connect("b.example", first.session)
    assert not elsewhere.session_reused and not there.session_reused
    wanted = "b.example" if switches else "both"
    assert elsewhere.peer_certificates[0] == certificate(pairs_of_names[wanted])
    again, there = site.connect("a.example", first.session)
    assert again.session_reused and there.session_reused
    assert site.names == ["a.example", "b.example", "a.example"]
    site.close()


def certificate(pair):
    return pair.certificate.public_bytes(Encoding.DER)


@both_versions
def test_a_session_of_another_name_is_a_miss_before_it_is_unsealed(pki, pairs_of_names, version):
    got = []

    class Noting(MemoryStore):
        def get(self, key):
            got.append(super().get(key))
            return got[-1]

    cache = SessionCache(Noting())
    server, here = server_context(pki, version, hooks=cache.hooks), client_context(pki, version, verify_mode=0)
    first, there = client(here, name="a.example"), Connection(server)
    handshake(first, there)
    assert cache.drain(PATIENCE)
    for name, found in (("b.example", False), ("a.example", True)):
        other, there = client(here, first.session, name), Connection(server)
        handshake(other, there)
        assert (there.handshake.session_lookup.outcome == "hit") == found == other.session_reused
        assert (got[-1] is not None) == found


@both_versions
def test_names_are_the_same_whatever_their_case(pki, pairs_of_names, version):
    site = Site(pki, pairs_of_names, version, "dict", False)
    first, _ = site.connect("a.example")
    again, _ = site.connect("A.Example", first.session)
    assert again.session_reused


@both_versions
def test_a_demand_for_a_certificate_is_not_lost_by_a_switch_and_no_session_gets_round_it(pki, pairs_of_names, version):
    """hazard: SSL_set_SSL_CTX(3) keeps the first Config's verify mode, so that the second one's demand was not met,
    and a session made so would pass where the second one stands alone."""
    sessions = Sessions()
    strict = server_context(
        pki,
        version,
        certificates=[pairs_of_names["a.example"]],
        hooks=sessions.hooks(),
        trust=TrustAnchors(files=(pki.ca_file,)),
        verify_mode=VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT,
    )
    switching = sessions.hooks(servername=lambda connection, name: connection.switch_config(strict))
    lax = server_context(pki, certificates=[pairs_of_names["a.example"]], hooks=sessions.hooks())
    first, there = client(client_context(pki, version), name="a.example"), Connection(lax)
    handshake(first, there)
    assert sessions.kept
    for context in (server_context(pki, hooks=switching), strict):
        second, there = client(client_context(pki, version), first.session, "a.example"), Connection(context)
        with pytest.raises(TLSError, match="did not return a certificate"):
            handshake(second, there)
        assert not there.session_reused


def test_what_a_switch_takes_along_and_what_stays(pki, pairs_of_names):
    """SSL_set_SSL_CTX(3) does not say; docs/hooks.rst does."""
    second = server_context(
        pki,
        VERSIONS["1.2"],
        certificates=[pairs_of_names["a.example"]],
        ciphers="ECDHE-ECDSA-CHACHA20-POLY1305",
        ciphersuites="TLS_CHACHA20_POLY1305_SHA256",
        groups="P-384",
        verify_mode=VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT,
        trust=TrustAnchors(files=(pki.ca_file,)),
        hooks=Hooks(alpn=lambda connection, offered: b"second"),
    )
    hooks = Hooks(
        servername=lambda connection, name: connection.switch_config(second),
        alpn=lambda connection, offered: b"first",
    )
    ways = {}
    for version in VERSIONS.values():
        there = Connection(server_context(pki, version, hooks=hooks, groups="P-256"))
        own = chain(*pki.client)
        here = client(client_context(pki, alpn_protocols=[b"first", b"second"], certificates=[own]), name="a.example")
        handshake(here, there)
        ways[version] = there
        assert here.alpn_protocol == b"second"
        assert here.peer_certificates[0] == certificate(pairs_of_names["a.example"])
        assert there.group in ("P-256", "secp256r1", "prime256v1"), "the groups stay"
        assert there.peer_certificates[0] == certificate(own), "the stricter verify mode holds"
    assert [each.version for each in ways.values()] == ["TLSv1.2", "TLSv1.3"], "the versions stay"
    assert all("CHACHA20" in each.cipher[0] for each in ways.values()), "the ciphers are the second's"


@both_versions
def test_the_hook_waits_before_the_session_is_looked_up(pki, pairs_of_names, version):
    """hazard: a lookup under the first Config while the name's own is still being fetched."""
    sessions, asked, go_on = Sessions(), Event(), Event()

    def wait(connection, name):
        asked.set()
        go_on.wait()

    server = server_context(pki, version, hooks=sessions.hooks(servername=wait))
    here = client_context(pki, version)
    go_on.set()
    first, there = client(here), Connection(server)
    handshake(first, there)
    go_on.clear(), asked.clear(), sessions.asked.clear()
    job = gevent.spawn(handshake, second := client(here, first.session), Connection(server))
    assert asked.wait(PATIENCE)
    assert sessions.asked == []
    go_on.set()
    job.get(timeout=PATIENCE)
    assert len(sessions.asked) == 1 and second.session_reused


# -- the name as it comes from the wire --------------------------------------------------------------------------------


def hello(pki, version, name="localhost"):
    one = client(client_context(pki, version), name=name)
    attempt(one.do_handshake)
    return one, one.data_to_send()


def with_server_name(record, body):
    """The ClientHello record, its server_name extension's body replaced."""
    start = record.index(b"\x00\x00\x00\x0e\x00\x0c\x00\x00\x09localhost")
    end = start + 18
    extension = b"\x00\x00" + len(body).to_bytes(2, "big") + body
    message = bytearray(record[5:start] + extension + record[end:])
    grown = len(extension) - (end - start)
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    message[at : at + 2] = (int.from_bytes(message[at : at + 2], "big") + grown).to_bytes(2, "big")
    message[1:4] = (len(message) - 4).to_bytes(3, "big")
    return record[:3] + len(message).to_bytes(2, "big") + bytes(message)


def host_names(*names):
    entries = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name for kind, name in names)
    return len(entries).to_bytes(2, "big") + entries


MALFORMED = {
    "empty": b"",
    "no list": b"\x00",
    "an empty list": b"\x00\x00",
    "a list longer than the extension": b"\x00\xff\x00\x00\x09localhost",
    "a name longer than the list": b"\x00\x0c\x00\x00\xfflocalhost",
    "bytes behind the list": host_names((0, b"localhost")) + b"x",
    "bytes behind the name": b"\x00\x0d\x00\x00\x09localhostx",
    "a NUL": host_names((0, b"local\0ost")),
    "two names": host_names((0, b"localhost"), (0, b"localhosu")),
    "another type of name": host_names((7, b"localhost")),
    "256 bytes": host_names((0, b"x" * 256)),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
@both_versions
def test_a_malformed_server_name_is_refused_by_openssl(pki, version, body):
    """The parser advises, OpenSSL decides, and knows the alert."""
    one, record = hello(pki, version)
    names = []
    there = Connection(server_context(pki, version, hooks=Hooks(servername=lambda _, name: names.append(name))))
    there.receive_data(with_server_name(record, body))
    with pytest.raises(TLSError) as caught:
        there.do_handshake()
    assert "callback" not in str(caught.value)
    move(there, one)
    with pytest.raises(TLSError, match=r"decode error|unrecognized name|illegal parameter"):
        one.do_handshake()
    assert not there.established


@both_versions
def test_nobody_is_asked_about_a_name_that_is_too_long(pki, version):
    """hazard: a hook, and what remembers names, gets 64 KiB of a stranger's for each hello."""
    _, record = hello(pki, version)
    names = []
    there = Connection(server_context(pki, version, hooks=Hooks(servername=lambda _, name: names.append(name))))
    there.receive_data(with_server_name(record, host_names((0, b"x" * 256))))
    with pytest.raises(TLSError):
        there.do_handshake()
    assert names == []


def test_openssl_that_takes_what_the_parser_does_not_is_refused_where_a_hook_must_be_asked(pki, monkeypatch):
    """The tripwire: a name that is in force and that nobody was asked about."""
    monkeypatch.setattr(callbacks, "_server_name", lambda extension: callbacks.UNREAD)
    there = Connection(server_context(pki, hooks=Hooks(servername=lambda connection, name: None)))
    with pytest.raises(TLSError, match="RFC 6066"):
        handshake(client(client_context(pki)), there)
    assert not there.established
    there = Connection(server_context(pki))
    handshake(client(client_context(pki)), there)
    assert there.server_name == "localhost"


def test_a_client_without_a_name_is_asked_about_too(pki):
    names = []
    there = Connection(server_context(pki, hooks=Hooks(servername=lambda _, name: names.append(name))))
    here = Connection(client_context(pki), server_hostname="127.0.0.1")
    handshake(here, there)
    assert names == [None] and there.server_name is None
    assert there.session_id_context == there.config.session_id_context


def test_where_the_hello_cannot_be_read_a_servername_hook_is_refused_by_name(pki, monkeypatch):
    def unreachable(context, callback):
        raise UnsupportedOpenSSL("SSL_CTX_set_client_hello_cb", "a test", "", "none")

    monkeypatch.setattr(client_hello, "set_callback", unreachable)
    with pytest.raises(UnsupportedOpenSSL, match="SSL_CTX_set_client_hello_cb"):
        server_context(pki, hooks=Hooks(servername=lambda connection, name: None))
    there = Connection(server_context(pki))
    handshake(client(client_context(pki)), there)
    assert there.server_name == "localhost"
    assert there.session_id_context == there.config.session_id_context
