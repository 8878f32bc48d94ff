from __future__ import annotations

import pytest

from tests.tickets.machines import Clock, Failing


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return Failing()
