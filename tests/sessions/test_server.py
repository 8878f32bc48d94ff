"""What a session store does to a handshake, and what it may not."""

from __future__ import annotations

import threading

import gevent
import pytest
from greenlet import GreenletExit

from greentls import events
from greentls.core.connection import Connection
from greentls.errors import TLSError
from greentls.hub import Deadline
from greentls.hub import here as hub
from greentls.sessions import server, stored
from greentls.sessions.server import SessionCache
from greentls.stores.memory import MemoryStore
from tests.support.helpers import PATIENCE
from tests.support.hubs import Job, together, under_each_hub, wait_for
from tests.support.pairs import VERSIONS, both_versions, client, client_context, handshake, server_context


class Store(MemoryStore):
    """Counts, and does what a test wants of it."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.do = {}

    def _call(self, name, session_id, *arguments):
        self.calls.append((name, session_id))
        if name in self.do:
            result = self.do[name]()
            if result is not None:
                return result
        return getattr(super(), name)(session_id, *arguments)

    def get(self, session_id):
        return self._call("get", session_id)

    def put(self, session_id, session, lifetime):
        return self._call("put", session_id, session, lifetime)

    def remove(self, session_id):
        return self._call("remove", session_id)


def fail(error):
    def do():
        raise error

    return do


def put(cache, connection, session):
    told = session.id, session.id_context, session.expires, bytes(session), connection.session_reused
    cache.put(connection, *told)


class Party:
    def __init__(self, pki, version, timeout=PATIENCE):
        self.store = Store()
        self.cache = SessionCache(self.store, timeout)
        self.server_context = server_context(pki, version, hooks=self.cache.hooks)
        self.client_context = client_context(pki, version)
        self.session = self.connect()[0].session
        assert self.cache.drain(PATIENCE)
        self.store.calls.clear()

    def connect(self, session=None):
        here, there = client(self.client_context, session), Connection(self.server_context)
        handshake(here, there)
        return here, there


@under_each_hub
@both_versions
class TestLookup:
    def test_a_hit_resumes_and_tells(self, pki, version):
        party = Party(pki, version)
        here, there = party.connect(party.session)
        assert here.session_reused
        assert there.handshake.session_lookup[:2] == ("memory", "hit")
        assert there.handshake.session_lookup.seconds >= 0

    def test_no_lookup_without_a_session(self, pki, version):
        _, there = Party(pki, version).connect()
        assert there.handshake.session_lookup is None

    @pytest.mark.parametrize(
        ("do", "outcome"),
        [
            (fail(OSError("down")), "error"),
            (fail(KeyboardInterrupt()), None),
            (lambda: b"garbage", "error"),
            (lambda: b"", "error"),
            (lambda: "a str", "error"),
            (lambda: hub().sleep(PATIENCE), "timeout"),
        ],
        ids=["raises", "raises no Exception", "garbage", "empty", "no bytes", "late"],
    )
    def test_trouble_costs_a_full_handshake_and_a_log_line(self, pki, version, do, outcome, caplog):
        party = Party(pki, version, timeout=0.05)
        party.store.do["get"] = do
        if outcome is None:  # not our deadline: it is the caller's, and goes to the caller
            with pytest.raises(KeyboardInterrupt):
                party.connect(party.session)
            return
        here, there = party.connect(party.session)
        assert not here.session_reused
        assert there.handshake.session_lookup.outcome == outcome
        assert "session store memory: get" in caplog.text

    def test_another_sessions_bytes_are_no_hit(self, pki, version, caplog):
        """hazard: a store that mixes up its answers hands one client's session to another."""
        party = Party(pki, version)
        party.connect()
        assert party.cache.drain(PATIENCE)

        def mixed_up():
            asked = party.store.calls[-1][1]
            return next(blob for session_id, (blob, _) in party.store._sessions.items() if session_id != asked)

        party.store.do["get"] = mixed_up
        here, there = party.connect(party.session)
        assert not here.session_reused
        assert there.handshake.session_lookup.outcome == "error"
        assert "another one's" in caplog.text

    def test_a_kill_while_the_store_is_asked_is_no_miss(self, pki, version):
        """hazard: a handshake goes on in a greenlet that was told to die."""
        party = Party(pki, version)
        asked = hub().event()
        party.store.do["get"] = lambda: asked.set() or hub().sleep(PATIENCE)
        job = Job(party.connect, party.session)
        asked.wait(PATIENCE)
        job.kill()
        assert isinstance(job.join().value, GreenletExit)

    def test_the_callers_own_timeout_is_no_miss(self, pki, version):
        party = Party(pki, version)
        party.store.do["get"] = lambda: hub().sleep(PATIENCE)
        with pytest.raises(TimeoutError, match="mine"), Deadline(0.05, "mine"):
            party.connect(party.session)

    def test_two_hundred_lookups_wait_at_once(self, pki, version):
        """The claim of `python -m benchmarks lookup`, by count: none of them answers before all of them have asked."""
        party = Party(pki, version)
        inside, all_in = [], hub().event()

        def get():
            inside.append(1)
            if len(inside) == 200:
                all_in.set()
            all_in.wait()

        party.store.do["get"] = get
        done = together(party.connect, *[party.session] * 200)
        assert [here.session_reused for here, _ in done] == [True] * 200

    def test_trouble_is_said_once_and_its_end_too(self, pki, version, caplog, monkeypatch):
        party = Party(pki, version)
        party.store.do["get"] = fail(OSError("down"))
        for _ in range(4):
            party.connect(party.session)
        assert [each.message for each in caplog.records] == [
            "session store memory: get: OSError('down') (1 so far)",
        ]
        del party.store.do["get"]
        party.connect(party.session)
        assert len(caplog.records) == 1, "one that comes and goes says no more than one that is down"
        party.cache._troubles["get"]._silent_until = 0.0
        party.connect(party.session)
        assert caplog.records[-1].message == "session store memory: get works again after 4 failures"


@under_each_hub
@both_versions
class TestWriting:
    def test_the_peer_has_its_flight_before_the_store_is_asked(self, pki, version):
        """hazard: a slow store delays the peer, who waits for the ticket's flight."""
        store = Store()
        cache = SessionCache(store, PATIENCE)
        here, there = client(client_context(pki, version)), Connection(server_context(pki, version, hooks=cache.hooks))
        handshake(here, there)
        assert here.session.resumable
        assert store.calls == []
        assert cache.drain(PATIENCE)
        assert store.calls[0][0] == "put"

    def test_puts_and_removals_keep_their_order(self, pki, version):
        party = Party(pki, version)
        _, there = party.connect()
        session = there.session
        for _ in range(3):
            put(party.cache, there, session)
            party.cache.remove(session.id, session.id_context)
        assert party.cache.drain(PATIENCE)
        key = session.id_context[: server.ID_CONTEXT_SIZE] + session.id
        assert [name for name, called_with in party.store.calls if called_with == key][-6:] == [
            "put",
            "remove",
        ] * 3

    def test_a_client_that_is_quicker_than_the_store_resumes(self, pki, version):
        """hazard: the store is behind, and every client that comes back at once has a full handshake."""
        party = Party(pki, version)
        go_on = hub().event()
        party.store.do["put"] = go_on.wait
        here, _ = party.connect()
        session = here.session
        here, there = party.connect(session)
        assert here.session_reused
        assert there.handshake.session_lookup.outcome == "hit"
        assert [name for name, _ in party.store.calls if name == "get"] == []
        there.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(TLSError, match="decryption failed"):
            there.read()
        if version == VERSIONS["1.2"]:  # the session that was resumed has been removed
            assert not party.connect(session)[0].session_reused
        go_on.set()
        assert party.cache.drain(PATIENCE)

    def test_a_slow_store_gets_several_puts_at_once(self, pki, version):
        """hazard: one writer puts 50 sessions a second into a store that is 20 ms away, and the queue runs over."""
        party = Party(pki, version)
        inside, several = [], hub().event()

        def put():
            inside.append(1)
            if len(inside) == 3:
                several.set()
            several.wait()

        party.store.do["put"] = put
        for _ in range(40):
            party.connect()
        assert party.cache.drain(PATIENCE)
        assert several.wait(0)

    def test_a_store_that_fails_is_logged_and_the_queue_goes_on(self, pki, version, caplog, monkeypatch):
        monkeypatch.setattr(stored, "WRITERS", 1)
        party = Party(pki, version)
        party.store.do["put"] = fail(ConnectionError("gone"))
        party.connect()
        party.cache.remove(b"an id", b"")
        assert party.cache.drain(PATIENCE)
        assert party.store.calls[-1] == ("remove", b"an id")
        assert "session store memory: put: ConnectionError('gone')" in caplog.text

    def test_a_store_that_is_late_is_left_and_the_queue_goes_on(self, pki, version, caplog, monkeypatch):
        monkeypatch.setattr(stored, "WRITERS", 1)
        party = Party(pki, version, timeout=0.05)
        party.store.do["put"] = lambda: hub().sleep(PATIENCE)
        party.connect()
        party.cache.remove(b"an id", b"")
        assert party.cache.drain(PATIENCE)
        assert party.store.calls[-1] == ("remove", b"an id")
        assert "put: no answer in 0.05 s" in caplog.text

    def test_the_queue_is_bounded(self, pki, version, caplog, monkeypatch):
        monkeypatch.setattr(stored, "MAX_QUEUED", 3)
        monkeypatch.setattr(stored, "WRITERS", 1)
        party = Party(pki, version)
        for _ in range(20):
            party.connect()
        assert party.cache.drain(PATIENCE)
        assert [name for name, _ in party.store.calls] == ["put"] * 3
        assert "the queue is full, dropped" in caplog.text

    def test_a_removal_finds_room_in_a_full_queue(self, pki, version, caplog, monkeypatch):
        """hazard: a store that is slow for a second keeps the sessions that have died of a fatal alert."""
        monkeypatch.setattr(stored, "MAX_QUEUED", 3)
        monkeypatch.setattr(stored, "WRITERS", 1)
        party = Party(pki, version)
        for _ in range(20):
            party.connect()
        removed = [b"session %d" % number for number in range(3)]
        for each in [*removed, b"too many", b"again"]:
            party.cache.remove(each, b"")
        assert party.cache.drain(PATIENCE)
        assert [session_id for name, session_id in party.store.calls if name == "remove"] == removed
        assert [name for name, _ in party.store.calls].count("put") == 3
        assert "remove: the queue is full, 2 dropped" in caplog.text

    def test_drain_gives_up_after_its_timeout(self, pki, version):
        party = Party(pki, version)
        released = hub().event()
        party.store.do["put"] = lambda: released.wait() and None
        party.connect()
        assert party.cache.drain(0.01) is False
        released.set()
        assert party.cache.drain(PATIENCE) is True

    def test_sessions_that_died_of_a_fatal_alert_are_removed(self, pki, version, monkeypatch):
        monkeypatch.setattr(stored, "WRITERS", 1)
        party = Party(pki, version)
        _, there = party.connect(party.session)
        there.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(TLSError, match="decryption failed"):
            there.read()
        assert party.cache.drain(PATIENCE)
        (_, the_connections), removed = party.store.calls[-2:]  # 1.2: what was got; 1.3: what was put last
        assert removed == ("remove", the_connections)

    def test_no_greenlet_is_left_when_the_queue_is_empty(self, pki, version, new_greenlets):
        party = Party(pki, version)
        party.connect()
        assert party.cache.drain(PATIENCE)
        assert new_greenlets() == []


class Batching(MemoryStore):
    """A BatchStore. told(index, change): called before each change; may raise, wait, or give what it fails with."""

    def __init__(self, told=lambda index, change: None):
        super().__init__()
        self.batches = []
        self.told = told

    def write_many(self, changes):
        self.batches.append([(key, session is not None) for key, session, _ in changes])
        for index, (key, session, lifetime) in enumerate(changes):
            failure = self.told(index, (key, session, lifetime))
            if failure is None:
                self.remove(key) if session is None else self.put(key, session, lifetime)
            yield index, failure


@pytest.fixture
def happened(monkeypatch):
    """(operation, outcome) of the writes."""
    told = []

    def handler(event):
        if event["event"] == "session_store" and event["operation"] != "get":
            told.append((event["operation"], event["outcome"]))

    monkeypatch.setattr(events, "handler", handler)
    return told


@under_each_hub
class TestBatches:
    """A BatchStore gets all that has gathered, and tells of each."""

    def party(self, pki, store, timeout=PATIENCE, connections=5):
        """A cache with puts on their way, and the sessions."""
        cache = SessionCache(store, timeout)
        contexts = (
            client_context(pki, VERSIONS["1.3"]),
            server_context(pki, VERSIONS["1.3"], hooks=cache.hooks, num_tickets=1),
        )
        sessions = []
        for _ in range(connections):
            here, there = client(contexts[0]), Connection(contexts[1])
            handshake(here, there)
            sessions.append(here.session)
        return cache, contexts, sessions

    def resumed(self, contexts, session):
        here, there = client(contexts[0], session), Connection(contexts[1])
        handshake(here, there)
        return here.session_reused

    def test_what_has_gathered_is_written_at_once_and_what_comes_meanwhile_next(self, pki, happened):
        inside, go_on = hub().event(), hub().event()
        store = Batching(lambda index, _: inside.set() or (go_on.wait() and None))
        cache, contexts, sessions = self.party(pki, store)
        assert inside.wait(PATIENCE)
        assert [len(batch) for batch in store.batches] == [5]
        assert self.resumed(contexts, sessions[4]), "a client is quicker than the store"
        cache.remove(b"an id", b"")
        go_on.set()
        assert cache.drain(PATIENCE)
        assert [len(batch) for batch in store.batches] == [5, 2]
        assert happened == [("put", "done")] * 6 + [("remove", "done")]
        assert all(self.resumed(contexts, each) for each in sessions)
        assert cache.drain(PATIENCE)

    def test_a_batch_is_bounded(self, pki, monkeypatch):
        monkeypatch.setattr(stored, "MAX_BATCH", 2)
        store = Batching()
        cache, _, _ = self.party(pki, store)
        assert cache.drain(PATIENCE)
        assert [len(batch) for batch in store.batches] == [2, 2, 1]

    def test_the_changes_of_a_session_keep_their_order(self, pki):
        store = Batching()
        cache, contexts, _ = self.party(pki, store, connections=0)
        there = Connection(contexts[1])
        handshake(client(contexts[0]), there)
        session = there.session
        key = session.id_context[: server.ID_CONTEXT_SIZE] + session.id
        for _ in range(3):
            put(cache, there, session)
            cache.remove(session.id, session.id_context)
        assert cache.drain(PATIENCE)
        assert [each for batch in store.batches for each in batch][-6:] == [(key, True), (key, False)] * 3
        assert store.get(key) is None

    def test_what_one_fails_with_is_not_charged_to_the_others(self, pki, happened, caplog):
        store = Batching(lambda index, _: ValueError("too large") if index == 2 else None)
        cache, contexts, sessions = self.party(pki, store)
        assert cache.drain(PATIENCE)
        assert happened == [("put", "done")] * 2 + [("put", "error")] + [("put", "done")] * 2
        assert "session store memory: put: ValueError('too large') (1 so far)" in caplog.text
        assert [self.resumed(contexts, each) for each in sessions] == [True, True, False, True, True]
        assert cache.drain(PATIENCE)

    @pytest.mark.parametrize(
        ("do", "outcome", "said"),
        [
            (fail(OSError("down")), "error", "OSError('down')"),
            (lambda: hub().sleep(PATIENCE), "timeout", "no answer in"),
        ],
        ids=["raises", "late"],
    )
    def test_of_a_batch_that_ends_early_the_rest_has_failed(self, pki, happened, caplog, do, outcome, said):
        store = Batching(lambda index, change: do() if index == 3 and change[1] else None)
        cache, contexts, sessions = self.party(pki, store, timeout=0.05)
        cache.remove(b"an id", b"")
        assert cache.drain(PATIENCE)
        assert happened == [("put", "done")] * 3 + [("put", outcome)] * 2 + [("remove", outcome)]
        assert f"put: {said}" in caplog.text
        assert [self.resumed(contexts, each) for each in sessions] == [True] * 3 + [False] * 2
        assert cache.drain(PATIENCE)

    def test_a_kill_in_the_middle_takes_its_batch_and_the_queue_goes_on(self, pki):
        """hazard: a program kills all its greenlets, and no session is written any more."""
        inside = hub().event()
        store = Batching(lambda *_: inside.set() or hub().sleep(PATIENCE))
        cache, contexts, sessions = self.party(pki, store)
        assert inside.wait(PATIENCE)
        (writer,) = cache._writers.get().all
        cache.remove(b"an id", b"")
        writer._greenlet.kill(block=True)
        store.told = lambda *_: None
        assert cache.drain(PATIENCE)
        assert store.batches[1:] == [[(b"an id", False)]]
        assert not self.resumed(contexts, sessions[0])
        assert cache.drain(PATIENCE)


@under_each_hub
class TestMemory:
    """A MemoryStore itself is asked and told on the spot."""

    def test_a_session_is_there_when_the_handshake_is(self, pki):
        cache = SessionCache(MemoryStore())
        context = server_context(pki, VERSIONS["1.2"], hooks=cache.hooks)
        handshake(client(client_context(pki, VERSIONS["1.2"])), Connection(context))
        assert len(cache.store) == 1

    @pytest.mark.parametrize("drained", [False, True])
    def test_a_removal_is_done_before_the_next_lookup(self, pki, drained):
        """hazard: a session that died of a fatal alert is resumed."""
        cache = SessionCache(MemoryStore())
        contexts = client_context(pki, VERSIONS["1.2"]), server_context(pki, VERSIONS["1.2"], hooks=cache.hooks)
        here, there = client(contexts[0]), Connection(contexts[1])
        handshake(here, there)
        if drained:
            assert cache.drain(PATIENCE)
        there.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(TLSError, match="decryption failed"):
            there.read()
        again = client(contexts[0], here.session)
        handshake(again, Connection(contexts[1]))
        assert not again.session_reused

    def test_a_removal_waits_for_nothing(self):
        """hazard: the garbage collector frees a connection while this thread holds the store's lock."""
        cache = SessionCache(MemoryStore())
        cache.write(b"contextaan id", stored.time() + 60, b"DER")
        with cache.store._lock:
            cache.remove(b"an id", b"contexta")
        assert cache.drain(PATIENCE)
        assert len(cache.store) == 0

    def test_what_is_removed_and_put_again_stays(self):
        """hazard: a removal is overtaken by the put that follows it."""
        cache = SessionCache(MemoryStore())
        kept = stored.time() + 60, b"DER"
        for _ in range(2):
            cache.write(b"key", *kept)
            cache.remove(b"y", b"ke")
            cache.write(b"key", 0, None)
            cache.remove(b"y", b"ke")
            cache.write(b"key", *kept)
        assert cache.drain(PATIENCE)
        assert cache.store.get(b"key")[8:] == b"DER"


@under_each_hub
class TestLifetime:
    """A session's lifetime counts from the full handshake that it comes from."""

    def test_resumptions_do_not_prolong_it(self, pki, monkeypatch):
        """hazard: under TLS 1.3 a client that keeps resuming never shows its certificate again."""
        now = stored.time()
        monkeypatch.setattr(stored, "time", lambda: now)
        lifetimes = []

        class Noting(MemoryStore):
            def put(self, session_id, session, lifetime):
                lifetimes.append(round(lifetime))
                super().put(session_id, session, lifetime)

        cache = SessionCache(Noting())
        contexts = (
            client_context(pki, VERSIONS["1.3"]),
            server_context(pki, VERSIONS["1.3"], hooks=cache.hooks, session_lifetime=100, num_tickets=1),
        )
        session = None
        for later in (0, 40, 80, 99):
            monkeypatch.setattr(stored, "time", lambda later=later: now + later)
            here, there = client(contexts[0], session), Connection(contexts[1])
            handshake(here, there)
            assert here.session_reused == (later > 0)
            assert cache.drain(PATIENCE)
            session = here.session
        assert lifetimes[0] in (99, 100)
        assert [lifetimes[0] - each for each in lifetimes] == [0, 40, 80, 99]
        monkeypatch.setattr(stored, "time", lambda: now + 101)
        handshake(client(contexts[0], session), Connection(contexts[1]))
        assert cache.drain(PATIENCE)
        assert len(lifetimes) == 4, "its line has ended"

    def test_under_tls_1_2_it_is_the_sessions_own(self, pki):
        party = Party(pki, VERSIONS["1.2"])
        here, there = party.connect(party.session)
        assert here.session_reused
        assert there.handshake.chain_ends == party.session.made + party.session.lifetime


@under_each_hub
def test_a_removal_in_another_thread_reaches_the_writer(pki):
    """hazard: the garbage collector frees a connection in a thread that has no hub."""
    party = Party(pki, VERSIONS["1.2"])
    thread = threading.Thread(target=party.cache.remove, args=(b"an id", b""))
    thread.start()
    thread.join(PATIENCE)
    wait_for(lambda: ("remove", b"an id") in party.store.calls, "the removal")


def test_a_removal_passes_by_a_hub_that_is_destroyed(pki):
    """hazard: it raised into OpenSSL, and the other hubs' writers were not told."""
    party = Party(pki, VERSIONS["1.2"])
    ready, go_on = threading.Event(), threading.Event()

    def elsewhere():
        party.cache.drain(0)  # makes this hub's writers
        gevent.get_hub().destroy(destroy_loop=True)
        ready.set()
        go_on.wait(PATIENCE)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert ready.wait(PATIENCE)
    party.cache.drain(0)
    party.cache.remove(b"an id", b"")
    wait_for(lambda: ("remove", b"an id") in party.store.calls, "the removal")
    go_on.set()
    thread.join(PATIENCE)


@under_each_hub
def test_close_writes_what_is_queued_and_closes_the_store(pki):
    party = Party(pki, VERSIONS["1.3"])
    party.connect()
    party.cache.close()
    assert [name for name, _ in party.store.calls] == ["put", "put"]
    assert len(party.store) == 0
