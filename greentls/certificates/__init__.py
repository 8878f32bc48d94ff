"""Certificates: chains with their keys, and the sources that have one for each server name.

A source is asked in the handshake, before anything is decided, and may wait. Directory and Callback are
imported at their first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from greentls.certificates.chain import (
    CertificateChain,
    Certificates,
    CRLs,
    Password,
    demands_staple,
    is_path,
    load_crls,
    parse_certificates,
    read_certificate,
)
from greentls.lazy import at_first_use

if TYPE_CHECKING:
    from greentls.certificates.callback import Callback as Callback
    from greentls.certificates.directory import Directory as Directory

__all__ = [
    "CRLs",
    "Callback",
    "CertificateChain",
    "CertificateSource",
    "Certificates",
    "Directory",
    "Password",
    "demands_staple",
    "is_path",
    "load_crls",
    "parse_certificates",
    "read_certificate",
]

_WHERE = {"Callback": "callback", "Directory": "directory"}


class CertificateSource(Protocol):
    """The contract: what SSLContext.certificates may be."""

    def get(self, server_name: str | None) -> Sequence[CertificateChain] | None:
        """The chains for a server name, one for each kind of key; None if it is not known.

        server_name: what the client sent, any text, in lower case; None if it sent none. May wait; what it raises
        refuses the handshake. The same chains should be the same objects: what is compiled for them is found again by
        them.
        """


__getattr__, __dir__ = at_first_use(__name__, _WHERE)
