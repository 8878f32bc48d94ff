"""Ticket keys in a store: how a fleet agrees on them, whatever its clocks and its store do.

No test waits for a key to grow old: clocks are given.
"""

from __future__ import annotations

import gc
import math
import random
import subprocess
import sys
import threading
import weakref

import gevent
import pytest

from greentls.errors import ConfigurationError
from greentls.hub import Deadline, here
from greentls.stores import open_store
from greentls.stores.memory import MemoryStore
from greentls.tickets import ANNOUNCE, LIFETIME, MAX_KEYS, REFRESH, SKEW, TicketKeys, _unpack
from tests.support.helpers import PATIENCE, ROOT
from tests.support.hubs import together, under_each_hub, wait_for
from tests.tickets.machines import NOW, ROTATION, fleet, looking, refresh


class TestShared:
    @under_each_hub
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

    @under_each_hub
    @pytest.mark.parametrize("count", [2, 20])
    def test_of_many_at_once_one_makes_the_key(self, store, clock, count):
        machines = fleet(store, clock, count)
        for _ in range(3):
            together(refresh, *machines)
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

    @under_each_hub
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

    @under_each_hub
    def test_a_store_that_hangs_does_not_hold_the_first_user_longer_than_asked(self, store, clock):
        store.hang = here().event()
        keys = TicketKeys.shared(store, clock=clock)
        together(keys.ready, *[0.05] * 10)
        (own,) = keys.keys
        assert store.calls == 1
        assert keys.opening(own.name) == (own, False)
        store.hang.set()
        wait_for(lambda: keys.age < math.inf, "the keys")
        assert own in keys.keys

    @under_each_hub
    def test_the_first_use_waits_and_no_other(self, store, clock):
        (one,) = fleet(store, clock, 1)
        refresh(one)
        keys = TicketKeys.shared(store, clock=clock)
        keys.ready(PATIENCE)
        assert keys.keys == one.keys
        store.hang = here().event()
        with Deadline(PATIENCE, "it waits"):
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
        with pytest.raises(RuntimeError, match="other processes were quicker"):
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
            for sealer, opener in ((one, other), (other, one)):
                sealing = sealer.keys[0]
                assert opener.opening(sealing.name)
                assert clock.now - born.setdefault(sealing, clock.now) <= ROTATION + 200
                assert len(sealer.keys) <= 16
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


class TestGreenlets:
    def test_between_two_looks_there_is_no_greenlet_and_nobody_who_holds_the_keys(self, store, clock):
        keys = TicketKeys.shared(store, clock=clock)
        keys.ready(PATIENCE)
        gone = weakref.ref(keys)
        del keys
        wait_for(lambda: not looking(), "the looking to end")
        gc.collect()
        assert gone() is None

    def test_it_looks_again_and_again_though_somebody_kills_it(self, store, clock, monkeypatch):
        monkeypatch.setattr("greentls.tickets.REFRESH", 0.01)
        keys = TicketKeys.shared(store, clock=clock)
        keys.ready(PATIENCE)
        wait_for(lambda: store.calls >= 3, "three looks at the store")
        store.hang = here().event()
        wait_for(looking, "the looking to begin")
        for killed in looking():
            killed.kill()
        store.hang = None
        calls = store.calls
        wait_for(lambda: store.calls > calls, "another look at the store")

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

    def test_a_forked_worker_looks_for_itself(self):
        command = [sys.executable, "-m", "tests.tickets.forked_worker"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
        assert (done.returncode, done.stderr) == (0, "")
