"""What a connection, its context and greentls.events tell about a handshake."""

from __future__ import annotations

import socket
import ssl

import pytest

import greentls.events
from greentls.log_limit import LogLimit
from greentls.stores.memory import MemoryStore
from greentls.stores.sealed import SealedStore
from tests.support.helpers import PATIENCE
from tests.support.ssl_pairs import both_versions, connected, contexts, failure, pair


def named(events, name):
    return [event for event in events if event["event"] == name]


@both_versions
class TestResumption:
    def twice(self, pki, version, store, told=None):
        """The ends' resumption: of a first connection, and of one that offers its session."""
        client, server = contexts(pki, version)
        server.session_store = store
        with connected(client, server) as (here, there):
            session = here.session
            first = here.resumption, there.resumption
        assert server.drain_sessions(PATIENCE)
        with connected(client, server, session=session) as (here, there):
            return server, first, (here.resumption, there.resumption)

    def test_with_a_store(self, pki, version):
        server, first, second = self.twice(pki, version, MemoryStore())
        assert first == ("full", "full")
        assert second == (("session_id", "session_id") if version == "1.2" else ("ticket", "stateful"))
        assert server.counters == {"full": 1, second[1]: 1, "lookup hit": 1}

    def test_by_ticket(self, pki, version):
        server, first, second = self.twice(pki, version, None)
        assert (first, second) == (("full", "full"), ("ticket", "ticket"))
        assert server.counters == {"full": 1, "ticket": 1}

    def test_a_miss_and_one_that_does_not_open(self, pki, version):
        client, server = contexts(pki, version)
        store = SealedStore(MemoryStore(), [bytes(range(32))])
        server.session_store = store
        for secrets, outcome in ([[bytes(range(1, 33))], "unsealable"], [None, "miss"]):
            with connected(client, server) as (here, _):
                session = here.session
            assert server.drain_sessions(PATIENCE)
            store.store.close() if secrets is None else store.rotate(secrets)
            with connected(client, server, session=session) as (_, there):
                assert (there.resumption, there.session_lookup.outcome) == ("full", outcome)
            assert server.counters[f"lookup {outcome}"] == 1

    def test_over_memory_bios(self, pki, version, told):
        _, server = pair(pki, version)
        assert server.tls._sslobj.resumption == "full"
        assert [event["side"] for event in named(told, "handshake")].count("server") == 1
        assert len(named(told, "handshake")) == 2


def test_by_an_external_key(pki):
    client, server = contexts(pki, "1.2")
    for context in (client, server):
        context.set_ciphers("PSK")
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_psk_client_callback(lambda hint: ("me", b"key" * 10))
    server.set_psk_server_callback(lambda identity: b"key" * 10)
    with connected(client, server) as (here, there):
        assert (here.resumption, there.resumption) == ("psk", "psk")


@both_versions
class TestEvents:
    def test_a_handshake_tells_all_there_is(self, pki, version, told):
        client, server = contexts(pki, version)
        client.set_alpn_protocols(["h2"])
        server.session_store = MemoryStore()
        server.alpn_callback = lambda sock, offered: "h2"
        server.sni_callback = lambda sock, name, context: None
        with connected(client, server) as (here, there):
            session = here.session
            assert set(there.hook_seconds) == {"alpn_callback", "sni_callback"}
        assert server.drain_sessions(PATIENCE)
        told.clear()
        with connected(client, server, session=session):
            pass
        by_side = {event["side"]: event for event in named(told, "handshake")}
        assert set(by_side) == {"client", "server"}
        event = by_side["server"]
        assert set(event) == {"event", *greentls.events.EVENTS["handshake"]}
        assert event["error"] is None
        assert event["version"] == f"TLSv{version}"
        assert (event["server_name"], event["alpn"]) == ("localhost", "h2")
        assert event["resumption"] == ("session_id" if version == "1.2" else "stateful")
        assert event["lookup"]["outcome"] == "hit"
        assert all(0 <= seconds <= event["seconds"] for seconds in event["hooks"].values())
        (get,) = [event for event in named(told, "session_store") if event["operation"] == "get"]
        assert (get["store"], get["outcome"], get["error"]) == ("memory", "hit", None)
        assert set(get) == {"event", *greentls.events.EVENTS["session_store"]}

    def test_a_failure_is_told_once_with_its_exception(self, pki, version, told):
        client, server = contexts(pki, version)
        expected = ValueError("from the hook")

        def raise_it(*_):
            raise expected

        server.sni_callback = raise_it
        failure(client, server)
        (event,) = [event for event in named(told, "handshake") if event["side"] == "server"]
        assert event["error"] is expected
        assert event["resumption"] is None
        assert server.counters == {"failed": 1}

    def test_a_handler_that_raises_is_logged_and_changes_nothing(self, pki, version, monkeypatch, caplog):
        monkeypatch.setattr(greentls.events, "handler", lambda event: 1 / 0)
        monkeypatch.setattr(greentls.events, "_trouble", LogLimit())
        with connected(*contexts(pki, version)):
            pass
        assert len(caplog.records) == 1
        assert "ZeroDivisionError" in caplog.text

    def test_want_read_is_no_end(self, pki, version, told):
        client, server = contexts(pki, version)
        here, there = socket.socketpair()
        here.setblocking(False)
        with client.wrap_socket(here, server_hostname="localhost", do_handshake_on_connect=False) as wrapped, there:
            for _ in range(3):
                with pytest.raises(ssl.SSLWantReadError):
                    wrapped.do_handshake()
            assert named(told, "handshake") == []
            assert client.counters == server.counters == {}


def test_what_a_store_does_is_told(pki, told):
    class Broken(MemoryStore):
        def put(self, *_):
            raise OSError("full")

    client, server = contexts(pki)
    server.session_store = Broken()
    with connected(client, server):
        assert server.drain_sessions(PATIENCE)
    outcomes = [(event["operation"], event["outcome"], str(event["error"])) for event in named(told, "session_store")]
    assert outcomes == [("put", "error", "full")] * 2


def test_prometheus_counts_them(pki, monkeypatch):
    from prometheus_client import CollectorRegistry

    from greentls.prometheus import Metrics

    registry = CollectorRegistry()
    monkeypatch.setattr(greentls.events, "handler", Metrics(registry))
    client, server = contexts(pki)
    server.session_store = MemoryStore()
    server.sni_callback = lambda *_: None
    with connected(client, server):
        assert server.drain_sessions(PATIENCE)
    server.sni_callback = lambda *_: 1 / 0
    failure(client, server)
    labels = {"side": "server", "version": "TLSv1.3", "resumption": "full"}
    assert registry.get_sample_value("greentls_handshakes_total", labels) == 1
    labels = {"side": "server", "error": "ZeroDivisionError"}
    assert registry.get_sample_value("greentls_handshake_failures_total", labels) == 1
    assert registry.get_sample_value("greentls_handshake_seconds_count", {"side": "server"}) == 2
    assert registry.get_sample_value("greentls_hook_seconds_count", {"hook": "sni_callback"}) == 2
    labels = {"store": "memory", "operation": "put", "outcome": "done"}
    assert registry.get_sample_value("greentls_session_store_seconds_count", labels) == 2
    Metrics(CollectorRegistry())({"event": "something of tomorrow"})


def test_prometheus_counts_ocsp_fetches_and_ticket_keys(monkeypatch):
    from prometheus_client import CollectorRegistry

    from greentls.prometheus import Metrics

    registry = CollectorRegistry()
    monkeypatch.setattr(greentls.events, "handler", Metrics(registry))
    for status, error in (("good", None), ("revoked", None), (None, OSError("down"))):
        facts = {"names": ("localhost",), "status": status, "seconds": 0.5, "next_refresh": 1e9, "error": error}
        greentls.events.emit("ocsp_fetch", side="server", **facts)
    for outcome in ("good", "revoked", "error"):
        labels = {"side": "server", "outcome": outcome}
        assert registry.get_sample_value("greentls_ocsp_fetch_seconds_count", labels) == 1
        assert registry.get_sample_value("greentls_ocsp_fetch_seconds_sum", labels) == 0.5
    for added, error in ((("a",), None), ((), "OSError: down"), ((), "OSError: down")):
        greentls.events.emit("ticket_keys", source="memcached", added=added, removed=(), error=error)
    for outcome, count in (("changed", 1), ("error", 2)):
        labels = {"source": "memcached", "outcome": outcome}
        assert registry.get_sample_value("greentls_ticket_key_refreshes_total", labels) == count
