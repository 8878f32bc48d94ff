"""What a client finds to resume, what it must never find, and how much of it there is."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest
from greenlet import GreenletExit

from greentls.certificates import CertificateChain
from greentls.core.config import VERIFY_NONE, TrustAnchors
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConfigurationError, TLSError
from greentls.hub import here as hub
from greentls.sessions import client as client_sessions
from greentls.sessions import stored
from greentls.sessions.client import ClientSessions
from greentls.sessions.server import SessionCache
from greentls.stores.memory import MemoryStore
from greentls.stores.sealed import SealedStore
from greentls.tickets import TicketKey, TicketKeys
from tests.support.forks import forked
from tests.support.helpers import PATIENCE, Pki
from tests.support.hubs import Job, together, under_each_hub
from tests.support.pairs import VERSIONS, attempt, both_versions, client_context, move, server_context

ADDRESS = ("192.0.2.1", 443)


def meet(here, there):
    """A handshake, up to the client's last message: tickets come later."""
    for _ in range(10):
        attempt(here.do_handshake)
        move(here, there)
        if here.established:
            return
        attempt(there.do_handshake)
        move(there, here)
    raise AssertionError("no handshake in ten rounds")


def tickets(here, there):
    """What the server has sent behind the handshake."""
    attempt(there.do_handshake)
    move(there, here)
    attempt(here.read)


class Party:
    """Clients with one ClientSessions, and a server; every client has a Config of its own."""

    def __init__(self, pki, version, sessions=None, **settings):
        self.pki, self.version = pki, version
        self.sessions = sessions or ClientSessions()
        self.server_context = server_context(pki, version, **settings)

    def client(self, name="localhost", verify_hostname=True, session=None, hooks=None, **settings):
        hooks = Hooks(new_session=self.sessions.collect, **(hooks or {}))
        context = client_context(self.pki, self.version, hooks=hooks, **settings)
        return Connection(context, server_hostname=name, verify_hostname=verify_hostname, session=session)

    @contextmanager
    def offering(self, address=ADDRESS, timeout=PATIENCE, **settings):
        """(client, server) with the client's session on its way, before the handshake."""
        here, there = self.client(**settings), Connection(self.server_context)
        with self.sessions.resuming(here, address, timeout):
            yield here, there

    def connect(self, address=ADDRESS, **settings):
        """(client, server) after their handshake; the tickets have come."""
        with self.offering(address, **settings) as (here, there):
            meet(here, there)
        tickets(here, there)
        return here, there

    def resumes(self, *arguments, **settings):
        return self.connect(*arguments, **settings)[0].session_reused


@both_versions
class TestEither:
    def test_another_context_of_equal_settings_resumes(self, pki, version):
        party = Party(pki, version)
        assert [party.resumes() for _ in range(5)] == [False, True, True, True, True]

    @pytest.mark.parametrize(
        "other",
        [
            {"address": ("192.0.2.1", 444)},
            {"address": None},
            {"name": "127.0.0.1"},
            {"name": None, "verify_hostname": False},
            {"verify_hostname": False},
            {"trust": "more"},
            {"verify_mode": VERIFY_NONE},
            {"verify_flags": 0x20},
            {"alpn_protocols": (b"h2",)},
            {"ciphers": "ECDHE+AESGCM"},
            {"certificates": "a client's"},
            {"hooks": {"verify": lambda *_: None}},
            {"hooks": {"ocsp": lambda connection, _: connection.handshake.vouch(2**32)}},
        ],
        ids=lambda other: next(iter(other.get("hooks", other))),
    )
    def test_what_would_be_asked_anew_is_no_part_of_it(self, pki, version, other, tmp_path):
        """hazard: a session that was verified under other anchors, or for another name, is taken for verified."""
        party = Party(pki, version)
        if "trust" in other:
            other = {"trust": TrustAnchors(files=(pki.ca_file, Pki(tmp_path).ca_file))}
        if "certificates" in other:
            other = {"certificates": [CertificateChain.load(*pki.client)]}
        party.connect()
        assert not party.resumes(**other)
        assert party.resumes()
        assert party.resumes(**other), "and it has sessions of its own"

    def test_trust_anchors_count_by_what_is_in_the_file(self, pki, version, tmp_path):
        party = Party(pki, version)
        file = tmp_path / "ca.pem"
        with open(pki.ca_file) as source:
            good = source.read()
        file.write_text(good)
        trust = TrustAnchors(files=(str(file),))
        assert [party.resumes(trust=trust), party.resumes()] == [False, True], "another file with the same"
        with open(Pki(tmp_path).ca_file) as other:
            file.write_text(other.read() + good)
        assert not party.resumes(trust=trust)

    def test_hooks_that_only_look_make_no_difference(self, pki, version):
        party = Party(pki, version)
        party.connect()
        assert party.resumes(hooks={"keylog": lambda *_: None, "message": lambda *_: None})

    def test_a_connection_that_was_just_dropped_leaves_its_session(self, pki, version):
        """hazard, facts 4.7: OpenSSL forgets the session of a connection that is freed without close_notify."""
        party = Party(pki, version)
        ends = party.connect()
        del ends
        gc.collect()
        assert party.resumes()

    def test_a_fatal_alert_takes_the_connections_own(self, pki, version):
        party = Party(pki, version)
        here, _ = party.connect()
        here.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(TLSError, match="decryption failed"):
            here.read()
        lost = here.session
        assert not lost.resumable
        with party.offering() as (other, there):
            assert other.handshake.offered != lost
            meet(other, there)

    def test_what_the_server_declines_is_not_offered_again(self, pki, version):
        party = Party(pki, version)
        party.connect()
        party.server_context = server_context(pki, version)  # started anew: it cannot open what it gave
        with party.offering() as (here, there):
            declined = here.handshake.offered
            meet(here, there)
        assert not here.session_reused
        tickets(here, there)
        with party.offering() as (here, there):
            assert here.handshake.offered is not None
            assert here.handshake.offered != declined
            meet(here, there)
        assert here.session_reused

    @pytest.mark.parametrize("failure", [TLSError, GreenletExit, TimeoutError])
    def test_a_handshake_that_fails_takes_what_it_offered(self, pki, version, failure):
        party = Party(pki, version, ClientSessions(per_peer=1))
        party.connect()
        assert party.sessions.count == 1
        with pytest.raises(failure), party.offering() as (here, _):
            assert here.handshake.offered is not None
            attempt(here.do_handshake)
            if failure is not TLSError:
                raise failure
            here.receive_data(b"\x15\x03\x03\x00\x02\x02\x28")
            here.do_handshake()
        assert party.sessions.count == 0

    def test_a_session_that_is_given_wins(self, pki, version):
        party = Party(pki, version)
        given = party.connect()[0].session
        with party.offering(session=given) as (here, there):
            assert here.handshake.offered is given
            meet(here, there)
        assert here.session_reused
        tickets(here, there)
        assert party.resumes(), "and its connection leaves sessions like others"

    def test_the_line_of_sessions_ends_with_the_verdict(self, pki, version, monkeypatch):
        """hazard: a client that keeps resuming never asks for the certificate again."""
        party = Party(pki, version, session_lifetime=10_000)
        now = client_sessions.time()
        reused = []
        for later in (0, 400, 800, 999, 1001):
            monkeypatch.setattr(client_sessions, "time", lambda later=later: now + later)
            reused.append(party.resumes(session_lifetime=1000))
        assert reused == [False, True, True, True, False]

    def test_it_ends_with_the_certificate(self, pki, version, monkeypatch):
        day = 86400
        chain = CertificateChain.load(*pki.issue("localhost", days=1))
        party = Party(pki, version, certificates=[chain], session_lifetime=3 * day)
        party.connect(session_lifetime=3 * day)
        expiry = chain.certificate.not_valid_after_utc.timestamp()
        for now, offers in ((expiry - 1, True), (expiry, False)):
            monkeypatch.setattr(client_sessions, "time", lambda now=now: now)
            with party.offering(session_lifetime=3 * day) as (here, there):
                assert (here.handshake.offered is not None) == offers
                meet(here, there)
            tickets(here, there)

    def test_it_ends_with_the_ocsp_response(self, pki, version, monkeypatch):
        until = client_sessions.time() + 50

        def check(connection, response):
            connection.handshake.vouch(until)

        party = Party(pki, version)
        assert [party.resumes(hooks={"ocsp": check}) for _ in range(2)] == [False, True]
        monkeypatch.setattr(client_sessions, "time", lambda: until)
        assert not party.resumes(hooks={"ocsp": check})

    def test_memory_is_bounded(self, pki, version):
        party = Party(pki, version, ClientSessions(max_peers=3, per_peer=2))
        for port in (*range(6), 4):
            for _ in range(2):
                with party.offering(("192.0.2.1", port)) as (here, there):
                    meet(here, there)
                tickets(here, there)
                assert len(party.sessions._peers) <= 3
                assert all(len(kept) <= 2 for kept in party.sessions._peers.values())
        assert [party.resumes(("192.0.2.1", port)) for port in (5, 4, 3)] == [True, True, True]
        assert not party.resumes(("192.0.2.1", 0))
        party.sessions.clear()
        assert party.sessions.count == 0

    def test_the_peers_that_were_used_last_stay(self, pki, version):
        party = Party(pki, version, ClientSessions(max_peers=2))
        first, second, third = (("192.0.2.1", port) for port in range(3))
        party.connect(first)
        party.connect(second)
        with party.offering(first) as (here, there):
            meet(here, there)  # no new session comes of it
        party.connect(third)
        assert [party.resumes(each) for each in (third, first)] == [True, True]
        assert not party.resumes(second)

    def test_a_forked_process_begins_with_none(self, pki, version):
        """hazard: parent and child offer the same ticket."""
        party = Party(pki, version)
        party.connect()
        assert forked(lambda: [party.resumes(), party.resumes()] != [False, True]) == 0
        assert party.resumes()

    def test_a_session_outlives_its_bytes(self, pki, version):
        party = Party(pki, version)
        session = party.connect()[0].session
        copy = Session.from_bytes(session.to_bytes())
        assert (copy, bytes(copy), copy.made, copy.lifetime, copy.single_use) == (
            session,
            session.to_bytes(),
            session.made,
            session.lifetime,
            version == VERSIONS["1.3"],
        )
        party.sessions.clear()
        assert party.resumes(session=copy)


class TestTLS13:
    VERSION = VERSIONS["1.3"]

    def test_tickets_come_behind_the_handshake(self, pki):
        party = Party(pki, self.VERSION)
        with party.offering() as (here, there):
            meet(here, there)
        assert party.sessions.count == 0
        tickets(here, there)
        assert party.sessions.count == 2

    def test_each_is_offered_once_and_the_newest_first(self, pki):
        party = Party(pki, self.VERSION)
        party.connect()
        newest = party.connect()[0].session
        offered = []
        for _ in range(3):
            with party.offering() as (here, there):
                offered.append(here.handshake.offered)
                meet(here, there)  # and no ticket is read
        assert offered[0] == newest
        assert offered[2] is None
        assert len(party.sessions._peers) == 0
        assert len({each.id for each in offered[:2]}) == 2

    @under_each_hub
    def test_handshakes_side_by_side_have_different_ones(self, pki):
        party = Party(pki, self.VERSION, ClientSessions(per_peer=10), num_tickets=10)
        party.connect()
        offered = []

        def connect():
            with party.offering() as (here, there):
                offered.append(here.handshake.offered.id)
                hub().sleep(0)
                meet(here, there)
            return here.session_reused

        jobs = [Job(connect) for _ in range(10)]
        assert [job.result() for job in jobs] == [True] * 10
        assert len(set(offered)) == 10

    def test_one_that_the_user_took_is_not_offered_again(self, pki):
        party = Party(pki, self.VERSION)
        session = party.connect()[0].session
        with party.offering(session=session), party.offering() as (here, _):
            assert here.handshake.offered is not None
            assert here.handshake.offered != session


class TestTLS12:
    VERSION = VERSIONS["1.2"]

    def test_any_number_of_connections_resume_the_same(self, pki):
        party = Party(pki, self.VERSION)
        party.connect()
        assert party.sessions.count == 1
        offered = []
        for _ in range(3):
            with party.offering() as (here, there):
                offered.append(here.handshake.offered)
                meet(here, there)
        assert offered[0] == offered[1] == offered[2]

    def test_a_ticket_that_the_server_renews_takes_the_old_ones_place(self, pki):
        """hazard, facts 4.7: OpenSSL gives up the old session, and tells nobody of the new one."""
        old, new = TicketKey.new(), TicketKey.new()
        keys = TicketKeys.static([old])

        def ticket_key(connection, name):
            return (keys.keys[0], False) if name is None else keys.opening(name)

        party = Party(pki, self.VERSION, hooks=Hooks(ticket_key=ticket_key))
        party.connect()
        for held in ([new, old], [new], [new]):  # the first renews what the old one has sealed
            keys = TicketKeys.static(held)
            assert party.resumes()
        assert party.sessions.count == 1

    def test_session_ids_too(self, pki):
        cache = SessionCache(MemoryStore())
        party = Party(pki, self.VERSION, hooks=cache.hooks)
        party.connect()
        assert cache.drain(PATIENCE)
        assert party.resumes()


class Slow(MemoryStore):
    """Does what a test wants before it answers."""

    def __init__(self):
        super().__init__()
        self.do = {}

    def get(self, session_id):
        self.do.get("get", lambda: None)()
        return super().get(session_id)

    def put(self, session_id, session, lifetime):
        self.do.get("put", lambda: None)()
        super().put(session_id, session, lifetime)


@under_each_hub
@both_versions
class TestStore:
    def processes(self, pki, version, store, count=2):
        """Parties that share nothing but the store and the server."""
        parties = [Party(pki, version, ClientSessions(store=store)) for _ in range(count)]
        for party in parties:
            party.server_context = parties[0].server_context
        return parties

    def test_another_process_resumes_what_is_over(self, pki, version):
        store = SealedStore(MemoryStore(), [bytes(range(32))])
        one, two = self.processes(pki, version, store)
        assert not one.resumes()
        assert one.sessions.count == 1
        assert one.sessions.drain(PATIENCE)
        with two.offering() as (here, there):
            meet(here, there)
        assert here.session_reused
        assert here.handshake.session_lookup[:2] == ("memory", "hit")
        assert two.sessions.drain(PATIENCE)
        assert len(store.store) == (0 if version == VERSIONS["1.3"] else 1), (
            "a third one need not look at a used ticket"
        )
        tickets(here, there)
        assert [one.resumes(), two.resumes()] == [True, True], "and each has its own"

    def test_a_ticket_has_one_owner(self, pki, version):
        """hazard: two processes that look at once offer the same one."""
        store = Slow()
        parties = self.processes(pki, version, store, 4)
        parties[0].connect()
        assert parties[0].sessions.drain(PATIENCE)
        inside, all_in, offered = [], hub().event(), []

        def get():
            inside.append(1)
            if len(inside) == 3:
                all_in.set()
            all_in.wait()

        store.do["get"] = get

        def look(party):
            with party.offering() as (here, there):
                offered.append(here.handshake.offered)
                meet(here, there)

        together(look, *parties[1:])
        assert len([each for each in offered if each is not None]) == (1 if version == VERSIONS["1.3"] else 3)

    def test_close_leaves_the_newest_to_the_others(self, pki, version):
        store = Slow()
        kept = {}
        one, two = self.processes(pki, version, store)
        one.server_context = two.server_context = server_context(pki, version, num_tickets=1)
        newest = one.connect()[0].session
        store.close = lambda: kept.update(store._sessions)
        one.sessions.close()
        assert len(kept) == 1
        with two.offering() as (here, there):
            assert here.handshake.offered == newest
            meet(here, there)

    @pytest.mark.parametrize(
        ("do", "outcome"),
        [
            (lambda: 1 / 0, "error"),
            (lambda: hub().sleep(PATIENCE), "timeout"),
        ],
        ids=["raises", "late"],
    )
    def test_trouble_costs_a_full_handshake_and_a_log_line(self, pki, version, do, outcome, caplog):
        store = Slow()
        store.do["get"] = do
        (party,) = self.processes(pki, version, store, 1)
        with party.offering(timeout=0.05) as (here, there):
            meet(here, there)
        assert not here.session_reused
        assert here.handshake.session_lookup.outcome == outcome
        assert "session store memory: get" in caplog.text
        tickets(here, there)
        assert party.resumes(), "what is in this process is there all the same"

    @pytest.mark.parametrize("blob", [b"garbage", b"", bytes(8), "a str"], ids=repr)
    def test_what_is_no_session_is_a_miss(self, pki, version, blob, caplog):
        store = Slow()
        store.get = lambda _: blob
        (party,) = self.processes(pki, version, store, 1)
        assert not party.resumes()
        assert "session store memory: get" in caplog.text

    def test_a_session_that_is_over_is_a_miss(self, pki, version, monkeypatch):
        store = MemoryStore()
        one, two = self.processes(pki, version, store)
        one.connect()
        assert one.sessions.drain(PATIENCE)
        now = client_sessions.time()
        for module in (client_sessions, stored):
            monkeypatch.setattr(module, "time", lambda: now + 7201)
        here, _ = two.connect()
        assert not here.session_reused
        assert here.handshake.session_lookup.outcome == "expired"

    def test_the_peer_does_not_wait_for_a_put(self, pki, version):
        store = Slow()
        released = hub().event()
        store.do["put"] = released.wait
        (party,) = self.processes(pki, version, store, 1)
        party.connect()
        assert party.sessions.drain(0.01) is False
        released.set()
        assert party.sessions.drain(PATIENCE)

    def test_servers_and_clients_may_have_one_store(self, pki, version):
        """hazard, facts 4.10: a client's session under the server's id, and no client resumes any more."""
        store = MemoryStore()
        cache = SessionCache(store)
        one, two = self.processes(pki, version, store)
        one.server_context = two.server_context = server_context(pki, version, hooks=cache.hooks)
        one.connect()
        assert cache.drain(PATIENCE)
        assert one.sessions.drain(PATIENCE)
        clients = [key for key in store._sessions if key.startswith(b"client sessions:")]
        assert len(clients) == 1
        assert len(clients[0]) > max(len(key) for key in store._sessions if key not in clients)
        assert two.resumes()
        assert one.resumes()

    def test_what_a_hook_had_a_say_in_stays_in_its_process(self, pki, version):
        store = MemoryStore()
        one, two = self.processes(pki, version, store)
        hooks = {"verify": lambda *_: None}
        one.connect(hooks=hooks)
        assert one.sessions.drain(PATIENCE)
        assert len(store) == 0
        assert not two.resumes(hooks=hooks)
        assert one.resumes(hooks=hooks)
        one.sessions.close()
        assert len(store) == 0


def test_a_tls_1_2_session_that_failed_leaves_the_store_too(pki):
    store = MemoryStore()
    party = Party(pki, VERSIONS["1.2"], ClientSessions(store=store))
    party.connect()
    assert party.sessions.drain(PATIENCE)
    assert len(store) == 1
    with pytest.raises(TimeoutError), party.offering():
        raise TimeoutError
    assert party.sessions.drain(PATIENCE)
    assert len(store) == 0


class Bare:
    """A SessionStore, and no more."""

    name = "bare"
    get = put = remove = close = None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_peers": 0}, "max_peers=0: must be 1 or more"),
        ({"per_peer": 0}, "per_peer=0: must be 1 or more"),
        ({"store": Bare()}, "store bare: has no add"),
    ],
    ids=["max_peers", "per_peer", "store"],
)
def test_what_cannot_be_is_said(options, said):
    with pytest.raises(ConfigurationError, match=said):
        ClientSessions(**options)
