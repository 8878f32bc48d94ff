from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def patient():
    """The documentation tells of production's deadlines."""
