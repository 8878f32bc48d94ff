"""What TicketKeys tell greentls.events.handler."""

from __future__ import annotations

import base64

import gevent
import pytest
from gevent.event import Event

from greentls import events
from greentls.errors import ConfigurationError
from greentls.log_limit import LogLimit
from greentls.tickets import ANNOUNCE, LIFETIME, SKEW, TicketKey, TicketKeys
from tests.support.helpers import PATIENCE
from tests.support.hubs import wait_for
from tests.tickets.machines import NOW, ROTATION, fleet, haproxy, nginx, refresh


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
        wait_for(lambda: store.calls, "a look at the store")
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
        wait_for(lambda: store.calls == 3, "the third look at the store")
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
        monkeypatch.setattr(events, "_trouble", LogLimit())
        (one,) = fleet(store, clock, 1)
        one.look()
        assert one.age == 0
        path, key = tmp_path / "ticket.key", TicketKey.new()
        path.write_bytes(nginx(key))
        assert TicketKeys.file(path).keys == (key,)
        (line,) = caplog.records
        assert line.getMessage() == "greentls.events.handler fails for ticket_keys"
