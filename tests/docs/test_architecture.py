"""The picture of the architecture page is the house's."""

from __future__ import annotations

from tests.layers.floors import FLOORS, picture
from tests.support.helpers import ROOT

PAGE = (ROOT / "docs" / "architecture.rst").read_text("utf-8")


def test_the_picture_shows_the_floors_of_the_code():
    drawn = "".join(f"   {line}\n" for line in picture().splitlines())
    assert drawn in PAGE, f"put this picture into docs/architecture.rst:\n{drawn}"


def test_every_part_is_described():
    for part in FLOORS.keys() - {"greentls", "greentls.__main__", "greentls._version"}:
        assert f"``{part.removeprefix('greentls.')}" in PAGE, f"docs/architecture.rst does not describe {part}"
