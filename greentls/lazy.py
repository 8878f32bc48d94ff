"""Lets a package import its names at their first use (PEP 562), so that a program does not wait for unused ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

__all__ = ["at_first_use"]


def at_first_use(package: str, names: dict[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Returns a package's __getattr__ and __dir__. names: by module of the package, those that it has."""
    namespace = vars(sys.modules[package])
    where = {name: module for module, its_names in names.items() for name in its_names.split()}

    def get(name: str) -> object:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = namespace[name] = getattr(import_module(f"{package}.{where[name]}"), name)
        return value

    return get, lambda: sorted({*namespace, *where})
