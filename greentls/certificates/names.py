"""Server names: which ones a client may ask for, and how a certificate's name matches them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["find", "normalised"]

T = TypeVar("T")

MAX_NAME = 253  # characters (RFC 1035 2.3.4, less the root's)
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"  # RFC 1035's, and the underscore, which some names have
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")


def normalised(server_name: str | None) -> str | None:
    """Returns the name in lower case without a dot at its end; None if it is not a DNS name (RFC 6066 3)."""
    if server_name is None or len(server_name) > MAX_NAME + 1 or not server_name.isascii():
        return None
    name = server_name.lower().removesuffix(".")
    if len(name) > MAX_NAME or not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        return None
    return name


def find(names: Mapping[str, T], name: str) -> T | None:
    """Returns the value of a normalised name, or that of the wildcard for its first label (RFC 9525 6.3), or None."""
    found = names.get(name)
    if found is None:
        _, dot, parent = name.partition(".")
        found = names.get("*." + parent) if dot else None
    return found
