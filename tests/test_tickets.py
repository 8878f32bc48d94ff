"""Ticket keys: whose they are, where they come from, how a fleet agrees on them; and what the bridge does with them.

No test waits for a key to grow old: clocks are given.
"""

from __future__ import annotations

import base64
import gc
import math
import multiprocessing
import os
import random
import threading
import weakref

import gevent
import pytest
from gevent.event import Event

from greentls import events
from greentls.core.connection import Connection
from greentls.core.hooks import Hooks
from greentls.core.session import Session
from greentls.errors import ConfigurationError, ConnectionDead
from greentls.log_limit import Trouble
from greentls.ssl.hooks.callbacks import TicketKeyChoice
from greentls.stores import open_store
from greentls.stores.memory import MemoryStore
from greentls.tickets import ANNOUNCE, LIFETIME, MAX_KEYS, REFRESH, SKEW, TicketKey, TicketKeys, _unpack
from tests.support.helpers import PATIENCE
from tests.support.pairs import TLS12, TLS13, both_versions, client, client_context, handshake, server_context

NOW = 1_800_000_000
ROTATION = LIFETIME / 4


class Clock:
    """One machine's. Where several share an instance, others may be ahead of it."""

    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now

    def ahead(self, seconds):
        return lambda: self.now + seconds


@pytest.fixture
def clock():
    return Clock()


class TestKey:
    def test_a_new_one_is_random_and_shows_no_secret(self):
        one, other = TicketKey.new(), TicketKey.new()
        assert (len(one.name), len(one.aes), len(one.hmac)) == (16, 32, 32)
        assert not {one.name, one.aes, one.hmac} & {other.name, other.aes, other.hmac}
        assert str(one.aes) not in repr(one)
        assert str(one.hmac) not in repr(one)

    @pytest.mark.parametrize("sizes", [(15, 32, 32), (16, 24, 32), (16, 32, 15), (16, 32, 65), (0, 0, 0)])
    def test_one_of_other_sizes_is_refused(self, sizes):
        with pytest.raises(ConfigurationError, match="give 16, 32"):
            TicketKey(*(bytes(size) for size in sizes))


class TestStatic:
    def test_the_first_seals_and_all_open(self):
        first, second = TicketKey.new(), TicketKey.new()
        keys = TicketKeys.static([first, second])
        assert keys.keys == (first, second)
        assert keys.opening(first.name) == (first, False)
        assert keys.opening(second.name) == (second, True)
        assert keys.opening(os.urandom(16)) is None
        assert keys.age == 0

    def test_none_is_refused(self):
        with pytest.raises(ConfigurationError, match="none is given"):
            TicketKeys.static([])


def haproxy(*keys):
    return b"".join(base64.b64encode(each.name + each.aes + each.hmac) + b"\n" for each in keys)


def nginx(key):
    return key.name + (key.hmac + key.aes if len(key.aes) == 32 else key.aes + key.hmac)


class TestFile:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "ticket.key"

    @pytest.mark.parametrize("size", [16, 32])
    def test_nginxs_format(self, path, size):
        key = TicketKey(b"n" * 16, os.urandom(size), os.urandom(size))
        path.write_bytes(nginx(key))
        assert len(path.read_bytes()) == 16 + 2 * size
        assert TicketKeys.file(path).keys == (key,)

    def test_of_several_of_nginxs_files_the_first_seals(self, tmp_path):
        keys = [TicketKey.new(), TicketKey(b"n" * 16, os.urandom(16), os.urandom(16)), TicketKey.new()]
        paths = [tmp_path / f"{number}.key" for number in range(3)]
        for path, key in zip(paths, keys, strict=True):
            path.write_bytes(nginx(key))
        assert TicketKeys.file(*map(str, paths)).keys == tuple(keys)

    @pytest.mark.parametrize("size", [16, 32])
    def test_haproxys_format(self, path, size):
        keys = [TicketKey(bytes([each]) * 16, os.urandom(size), os.urandom(size)) for each in range(4)]
        path.write_bytes(haproxy(*keys))
        assert TicketKeys.file(path).keys == (keys[2], keys[3], keys[1])
        path.write_bytes(haproxy(*keys[1:]).replace(b"\n", b"\r\n") + b"\r\n")
        assert TicketKeys.file(path).keys == (keys[2], keys[3], keys[1])

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"x" * 47,
            b"x" * 81,
            haproxy(TicketKey.new(), TicketKey.new()),
            haproxy(TicketKey.new(), TicketKey.new(), TicketKey(bytes(16), bytes(16), bytes(16))),
            haproxy(*[TicketKey.new()] * 3)[:-5],
            haproxy(*[TicketKey.new()] * 3).replace(b"=", b"!"),
            b"a\n" * 3,
        ],
    )
    def test_what_is_none_is_refused_with_the_files_name(self, path, data):
        path.write_bytes(data)
        with pytest.raises(ConfigurationError, match=r"ticket key file .*ticket\.key") as caught:
            TicketKeys.file(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400, "no key may come out with it"

    def test_of_several_none_may_be_haproxys(self, path, tmp_path):
        path.write_bytes(haproxy(*[TicketKey.new()] * 3))
        (tmp_path / "first").write_bytes(nginx(TicketKey.new()))
        with pytest.raises(ConfigurationError, match="nginx's format has 48 or 80"):
            TicketKeys.file(tmp_path / "first", path)

    def test_one_that_is_not_there_is_refused(self, path):
        with pytest.raises(FileNotFoundError):
            TicketKeys.file(path)
        with pytest.raises(ConfigurationError):
            TicketKeys.file()

    def test_a_change_is_seen_a_second_later_though_time_and_size_are_the_same(self, path, clock):
        first, second = TicketKey.new(), TicketKey.new()
        path.write_bytes(nginx(first))
        times = os.stat(path)
        keys = TicketKeys.file(path, clock=clock)
        path.write_bytes(nginx(second))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert keys.keys == (first,)
        clock.now += 1
        assert keys.keys == (second,)
        assert keys.opening(first.name) is None

    def test_a_broken_or_missing_one_keeps_the_keys_and_is_said_once_in_ten_seconds(self, path, clock, caplog):
        key, new = TicketKey.new(), TicketKey.new()
        path.write_bytes(nginx(key))
        keys = TicketKeys.file(path, clock=clock)
        path.write_bytes(b"half a key")
        for _ in range(12):
            clock.now += 1
            assert keys.keys == (key,)
        assert keys.age == 12
        assert len(caplog.records) == 2
        assert "ticket.key: 10 bytes in 1 lines are no keys" in caplog.text
        assert "read 1 s ago are used on" in caplog.text
        with pytest.raises(ConfigurationError):
            keys.refresh()
        path.unlink()
        clock.now += 10
        assert keys.keys == (key,)
        assert "No such file" in caplog.records[2].message
        path.write_bytes(nginx(new))
        clock.now += 1
        assert keys.keys == (new,)
        assert keys.age == 0
        clock.now += 3600
        assert keys.age == 0, "nobody has used them, and they are in order"


def looking():
    """The greenlets that look at a store."""
    found = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.ready()]
    return [each for each in found if getattr(each, "_run", None) and each._run.__name__ == "look"]


class Failing:
    """A store that does what it is told: fail, forget, hang, or be slow."""

    name, shared, private = "failing", True, True

    def __init__(self):
        self.inner = MemoryStore()
        self.error = None
        self.hang = None
        self.calls = 0

    def gets(self, name):
        self.calls += 1
        if self.hang is not None:
            self.hang.wait()
        if self.error is not None:
            raise self.error
        gevent.sleep(0)
        return self.inner.gets(name)

    def cas(self, name, value, token, lifetime):
        gevent.sleep(0)
        return self.inner.cas(name, value, token, lifetime)

    def add(self, name, value, lifetime):
        raise NotImplementedError


@pytest.fixture
def store():
    return Failing()


def fleet(store, clock, count=2, **options):
    return [TicketKeys.shared(store, clock=clock, **options) for _ in range(count)]


def refresh(*machines):
    for each in machines:
        each.refresh()


class TestShared:
    def test_two_agree_on_one_key(self, store, clock):
        one, other = fleet(store, clock)
        refresh(one, other)
        assert one.keys == other.keys
        assert len(one.keys) == 1
        assert one.age == other.age == 0

    def test_a_new_key_is_told_a_minute_before_its_use_and_rolled_at_a_quarter(self, store, clock):
        one, other = fleet(store, clock)
        refresh(one, other)
        (first,) = one.keys
        clock.now += ROTATION - ANNOUNCE - 1
        refresh(other, one)
        assert one.keys == other.keys == (first,)
        clock.now += 1
        refresh(other, one)
        assert one.keys == other.keys
        assert one.keys[0] == first
        _, second = one.keys
        clock.now += ANNOUNCE - 1
        assert one.keys[0] == first
        clock.now += 1
        assert one.keys == other.keys == (second, first)
        assert one.opening(first.name) == (first, True)

    def test_an_old_key_opens_for_the_lifetime_and_is_forgotten_then(self, store, clock):
        one, other = fleet(store, clock)
        refresh(one)
        (first,) = one.keys
        known = set()
        while (clock.now - NOW) < LIFETIME:
            refresh(one, other)
            assert one.opening(first.name) and other.opening(first.name)
            known |= set(one.keys)
            clock.now += REFRESH
        assert len(known) == 5
        clock.now += SKEW
        refresh(one, other)
        assert one.opening(first.name) is None
        assert other.opening(first.name) is None
        assert len(one.keys) <= 6

    def test_what_was_sealed_last_under_a_key_outlives_a_session(self, store, clock):
        (one,) = fleet(store, clock, 1)
        refresh(one)
        (first,) = one.keys
        while one.keys[0] == first:
            clock.now += REFRESH
            refresh(one)
        clock.now += 7200
        refresh(one)
        assert one.opening(first.name) == (first, True)

    @pytest.mark.parametrize("count", [2, 20])
    def test_of_many_at_once_one_makes_the_key(self, store, clock, count):
        machines = fleet(store, clock, count)
        for _ in range(3):
            gevent.joinall([gevent.spawn(each.refresh) for each in machines], timeout=PATIENCE, raise_error=True)
            assert len({each.keys for each in machines}) == 1
            clock.now += ROTATION + ANNOUNCE
        assert len(machines[0].keys) == 3

    def test_a_store_that_forgot_everything_is_told_again(self, store, clock):
        one, other = fleet(store, clock)
        refresh(one, other)
        clock.now += ROTATION
        refresh(one, other)
        before = one.keys
        store.inner.close()
        refresh(other)
        assert other.keys == before
        assert store.inner.gets("ticket-keys")[0] is not None
        late = TicketKeys.shared(store, clock=clock)
        refresh(late, one)
        assert late.keys == one.keys == before

    def test_one_that_is_down_changes_nothing_but_the_age(self, store, clock, caplog):
        one, other = fleet(store, clock)
        refresh(one, other)
        before = one.keys
        store.error = ConnectionError("memcached 127.0.0.1:1: refused")
        for _ in range(3):
            clock.now += LIFETIME
            one.look()
        assert one.keys == other.keys == before
        assert one.age == 3 * LIFETIME
        assert "failing: ConnectionError('memcached 127.0.0.1:1: refused')" in caplog.records[0].message
        assert "agreed on 32400 s ago, are used on (3 failures so far)" in caplog.records[2].message
        store.error = None
        one.look()
        assert "works again after 3 failures" in caplog.records[3].message
        assert one.age == 0
        assert not set(one.keys) & set(before), "they had ended long ago"

    def test_one_that_was_started_meanwhile_has_a_key_of_its_own_which_the_others_learn(self, store, clock, caplog):
        (one,) = fleet(store, clock, 1)
        refresh(one)
        store.error = ConnectionError()
        late = TicketKeys.shared(store, clock=clock)
        late.look()
        assert "never agreed on" in caplog.text
        assert late.age == math.inf
        (own,) = late.keys
        assert late.keys == (own,)
        assert one.opening(own.name) is None
        store.error = None
        clock.now += 10
        late.look()
        one.look()
        assert one.keys == late.keys
        assert one.opening(own.name)

    def test_a_store_that_hangs_does_not_hold_the_first_user_longer_than_asked(self, store, clock):
        store.hang = Event()
        keys = TicketKeys.shared(store, clock=clock)
        users = [gevent.spawn(keys.ready, 0.05) for _ in range(10)]
        gevent.joinall(users, timeout=PATIENCE, raise_error=True)
        (own,) = keys.keys
        assert store.calls == 1
        assert keys.opening(own.name) == (own, False)
        store.hang.set()
        wait_for(lambda: keys.age < math.inf)
        assert own in keys.keys

    def test_the_first_use_waits_and_no_other(self, store, clock):
        (one,) = fleet(store, clock, 1)
        refresh(one)
        keys = TicketKeys.shared(store, clock=clock)
        keys.ready(PATIENCE)
        assert keys.keys == one.keys
        store.hang = Event()
        with gevent.Timeout(PATIENCE):
            keys.ready(None)
        store.hang.set()

    def test_a_value_of_another_format_is_left_alone(self, store, clock, caplog):
        (one,) = fleet(store, clock, 1)
        refresh(one)
        before = one.keys
        for value in (b"", b"\x02", b"\x01abc", b"\x01" + bytes(104 * (MAX_KEYS + 1))):
            _, token = store.inner.gets("ticket-keys")
            store.inner.cas("ticket-keys", value, token, 60)
            with pytest.raises(ConfigurationError, match="another format"):
                one.refresh()
            assert store.inner.gets("ticket-keys")[0] == value
        assert one.keys == before

    def test_the_list_is_bounded(self, store, clock):
        machines = fleet(store, clock, MAX_KEYS + 5)
        store.error = ConnectionError()
        owns = {each.keys[0] for each in machines}
        assert len(owns) == MAX_KEYS + 5
        store.error = None
        refresh(*machines, *machines)
        assert all(len(each.keys) == MAX_KEYS for each in machines)
        assert len({each.keys for each in machines}) == 1

    def test_somebody_who_always_is_quicker_is_an_error(self, store, clock):
        store.cas = lambda *_: False
        keys = TicketKeys.shared(store, clock=clock)
        with pytest.raises(RuntimeError, match="others were quicker"):
            keys.refresh()

    @pytest.mark.parametrize(
        ("skews", "allowed"),
        [((0, 0), False), ((-30, 0, 30), False), ((-150, 0, 150), True)],
    )
    def test_clocks_that_differ(self, store, clock, skews, allowed):
        """What one seals the others open. allowed: not before they have looked at the store once more."""
        random.seed(1)
        machines = [TicketKeys.shared(store, clock=clock.ahead(skew)) for skew in skews]
        looks = [0.0] * len(machines)
        sealed = {}  # key -> when it sealed first, true time
        for _ in range(int(3 * LIFETIME / 5)):
            for number, machine in enumerate(machines):
                if clock.now >= looks[number]:
                    machine.refresh()
                    looks[number] = clock.now + REFRESH * random.uniform(0.75, 1.25)
            for machine in machines:
                since = sealed.setdefault(machine.keys[0], clock.now)
                for other in machines:
                    known = other.opening(machine.keys[0].name)
                    assert known or (allowed and clock.now - since <= REFRESH * 1.25 + 5)
            clock.now += 5
        assert len(sealed) >= 12, "and the keys are rolled all the same"
        assert len(store.inner.gets("ticket-keys")[0]) < 1 + 104 * MAX_KEYS

    @pytest.mark.parametrize("days", [3650, 3, 1 / 24, -1 / 24, -3, -3650])
    def test_a_clock_that_is_wrong_spoils_its_own_machine_only(self, store, clock, days):
        """hazard: keys that begin in ten years sort first, fill the list, and the fleet seals with one key until then.

        A day with that machine, and a day after its clock has been put right or the machine has been taken away.
        """
        one, other = fleet(store, clock)
        skew = days * 86_400
        wrong = TicketKeys.shared(store, clock=lambda: clock.now + skew)
        machines, born = [wrong, one, other], {}
        for turn in range(2 * 86_400 // 100):
            if turn == 86_400 // 100:
                skew = 0
                late = TicketKeys.shared(store, clock=clock)
                machines = [wrong, one, other, late] if days > 0 else [one, other, late]
            refresh(*machines)
            for here, there in ((one, other), (other, one)):
                sealing = here.keys[0]
                assert there.opening(sealing.name)
                assert clock.now - born.setdefault(sealing, clock.now) <= ROTATION + 200
                assert len(here.keys) <= 16
            clock.now += 100
        assert len(born) >= 2 * 86_400 // ROTATION
        assert len({each.keys[0] for each in machines}) == 1
        assert set(one.keys) == {key for _, _, key in _unpack(store.inner.gets("ticket-keys")[0])}
        assert len(one.keys) <= 6

    def test_a_clock_that_was_wrong_when_the_process_began_costs_the_key_that_it_made(self, store, clock, caplog):
        """hazard: a machine starts with its clock ahead, ntpd puts it right; the key that seals is good for years."""
        (one,) = fleet(store, clock, 1)
        refresh(one)
        skew = 10 * 365 * 86_400
        wrong = TicketKeys.shared(store, clock=lambda: clock.now + skew)
        store.error = ConnectionError("down")
        (early,) = wrong.keys
        skew = 0
        assert wrong.keys[0] != early, "though the store is down"
        assert len(wrong.keys) == 1
        store.error = None
        refresh(wrong, one)
        assert wrong.keys == one.keys
        assert early not in wrong.keys

    def test_the_age_is_not_that_of_another_clock(self, store, clock):
        """hazard: agreed in ten years, so the age is 0 until then whatever becomes of the store."""
        skew = 10 * 365 * 86_400
        wrong = TicketKeys.shared(store, clock=lambda: clock.now + skew)
        refresh(wrong)
        assert wrong.age == 0
        skew -= 20
        assert wrong.age == 0, "a clock that is put right by little"
        skew = 0
        assert wrong.age == math.inf
        refresh(wrong)
        assert wrong.age == 0

    def test_a_key_that_the_fleets_fastest_clock_announces_is_known_to_the_slowest(self, store, clock):
        fast, slow = (TicketKeys.shared(store, clock=clock.ahead(skew)) for skew in (SKEW, 0))
        refresh(fast)
        clock.now += ROTATION - ANNOUNCE
        refresh(fast, slow)
        assert len(slow.keys) == 2
        assert set(slow.keys) == set(fast.keys)

    def test_between_two_looks_there_is_no_greenlet_and_nobody_who_holds_the_keys(self, store, clock):
        keys = TicketKeys.shared(store, clock=clock)
        keys.ready(PATIENCE)
        gone = weakref.ref(keys)
        del keys
        wait_for(lambda: not looking())
        gc.collect()
        assert gone() is None

    def test_it_looks_again_and_again_though_somebody_kills_it(self, store, clock, monkeypatch):
        monkeypatch.setattr("greentls.tickets.REFRESH", 0.01)
        keys = TicketKeys.shared(store, clock=clock)
        keys.ready(PATIENCE)
        wait_for(lambda: store.calls >= 3)
        store.hang = Event()
        wait_for(looking)
        for killed in looking():
            killed.kill()
        store.hang = None
        calls = store.calls
        wait_for(lambda: store.calls > calls)

    def test_one_killed_before_its_first_turn_holds_nobody_up(self, store, clock):
        keys = TicketKeys.shared(store, clock=clock)
        user = gevent.spawn(keys.ready, None)
        gevent.sleep(0)
        for killed in looking():
            killed.kill()
        user.get(timeout=PATIENCE)
        assert len(keys.keys) == 1

    def test_looking_keeps_no_program_running(self, clock):
        def program():
            keys = TicketKeys.shared(MemoryStore(), clock=clock)
            keys.ready(PATIENCE)
            ended.append(gevent.wait(timeout=PATIENCE))
            gevent.get_hub().destroy(destroy_loop=True)

        ended = []
        thread = threading.Thread(target=program)
        thread.start()
        thread.join(2 * PATIENCE)
        assert ended == [True]

    def test_a_forked_worker_looks_for_itself(self, store, clock):
        keys = TicketKeys.shared(store, clock=clock)
        keys.ready(PATIENCE)
        before, calls = keys.keys, store.calls
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                gevent.reinit()
                keys.ready(None)
                assert keys.keys == before
                wait_for(lambda: store.calls > calls)
                gevent.sleep(0)
                os.write(writing, b"%d" % (store.calls - calls))
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as file:
            assert file.read() == b"1"
        os.wait()

    @pytest.mark.parametrize(
        ("rotation", "lifetime"), [(119, 1000), (120, 239), (-1, 1000), (None, 400), (math.nan, 1000), (600, math.inf)]
    )
    def test_times_that_do_not_fit_are_refused(self, store, rotation, lifetime):
        with pytest.raises(ConfigurationError, match="120 seconds or more, a lifetime two rotations or more"):
            TicketKeys.shared(store, rotation, lifetime)

    def test_a_store_that_would_keep_them_in_clear_or_has_no_values_is_refused(self):
        with pytest.raises(
            ConfigurationError, match="store memcached: would keep them in clear; give it a secret_file"
        ):
            TicketKeys.shared(open_store("memcached://localhost?insecure=1"))
        with pytest.raises(ConfigurationError, match="has no shared values"):
            TicketKeys.shared(object())


def named(*keys):
    return tuple(each.name.hex() for each in keys)


def event(source, added=(), removed=(), error=None):
    return {
        "event": "ticket_keys",
        "source": source,
        "added": named(*added),
        "removed": named(*removed),
        "error": error,
    }


class TestTold:
    """greentls.events: each change of the keys, and each refresh that failed."""

    def test_a_file_that_changes_and_nothing_while_it_does_not(self, tmp_path, clock, told):
        path, first, second = tmp_path / "ticket.key", TicketKey.new(), TicketKey.new()
        path.write_bytes(nginx(first))
        keys = TicketKeys.file(path, clock=clock)
        assert told == [event(str(path), [first])]
        assert set(told[0]) == {"event", *events.EVENTS["ticket_keys"]}
        for _ in range(3):
            clock.now += 1
            assert keys.keys == (first,)
        keys.refresh()
        assert len(told) == 1
        path.write_bytes(nginx(second))
        clock.now += 1
        assert keys.keys == keys.keys == (second,)
        assert told[1:] == [event(str(path), [second], [first])]

    def test_a_file_that_is_broken_or_not_there(self, tmp_path, clock, told):
        path, key = tmp_path / "ticket.key", TicketKey.new()
        path.write_bytes(nginx(key))
        keys = TicketKeys.file(path, clock=clock)
        told.clear()
        path.write_bytes(nginx(key)[:-1])
        clock.now += 1
        assert keys.keys == (key,)
        path.unlink()
        with pytest.raises(FileNotFoundError):
            keys.refresh()
        broken, gone = told
        assert broken["error"].startswith(f"ConfigurationError: ticket key file {path}: 79 bytes")
        assert gone == event(str(path), error=f"FileNotFoundError: [Errno 2] No such file or directory: '{path}'")
        path.write_bytes(nginx(key))
        clock.now += 1
        assert keys.keys == (key,)
        assert len(told) == 2, "the keys are those that they were"

    def test_of_several_files_each_is_named(self, tmp_path, told):
        paths = [tmp_path / "1", tmp_path / "2"]
        keys = [TicketKey.new(), TicketKey.new()]
        for path, key in zip(paths, keys, strict=True):
            path.write_bytes(nginx(key))
        TicketKeys.file(*paths)
        assert told == [event(f"{paths[0]}, {paths[1]}", keys)]

    def test_shared_keys_that_are_rotated(self, store, clock, told):
        (one,) = fleet(store, clock, 1)
        for _ in range(3):
            one.look()
        (first,) = one.keys
        assert told == [event("failing", [first])]
        clock.now += ROTATION - ANNOUNCE
        one.look()
        one.refresh()
        _, second = one.keys
        assert told[1:] == [event("failing", [second])], "it is told before it seals, as the fleet is"
        clock.now = NOW + LIFETIME + SKEW
        one.refresh()
        (third,) = set(one.keys) - {second}
        assert told[2:] == [event("failing", [third], [first])]

    def test_every_machine_tells_what_is_new_to_it(self, store, clock, told):
        one, other = fleet(store, clock)
        refresh(one, other, one)
        assert told == [event("failing", one.keys)] * 2

    def test_keys_from_the_future_that_are_left_out(self, store, clock, told, caplog):
        (one,) = fleet(store, clock, 1)
        wrong = TicketKeys.shared(store, clock=clock.ahead(10 * 365 * 86_400))
        refresh(one, wrong)
        told.clear()
        refresh(one)
        (early,) = named(*wrong.keys)
        said = f"a clock is wrong: keys that begin 3650.0 days from now are left out: {early}"
        assert told == [event("failing", error=said)]
        refresh(wrong, one)
        assert caplog.text.count(f"ticket keys: store failing: {said}") == 1, "and told each time, said once"
        assert told.count(event("failing", error=said)) == 2
        assert wrong.keys[0] not in one.keys

    def test_a_store_that_fails(self, store, clock, told):
        (one,) = fleet(store, clock, 1)
        one.look()
        told.clear()
        before = one.keys
        store.error = ConnectionError("refused")
        one.look()
        with pytest.raises(ConnectionError):
            one.refresh()
        assert told == [event("failing", error="ConnectionError: refused")] * 2
        store.error = None
        one.look()
        assert one.keys == before
        assert len(told) == 2

    def test_a_store_that_hangs(self, store, clock, told, monkeypatch, caplog):
        monkeypatch.setattr("greentls.tickets.STORE_TIMEOUT", 0.02)
        store.hang = Event()
        (one,) = fleet(store, clock, 1)
        one.look()
        assert told == [event("failing", error="TimeoutError: no answer in 0.02 s")]
        assert "ticket keys: store failing: no answer in 0.02 s: the keys held, never agreed on" in caplog.text

    def test_who_is_killed_while_it_looks_tells_nothing(self, store, clock, told):
        store.hang = Event()
        (one,) = fleet(store, clock, 1)
        looks = gevent.spawn(one.look)
        wait_for(lambda: store.calls)
        looks.kill()
        assert told == []

    def test_a_key_that_a_process_makes_for_itself(self, store, clock, told):
        (late,) = fleet(store, clock, 1)
        store.error = ConnectionError("refused")
        late.look()
        (own,) = late.keys
        assert late.keys == (own,)
        assert told == [event("failing", error="ConnectionError: refused"), event("failing", [own])]

    def test_a_key_that_it_makes_while_it_looks_is_told_once(self, store, clock, told):
        one, late = fleet(store, clock)
        one.refresh()
        told.clear()
        store.hang = Event()
        looks = [gevent.spawn(late.look) for _ in range(2)]
        wait_for(lambda: store.calls == 3)
        (own,) = late.keys
        store.hang.set()
        gevent.joinall(looks, timeout=PATIENCE, raise_error=True)
        assert late.opening(own.name)
        assert told == [event("failing", [own]), event("failing", one.keys)]

    def test_no_secret_is_told(self, store, clock, tmp_path, told):
        """Nor anything that leads to one, as the frames of a traceback do."""
        path, key = tmp_path / "ticket.key", TicketKey.new()
        path.write_bytes(haproxy(key, key, key))
        (shared,) = fleet(store, clock, 1)
        shared.look()
        from_file = TicketKeys.file(path)
        path.write_bytes(haproxy(key, key))
        store.error = ConnectionError("refused")
        shared.look()
        with pytest.raises(ConfigurationError):
            from_file.refresh()
        assert len(told) == 4
        for each in told:
            assert {type(value) for value in each.values()} <= {str, tuple, type(None)}
            assert {type(name) for name in each["added"] + each["removed"]} <= {str}
        for each in (key, *shared.keys):
            for secret in (each.aes, each.hmac, each.aes[:8], each.hmac[:8]):
                for form in (repr(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode().rstrip("=")):
                    assert form not in repr(told)

    def test_a_handler_that_raises_changes_nothing(self, store, clock, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr(events, "handler", lambda event: 1 / 0)
        monkeypatch.setattr(events, "_trouble", Trouble())
        (one,) = fleet(store, clock, 1)
        one.look()
        assert one.age == 0
        path, key = tmp_path / "ticket.key", TicketKey.new()
        path.write_bytes(nginx(key))
        assert TicketKeys.file(path).keys == (key,)
        (line,) = caplog.records
        assert line.getMessage() == "greentls.events.handler raises, of ticket_keys"


class TestMemcached:
    """The real thing."""

    @pytest.fixture
    def secret_file(self, tmp_path):
        path = tmp_path / "fleet.key"
        path.write_bytes(os.urandom(32))
        return path

    @pytest.fixture
    def machine(self, clock):
        """machine(url): the keys of one more of them."""
        stores = []

        def start(url):
            stores.append(open_store(url))
            return TicketKeys.shared(stores[-1], clock=clock)

        yield start
        for store in stores:
            store.close()

    def test_of_many_processes_one_makes_the_key(self, memcached, secret_file):
        url = memcached.url(secret_file=secret_file)
        answers, together = [], multiprocessing.get_context("fork").Barrier(6)  # their clocks do not differ by hours
        for _ in range(6):
            reading, writing = os.pipe()
            if os.fork() == 0:
                try:
                    gevent.reinit()
                    clock = Clock()
                    keys = TicketKeys.shared(open_store(url), clock=clock)
                    names = []
                    for _ in range(3):
                        keys.ready(PATIENCE)
                        keys.refresh()
                        together.wait(PATIENCE)
                        clock.now += ROTATION + ANNOUNCE
                        names.append(keys.keys[0].name)
                    os.write(writing, b"".join(names))
                finally:
                    os._exit(0)
            os.close(writing)
            answers.append(reading)
        found = []
        for reading in answers:
            with open(reading, "rb") as file:
                found.append(file.read())
            os.wait()
        assert len(found[0]) == 48
        assert len(set(found)) == 1

    @pytest.mark.parametrize("count", [2, 20])
    def test_a_node_that_is_lost_moves_the_keys_to_the_other(self, memcacheds, secret_file, machine, count):
        """The run of the hooks page, with its 20 workers."""
        nodes = memcacheds(2)
        url = f"memcached://{nodes[0].address},{nodes[1].address}?secret_file={secret_file}"
        workers = [machine(url) for _ in range(count)]
        refresh(*workers)
        before = workers[0].keys
        (home,) = [each for each in nodes if int(each.stats()["curr_items"])]
        (spare,) = [each for each in nodes if each is not home]
        home.kill()
        for each in workers:
            with pytest.raises(ConnectionError):
                each.refresh()
            assert each.keys == before
        refresh(*workers)
        assert int(spare.stats()["curr_items"]) == 1
        assert {each.keys for each in workers} == {before}
        late = machine(url)
        late.look()  # it does not know yet that the node is dead
        (own,) = late.keys
        workers.append(late)
        refresh(*reversed(workers), *workers)
        assert len({each.keys for each in workers}) == 1
        agreed = late.keys
        assert set(agreed) == {own, *before}
        home.restart()
        wait_for(lambda: [each.look() for each in workers] and int(home.stats()["curr_items"]))
        refresh(*workers)
        assert {each.keys for each in workers} == {agreed}

    def test_they_are_sealed_there(self, memcached, secret_file, machine):
        keys = machine(memcached.url(secret_file=secret_file))
        keys.refresh()
        raw = open_store(memcached.url(insecure=1))
        value, _ = raw.gets("ticket-keys")
        raw.close()
        assert len(value) > 96
        for secret in (keys.keys[0].aes, keys.keys[0].hmac, keys.keys[0].name):
            assert secret not in value
        before = keys.keys
        other_file = secret_file.with_name("other.key")
        other_file.write_bytes(os.urandom(32))
        stranger = machine(memcached.url(secret_file=other_file))
        refresh(stranger, keys)
        assert not set(stranger.keys) & set(keys.keys)
        assert keys.keys == before, "of two secrets in one place neither harms the other for long"


def wait_for(condition):
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.01)


# -- the bridge --------------------------------------------------------------------------------------------------------


def ticket_server(pki, version, keys, **settings):
    hook = keys if callable(keys) else TicketKeyChoice(keys, 1.0)
    return server_context(pki, version, hooks=Hooks(ticket_key=hook), **settings)


def visit(clients, servers, session=None):
    """(session for the next visit, whether it was resumed)"""
    here, there = client(clients, session), Connection(servers)
    handshake(here, there)
    assert here.session_reused == there.session_reused
    return here.session, here.session_reused


KEYS = {"aes-256": TicketKey.new(), "aes-128": TicketKey(os.urandom(16), os.urandom(16), os.urandom(16))}


class TestBridge:
    @both_versions
    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_another_context_resumes(self, pki, version, key):
        clients = client_context(pki, version)
        one, other = (ticket_server(pki, version, TicketKeys.static([key])) for _ in range(2))
        session, reused = visit(clients, one)
        assert not reused
        assert session.has_ticket
        assert key.name in bytes(session)
        assert visit(clients, other, session)[1]

    @both_versions
    def test_without_keys_only_the_same_context_resumes(self, pki, version):
        clients = client_context(pki, version)
        one, other = (server_context(pki, version) for _ in range(2))
        session, _ = visit(clients, one)
        assert visit(clients, one, session)[1]
        assert not visit(clients, other, session)[1]

    @both_versions
    def test_an_unknown_key_is_a_full_handshake_and_a_new_ticket(self, pki, version):
        clients = client_context(pki, version)
        one, other = (ticket_server(pki, version, TicketKeys.static([TicketKey.new()])) for _ in range(2))
        session, _ = visit(clients, one)
        session, reused = visit(clients, other, session)
        assert not reused
        assert visit(clients, other, session)[1]

    @both_versions
    def test_an_old_key_opens_and_the_client_gets_a_ticket_under_the_new_one(self, pki, version):
        old, new = TicketKey.new(), TicketKey.new()
        clients = client_context(pki, version)
        session, _ = visit(clients, ticket_server(pki, version, TicketKeys.static([old])))
        both = ticket_server(pki, version, TicketKeys.static([new, old]))
        session, reused = visit(clients, both, session)
        assert reused
        assert new.name in bytes(session)
        assert visit(clients, ticket_server(pki, version, TicketKeys.static([new])), session)[1]

    def test_a_ticket_of_tls_1_2_is_used_again_and_one_of_tls_1_3_replaced(self, pki):
        keys = TicketKeys.static([TicketKey.new()])
        for version, same in ((TLS12, True), (TLS13, False)):
            clients, servers = client_context(pki, version), ticket_server(pki, version, keys)
            first, _ = visit(clients, servers)
            second, reused = visit(clients, servers, first)
            assert reused
            assert (ticket(first) == ticket(second)) == same

    @both_versions
    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_a_damaged_ticket_is_a_full_handshake(self, pki, version, key):
        clients, servers = client_context(pki, version), ticket_server(pki, version, TicketKeys.static([key]))
        session, _ = visit(clients, servers)
        blob, whole = bytes(session), ticket(session)
        for place in (0, 15, 16, 31, 32, len(whole) // 2, len(whole) - 33, len(whole) - 32, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            offered = Session.from_bytes(blob.replace(whole, bytes(damaged)))
            session, reused = visit(clients, servers, offered)
            assert not reused, place
            assert visit(clients, servers, session)[1]
        assert visit(clients, servers, Session.from_bytes(blob))[1]

    @both_versions
    def test_a_ticket_made_with_the_other_kind_of_key_under_the_same_name_is_a_full_handshake(self, pki, version):
        key = KEYS["aes-128"]
        same_name = TicketKey(key.name, os.urandom(32), os.urandom(32))
        clients = client_context(pki, version)
        session, _ = visit(clients, ticket_server(pki, version, TicketKeys.static([key])))
        assert not visit(clients, ticket_server(pki, version, TicketKeys.static([same_name])), session)[1]

    @both_versions
    def test_no_key_at_all_is_no_ticket_and_no_failure(self, pki, version):
        clients = client_context(pki, version)
        session, _ = visit(clients, ticket_server(pki, version, lambda connection, name: None))
        assert not session.has_ticket
        session, _ = visit(clients, ticket_server(pki, version, TicketKeys.static([TicketKey.new()])))
        assert not visit(clients, ticket_server(pki, version, lambda connection, name: None), session)[1]

    @both_versions
    @pytest.mark.parametrize("when", ["seal", "open"])
    @pytest.mark.parametrize("error", [ValueError("no"), gevent.Timeout(), gevent.GreenletExit(), KeyError])
    def test_what_the_hook_raises_reaches_the_caller_and_nothing_goes_on(self, pki, version, when, error):
        key = TicketKey.new()
        clients = client_context(pki, version)
        session, _ = visit(clients, ticket_server(pki, version, TicketKeys.static([key])))

        def hook(connection, name):
            if (name is None) == (when == "seal"):
                raise error
            return key, False

        here, there = (
            client(clients, session if when == "open" else None),
            Connection(ticket_server(pki, version, hook)),
        )
        kind = error if isinstance(error, type) else type(error)
        with pytest.raises(kind) as caught:
            handshake(here, there)
        assert caught.value is error or kind is KeyError
        assert not there.established
        with pytest.raises(ConnectionDead):
            there.do_handshake()

    @both_versions
    def test_a_key_that_is_none_is_an_error_and_not_a_ticket_in_clear(self, pki, version):
        class Short:
            name, aes, hmac = b"n" * 16, b"a" * 17, b"h" * 32

        for broken in (Short, type("Nameless", (Short,), {"name": b"n"}), "key"):
            there = Connection(ticket_server(pki, version, lambda connection, name, key=broken: (key, False)))
            with pytest.raises(Exception) as caught:
                handshake(client(client_context(pki, version)), there)
            assert isinstance(caught.value, (ConfigurationError, AttributeError, IndexError, ValueError))

    @both_versions
    def test_the_hook_may_wait_while_others_do_the_same(self, pki, version):
        """hazard: key_name and iv lie on the C stack, which is another greenlet's while this one waits."""
        keys = [TicketKey.new() for _ in range(20)]
        clients = client_context(pki, version)
        waiting = []
        go = Event()

        def hook(connection, name):
            if name is not None:
                waiting.append(name)
                if len(waiting) == 20:
                    go.set()
                go.wait()
                gevent.sleep(0)
                return next(each for each in keys if each.name == name), False
            gevent.sleep(0)
            return connection.key, False

        servers = ticket_server(pki, version, hook)

        def one(key, session):
            here, there = client(clients, session), Connection(servers)
            there.key = key
            handshake(here, there)
            return here.session, here.session_reused

        def all_at_once(sessions):
            jobs = [gevent.spawn(one, key, session) for key, session in zip(keys, sessions, strict=True)]
            gevent.joinall(jobs, timeout=PATIENCE, raise_error=True)
            return [job.value for job in jobs]

        first = all_at_once([None] * 20)
        for (session, _), key in zip(first, keys, strict=True):
            assert key.name in bytes(session)
        second = all_at_once([session for session, _ in first])
        assert [reused for _, reused in second] == [True] * 20
        assert len(waiting) == 20

    @both_versions
    def test_the_first_contexts_keys_stay_in_force(self, pki, version):
        ours, others = TicketKeys.static([TicketKey.new()]), TicketKeys.static([TicketKey.new()])
        second = ticket_server(pki, version, others)

        def switch(connection, name):
            connection.switch_context(second)

        hooks = Hooks(ticket_key=TicketKeyChoice(ours, 1.0), servername=switch)
        session, _ = visit(client_context(pki, version), server_context(pki, version, hooks=hooks))
        assert ours.keys[0].name in bytes(session)

    def test_a_store_beside_them_or_no_tickets_is_refused(self, pki):
        hooks = Hooks(ticket_key=lambda *_: None, get_session=lambda *_: None)
        with pytest.raises(ConfigurationError, match="choose one of the two"):
            server_context(pki, hooks=hooks)
        with pytest.raises(ConfigurationError, match="OP_NO_TICKET"):
            ticket_server(pki, 0, TicketKeys.static([TicketKey.new()]), options=0x4000)


def ticket(session):
    """The ticket in a session's DER: behind 04 81 or 04 82 and its length, and longest of all."""
    blob = bytes(session)
    found = []
    for place in range(len(blob) - 4):
        if blob[place] == 4 and blob[place + 1] in (0x81, 0x82):
            size = blob[place + 1] - 0x80
            length = int.from_bytes(blob[place + 2 : place + 2 + size], "big")
            start = place + 2 + size
            if length > 100 and start + length <= len(blob):
                found.append(blob[start : start + length])
    return max(found, key=len)
