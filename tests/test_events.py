"""greentls.events.emit(): the handler, and what becomes of what it raises. Events are tested where they happen."""

from __future__ import annotations

import pytest

from greentls import events
from greentls.log_limit import LogLimit


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch):
    monkeypatch.setattr(events, "_trouble", LogLimit())


def test_without_a_handler_nothing_happens():
    assert events.handler is None
    events.emit("handshake", side="server")


def test_each_event_is_a_dict_of_its_own(told):
    facts = {"side": "server", "error": None}
    for _ in range(2):
        events.emit("handshake", **facts)
    assert told == [{"event": "handshake", **facts}] * 2
    assert told[0] is not told[1]


def test_what_it_raises_changes_nothing_and_is_said_once(monkeypatch, caplog):
    def fail(event):
        raise KeyError(event["event"])

    monkeypatch.setattr(events, "handler", fail)
    for _ in range(3):
        events.emit("handshake")
    (line,) = caplog.records
    assert "of handshake" in line.getMessage() or "for handshake" in line.getMessage()
    assert line.exc_info[0] is KeyError


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_program_is_not_held_up(monkeypatch, error):
    def end(event):
        raise error

    monkeypatch.setattr(events, "handler", end)
    with pytest.raises(error):
        events.emit("handshake")
