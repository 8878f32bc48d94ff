"""greentls: TLS for gevent whose OpenSSL callbacks may wait.

The names below are imported at their first use, so that ``greentls.wire`` works without gevent and OpenSSL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greentls._version import __version__
from greentls.lazy import at_first_use

if TYPE_CHECKING:
    from greentls.core.session import Session as Session
    from greentls.errors import ConfigurationError as ConfigurationError
    from greentls.errors import GreenTLSError as GreenTLSError
    from greentls.errors import UnsupportedOpenSSL as UnsupportedOpenSSL
    from greentls.ocsp import Stapler as Stapler
    from greentls.sessions.client import ClientSessions as ClientSessions
    from greentls.sessions.stored import SessionLookup as SessionLookup
    from greentls.ssl import SSLContext as SSLContext
    from greentls.ssl import SSLSocket as SSLSocket
    from greentls.stores import SessionStore as SessionStore
    from greentls.stores import SharedValues as SharedValues
    from greentls.stores import open_store as open_store
    from greentls.tickets import TicketKeys as TicketKeys

_NAMES = {
    "core.session": "Session",
    "errors": "ConfigurationError GreenTLSError UnsupportedOpenSSL",
    "ocsp": "Stapler",
    "sessions.client": "ClientSessions",
    "sessions.stored": "SessionLookup",
    "ssl": "SSLContext SSLSocket",
    "stores": "SessionStore SharedValues open_store",
    "tickets": "TicketKeys",
}

__all__ = ["__version__", *" ".join(_NAMES.values()).split()]

__getattr__, __dir__ = at_first_use(__name__, _NAMES)
