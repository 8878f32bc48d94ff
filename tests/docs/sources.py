"""The tests, as text."""

from __future__ import annotations

from tests.support.helpers import ROOT

DOCS = ROOT / "tests" / "docs"
TESTS = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py") if path.parent != DOCS)


def is_there(test):
    return f"def {test}(" in TESTS
