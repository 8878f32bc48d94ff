"""Certificate chains with their keys, and sources that have chains for each server name.

A source is asked in the handshake, before anything is decided, and may wait. Directory and Callback are imported at
their first use.
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


class CertificateSource(Protocol):
    """The value of SSLContext.certificates."""

    def get(self, server_name: str | None) -> Sequence[CertificateChain] | None:
        """Returns the chains for a server name, one for each kind of key, or None if the name is not known.

        server_name: the name that the client sent, in lower case and unchecked; None if it sent none. May wait.
        Whatever it raises refuses the handshake. It should return the same objects for the same chains, because they
        are then compiled only once.
        """


__getattr__, __dir__ = at_first_use(__name__, {"callback": "Callback", "directory": "Directory"})
