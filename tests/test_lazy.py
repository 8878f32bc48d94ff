from __future__ import annotations

import sys

import pytest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """lazily.one and lazily.two, of a module that says when it is imported."""
    directory = tmp_path / "lazily"
    directory.mkdir()
    (directory / "__init__.py").write_text(
        "from greentls.lazy import at_first_use\n"
        "__getattr__, __dir__ = at_first_use(__name__, {'inner': 'one two lost'})\n"
    )
    (directory / "inner.py").write_text("one, two = object(), object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("lazily")
    for name in [name for name in sys.modules if name.split(".")[0] == "lazily"]:
        del sys.modules[name]


def test_a_module_is_imported_at_the_first_use_of_a_name(package):
    assert "lazily.inner" not in sys.modules
    assert {"one", "two"} <= set(dir(package))
    assert "lazily.inner" not in sys.modules, "dir() has not needed it"
    assert package.one is sys.modules["lazily.inner"].one
    assert "one" in vars(package), "the second time nobody is asked"


def test_other_names_are_refused_as_by_any_module(package):
    with pytest.raises(AttributeError, match="module 'lazily' has no attribute 'three'"):
        assert package.three
    with pytest.raises(AttributeError, match="no attribute 'lost'"):
        assert package.lost
    assert "lazily.inner" in sys.modules


def test_import_from_finds_them(package):
    from lazily import two

    assert two is package.two
