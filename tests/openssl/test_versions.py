"""The versions that are promised are those that are tested."""

from __future__ import annotations

import re

from tests.support.helpers import ROOT


def test_the_oldest_versions_are_the_lower_bounds_of_setup():
    setup = (ROOT / "setup.py").read_text()
    needed = setup[setup.index("install_requires") : setup.index("extras_require")]
    bounds = dict(re.findall(r'"([a-z]+)>=([0-9.]+)",', needed))
    oldest = dict(re.findall(r"^([a-z]+)==(.+)$", (ROOT / "tests/versions/oldest.txt").read_text(), re.MULTILINE))
    assert {name: [*map(int, version.split("."))] for name, version in bounds.items()} == {
        name: [*map(int, version.split("."))][: bounds[name].count(".") + 1] for name, version in oldest.items()
    }
