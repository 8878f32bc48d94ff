"""What real clients and servers sent (tests/data/)."""

from __future__ import annotations

import json

import pytest

from tests.support.helpers import DATA


def captures(kind):
    return [
        pytest.param(path.with_suffix(".bin").read_bytes(), json.loads(path.read_text()), id=path.stem)
        for path in sorted((DATA / kind).glob("*.json"))
    ]


HELLOS = captures("hellos")
FLIGHTS = captures("flights")
