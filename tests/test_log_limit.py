from __future__ import annotations

import pytest

from greentls import log_limit
from greentls.log_limit import LOG_INTERVAL, LogLimit


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(log_limit, "monotonic", lambda: now[0])
    return now


def test_a_line_in_ten_seconds(clock):
    limit = LogLimit()
    assert [limit.allows() for _ in range(3)] == [True, False, False]
    clock[0] += LOG_INTERVAL - 0.1
    assert not limit.allows()
    clock[0] += 0.1
    assert [limit.allows() for _ in range(2)] == [True, False]


def test_failures_of_another_kind_have_their_own(clock):
    one, other = LogLimit(), LogLimit()
    assert one.allows() and other.allows()
    one.count += 1
    assert (one.count, other.count) == (1, 0)
